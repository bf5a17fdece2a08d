"""Augmentation on a GPU."""

from __future__ import annotations

import pytest
import torch

from nasbench_at.data.augmentation import Augmentation

pytestmark = pytest.mark.gpu


def test_images_are_augmented_without_a_wait_as_on_the_cpu(device, no_waits):
    images = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8).to(device)
    noise = torch.Generator(device).manual_seed(0)
    with no_waits():
        draws = Augmentation().draw(len(images), noise)
        augmented = Augmentation().apply(images, draws)
    assert torch.equal(augmented.cpu(), Augmentation().apply(images.cpu(), draws.cpu()))
