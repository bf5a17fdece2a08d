from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from nasbench_at.data import LabelledImages
from nasbench_at.evaluation.corruptions import CorruptionSuite, corrupt
from nasbench_at.evaluation.options import CORRUPTIONS
from nasbench_at.evaluation.robustness import measure_robustness
from nasbench_at.runtime.seeding import make_generator

SHAPES = [(1, 8, 8), (3, 32, 32), (2, 9, 40)]
# From the code of CIFAR-10-C.
GAUSSIAN = (0.04, 0.06, 0.08, 0.09, 0.10)
PHOTONS = (500, 250, 100, 75, 50)
SIGMAS = (0.4, 0.6, 0.7, 0.8, 1.0)
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)


def images(shape: tuple[int, int, int], count: int = 3) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def assert_near(found: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), np.clip(expected, 0, 1), atol=2e-6)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_noise_is_that_of_the_seed_and_the_image(
    shape: tuple[int, int, int], severity: int
) -> None:
    x = images(shape)
    noisy = corrupt(x, "gaussian-noise", severity, seed=5, indices=[7, 0, 9])
    generator = make_generator(5, "corruption", "gaussian-noise", 7)
    noise = torch.randn(shape, generator=generator).numpy()
    assert_near(noisy[0], x[0].numpy() + GAUSSIAN[severity - 1] * noise)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_shot_noise_is_a_count_of_photons(severity: int) -> None:
    photons = PHOTONS[severity - 1]
    x = torch.full((1, 1, 300, 300), 0.3)
    counts = corrupt(x, "shot-noise", severity).numpy() * photons
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
    # Poisson: mean and variance are both 0.3 times the photons; five standard errors.
    rate, error = 0.3 * photons, (0.3 * photons / 90_000) ** 0.5
    assert counts.mean() == pytest.approx(rate, abs=5 * error)
    assert counts.var() == pytest.approx(rate, rel=5 * (2 / 90_000) ** 0.5 + 1 / rate / 90)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_blur_is_scipy_s(shape: tuple[int, int, int], severity: int) -> None:
    x = images(shape)
    expected = ndimage.gaussian_filter(
        x.double().numpy(), (0, 0, SIGMAS[severity - 1], SIGMAS[severity - 1]), mode="nearest"
    )
    assert_near(corrupt(x, "blur", severity), expected)


def test_blur_grows_with_the_image() -> None:
    x = images((1, 64, 96), 1)
    expected = ndimage.gaussian_filter(x.double().numpy(), (0, 0, 1.4, 1.4), mode="nearest")
    assert_near(corrupt(x, "blur", 3), expected)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_contrast_shrinks_towards_each_channel_s_mean(
    shape: tuple[int, int, int], severity: int
) -> None:
    x = images(shape)
    mean = x.numpy().mean(axis=(2, 3), keepdims=True)
    expected = (x.numpy() - mean) * CONTRAST[severity - 1] + mean
    assert_near(corrupt(x, "contrast", severity), expected)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_brightness_adds_to_the_value_of_hsv(severity: int) -> None:
    x = images((3, 4, 4), 1)
    x[0, :, 0, 0] = 0  # black
    x[0, :, 0, 1] = 1  # white
    expected = np.zeros((1, 3, 4, 4))
    for row in range(4):
        for column in range(4):
            h, s, v = colorsys.rgb_to_hsv(*x[0, :, row, column].double().tolist())
            brighter = min(v + BRIGHTNESS[severity - 1], 1.0)
            expected[0, :, row, column] = colorsys.hsv_to_rgb(h, s, brighter)
    assert_near(corrupt(x, "brightness", severity), expected)


def test_brightness_of_one_channel_is_a_sum() -> None:
    x = images((1, 8, 8))
    assert_near(corrupt(x, "brightness", 5), x.numpy() + 0.3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_shift_is_scipy_s_in_one_of_four_directions(
    shape: tuple[int, int, int], severity: int
) -> None:
    x = images(shape, 30)
    moved = corrupt(x, "shift", severity).numpy()
    taken = set()
    for before, after in zip(x.double().numpy(), moved, strict=True):
        fits = []
        for dim in (1, 2):
            for sign in (1, -1):
                distance = [0.0, 0.0, 0.0]
                distance[dim] = sign * severity * shape[dim] / 32
                expected = ndimage.shift(before, distance, order=1, mode="nearest")
                if np.abs(after - expected).max() < 2e-6:
                    fits.append((dim, sign))
        assert len(fits) == 1
        taken |= set(fits)
    assert len(taken) == 4


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_s_corruption_does_not_depend_on_its_batch(name: str) -> None:
    x = images((3, 8, 8), 4)
    together = corrupt(x, name, 4, seed=3)
    alone = [corrupt(x[i : i + 1], name, 4, seed=3, indices=[i]) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))
    laid_out = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(corrupt(laid_out, name, 4, seed=3), together)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_grows(name: str) -> None:
    ramp = torch.linspace(0, 1, 16)  # blur and shift of pure noise do not grow
    x = 0.2 + 0.3 * (ramp.square().view(-1, 1) + ramp.square()).expand(20, 3, 16, 16)
    distances = [float((corrupt(x, name, severity) - x).norm()) for severity in (1, 2, 3, 4, 5)]
    assert distances == sorted(distances)
    assert distances[0] > 0


@pytest.mark.parametrize("name", ["gaussian-noise", "shot-noise", "shift"])
def test_seeds_differ(name: str) -> None:
    x = images((1, 8, 8), 20)
    assert not torch.equal(corrupt(x, name, 3, seed=0), corrupt(x, name, 3, seed=1))


@pytest.mark.parametrize(
    ("name", "severity", "indices", "message"),
    [
        ("fog", 1, None, "corruption must be one of gaussian-noise, .*shift, got 'fog'"),
        ("blur", 0, None, "severity must be a whole number from 1 to 5, got 0"),
        ("blur", 6, None, "severity must be a whole number from 1 to 5, got 6"),
        ("blur", 1, [0], "indices must be one an image, got 1 for 3 images"),
    ],
)
def test_bad_arguments_are_named(
    name: str, severity: int, indices: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        corrupt(images((1, 8, 8)), name, severity, indices=indices)


# As rows


class Bright(nn.Module):
    """Says class 1 of images whose mean is above a half."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(dim=1)
        return torch.stack([torch.full_like(mean, 0.5), mean], dim=1)


@pytest.fixture(scope="module")
def greys() -> LabelledImages:
    """Images of one grey each, 0 to 249, of class 1 from 128 on."""
    levels = torch.arange(250, dtype=torch.uint8)
    return LabelledImages(levels.view(-1, 1, 1, 1).expand(-1, 1, 4, 4), (levels >= 128).long())


def test_rows_count_what_is_still_right_and_means_are_of_all_rows(greys: LabelledImages) -> None:
    suite = CorruptionSuite(("brightness", "contrast"), (1, 4))
    report = measure_robustness(Bright(), greys, {"corruptions": suite}, batch_size=60)
    # A grey of up to 127 turns bright within 0.05 of a half: 115 to 127; within 0.2: 77 to 127.
    wrong = {"corrupt-brightness/1": 13, "corrupt-brightness/4": 51}
    wrong |= {"corrupt-contrast/1": 0, "corrupt-contrast/4": 0, "natural": 0}
    for name, count in wrong.items():
        assert report.results[name].num_correct == 250 - count
        assert int(report.outcomes[name].sum()) == 250 - count
    assert report.results["corrupt-brightness"].num_correct == 250 - 32
    assert report.results["corruptions"].num_correct == 250 - 16
    assert list(report.results) == [
        *("natural", "corrupt-brightness/1", "corrupt-brightness/4", "corrupt-brightness"),
        *("corrupt-contrast/1", "corrupt-contrast/4", "corrupt-contrast", "corruptions"),
    ]
    assert set(report.results) - set(report.outcomes) == {
        *("corrupt-brightness", "corrupt-contrast", "corruptions")
    }
    row = report.results["corrupt-brightness/4"]
    assert row.settings == {"corruptions": ["brightness"], "severities": [4]}
    assert (row.norm, row.eps, row.seed, row.num_samples) == (None, None, None, 250)


def test_rows_of_one_severity_are_no_means(greys: LabelledImages) -> None:
    suite = CorruptionSuite(("gaussian-noise",), (2,), has_mean=False)
    report = measure_robustness(Bright(), greys, {"corruptions": suite}, seed=6)
    assert list(report.results) == list(report.outcomes) == ["natural", "corrupt-gaussian-noise"]
    assert report.results["corrupt-gaussian-noise"].seed == 6


def test_outcomes_do_not_depend_on_batches_and_no_worst_case_counts_them(
    greys: LabelledImages,
) -> None:
    suite = CorruptionSuite()
    one, other = (
        measure_robustness(Bright(), greys, {"corruptions": suite}, batch_size=size)
        for size in (250, 33)
    )
    assert "worst_case" not in one.results
    assert one.outcomes.keys() == other.outcomes.keys()
    assert all(torch.equal(one.outcomes[name], other.outcomes[name]) for name in one.outcomes)
