from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from nasbench_at.config import resolve
from nasbench_at.records import Benchmark, Record
from nasbench_at.records.measurements import StoredMeasurements
from studies.proxies import compare_proxies, draw_proxies
from tests.nasbench_at.conftest import tiny_config
from tests.nasbench_at.records.test_records import make_evaluation

ACCURACIES = {("residual",): 0.3, ("mbconv",): 0.4, ("dense",): 0.5, ("residual", "dense"): 0.6}
SECONDS = 50.0


def make_table(seeds=(0, 1, 2), **changes) -> Benchmark:
    """Four networks; after one epoch they rank the other way round, after two as in the end."""
    records, measurements = [], {}
    for blocks, accuracy in ACCURACIES.items():
        for seed in seeds:
            config = resolve(tiny_config(blocks=blocks, seed=seed, epochs=3, **changes))
            record = Record(
                run_id=config.run_id,
                config=config.to_dict(),
                architecture="+".join(blocks),
                num_params=0,
                provenance={"train_seconds": SECONDS},
                evaluations=(make_evaluation({"natural": 0.9, "pgd": accuracy + 0.01 * seed}),),
            )
            rows = [
                {
                    "epoch": epoch,
                    "lr": 0.1,
                    "train_loss": 1.0,
                    "train_accuracy": 0.5,
                    "validation_natural": 0.9,
                    "validation_robust": value,
                }
                for epoch, value in enumerate((1 - accuracy, accuracy, accuracy), start=1)
            ]
            records.append(record)
            measurements[record.run_id] = StoredMeasurements(record, {"metrics": rows})
    return Benchmark(records, measurements)


def known_score(network, x, y, eps):
    """The blocks' number of parameters stands for nothing; the width of the table's order does."""
    names = {type(block).__name__ for block in network.stages[0].blocks}
    order = [{"ResidualBlock"}, {"MBConv"}, {"DenseBlock"}, {"ResidualBlock", "DenseBlock"}]
    return float(order.index(names))


def refused(network, x, y, eps):
    raise ValueError("no rule for this block")


def compare(table, **options) -> pd.DataFrame:
    return compare_proxies(table, device="cpu", **options)


def test_epochs_and_scores_are_held_against_the_other_seeds_means():
    seen = []
    scores = {"known": known_score, "refused": refused}
    found = compare(make_table(), scores=scores, on_progress=lambda *c: seen.append(c))
    rows = found.frame.set_index("proxy")
    assert list(found.frame["proxy"]) == ["known", "1 epoch", "2 epochs", "3 epochs"]
    assert rows["tau"].round(6).tolist() == [1, -1, 1, 1]
    assert rows["spearman"].round(6).tolist() == [1, -1, 1, 1]
    assert rows["cost"][["1 epoch", "2 epochs", "3 epochs"]].tolist() == [1 / 3, 2 / 3, 1]
    assert 0 < rows["cost"]["known"] < 0.1
    assert set(rows["networks"]) == {4}
    assert rows["corrected"].abs().max() <= 1
    assert 0.9 < found.ceiling.reliability.value < 1
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_run_is_not_held_against_itself():
    table = make_table(seeds=(0, 1))
    records, measurements = [], {}
    for record in table:
        # The second seed ranks the networks the other way round, on validation as on test images.
        accuracy = (
            record.accuracy("pgd") if record.config["seed"] == 0 else 1 - record.accuracy("pgd")
        )
        evaluation = make_evaluation({"natural": 0.9, "pgd": accuracy})
        records.append(dataclasses.replace(record, evaluations=(evaluation,)))
        rows = [row | {"validation_robust": accuracy} for row in table.metrics_of(record)]
        measurements[record.run_id] = StoredMeasurements(records[-1], {"metrics": rows})
    found = compare(Benchmark(records, measurements), scores={})
    assert found.frame["tau"].round(6).tolist() == [-1, -1, -1]


def test_seeds_that_not_all_networks_have_are_left_out():
    table = make_table(seeds=(0, 1, 2))
    found = compare(Benchmark(list(table)[:-1], table._measurements), scores={})
    whole = compare(make_table(seeds=(0, 1)), scores={})
    pd.testing.assert_frame_equal(found.frame, whole.frame)


def test_bad_table_is_one_line():
    with pytest.raises(
        ValueError, match=r"one ranking by 'aa', of networks that were trained by 'at' .*; got 0"
    ):
        compare(make_table(), attack="aa")
    with pytest.raises(ValueError, match=r"one ranking by 'pgd', .*; got 0"):
        compare(make_table(seeds=(0,)))
    odd = [
        dataclasses.replace(r, config={**r.config, "epochs": 99}) for r in list(make_table())[:3]
    ]
    with pytest.raises(ValueError, match=r"one ranking by 'pgd', .*; got 1 of \[3\] of 4 networks"):
        compare(Benchmark([*odd, *list(make_table())[3:]]))
    mixed = Benchmark([*make_table(), *make_table(lr=0.02)])
    with pytest.raises(ValueError, match=r"one ranking by 'pgd', .*; got 2"):
        compare(mixed)
    table = make_table()
    with pytest.raises(ValueError, match="has no metrics"):
        compare(Benchmark(list(table)), scores={})
    timeless = [dataclasses.replace(record, provenance={}) for record in table]
    with pytest.raises(ValueError, match="has no training time, train_seconds"):
        compare(Benchmark(timeless, table._measurements), scores={})


def test_figure_marks_each_proxy_and_the_ceiling():
    found = compare(make_table(), scores={"known": known_score})
    (axes,) = draw_proxies(found).axes
    assert [text.get_text() for text in axes.texts] == ["known", "1", "2", "3"]
    ceiling = next(line for line in axes.lines if line.get_label() == "noise ceiling")
    assert set(ceiling.get_ydata()) == {found.ceiling.tau}
    assert axes.get_title() == f"4 networks, reliability {found.ceiling.reliability.value:.2f}"


def trained_otherwise(method, rank, *, seeds=(0, 1), networks=tuple(ACCURACIES)):
    """The table's networks by another method, each of which validates best by ``rank``."""
    found = make_table(seeds=seeds, method=method, lr=0.05)
    records, measurements = [], {}
    for record in found:
        if tuple(record.config["blocks"]) in networks:
            accuracy = ACCURACIES[tuple(record.config["blocks"])]
            row = {"validation_natural": 0.5, "validation_robust": 0.5, rank: accuracy}
            rows = [found.metrics_of(record)[0] | row]
            records.append(dataclasses.replace(record, provenance={"train_seconds": SECONDS / 5}))
            measurements[record.run_id] = StoredMeasurements(records[-1], {"metrics": rows})
    return records, measurements


def test_other_training_of_all_networks_ranks_them_too():
    table = make_table()
    standard, fast = (
        trained_otherwise("st", "validation_natural"),
        trained_otherwise("fast_at", "validation_robust", seeds=(7,)),
    )
    some = trained_otherwise("mart", "validation_robust", networks=list(ACCURACIES)[:3])
    records = [*table, *standard[0], *fast[0], *some[0]]
    measurements = table._measurements | standard[1] | fast[1] | some[1]
    found = compare(Benchmark(records, measurements), scores={})
    rows = found.frame[found.frame["kind"] == "method"].set_index("proxy")
    assert sorted(rows.index) == ["Fast AT, 3 epochs", "ST, 3 epochs"]  # MART lacks a network
    assert rows["tau"].round(6).tolist() == [1, 1]
    assert rows["cost"].round(6).tolist() == [0.2, 0.2]
    alone = compare(table, scores={}).frame
    epochs = found.frame[found.frame["kind"] == "epochs"].reset_index(drop=True)
    pd.testing.assert_frame_equal(epochs, alone)


def test_ranking_of_another_method_can_be_foretold():
    table = make_table()
    other = make_table(seeds=(0, 1), method="trades", beta=6.0)
    both = Benchmark([*table, *other], table._measurements | other._measurements)
    found = compare(both, scores={}, method="trades")
    assert "AT, 3 epochs" in set(found.frame["proxy"])
    with pytest.raises(ValueError, match=r"trained by 'mart' and evaluated alike .*; got 0"):
        compare(both, method="mart")
