from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from nasbench_at.attacks import FGSM, AutoAttack, LinfPGD
from nasbench_at.attacks.folding import folded_norms
from nasbench_at.data import LabelledImages, load_data
from nasbench_at.evaluation.corruptions import CorruptionSuite
from nasbench_at.evaluation.options import ATTACK_NAMES
from nasbench_at.evaluation.outcome_files import hash_subset
from nasbench_at.evaluation.robustness import (
    count_samples,
    measure_robustness,
    standard_attacks,
)
from nasbench_at.evaluation.smoothing import CertifiedAccuracy, Smoothing
from nasbench_at.records import AttackResult, wilson_interval
from tests.nasbench_at.conftest import one_line

NUM_IMAGES = 24
CHECKS = ["input_gradients", "deterministic", "logits", "more_steps", "unbounded"]


@pytest.fixture(scope="module")
def data():
    return load_data("stripes").test


@pytest.fixture(scope="module")
def model():
    """Compares the brightness of four pairs of rows; right on all stripes, with a small margin."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Dropout(0.5))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.zero_()
        for label in range(4):
            net[1].weight[label, 16 * label : 16 * label + 16] = 1 / 16
    return net.eval()


@pytest.fixture(scope="module")
def report(model, data):
    """Radii at which some images survive and some do not."""
    attacks = {
        "fgsm": FGSM(0.27),
        "pgd": LinfPGD(0.28, steps=3),
        "aa": AutoAttack(0.29, square_queries=20),
    }
    return measure_robustness(model, data, attacks, batch_size=10)


def test_wilson_interval_equals_a_value_worked_out_by_hand():
    # z = 1.96: (0.8 + z²/20 ± z √(0.016 + z²/400)) / (1 + z²/10)
    assert wilson_interval(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-5)


def test_wilson_interval_stays_within_0_and_1():
    low, high = wilson_interval(10, 10)
    assert (low, high) == pytest.approx((1 / (1 + 1.96**2 / 10), 1), abs=1e-4)
    assert high <= 1
    assert wilson_interval(0, 10) == pytest.approx((0, 1 - low))
    assert wilson_interval(0, 10)[0] >= 0


def test_wilson_interval_narrows_with_more_samples():
    widths = [high - low for low, high in (wilson_interval(n // 2, n) for n in (10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("num_samples", [20, 100, 500])
def test_wilson_interval_covers_the_truth_in_95_of_100_cases(num_samples):
    intervals = [wilson_interval(k, num_samples) for k in range(num_samples + 1)]
    coverages = []
    for p in (i / 50 for i in range(1, 50)):
        chances = (
            math.comb(num_samples, k) * p**k * (1 - p) ** (num_samples - k)
            for k in range(num_samples + 1)
        )
        covered = (low <= p <= high for low, high in intervals)
        coverages.append(
            sum(chance for chance, inside in zip(chances, covered, strict=True) if inside)
        )
    assert sum(coverages) / len(coverages) == pytest.approx(0.95, abs=0.01)
    assert min(coverages) > 0.83


def test_result_has_its_accuracy_and_interval():
    result = AttackResult(attack="pgd", num_samples=10, num_correct=8)
    assert result.accuracy == 0.8
    assert result.interval == wilson_interval(8, 10)


def test_standard_attacks_are_the_paper_s():
    attacks = standard_attacks(ATTACK_NAMES, eps=0.031, recipe="authors")
    assert list(attacks) == ["fgsm", "pgd", "cw", "aa"]
    settings = {name: attack.settings() for name, attack in attacks.items()}
    assert [settings[name]["steps"] for name in ("fgsm", "pgd", "cw")] == [1, 20, 30]
    assert settings["fgsm"]["step_size"] == 0.031
    for name in ("pgd", "cw"):
        assert settings[name]["step_size"] == pytest.approx(0.00775)
        assert settings[name]["start"] == "uniform"
    assert settings["cw"]["confidence"] == 50
    assert settings["aa"]["version"] == "standard"
    assert all(values["eps"] == 0.031 for values in settings.values())


def test_standard_attacks_take_another_step_and_seed():
    attacks = standard_attacks(("cw", "pgd", "aa"), eps=0.031, step_size=0.008, seed=3)
    assert list(attacks) == ["cw", "pgd", "aa"]
    assert attacks["pgd"].settings()["step_size"] == attacks["cw"].settings()["step_size"] == 0.008
    assert attacks["aa"].settings()["seed"] == 3


@pytest.mark.parametrize(
    ("recipe", "method", "step"),
    [
        ("paper", "at", 0.008),
        ("paper", "mart", 0.008),
        ("paper", "trades", 0.003),
        ("authors", "at", 0.031 / 4),
        ("authors", "mart", 0.031 / 4),
        ("authors", "trades", 0.003),
        ("authors", "fat_trades", 0.003),
    ],
)
def test_steps_are_the_recipe_s_for_the_method_and_scale_with_eps(recipe, method, step):
    for scale in (1, 0.5):
        attacks = standard_attacks(
            ("pgd", "cw"), eps=0.031 * scale, recipe=recipe, method=method
        ).values()
        for attack in attacks:
            assert attack.settings()["step_size"] == pytest.approx(step * scale)


@pytest.mark.parametrize(("recipe", "start"), [("paper", "none"), ("authors", "uniform")])
def test_fgsm_starts_at_random_in_the_authors_recipe_alone(recipe, start):
    (attack,) = standard_attacks(("fgsm",), eps=0.031, recipe=recipe).values()
    assert attack.settings()["start"] == start


def test_standard_attacks_take_restarts_and_what_counts():
    attacks = standard_attacks(("pgd", "cw"), eps=0.1, restarts=3, counts="any").values()
    assert [(a.settings()["restarts"], a.settings()["counts"]) for a in attacks] == [(3, "any")] * 2


def test_l2_attacks_share_the_radius_and_have_a_step_of_their_own():
    attacks = standard_attacks(("pgd", "aa", "square"), eps=2.0, norm="L2")
    settings = {name: attack.settings() for name, attack in attacks.items()}
    assert all(row["norm"] == "L2" and row["eps"] == 2.0 for row in settings.values())
    assert settings["pgd"]["step_size"] == pytest.approx(2.5 * 2 / 20)
    assert settings["square"]["attacks"] == ["square"]


def test_attacks_that_l2_does_not_have_are_refused():
    with pytest.raises(ValueError, match=r"attack must be one of pgd, aa, .* under L2, got 'cw'"):
        standard_attacks(("cw",), eps=0.5, norm="L2")


def test_unknown_attack_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"attack must be one of fgsm, pgd, cw, aa, .*got 'pdg'"):
        standard_attacks(("fgsm", "pdg"), eps=0.1)


@pytest.mark.parametrize("name", ATTACK_NAMES)
def test_radius_outside_0_and_1_is_refused(name):
    with pytest.raises(ValueError, match=r"eps must .*\[0, 1\].*8") as error:
        standard_attacks((name,), eps=8.0)
    one_line(error)


def test_rows_come_in_order_with_natural_first_and_worst_case_last(report):
    parts = [f"aa/{part}" for part in AutoAttack(0.29).attacks]
    assert list(report.results) == ["natural", "fgsm", "pgd", *parts, "aa", "worst_case"]
    assert report.results["natural"].settings == {}
    assert list(report.results["worst_case"].settings["attacks"]) == ["fgsm", "pgd", "aa"]
    pgd = report.results["pgd"]
    assert {**pgd.settings, "norm": pgd.norm, "eps": pgd.eps} == LinfPGD(0.28, steps=3).settings()


def test_counts_agree_with_the_outcomes_of_every_image(report):
    for name, result in report.results.items():
        assert report.outcomes[name].dtype == torch.bool
        assert report.outcomes[name].shape == (NUM_IMAGES,)
        assert result.num_samples == NUM_IMAGES
        assert result.num_correct == int(report.outcomes[name].sum())
        assert result.accuracy == result.num_correct / NUM_IMAGES
        assert result.seconds >= 0


def test_attacks_fool_some_images_and_worst_case_those_that_any_fooled(report):
    assert report.results["natural"].accuracy == 1
    rows = torch.stack([report.outcomes[name] for name in ("fgsm", "pgd", "aa")])
    assert 0 < rows.sum() < rows.numel()
    assert torch.equal(report.outcomes["worst_case"], rows.all(dim=0))


def test_parts_of_autoattack_have_outcomes_that_only_shrink(report):
    steps = [name for name in report.outcomes if name.startswith("aa/")]
    assert len(steps) == 4
    rows = [report.outcomes[name] for name in steps]
    assert all(not (later & ~earlier).any() for earlier, later in pairwise(rows))
    assert torch.equal(rows[-1], report.outcomes["aa"])
    assert report.results[steps[1]].settings["attacks"] == ["apgd-ce", "apgd-t"]


def test_single_part_of_autoattack_is_one_row(model, data):
    attacks = standard_attacks(("apgd-ce",), eps=0.29)
    report = measure_robustness(model, data.first(4), attacks)
    assert list(report.results) == ["natural", "apgd-ce", "worst_case"]


def test_what_an_attack_cannot_do_is_refused_before_natural_accuracy(data):
    two = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    told = []
    few = LabelledImages(data.images, data.labels % 2, channels_last=False)
    with pytest.raises(ValueError, match="AutoAttack's apgd-t needs at least 4 classes, got 2"):
        measure_robustness(
            two, few, {"aa": AutoAttack(0.1)}, on_result=lambda *row: told.append(row)
        )
    assert told == []


def test_natural_accuracy_counts_the_right_answers(model, data):
    labels = data.labels.clone()
    labels[:5] = (labels[:5] + 1) % 4
    result = measure_robustness(model, LabelledImages(data.images, labels), {}, batch_size=7)
    assert result.outcomes["natural"].tolist() == [False] * 5 + [True] * 19
    assert list(result.results) == ["natural"]


def test_checks_use_the_first_iterative_attack_and_fgsm_is_none(model, data, report):
    checks = {check.name: check for check in report.checks}
    assert list(checks) == CHECKS
    assert "with 3 steps" in checks["more_steps"].detail
    assert checks["logits"].passed
    assert measure_robustness(model, data, {"fgsm": FGSM(0.1)}).checks == ()


def test_failed_check_is_reported_with_the_numbers(model, data):
    soft = nn.Sequential(*model, nn.Softmax(dim=1)).eval()
    report = measure_robustness(soft, data, {"pgd": LinfPGD(0.1, steps=2)})
    assert [check.name for check in report.checks if not check.passed].count("logits") == 1


@pytest.fixture(scope="module")
def partial(model, data):
    attacks = {"fgsm": FGSM(0.29), "aa": AutoAttack(0.28, square_queries=5)}
    return measure_robustness(model, data, attacks, aa_samples="37.5%")


def test_autoattack_may_see_a_seeded_part_of_the_images(partial, model, data):
    assert partial.results["aa"].num_samples == len(partial.outcomes["aa"]) == 9
    assert partial.results["fgsm"].num_samples == NUM_IMAGES
    assert partial.aa_subset.tolist() == sorted(set(partial.aa_subset.tolist()))
    assert partial.aa_subset.tolist() != list(range(9))  # test sets may be sorted by class
    assert len(partial.aa_subset) == 9

    def subset(seed):
        attacks = {"aa": AutoAttack(0.0, attacks=("apgd-ce",))}
        return measure_robustness(model, data, attacks, aa_samples=9, seed=seed).aa_subset.tolist()

    assert subset(0) == partial.aa_subset.tolist()
    assert subset(1) != subset(0)


def test_autoattack_s_outcomes_are_those_of_the_images_it_saw(partial, model, data):
    chosen = LabelledImages(data.images[partial.aa_subset], data.labels[partial.aa_subset])
    alone = measure_robustness(model, chosen, {"aa": AutoAttack(0.28, square_queries=5)})
    assert torch.equal(partial.outcomes["aa"], alone.outcomes["aa"])


def test_worst_case_is_over_the_images_that_all_attacks_saw(partial):
    shared = partial.outcomes["fgsm"][partial.aa_subset] & partial.outcomes["aa"]
    assert torch.equal(partial.outcomes["worst_case"], shared)
    assert 0 < shared.sum() < partial.outcomes["fgsm"].sum()


def test_part_of_the_images_has_the_verdicts_that_it_has_among_all():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator)
    undecided = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    with torch.no_grad():
        undecided[1].weight.normal_(generator=generator)
        undecided[1].bias.zero_()
        data = LabelledImages(x, undecided(x / 255).argmax(dim=1))

    def measure(smooth_samples, **options):
        measures = {
            "fgsm": FGSM(0.03),
            "aa": AutoAttack(0.03, attacks=("apgd-ce",)),
            "corruptions": CorruptionSuite(("gaussian-noise",), (5,), has_mean=False),
            "smooth": CertifiedAccuracy(0.05, Smoothing(n0=10, n=100), smooth_samples),
        }
        return measure_robustness(undecided, data, measures, **options)

    everything = measure(None)
    few = measure("50%", num_images=20, aa_samples="50%")
    assert few.subset.tolist() == sorted(set(few.subset.tolist()))
    assert [len(few.subset), len(few.aa_subset), len(few.smooth_subset)] == [20, 10, 10]
    assert set(few.aa_subset.tolist()) < set(few.subset.tolist())
    assert few.data_fingerprint == everything.data_fingerprint
    of_all = everything.outcomes
    for name, subset in (
        *((name, few.subset) for name in ("natural", "fgsm", "corrupt-gaussian-noise")),
        ("smooth", few.smooth_subset),
    ):
        assert torch.equal(few.outcomes[name], of_all[name][subset]), name
        assert name == "natural" or 0 < of_all[name].sum() < 40, name
        assert few.results[name].subset == hash_subset(subset)
    for name in ("aa", "worst_case"):
        assert few.results[name].subset == hash_subset(few.aa_subset)


@pytest.mark.parametrize("aa_samples", [0, -1, NUM_IMAGES + 1])
def test_number_of_images_for_autoattack_must_be_within_the_data(aa_samples, model, data):
    message = f"aa_samples must lie in 1..{NUM_IMAGES}, got {aa_samples}"
    with pytest.raises(ValueError, match=message):
        count_samples(aa_samples, NUM_IMAGES)
    with pytest.raises(ValueError, match=message):
        measure_robustness(model, data, {}, aa_samples=aa_samples)


@pytest.mark.parametrize("aa_samples", ["many", "1.5", "x%", "%", "5%%"])
def test_what_is_no_number_of_images_is_refused(aa_samples):
    with pytest.raises(ValueError, match=r"must be a count or a percentage such as 12\.5%"):
        count_samples(aa_samples, NUM_IMAGES)


@pytest.mark.parametrize("aa_samples", ["0%", "-1%", "100.1%", "nan%", "inf%"])
def test_shares_of_none_or_more_than_all_images_are_refused(aa_samples):
    with pytest.raises(ValueError, match=r"must lie in 0%\.\.100% and not be 0%, got .*%"):
        count_samples(aa_samples, NUM_IMAGES)


@pytest.mark.parametrize(
    ("aa_samples", "count"),
    [
        (None, None),
        (1, 1),
        ("7", 7),
        ("12.5%", 3),
        ("0.1%", 1),
        ("100%", NUM_IMAGES),
        (NUM_IMAGES, NUM_IMAGES),
    ],
)
def test_numbers_of_images_are_read_as_counts_or_percentages(aa_samples, count):
    assert count_samples(aa_samples, NUM_IMAGES) == count


@pytest.mark.parametrize(("label", "low", "high"), [(4, 0, 4), (-1, -1, 3)])
def test_labels_out_of_range_are_refused_before_any_attack(label, low, high, model, data):
    labels = data.labels.clone()
    labels[7] = label
    rows = []
    with pytest.raises(ValueError, match=rf"labels must be in 0\.\.3, got .* {low} to {high}"):
        measure_robustness(
            model,
            LabelledImages(data.images, labels),
            {"fgsm": FGSM(0.1)},
            on_result=lambda name, result: rows.append(name),
        )
    assert rows == []


def test_no_images_are_refused(model, data):
    with pytest.raises(ValueError, match="there are no images to evaluate"):
        measure_robustness(model, data.first(0), {})


def test_models_that_return_no_logits_are_refused(data):
    with pytest.raises(ValueError, match=r"must return logits \(N, C\), got \(1, 1, 8, 8\)"):
        measure_robustness(nn.Identity(), data, {})


def test_each_row_is_told_as_soon_as_it_is_known(model, data):
    rows = []
    report = measure_robustness(
        model, data, {"fgsm": FGSM(0.1)}, on_result=lambda name, result: rows.append((name, result))
    )
    assert rows == list(report.results.items())


def test_verdicts_depend_on_the_seed_alone(data):
    undecided = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

    def survivors(seed):
        attacks = {"pgd": LinfPGD(0.5, steps=1, step_size=1e-4)}
        return (
            measure_robustness(undecided, data, attacks, batch_size=8, seed=seed)
            .outcomes["pgd"]
            .tolist()
        )

    assert survivors(1) == survivors(1)
    assert len({tuple(survivors(seed)) for seed in range(5)}) > 1


def test_model_in_training_mode_is_evaluated_in_eval_mode_and_given_back(data, model):
    net = nn.Sequential(*model).train()
    report = measure_robustness(net, data, {"fgsm": FGSM(0.05)})
    assert report.results["natural"].accuracy == 1
    assert net.training
    assert all(module.training for module in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    net.eval()


class LooksAtTheImages(nn.Module):
    """Uses what its norm was given, too, if the first image is black."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.weight, 0.5)

    def forward(self, x):
        hidden = self.conv(x)
        return self.norm(hidden).add(hidden if x[0].max() == 0 else 0).flatten(1)


@pytest.mark.parametrize(("number", "stays"), [(None, False), (20, True)])
def test_model_that_is_another_when_folded_is_attacked_as_it_is(number, stays, data):
    images = data.images.clone()
    if number is not None:
        images[number] = 0
    net = LooksAtTheImages().eval()
    measure_robustness(net, LabelledImages(images, data.labels), {"fgsm": FGSM(0.1)}, batch_size=4)
    with folded_norms(net, torch.rand(4, 1, 8, 8)):
        assert isinstance(net.norm, nn.BatchNorm2d) == stays


def test_outcomes_of_all_rows_can_be_saved_together(model, data):
    attacks = {"aa": AutoAttack(0.05, square_queries=2)}
    report = measure_robustness(model, data, attacks, aa_samples=4)
    saved = load(save(dict(report.outcomes)))
    assert torch.equal(saved["aa"], saved["aa/square"])
