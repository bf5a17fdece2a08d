"""Generated images, such as those of a diffusion model, mixed into each training batch.

A fixed share of every batch is drawn from them at random, with replacement, and the rest from the
real images. An epoch is defined on the real images: it has as many batches as they alone would
make, all of them full, and so sees only a part of the real images, another one each time. That is
how the code of Wang et al. draws batches, by a sampler of Carmon et al.

Reference:
    Gowal et al., "Improving Robustness using Generated Data", NeurIPS 2021; Wang et al., "Better
    Diffusion Models Further Improve Adversarial Training", ICML 2023; Carmon et al., "Unlabeled
    Data Improves Adversarial Robustness", NeurIPS 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from nasbench_at.data.augmentation import Augmentation
from nasbench_at.data.images import LabelledImages, count_batches

__all__ = ["MixedImages"]


@dataclass(frozen=True)
class MixedImages:
    """Real images and generated ones, of which each batch holds a fixed share.

    Attributes:
        pool: The real images, then the generated ones.
        num_real: How many of the pool are real, at least 1 and fewer than all.
        fraction: Part of each batch that is generated, in (0, 1).
        fingerprint: Hash of the generated images and their labels.
    """

    pool: LabelledImages
    num_real: int
    fraction: float
    fingerprint: str

    @property
    def num_extra(self) -> int:
        """How many images are generated."""
        return len(self.pool) - self.num_real

    def extra_in(self, batch_size: int) -> int:
        """Returns how many images of a batch are generated.

        Raises:
            ValueError: If that leaves no real image, or no generated one.
        """
        count = round(self.fraction * batch_size)
        if not 0 < count < batch_size:
            raise ValueError(
                f"extra_fraction must leave a generated and a real image in each batch of "
                f"{batch_size}, got {self.fraction}, which is {count} generated ones"
            )
        return count

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
        """Yields the batches of an epoch, each of ``batch_size`` images over all ranks.

        Like :meth:`LabelledImages.shuffled_batches
        <nasbench_at.data.LabelledImages.shuffled_batches>`, whose arguments these are: a batch
        depends on its number alone, neither on how many were skipped nor on how many ranks share
        it. Within a batch real and generated images are in random order, so that each rank has
        some of both.

        Raises:
            ValueError: If a batch would hold images of one kind alone, the shard is impossible, or
                one of the two augmentation arguments is missing.
        """
        order = self._draw(batch_size, generator).to(self.pool.labels.device)
        yield from self.pool.batches_of(
            order.unbind()[: count_batches(self.num_real, batch_size, shard[1])],
            augmentation=augmentation,
            augmentation_generator=augmentation_generator,
            skip=skip,
            shard=shard,
        )

    def _draw(self, batch_size: int, generator: Generator) -> Tensor:
        """Draws all of an epoch at once, on the CPU: the host waits for the device only here.

        Returns:
            Indices into the pool, int64, shape ``(batches, batch_size)``.
        """
        num_batches = math.ceil(self.num_real / batch_size)  # whatever the number of ranks
        num_real = batch_size - self.extra_in(batch_size)
        shape = num_batches, batch_size
        order = torch.randint(self.num_real, len(self.pool), shape, generator=generator)
        # An epoch of few batches may run out of real images: its last places stay generated.
        real = torch.randperm(self.num_real, generator=generator)[: num_batches * num_real]
        places = torch.arange(len(real))
        order[places // num_real, places % num_real] = real
        mixed = torch.rand(shape, generator=generator).argsort(dim=1)
        return order.gather(1, mixed)
