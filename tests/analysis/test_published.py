from __future__ import annotations

import pytest

from analysis.tables.published import published_results


def find(table, **wanted):
    (found,) = (
        row
        for row in published_results(table)
        if all(getattr(row, name) == value for name, value in wanted.items())
    )
    return found


@pytest.mark.parametrize(
    ("table", "count"),
    [(1, 6 * 2), (2, 14 * 5), (3, 8 * 5), (4, 5 * 2), (5, 16 * 5), (6, 5 * 2)],
)
def test_tables_are_complete(table, count):
    rows = published_results(table)
    assert len(rows) == len(set(rows)) == count
    assert {row.table for row in rows} == {table}


def test_headline_stands_in_three_tables():
    rows = [
        find(2, data="cifar10", model="ds_net_4", metric="pgd"),
        find(4, kept_blocks=None, metric="pgd"),
        find(6, weight_decay=5e-4, metric="pgd"),
    ]
    assert [row.accuracy for row in rows] == [54.14] * 3
    assert rows[0].std == 0.1
    assert rows[1].std is None


def test_beta_tells_the_two_halves_of_trades_apart():
    wanted = {"data": "cifar10", "model": "robnet_large_v2", "metric": "natural"}
    assert find(5, beta=1.0, **wanted).accuracy == 87.9
    assert find(5, beta=6.0, **wanted).accuracy == 81.95


def test_misalignment_pairs_natural_accuracy_of_one_training_with_robustness_of_the_other():
    natural = find(1, model="wrn_28_10", metric="natural")
    robust = find(1, model="wrn_28_10", metric="pgd")
    assert (natural.method, natural.accuracy) == ("st", 96.46)
    assert (robust.method, robust.accuracy) == ("at", 48.72)


def test_no_seventh_table():
    with pytest.raises(ValueError, match="table must be one of 1 to 6, got 7"):
        published_results(7)
