from __future__ import annotations

import numpy as np
import pytest

from analysis.robustness_curve import compute_robustness_curve, draw_robustness_curve
from nasbench_at.records import AttackResult, Evaluation, Record, wilson_interval

RADII = (0.01, 0.02, 0.031)


def result(attack: str, num_correct: int, eps: float | None = None) -> AttackResult:
    norm = None if eps is None else "Linf"
    return AttackResult(
        attack=attack,
        num_samples=100,
        num_correct=num_correct,
        norm=norm,
        eps=eps,
        data="stripes/test",
    )


def rows_at(eps: float, attacks: tuple[str, ...]) -> list[AttackResult]:
    rows = [result(a, round(90 - 1000 * eps) - 5 * i, eps) for i, a in enumerate(attacks)]
    rows += [result("aa/apgd-ce", 50, eps)] if "aa" in attacks else []
    return [*rows, result("worst_case", 40, eps)]


@pytest.fixture
def record() -> Record:
    return make_record()


def make_record(attacks: tuple[str, ...] = ("pgd", "aa"), radii=RADII) -> Record:
    rows = [result("natural", 95), *(row for eps in radii for row in rows_at(eps, attacks))]
    config = {"model": "resnet50", "seed": 3}
    return Record("a-run", config, "hash", 10, {}, {}, (Evaluation(tuple(rows)),))


def test_each_attack_is_a_line_from_the_natural_accuracy_on(record):
    curve = compute_robustness_curve(record)
    assert [line.attack for line in curve.lines] == ["pgd", "aa", "worst_case"]
    pgd = curve.lines[0]
    assert pgd.eps.tolist() == [0.0, *RADII]
    np.testing.assert_allclose(pgd.accuracy, [0.95, 0.80, 0.70, 0.59])
    intervals = [wilson_interval(count, 100) for count in (95, 80, 70, 59)]
    np.testing.assert_allclose(np.stack([pgd.low, pgd.high], axis=1), intervals)
    assert pgd.num_samples.tolist() == [100] * 4


def test_radius_0_that_was_evaluated_is_kept():
    curve = compute_robustness_curve(make_record(radii=(0.0, 0.02)))
    assert curve.lines[0].eps.tolist() == [0.0, 0.02]
    assert curve.lines[0].accuracy[0] == 0.9


def test_worst_case_of_one_attack_is_no_line_of_its_own():
    curve = compute_robustness_curve(make_record(attacks=("pgd",)))
    assert [line.attack for line in curve.lines] == ["pgd"]


def test_record_without_a_curve_is_named():
    empty = Record("a-run", {}, "hash", 10, {})
    with pytest.raises(ValueError, match="'a-run' was not evaluated at several eps"):
        compute_robustness_curve(empty)


def test_figure_shows_lines_and_intervals_and_says_on_what(record):
    (axes,) = draw_robustness_curve(compute_robustness_curve(record)).axes
    assert [line.get_label() for line in axes.lines] == ["PGD-20", "AutoAttack", "worst case"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.95, 0.80, 0.70, 0.59])
    assert len(axes.collections) == 3
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(wilson_interval(59, 100)[0])
    assert axes.get_title() == "ResNet-50, seed 3 on stripes/test, 100 images"
    assert "ε" in axes.get_xlabel()
