from __future__ import annotations

import re

import pytest
import torch

from nasbench_at.data import Augmentation, LabelledImages


def numbered(count, *, channels_last=False):
    """Images that carry their label in every pixel."""
    labels = torch.arange(count)
    images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 3, 3).contiguous()
    return LabelledImages(images, labels, channels_last)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def labels_of(batches):
    return [y.tolist() for _, y in batches]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_taken_images_are_the_stored_ones_in_any_layout(channels_last, channels):
    images = torch.randint(256, (9, channels, 4, 5), dtype=torch.uint8)
    part = LabelledImages(images, torch.arange(9), channels_last)
    indices = torch.tensor([7, 0, 7, 3])
    x, y = part.take(indices)
    assert torch.equal(x, images[indices] / 255)
    assert torch.equal(y, indices)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert x.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("channels_last", [False, True])
def test_images_are_kept_in_the_layout_of_the_batches(channels_last):
    images = torch.randint(256, (9, 3, 4, 5), dtype=torch.uint8)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for kept in (images, images.contiguous(memory_format=torch.channels_last)):
        part = LabelledImages(kept, torch.arange(9), channels_last)
        assert part.images.is_contiguous(memory_format=layout)
        assert torch.equal(part.images, images)
        # A part of a part shares its memory.
        assert part.first(4).images.data_ptr() == part.images.data_ptr()


@pytest.mark.parametrize("skip", [0, 1, 3, 5, 6])
def test_skipped_batches_do_not_change_the_others(skip):
    part = numbered(42)
    options = {"augmentation": Augmentation(1), "augmentation_generator": generator}
    whole = list(part.shuffled_batches(8, generator(), **options))
    rest = list(part.shuffled_batches(8, generator(), skip=skip, **options))
    assert len(whole) == 6
    assert len(rest) == len(whole) - skip
    for (x, y), (x_again, y_again) in zip(whole[skip:], rest, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)


def test_skipped_batches_are_not_touched(monkeypatch):
    part, taken = numbered(42), []
    take = LabelledImages._take_pixels
    monkeypatch.setattr(
        LabelledImages, "_take_pixels", lambda self, i: taken.append(len(i)) or take(self, i)
    )
    asked = []

    def numbered_generator(number):
        asked.append(number)
        return generator(number)

    batches = part.shuffled_batches(
        8,
        generator(),
        skip=4,
        augmentation=Augmentation(),
        augmentation_generator=numbered_generator,
    )
    assert len(list(batches)) == 2
    assert taken == [8, 2]
    assert asked == [4, 5]


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_ranks_share_every_batch(num_ranks, channels_last):
    part = numbered(46, channels_last=channels_last)
    options = {"augmentation": Augmentation(1), "augmentation_generator": generator}
    whole = list(part.shuffled_batches(10, generator(), **options))
    shards = [
        list(part.shuffled_batches(10, generator(), shard=(rank, num_ranks), **options))
        for rank in range(num_ranks)
    ]
    assert {len(shard) for shard in shards} == {len(whole)} == {5}
    for (x, y), *parts in zip(whole, *shards, strict=True):
        # Joined in the order of ranks it is the same batch, augmented the same.
        assert torch.equal(torch.cat([x_part for x_part, _ in parts]), x)
        assert torch.equal(torch.cat([y_part for _, y_part in parts]), y)
        sizes = [len(y_part) for _, y_part in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("count", "batch_size", "num_ranks", "sizes"),
    [
        (23, 10, 2, [5, 5]),
        (24, 10, 2, [5, 5, 2]),
        (23, 10, 1, [10, 10, 3]),
        (25, 10, 3, [4, 4]),
        (26, 10, 3, [4, 4, 2]),
        (20, 3, 2, []),
        (20, 4, 2, [2, 2, 2, 2, 2]),
        (3, 8, 2, []),
        (4, 8, 2, [2]),
    ],
)
def test_batches_too_small_for_two_images_a_rank_are_left_out(count, batch_size, num_ranks, sizes):
    part = numbered(count)
    first = labels_of(part.shuffled_batches(batch_size, generator(), shard=(0, num_ranks)))
    assert [len(labels) for labels in first] == sizes
    last = labels_of(
        part.shuffled_batches(batch_size, generator(), shard=(num_ranks - 1, num_ranks))
    )
    assert all(len(labels) >= 2 for labels in last)
    assert part.num_batches(batch_size, num_ranks) == len(first) == len(last)


def test_augmented_pixels_come_from_the_generator_of_their_batch():
    images = torch.randint(256, (12, 3, 8, 8), dtype=torch.uint8)
    part = LabelledImages(images, torch.arange(12))
    augmentation = Augmentation(padding=2)
    batches = part.shuffled_batches(
        5,
        generator(),
        augmentation=augmentation,
        augmentation_generator=lambda number: generator(100 + number),
    )
    sizes = []
    for number, (x, y) in enumerate(batches):
        draws = augmentation.draw(len(y), generator(100 + number))
        assert torch.equal(x, augmentation.apply(images[y], draws) / 255)
        sizes.append(len(y))
    assert sizes == [5, 5, 2]


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_impossible_shard_is_refused(shard):
    message = f"shard must be (rank, ranks) with 0 <= rank < ranks, got {shard}"
    with pytest.raises(ValueError, match=re.escape(message)):
        next(numbered(9).shuffled_batches(4, generator(), shard=shard))


@pytest.mark.parametrize(
    "half", [{"augmentation": Augmentation()}, {"augmentation_generator": generator}]
)
def test_augmentation_needs_both_arguments(half):
    with pytest.raises(ValueError, match="augmentation_generator must be set together"):
        next(numbered(9).shuffled_batches(4, generator(), **half))
