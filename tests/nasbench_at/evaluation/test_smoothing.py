from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import binom, norm
from torch import Tensor, nn

from nasbench_at.attacks import LinfPGD
from nasbench_at.data import LabelledImages
from nasbench_at.evaluation.robustness import measure_robustness
from nasbench_at.evaluation.smoothing import (
    Certificate,
    CertifiedAccuracy,
    Smoothing,
    lower_confidence_bound,
)

SMOOTHING = Smoothing(sigma=0.5, n0=50, n=20_000, alpha=0.001)


class Linear(nn.Module):
    """Class 1 where w x > b. Smoothed it is the same, with the distance to the plane as radius."""

    def __init__(self, num_pixels: int = 16) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 2, num_pixels))
        self.bias = 3.0

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.weight - self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)

    @torch.no_grad()
    def distance(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.weight - self.bias) / self.weight.norm()


@pytest.fixture(scope="module")
def data() -> LabelledImages:
    pixels = torch.randint(256, (30, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    images = pixels.to(torch.uint8)
    labels = (Linear().distance(images / 255) > 0).long()
    return LabelledImages(images, labels)


@pytest.mark.parametrize(("successes", "trials"), [(1, 5), (7, 10), (10, 10), (99_900, 100_000)])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_bound_is_where_so_many_successes_have_probability_alpha(
    successes: int, trials: int, alpha: float
) -> None:
    expected = brentq(lambda p: binom.sf(successes - 1, trials, p) - alpha, 1e-12, 1 - 1e-12)
    assert lower_confidence_bound(successes, trials, alpha) == pytest.approx(expected, rel=1e-6)


def test_bound_of_no_success_is_0_and_of_all_the_nth_root() -> None:
    assert lower_confidence_bound(0, 10, 0.05) == 0
    assert lower_confidence_bound(10, 10, 0.05) == pytest.approx(0.05**0.1)


def test_radii_of_a_linear_classifier_are_just_below_its_distances(data: LabelledImages) -> None:
    model = Linear()
    x, y = data.take(torch.arange(len(data)))
    for i, distance in enumerate(model.distance(x).abs().tolist()):
        label, radius = SMOOTHING.certify(model, x[i], torch.Generator().manual_seed(i))
        assert radius <= distance  # wrong with probability 0.001 each, and these seeds are fixed
        # Far from the plane all votes agree, and more than the largest radius is not certified.
        p = norm.cdf(distance / SMOOTHING.sigma)
        slack = 8 * math.sqrt(p * (1 - p) / SMOOTHING.n) + 5e-4
        least = SMOOTHING.sigma * norm.ppf(p - slack)
        if p > 0.8:  # else the 50 images that choose the class may choose the other
            assert radius >= min(least, 0.9 * SMOOTHING.max_radius)
        if label is not None:
            assert label == y[i]


def test_smoothing_abstains_on_the_boundary() -> None:
    model = Linear()
    on_the_plane = model.weight.detach() * model.bias / model.weight.detach().square().sum()
    found = SMOOTHING.certify(model, on_the_plane.view(1, 4, 4), torch.Generator().manual_seed(0))
    assert found == Certificate(None, 0.0)


def test_noise_does_not_depend_on_the_batch() -> None:
    model, x = Linear(), torch.full((1, 4, 4), 0.45)
    smoothing = Smoothing(sigma=0.5, n0=10, n=500)
    found = {
        smoothing.certify(model, x, torch.Generator().manual_seed(0), batch_size=size)
        for size in (1000, 40, 16)
    }
    assert len(found) == 1


def test_model_and_mode_are_left_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 2)).train()
    x = torch.rand(1, 4, 4)
    first, second = (
        Smoothing(n0=10, n=200).certify(model, x, torch.Generator().manual_seed(0))
        for _ in range(2)
    )
    assert first == second  # no dropout
    assert model.training


# As a row


def test_certified_accuracy_is_the_share_of_distances_above_the_radius(
    data: LabelledImages,
) -> None:
    model = Linear()
    x, _ = data.take(torch.arange(len(data)))
    distance = model.distance(x).abs()
    for eps in (0.0, 0.1, 0.3):
        # Images so near the radius that the bound of 20,000 votes decides.
        unsure = int(((distance - eps).abs() < 0.03).sum())
        report = measure_robustness(model, data, {"smooth": CertifiedAccuracy(eps, SMOOTHING)})
        row = report.results["smooth"]
        surely = int((distance >= eps + 0.03).sum())
        assert surely <= row.num_correct <= surely + unsure
        assert not (report.outcomes["smooth"] & (distance < eps)).any()
        assert (row.norm, row.eps, row.seed) == ("L2", eps, 0)
        assert row.settings == {"sigma": 0.5, "n0": 50, "n": 20_000, "alpha": 0.001}


def test_wrong_images_and_abstentions_are_not_correct(data: LabelledImages) -> None:
    model, smoothing = Linear(), Smoothing(sigma=0.5, n0=10, n=100)
    flipped = LabelledImages(data.images, 1 - data.labels)
    measure = CertifiedAccuracy(0.0, smoothing)
    right = measure_robustness(model, data, {"smooth": measure}).results["smooth"].num_correct
    wrong = measure_robustness(model, flipped, {"smooth": measure}).results["smooth"].num_correct
    assert 0 < right < len(data)  # some are unsure with so few votes
    assert wrong == 0


def test_images_are_certified_once_for_all_radii(data: LabelledImages) -> None:
    model, smoothing = Linear(), Smoothing(sigma=0.5, n0=10, n=1000)
    calls = []
    model.register_forward_hook(lambda *given: calls.append(1))
    known: dict[Smoothing, Tensor] = {}
    counts = []
    for eps in (0.0, 0.2):
        measures = {"smooth": CertifiedAccuracy(eps, smoothing)}
        calls.clear()
        counts.append(measure_robustness(model, data, measures, certified=known).results["smooth"])
        assert (len(calls) > 30) == (eps == 0)
    alone = measure_robustness(model, data, {"smooth": CertifiedAccuracy(0.2, smoothing)})
    assert counts[1].num_correct == alone.results["smooth"].num_correct < counts[0].num_correct


def test_part_of_the_images_is_drawn_and_others_see_all(data: LabelledImages) -> None:
    measures = {
        "pgd": LinfPGD(0.1, steps=1),
        "smooth": CertifiedAccuracy(0.1, Smoothing(n=100), "20%"),
    }
    report = measure_robustness(Linear(), data, measures)
    assert report.results["smooth"].num_samples == 6
    assert report.smooth_subset is not None
    assert len(report.smooth_subset) == 6
    assert report.results["smooth"].subset is not None
    # No attack, so no part of the worst case.
    worst = report.results["worst_case"]
    assert (worst.num_samples, worst.subset) == (30, None)
    assert worst.num_correct == report.results["pgd"].num_correct


def test_radius_that_no_image_can_have_is_refused() -> None:
    smoothing = Smoothing(sigma=0.25, n=1000)
    most = 0.25 * norm.ppf(0.001 ** (1 / 1000))
    assert smoothing.max_radius == pytest.approx(most)
    CertifiedAccuracy(most * 0.999, smoothing)
    with pytest.raises(
        ValueError,
        match=r"smooth certifies at most radius 0.6158 with smooth_sigma 0.25, smooth_n 1000 and "
        r"smooth_alpha 0.001, got eps 0.7",
    ):
        CertifiedAccuracy(0.7, smoothing)
