"""How alike the blocks of a module are in what they compute: linear CKA, clean and attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.attacked_predictions import describe_attack
from analysis.errors import UnsuitableRunsError
from analysis.run_images import first_images
from analysis.style import INK, PALETTE, create_figure, style_axes
from nasbench_at.attacks import Attack, attack_mode, check_inputs
from nasbench_at.evaluation.runs import Run
from nasbench_at.networks.ds_net import DSNet, RobustModule
from nasbench_at.networks.graph import ModuleStage, walk_stages
from nasbench_at.runtime.seeding import make_generator
from nasbench_at.training.trainer import validation_attack

__all__ = [
    "BlockSimilarity",
    "ModuleSimilarity",
    "compute_run_similarity",
    "compute_similarity",
    "draw_similarity",
    "linear_cka",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ModuleSimilarity:
    """How alike the outputs of a module's blocks are; B blocks that take part.

    Attributes:
        blocks: Their names.
        clean: Linear CKA on clean images, in [0, 1], shape ``(B, B)``; NaN beside a block whose
            output is the same for all images.
        attacked: That on attacked ones.
    """

    blocks: tuple[str, ...]
    clean: Array
    attacked: Array


@dataclass(frozen=True)
class BlockSimilarity:
    """How alike the blocks of a network are, module by module.

    Attributes:
        modules: In order.
        num_images: Images that were looked at.
        attack: The attack's settings.
    """

    modules: tuple[ModuleSimilarity, ...]
    num_images: int
    attack: Mapping[str, Any]


def linear_cka(first: Tensor, second: Tensor) -> float:
    r"""Returns the linear centred kernel alignment of two representations of the same samples.

    .. math:: \|Y^T X\|_F^2 / (\|X^T X\|_F \|Y^T Y\|_F)

    with centred columns. It is 1 where they agree up to rotation and scale.

    Args:
        first: X.
        second: Y.

    Shapes:
        first: (N, ...). second: (N, ...); other dimensions than those of the first are fine.

    Returns:
        A number in [0, 1]; NaN if one of them is the same for all samples.

    Reference:
        Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019.
    """
    return _alignment(_centred_gram(first), _centred_gram(second))


def _centred_gram(features: Tensor) -> Tensor:
    """Returns the samples' inner products about their mean, (N, N)."""
    flat = features.detach().flatten(1).double()
    centred = flat - flat.mean(dim=0)
    return centred @ centred.T


def _alignment(first: Tensor, second: Tensor) -> float:
    scale = first.norm() * second.norm()
    return float((first * second).sum() / scale) if scale > 0 else float("nan")


def compute_similarity(
    model: nn.Module, images: Tensor, labels: Tensor, attack: Attack, *, seed: int = 0
) -> BlockSimilarity:
    """Compares the outputs of each module's blocks, on clean images and on attacked ones.

    The model is as before afterwards.

    Args:
        model: A DS-Net.
        images: In [0, 1], shape ``(N, C, H, W)``, N at least 2; all go through it at once.
        labels: True classes, shape ``(N,)``.
        attack: The attack on the whole network.
        seed: Of the attack.

    Raises:
        ValueError: If the model is no DS-Net, there is one image alone, or images or labels are not
            usable.
    """
    if not isinstance(model, DSNet):
        raise ValueError(f"model must be a DS-Net, got a {type(model).__name__}")
    check_inputs(images, labels)
    if len(images) < 2:
        raise ValueError(f"similarity needs at least 2 images, got {len(images)}")
    generator = make_generator(seed, "perturbations", device=images.device)
    attacked = attack(model, images, labels, generator=generator)
    with attack_mode(model):
        clean_grams, attacked_grams = (_record_grams(model, x) for x in (images, attacked))
    stages = [stage for stage in walk_stages(model.graph) if isinstance(stage, ModuleStage)]
    modules = [module for module in model.stages if isinstance(module, RobustModule)]
    found = []
    for stage, module in zip(stages, modules, strict=True):
        pairs = zip(stage.block_nodes, module.blocks, module.active, strict=True)
        parts = [(node, block) for node, block, active in pairs if active]
        blocks = [block for _, block in parts]
        found.append(
            ModuleSimilarity(
                tuple(str(model.graph.nodes[node]["block"]) for node, _ in parts),
                _align_all([clean_grams[block] for block in blocks]),
                _align_all([attacked_grams[block] for block in blocks]),
            )
        )
    return BlockSimilarity(tuple(found), len(images), attack.settings())


def _record_grams(model: DSNet, images: Tensor) -> dict[nn.Module, Tensor]:
    """Runs a model and returns Gram matrices of its blocks' outputs, which would fill memory."""
    grams: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        grams[module] = _centred_gram(output)

    handles = [
        block.register_forward_hook(keep)
        for module in model.stages
        if isinstance(module, RobustModule)
        for block in module.blocks
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return grams


def _align_all(grams: Sequence[Tensor]) -> Array:
    return np.array([[_alignment(one, other) for other in grams] for one in grams])


def compute_run_similarity(run: Run, *, num_images: int = 256, seed: int = 0) -> BlockSimilarity:
    """Compares the blocks of a run's network on its test images.

    Args:
        run: The run; the attack is the one that it was selected by.
        num_images: How many images.
        seed: Of the attack.

    Raises:
        ValueError: If the folder or an argument is not usable, or the network is no DS-Net.
        UnsuitableRunsError: If no module has two blocks.
    """
    images, labels = first_images(run, "test", num_images)
    found = compute_similarity(
        run.network, images, labels, validation_attack(run.config), seed=seed
    )
    if all(len(module.blocks) < 2 for module in found.modules):
        raise UnsuitableRunsError("the similarity of blocks needs a module of at least two blocks")
    return found


def draw_similarity(similarity: BlockSimilarity) -> Figure:
    """Draws the mean CKA of each pair of blocks, clean and attacked, and the mean by module.

    Args:
        similarity: Of a network with two blocks in some module.

    Returns:
        A figure of its own canvas, which no global state refers to.
    """
    modules = similarity.modules
    names = list(dict.fromkeys(name for module in modules for name in module.blocks))
    figure = create_figure(8.6, 3.2)
    first, second, third = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    for axes, title, attribute in (
        (first, "clean images", "clean"),
        (second, describe_attack(similarity.attack), "attacked"),
    ):
        values = _mean_by_pair(modules, names, attribute)
        _draw_pairs(axes, names, values, title)
    numbers = np.arange(1, len(modules) + 1)
    for color, marker, attribute in ((PALETTE[0], "o", "clean"), (PALETTE[5], "s", "attacked")):
        means = [_mean_of_others(getattr(module, attribute)) for module in modules]
        third.plot(numbers, means, color=color, marker=marker, markersize=3.5, label=attribute)
    style_axes(
        third, x="module", y="mean CKA of its blocks", title=f"{similarity.num_images} images"
    )
    third.set_ylim(0, 1)
    third.xaxis.set_major_locator(MaxNLocator(integer=True))
    third.legend(frameon=False, fontsize=7.5)
    return figure


def _mean_by_pair(
    modules: Sequence[ModuleSimilarity], names: Sequence[str], attribute: str
) -> Array:
    """Returns the mean over all pairs of copies of two blocks in a module; NaN for none."""
    totals = np.zeros((len(names), len(names)))
    counts = np.zeros_like(totals)
    for module in modules:
        at = [names.index(name) for name in module.blocks]
        values: Array = getattr(module, attribute)
        known = ~np.isnan(values)
        np.add.at(totals, np.ix_(at, at), np.where(known, values, 0.0))
        np.add.at(counts, np.ix_(at, at), known)
    means = np.full_like(totals, np.nan)
    np.divide(totals, counts, out=means, where=counts > 0)
    return means


def _mean_of_others(values: Array) -> float:
    """Returns the mean over pairs of different blocks; NaN if there is none."""
    pairs = values[np.triu_indices(len(values), k=1)]
    known = pairs[~np.isnan(pairs)]
    return float(known.mean()) if len(known) else float("nan")


def _draw_pairs(axes: Axes, names: Sequence[str], values: Array, title: str) -> None:
    style_axes(axes, x="", y="", title=title)
    axes.grid(False)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = "white" if value > 0.5 else INK
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=color
            )
    axes.set_xticks(range(len(names)), names, fontsize=7, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names, fontsize=7)
