from __future__ import annotations

from dataclasses import replace

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
    assert curve.num_samples == 100


def evaluated(*evaluations: list[AttackResult]) -> Record:
    record = Record("a-run", {"model": "resnet50", "seed": 3}, "hash", 10, {}, {})
    for rows in evaluations:
        record = record.with_evaluation(Evaluation(tuple(rows)))
    return record


def test_lines_of_one_axis_are_of_one_norm():
    linf = [result(a, 60, eps) for eps in (0.05, 0.1) for a in ("pgd", "fgsm")]
    l2 = [replace(result("pgd", 80, eps), norm="L2") for eps in (0.25, 0.5, 1.0)]
    curve = compute_robustness_curve(evaluated([result("natural", 95), *linf], l2))
    assert curve.norm == "Linf"
    assert {line.attack: line.eps.tolist() for line in curve.lines} == {
        "pgd": [0.0, 0.05, 0.1],
        "fgsm": [0.0, 0.05, 0.1],
    }


def test_radius_0_is_of_the_same_images():
    rows = [result("natural", 70), *(result("pgd", 50, eps) for eps in RADII)]
    part = [replace(row, subset="part") for row in rows]
    later = [replace(row, num_samples=500, num_correct=400) for row in rows[:2]]
    (line,) = compute_robustness_curve(evaluated(part, later)).lines
    np.testing.assert_allclose(line.accuracy, [0.7, 0.5, 0.5, 0.5])
    (line,) = compute_robustness_curve(evaluated(part[1:], later)).lines
    assert line.eps.tolist() == list(RADII)


def test_attacks_on_other_images_are_no_lines_and_named():
    rows = [result(a, 50, eps) for eps in RADII for a in ("pgd", "aa", "aa/square")]
    rows = [replace(r, subset="part") if r.attack.startswith("aa") else r for r in rows]
    rows += [result("cw", 50, 0.01), *(result("fgsm", 60, eps) for eps in RADII)]
    curve = compute_robustness_curve(evaluated(rows))
    assert [line.attack for line in curve.lines] == ["pgd", "fgsm"]
    assert curve.left_out == ("aa",)
    (axes,) = draw_robustness_curve(curve).axes
    title = " ".join(axes.get_title().split())
    assert title.endswith("100 images; left out, of other images, norm or settings: AutoAttack")


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
