"""One network of all blocks, trained once, that stands for the networks of each of its subsets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

# SyncBatchNorm and all BatchNorm*d; the base class has no public name.
from torch.nn.modules.batchnorm import _BatchNorm

from nasbench_at.attacks.folding import never_fold
from nasbench_at.config import ResolvedConfig, RunConfig, resolve
from nasbench_at.data import DataSet
from nasbench_at.networks.ds_net import DSNet, RobustModule
from nasbench_at.runtime.seeding import derive_seed, make_generator
from nasbench_at.training.launch import create_network
from nasbench_at.training.schedules import learning_rate
from nasbench_at.training.step import TrainingStep
from nasbench_at.training.trainer import validation_attack

__all__ = ["Draws", "OneShot", "train_one_shot"]

Draws: TypeAlias = Literal["subset", "size", "sandwich"]
"""How a batch gets its blocks.

``subset``: any, all equally likely. ``size``: a size first, then a subset of it. ``sandwich``: in
turn all blocks, one alone, and any subset: the sandwich rule of Yu and Huang, "Universally
Slimmable Networks and Improved Training Techniques", ICCV 2019, over batches instead of within one.
"""

_BATCH = 128
_STATISTICS_IMAGES, _STATISTICS_STEPS = 256, 3


class OneShot:
    """A DS-Net of which any subset of the blocks can be looked at as a network of its own.

    Args:
        network: The network, with the same blocks in every module.

    Raises:
        ValueError: If modules differ in their number of blocks.
    """

    def __init__(self, network: DSNet) -> None:
        self.network = network
        self._modules = [stage for stage in network.stages if isinstance(stage, RobustModule)]
        sizes = {len(module.blocks) for module in self._modules}
        if len(sizes) != 1:
            raise ValueError(f"all modules must have equally many blocks, got {sorted(sizes)}")
        (self.num_blocks,) = sizes
        never_fold(network)  # a plan for each subset would cost more than it brings

    @contextmanager
    def subset(self, blocks: Collection[int]) -> Iterator[DSNet]:
        """Lets only these blocks take part, their attention weights adding up to 1.

        Args:
            blocks: Numbers of blocks, at least one.
        """
        attention, before = self.network.attention, self.network.attention.mask
        chosen = [number in blocks for number in range(self.num_blocks)]
        mask = torch.zeros_like(before)
        for row, module in zip(mask, self._modules, strict=True):
            module.active = tuple(chosen)
            for column, active in zip(module.columns, chosen, strict=True):
                row[column] = active
        attention.mask = mask
        try:
            yield self.network
        finally:
            attention.mask = before
            for module in self._modules:
                module.active = (True,) * self.num_blocks

    def score(self, blocks: Collection[int], data: DataSet, config: ResolvedConfig) -> float:
        """Returns minus a subset's mean cross entropy on attacked validation images.

        Its norms' statistics are taken anew, from attacked training images.

        Args:
            blocks: The subset.
            data: The data set.
            config: How the network was trained; the attack is the one that runs are selected by.
        """
        attack = validation_attack(config)
        with self.subset(blocks) as network:
            _renew_statistics(network, data, config)
            network.eval()
            total = 0.0
            for number, (x, y) in enumerate(data.validation.batches(_BATCH)):
                noise = make_generator(config.seed, "validation", number, device=x.device)
                attacked = attack(network, x, y, generator=noise)
                with torch.no_grad():
                    total += float(F.cross_entropy(network(attacked), y, reduction="sum"))
        return -total / len(data.validation)


@torch.no_grad()
def _renew_statistics(network: DSNet, data: DataSet, config: ResolvedConfig) -> None:
    """Gives norms the statistics of one large batch, attacked as in training."""
    x, y = next(data.train.batches(_STATISTICS_IMAGES))
    noise = make_generator(config.seed, "statistics", device=x.device)
    attack = replace(validation_attack(config), steps=_STATISTICS_STEPS, mode="train")
    attacked = attack(network, x, y, generator=noise)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()  # nothing is dropped
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    network(attacked)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def train_one_shot(
    config: RunConfig[Any],
    data: DataSet,
    device: torch.device,
    *,
    epochs: int,
    draws: Draws = "subset",
    on_epoch: Callable[[int], None] | None = None,
) -> tuple[OneShot, ResolvedConfig]:
    """Trains one network adversarially, each batch with blocks of its own.

    Args:
        config: The network of all blocks, and how to train; its seed decides everything.
        data: The data set.
        device: Where to train.
        epochs: Epochs; the schedule is the recipe's for so many.
        draws: How a batch gets its blocks.
        on_epoch: Called after each epoch with its number.

    Returns:
        The network, and how it was trained.
    """
    changes = {"epochs": epochs, "milestones": None, "milestone_factors": None}
    own = resolve(RunConfig(**{**vars(config), **changes}))
    if own.extra_data is not None:
        raise ValueError(f"one-shot training knows no extra data, got {own.extra_data!r}")
    network = create_network(own, data, device)
    if not isinstance(network, DSNet):
        raise ValueError(f"one-shot training needs a DS-Net, got {own.model!r}")
    shot, step = OneShot(network), TrainingStep(network, own)
    generator = np.random.default_rng(derive_seed(own.seed, "one-shot"))
    num_steps = data.train.num_batches(own.batch_size)
    subsets = _draw_subsets(shot.num_blocks, draws, generator)
    for epoch in range(1, epochs + 1):
        order = make_generator(own.seed, "order", epoch)
        for number, (x, y) in enumerate(data.train.shuffled_batches(own.batch_size, order)):
            step.optimizers.set_rate(learning_rate(own, epoch, number, num_steps))
            torch.manual_seed(derive_seed(own.seed, "step", epoch, number))
            noise = make_generator(own.seed, "attack", epoch, number, device=device)
            with shot.subset(next(subsets)):
                step(x, y, noise, num_images=len(y))
        if on_epoch is not None:
            on_epoch(epoch)
    return shot, own


def _draw_subsets(
    num_blocks: int, draws: Draws, generator: np.random.Generator
) -> Iterator[Sequence[int]]:
    """Yields the blocks of one batch after another, for ever."""
    every = [
        subset
        for size in range(1, num_blocks + 1)
        for subset in itertools.combinations(range(num_blocks), size)
    ]
    for number in itertools.count():
        if draws == "size":
            size = int(generator.integers(1, num_blocks + 1))
            yield sorted(generator.choice(num_blocks, size, replace=False).tolist())
        elif draws == "sandwich" and number % 3 < 2:
            single = (int(generator.integers(num_blocks)),)
            yield range(num_blocks) if number % 3 == 0 else single
        else:
            yield every[int(generator.integers(len(every)))]
