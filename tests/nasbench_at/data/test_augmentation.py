from __future__ import annotations

import math
import re

import pytest
import torch

from nasbench_at.data import Augmentation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(num=12, channels=3, height=7, width=5):
    # No zeros, so that padding is told from image.
    return torch.randint(1, 256, (num, channels, height, width), dtype=torch.uint8)


def augment(images, noise, padding=4, flip=True):
    augmentation = Augmentation(padding, flip)
    return augmentation.apply(images, augmentation.draw(len(images), noise))


def augment_one(image, draw, padding):
    """Mirrors, pads and crops one image, slowly and plainly."""
    top, left, mirrored = draw.tolist()
    height, width = image.shape[1:]
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            y, x = row + top - padding, column + left - padding
            if 0 <= y < height and 0 <= x < width:
                result[:, row, column] = image[:, y, width - 1 - x if mirrored else x]
    return result


LAYOUTS = pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"]
)


@LAYOUTS
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("padding", "flip"), [(4, True), (2, False), (0, True), (9, True)])
def test_batch_equals_one_image_after_the_other(layout, channels, padding, flip):
    images = pixels(channels=channels).contiguous(memory_format=layout)
    augmentation = Augmentation(padding, flip)
    draws = augmentation.draw(len(images), generator())
    expected = torch.stack(
        [augment_one(image, draw, padding) for image, draw in zip(images, draws, strict=True)]
    )
    assert torch.equal(augmentation.apply(images, draws), expected)


@LAYOUTS
def test_type_layout_and_input_stay(layout):
    images = pixels().contiguous(memory_format=layout)
    before = images.clone()
    augmented = augment(images, generator())
    assert augmented.dtype == torch.uint8
    assert augmented.is_contiguous(memory_format=layout)
    assert torch.equal(images, before)


def test_same_seed_same_images_and_the_global_generator_is_untouched():
    images, state = pixels(), torch.get_rng_state()
    first, again, other = (augment(images, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_happens_without_padding_and_flip():
    images = pixels()
    assert torch.equal(augment(images, generator(), padding=0, flip=False), images)


def test_crops_do_not_depend_on_whether_images_are_mirrored():
    with_flip = Augmentation(flip=True).draw(50, generator())
    without = Augmentation(flip=False).draw(50, generator())
    assert torch.equal(with_flip[:, :2], without[:, :2])
    assert not without[:, 2].any()


@pytest.mark.parametrize("padding", [1, 4])
def test_places_and_mirror_images_are_uniform_and_independent(padding):
    num, side = 40_000, 2 * padding + 1
    top, left, mirrored = Augmentation(padding).draw(num, generator()).unbind(1)
    cells = ((top * side + left) * 2 + mirrored).bincount(minlength=2 * side**2)
    assert len(cells) == 2 * side**2
    expected = num / len(cells)
    chi_squared = float((cells - expected).square().sum() / expected)
    freedom = len(cells) - 1
    # Five standard deviations of the statistic.
    assert abs(chi_squared - freedom) < 5 * math.sqrt(2 * freedom)


def test_images_of_a_batch_differ_in_place():
    same = pixels(num=1).expand(64, -1, -1, -1).contiguous()
    assert len(augment(same, generator()).flatten(1).unique(dim=0)) > 40


def test_negative_padding_is_refused():
    with pytest.raises(ValueError, match=re.escape("padding must be at least 0, got -1")):
        Augmentation(padding=-1)
