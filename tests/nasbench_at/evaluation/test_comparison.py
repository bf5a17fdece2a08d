from __future__ import annotations

import math
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from nasbench_at.evaluation.comparison import PairedComparison, compare_outcomes, compare_runs
from nasbench_at.evaluation.outcome_files import hash_subset
from nasbench_at.records import AttackResult, Evaluation, Record
from nasbench_at.records.outcomes import outcomes_path
from tests.nasbench_at.conftest import one_line

PGD = {"name": "pgd", "step_size": 0.02}
ROW = torch.tensor([True, True, False, False, True, True, True, False])
OTHER = torch.tensor([True, False, False, False, False, False, True, True])


def write_run(
    path: Path, row: torch.Tensor, subset: list[int] | None = None, **changes: Any
) -> Path:
    """A run's folder that holds a record and outcomes of natural and pgd alone."""
    path.mkdir(parents=True)
    shared = {"data": "stripes/test", "data_fingerprint": "abc", "seed": 0} | changes
    part = None if subset is None else hash_subset(torch.tensor(subset))
    shared |= {"num_samples": len(row), "subset": part, "num_correct": int(row.sum())}
    shared |= {"norm": "Linf", "eps": 0.1}
    settings = shared.pop("settings", PGD)
    pgd = AttackResult(attack="pgd", settings=settings, **shared)
    worst = AttackResult(attack="worst_case", settings={"attacks": {"pgd": settings}}, **shared)
    natural = AttackResult(attack="natural", num_samples=8, num_correct=8)
    record = Record(path.name, {}, "hash", 10, {}, {}, (Evaluation((natural, pgd, worst)),))
    (path / "record.json").write_text(record.to_json())
    rows = {pgd.key: row, worst.key: row.clone(), natural.key: torch.ones(8, dtype=torch.bool)}
    safetensors.torch.save_file(rows, path / "outcomes.safetensors")
    return path


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 1), (5, 5), (10, 3), (3, 10), (41, 60), (700, 801)]
)
def test_p_value_is_the_exact_binomial_test_s(first, second):
    total = first + second
    tail = sum(math.comb(total, k) for k in range(min(first, second) + 1))
    expected = float(min(Fraction(1), Fraction(2 * tail, 2**total)))
    comparison = PairedComparison(2000, 10, first, second)
    assert comparison.p_value == pytest.approx(expected, rel=1e-12)


def test_p_value_of_thousands_of_pairs_does_not_overflow():
    assert 0 <= PairedComparison(10_000, 0, 200, 9_800).p_value < 1e-300


def test_discordant_pairs_are_counted_by_side():
    comparison = compare_outcomes(ROW, OTHER)
    counts = (comparison.num_both, comparison.num_first_only, comparison.num_second_only)
    assert counts == (2, 3, 1)
    assert comparison.accuracies == (5 / 8, 3 / 8)
    assert comparison.difference == pytest.approx(2 / 8)
    assert comparison.p_value == pytest.approx(10 / 16)  # 2 (1 + 4) / 2⁴


def test_interval_equals_a_value_worked_out_by_hand():
    # Half an image more in each of four cells: 3.5/10 against 1.5/10.
    spread = 1.959964 * math.sqrt((0.35 + 0.15 - 0.2**2) / 10)
    assert compare_outcomes(ROW, OTHER).interval == pytest.approx((0.2 - spread, 0.2 + spread))


def test_interval_stays_within_minus_1_and_1():
    row = torch.ones(3, dtype=torch.bool)
    low, high = compare_outcomes(row, ~row).interval
    assert low > 0
    assert high == 1
    assert compare_outcomes(~row, row).interval == pytest.approx((-1, -low))


@pytest.mark.parametrize("other", [ROW[:5], ROW[:0]])
def test_rows_of_other_lengths_are_refused(other):
    with pytest.raises(
        ValueError, match=r"outcomes must be equally many .* got \(.\,\) and \(8,\)"
    ):
        compare_outcomes(other, ROW)


def test_runs_are_compared_by_a_row_of_theirs(tmp_path):
    one, other = write_run(tmp_path / "one", ROW), write_run(tmp_path / "other", OTHER)
    for attack in ("pgd", "worst_case"):
        assert compare_runs(one, other, attack=attack) == compare_outcomes(ROW, OTHER)
    assert compare_runs(one / "record.json", other) == compare_outcomes(ROW, OTHER)


CHANGES = {
    "data": (
        {"data": "stripes/validation"},
        r"data \('stripes/test' and 'stripes/validation'\)",
    ),
    "images": ({"data_fingerprint": "abd"}, r"data_fingerprint \('abc' and 'abd'\)"),
    "seed": ({"seed": 3}, r"seed \(0 and 3\)"),
}


@pytest.mark.parametrize("attack", ["pgd", "worst_case"])
@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_runs_on_other_images_or_seeds_are_refused(attack, change, message, tmp_path):
    one, other = write_run(tmp_path / "one", ROW), write_run(tmp_path / "other", OTHER, **change)
    with pytest.raises(ValueError, match=f"cannot be compared by '{attack}'.*{message}") as error:
        compare_runs(one, other, attack=attack)
    one_line(error)


@pytest.mark.parametrize(
    ("attack", "name"), [("pgd", "step_size"), ("worst_case", r"pgd\.step_size")]
)
def test_runs_under_other_settings_are_refused(attack, name, tmp_path):
    one = write_run(tmp_path / "one", ROW)
    other = write_run(tmp_path / "other", OTHER, settings={**PGD, "step_size": 0.01})
    with pytest.raises(ValueError, match=rf"differ in {name} \(0.02 and 0.01\)"):
        compare_runs(one, other, attack=attack)


def test_parts_of_the_images_must_be_the_same(tmp_path):
    runs = [
        write_run(tmp_path / name, ROW[:3], subset)
        for name, subset in (("one", [0, 2, 4]), ("same", [0, 2, 4]), ("other", [0, 2, 5]))
    ]
    assert compare_runs(runs[0], runs[1]).num_samples == 3
    with pytest.raises(ValueError, match="differ in subset"):
        compare_runs(runs[0], runs[2])


def test_row_whose_outcomes_are_lost_is_named(tmp_path):
    one, other = write_run(tmp_path / "one", ROW), write_run(tmp_path / "other", OTHER)
    safetensors.torch.save_file({}, other / "outcomes.safetensors")
    with pytest.raises(ValueError, match=r"other/outcomes.safetensors' have no row 'pgd-\w{8}'"):
        compare_runs(one, other)


def test_attack_that_was_not_run_is_named(tmp_path):
    one, other = write_run(tmp_path / "one", ROW), write_run(tmp_path / "other", OTHER)
    with pytest.raises(
        ValueError, match=r"'one' was not evaluated by 'cw'; .*: natural, pgd, worst_case$"
    ):
        compare_runs(one, other, attack="cw")


@pytest.mark.parametrize("content", [None, b"short"])
def test_outcomes_that_cannot_be_read_are_named(content, tmp_path):
    one = write_run(tmp_path / "one", ROW)
    other = Path(shutil.copytree(one, tmp_path / "other"))
    (other / "outcomes.safetensors").unlink()
    if content is not None:
        (other / "outcomes.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read outcomes '.*other/outcomes\.safetensors'"):
        compare_runs(one, other)


def test_outcomes_lie_beside_the_record():
    assert outcomes_path(Path("runs/x/record.json")) == Path("runs/x/outcomes.safetensors")
    assert outcomes_path(Path("mine.json")) == Path("mine.outcomes.safetensors")
