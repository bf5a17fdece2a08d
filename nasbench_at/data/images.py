"""Images and labels on a device, and the batches made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from nasbench_at.data.augmentation import Augmentation

__all__ = ["LabelledImages", "count_batches"]


@dataclass(frozen=True)
class LabelledImages:
    """One part of a data set.

    Attributes:
        images: uint8, shape ``(N, C, H, W)``. Kept in the memory layout of the batches, so that
            taking an image copies one run of memory; that is several times faster.
        labels: int64, shape ``(N,)``.
        channels_last: Memory layout of the batches.
    """

    images: Tensor
    labels: Tensor
    channels_last: bool = False

    def __post_init__(self) -> None:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        object.__setattr__(self, "images", self.images.contiguous(memory_format=layout))

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> LabelledImages:
        """Returns the part made of the first ``count`` images."""
        return LabelledImages(self.images[:count], self.labels[:count], self.channels_last)

    def part(self, indices: Tensor) -> LabelledImages:
        """Returns the part made of the images of the indices, in their order."""
        indices = indices.to(self.labels.device)
        return LabelledImages(self.images[indices], self.labels[indices], self.channels_last)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the images of the indices as floats in [0, 1], and their labels."""
        indices = indices.to(self.labels.device)
        return _to_float(self._take_pixels(indices)), self.labels[indices]

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields all images in order; the last batch may be smaller."""
        order = torch.arange(len(self), device=self.labels.device)
        for start in range(0, len(self), batch_size):
            yield self.take(order[start : start + batch_size])

    def shuffled_batches(
        self,
        batch_size: int,
        generator: Generator,
        *,
        augmentation: Augmentation | None = None,
        augmentation_generator: Callable[[int], Generator] | None = None,
        skip: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields all images in an order drawn from a CPU generator.

        A last batch that does not give every rank two images is left out, since BatchNorm cannot
        train on one. Order and augmentation of a batch depend on its number alone: neither on
        how many were skipped nor on how many ranks share it.

        Args:
            batch_size: Images a batch, over all ranks.
            generator: Draws the order; every rank must pass an equal one.
            augmentation: Applied to the pixels.
            augmentation_generator: Called with a batch's number, from 0; returns its generator, on
                the images' device, equal on every rank. Set exactly if ``augmentation`` is.
            skip: Start at this batch, without touching the ones before.
            shard: Rank and number of ranks; each takes its own part of every batch, of sizes that
                differ by one at most.

        Raises:
            ValueError: If the shard is impossible, or one of the two augmentation arguments is
                missing.
        """
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        yield from self.batches_of(
            torch.split(order, batch_size)[: self.num_batches(batch_size, shard[1])],
            augmentation=augmentation,
            augmentation_generator=augmentation_generator,
            skip=skip,
            shard=shard,
        )

    def batches_of(
        self,
        order: Sequence[Tensor],
        *,
        augmentation: Augmentation | None = None,
        augmentation_generator: Callable[[int], Generator] | None = None,
        skip: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields batches of given images; all but the order as in :meth:`shuffled_batches`.

        Args:
            order: Each batch's indices, int64, shape ``(n,)``, on the images' device.
            augmentation: Applied to the pixels.
            augmentation_generator: Called with a batch's number.
            skip: Start at this batch.
            shard: Rank and number of ranks.

        Raises:
            ValueError: If the shard is impossible, or one of the two augmentation arguments is
                missing.
        """
        rank, num_ranks = shard
        if not 0 <= rank < num_ranks:
            raise ValueError(f"shard must be (rank, ranks) with 0 <= rank < ranks, got {shard!r}")
        if (augmentation is None) != (augmentation_generator is None):
            raise ValueError("augmentation and augmentation_generator must be set together")
        for number, batch in enumerate(order[skip:], start=skip):
            indices = batch.tensor_split(num_ranks)[rank]
            pixels = self._take_pixels(indices)
            if augmentation is not None and augmentation_generator is not None:
                # Drawn for all ranks, so that an image's crop is the same however they share.
                draws = augmentation.draw(len(batch), augmentation_generator(number))
                pixels = augmentation.apply(pixels, draws.tensor_split(num_ranks)[rank])
            yield _to_float(pixels), self.labels[indices]

    def num_batches(self, batch_size: int, num_ranks: int = 1) -> int:
        """Number of batches that :meth:`shuffled_batches` yields, none of them skipped."""
        return count_batches(len(self), batch_size, num_ranks)

    def _take_pixels(self, indices: Tensor) -> Tensor:
        channels, height, width = self.images.shape[1:]
        if not self.channels_last:
            return self.images.flatten(1).index_select(0, indices).view(-1, channels, height, width)
        rows = self.images.permute(0, 2, 3, 1).flatten(1).index_select(0, indices)
        return rows.view(-1, height, width, channels).permute(0, 3, 1, 2)


def count_batches(num_images: int, batch_size: int, num_ranks: int = 1) -> int:
    """Returns how many batches an epoch has; a last one with too few images a rank is none.

    Args:
        num_images: Images of an epoch.
        batch_size: Images a batch, over all ranks.
        num_ranks: Ranks, each of which needs two images of a batch.
    """
    if batch_size < 2 * num_ranks:
        return 0
    full, rest = divmod(num_images, batch_size)
    return full + (rest >= 2 * num_ranks)


def _to_float(pixels: Tensor) -> Tensor:
    """Returns float32 in [0, 1], the memory layout kept."""
    return pixels.to(torch.float32).div_(255)
