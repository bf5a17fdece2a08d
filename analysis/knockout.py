"""What a trained network loses without one of its blocks, not trained again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle, islice
from textwrap import fill
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.attacked_predictions import describe_attack, predict_under_attack
from analysis.errors import UnsuitableRunsError
from analysis.run_images import first_images
from analysis.style import LEGEND_BELOW, MARKERS, PALETTE, create_figure, show_percent, style_axes
from nasbench_at.attacks import GradientAttack
from nasbench_at.config import resolve
from nasbench_at.config.architecture import Architecture, architecture_of
from nasbench_at.evaluation.runs import Run
from nasbench_at.records import mean_interval
from nasbench_at.records.naming.variants import name_run
from nasbench_at.runtime.seeding import make_generator
from nasbench_at.training.launch import create_network
from nasbench_at.training.trainer import validation_attack

__all__ = ["STATISTICS", "Knockout", "compute_run_knockout", "draw_knockout"]

STATISTICS = ("as trained", "recalibrated")
"""Of the norms: the network's own, and those that are measured anew without the block."""
_CALIBRATION_IMAGES = 1_024
_BATCH = 128
_UPDATES = 50
"""After so many a statistic of momentum 0.1 has 0.5 % left of what it was."""


@dataclass(frozen=True)
class Knockout:
    """How much accuracy under attack one network loses when a block is masked in all its modules.

    The other blocks of a module share its weight as the softmax of their logits does; a module
    that has no other block keeps it.

    Attributes:
        name: The run.
        blocks: Names of the columns.
        losses: Accuracy of the whole network minus that without the block, shape ``(2, blocks)``:
            with the statistics of BatchNorm as they are, and with those of both networks measured
            anew, as :data:`STATISTICS` names them.
        low: Lower ends of their 95 % intervals over images, paired: both networks are attacked on
            the same ones. They say nothing of other seeds.
        high: Upper ends.
        accuracies: Accuracy of the whole network, with each of the two statistics.
        num_samples: Test images.
        num_calibration: Training images behind the new statistics.
        attack: The attack's settings.
    """

    name: str
    blocks: tuple[str, ...]
    losses: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    accuracies: tuple[float, float]
    num_samples: int
    num_calibration: int
    attack: Mapping[str, Any]


def compute_run_knockout(run: Run, *, num_images: int | None = None, seed: int = 0) -> Knockout:
    """Masks each block of a run's network in turn and attacks what is left.

    New statistics are those of training images as the run trained with them, attacked unless it is
    standard training, in train mode, so that what is random in it is at work.

    Args:
        run: A run of a DS-Net.
        num_images: Test images; all by default.
        seed: Of the attacks, and of what is random in train mode.

    Raises:
        UnsuitableRunsError: If the network is no DS-Net, or has nothing but one kind of block.
        ValueError: If the run's weights or data are not usable.
    """
    network = architecture_of(run.config.to_dict())
    if network is None:
        raise UnsuitableRunsError(f"a block is masked in DS-Nets, got {run.config.model!r}")
    blocks = tuple(dict.fromkeys(name for names in network.blocks for name in names))
    if len(blocks) < 2:
        raise UnsuitableRunsError(
            f"a block is masked beside others, got a network of {blocks[0]!r} alone"
        )
    images, labels = first_images(run, "test", num_images)
    count = min(_CALIBRATION_IMAGES, len(run.data.train))
    training = first_images(run, "train", count)
    attack = validation_attack(run.config)

    def judge(masked: str | None) -> Iterator[NDArray[np.float64]]:
        model = _mask(run, network, masked)
        yield _find_correct(model, images, labels, attack, seed)
        _recalibrate(model, *training, None if run.config.method == "st" else attack, seed)
        yield _find_correct(model, images, labels, attack, seed)

    whole = np.stack([*judge(None)])
    lost = np.stack([whole - np.stack([*judge(name)]) for name in blocks], axis=-1)
    low, high = mean_interval(lost.swapaxes(0, 1))
    trained, recalibrated = whole.mean(axis=1)
    return Knockout(
        name=name_run(run.config.to_dict()),
        blocks=blocks,
        losses=lost.mean(axis=1),
        low=low,
        high=high,
        accuracies=(float(trained), float(recalibrated)),
        num_samples=len(labels),
        num_calibration=count,
        attack=attack.settings(),
    )


def _mask(run: Run, network: Architecture, masked: str | None) -> nn.Module:
    """The run's network, without a block in all modules that have another."""
    old = network.attention.keep or tuple(tuple(range(len(row))) for row in network.blocks)
    keep = []
    for names, columns in zip(network.blocks, old, strict=True):
        others = tuple(column for column in columns if names[column] != masked)
        keep.append(others or columns)
    config = replace(
        run.config,
        blocks=network.blocks,
        attention_weights=network.attention.weights,
        attention_keep=tuple(keep),
    )
    model = create_network(resolve(config), run.data, run.device)
    model.load_state_dict(run.network.state_dict())
    return model.eval()


def _find_correct(
    model: nn.Module, images: Tensor, labels: Tensor, attack: GradientAttack, seed: int
) -> NDArray[np.float64]:
    """Whether each image is classified correctly under attack, shape ``(images,)``, 0 or 1."""
    batches = predict_under_attack(model, images, labels, attack, batch_size=_BATCH, seed=seed)
    correct = torch.cat([logits.argmax(dim=1) == y for y, logits in batches])
    found: NDArray[np.float64] = correct.double().cpu().numpy()
    return found


def _recalibrate(
    model: nn.Module, images: Tensor, labels: Tensor, attack: GradientAttack | None, seed: int
) -> None:
    """Measures the statistics of BatchNorm anew, as training does; the attack is on the old ones.

    That is with its momentum: of norms that a block calls on several inputs a mean over one call
    would not be what training makes.
    """
    batches = []
    for number, start in enumerate(range(0, len(labels), _BATCH)):
        x, y = images[start : start + _BATCH], labels[start : start + _BATCH]
        if attack is not None:
            generator = make_generator(seed, "calibration", number, device=x.device)
            x = attack(model, x, y, generator=generator)
        batches.append(x)
    with torch.random.fork_rng(devices=[d for d in (images.device,) if d.type == "cuda"]):
        torch.manual_seed(seed)
        model.train()
        with torch.no_grad():
            for x in islice(cycle(batches), _UPDATES):
                model(x)
    model.eval()


def draw_knockout(found: Knockout) -> Figure:
    """Draws the losses of each block, with each of the two statistics."""
    figure = create_figure(6.0, 3.6)
    axes = figure.add_subplot()
    places = np.arange(len(found.blocks))
    for i, (label, accuracy) in enumerate(zip(STATISTICS, found.accuracies, strict=True)):
        loss = found.losses[i]
        axes.errorbar(
            places + 0.2 * (i - 0.5),
            loss,
            yerr=[loss - found.low[i], found.high[i] - loss],
            fmt=MARKERS[i],
            color=PALETTE[i],
            markersize=5,
            capsize=2.5,
            linewidth=1,
            label=f"statistics {label}: {accuracy:.1%} with all blocks",
        )
    axes.axhline(0, color="#8A9099", linewidth=0.8)
    title = (
        f"{found.name}; {describe_attack(found.attack)}; {found.num_samples:,} images, 95 % "
        f"intervals over these; statistics from {found.num_calibration:,} training images"
    )
    style_axes(axes, x="block left out", y="accuracy lost", title=fill(title, 84))
    axes.set_xticks(places, found.blocks, fontsize=8)
    show_percent(axes.yaxis)
    figure.legend(*axes.get_legend_handles_labels(), **{**LEGEND_BELOW, "ncols": 2})
    return figure
