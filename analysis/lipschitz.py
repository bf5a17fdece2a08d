"""Lipschitz constants of a trained DS-Net, Lemma 3.2 and Proposition 3.3 of the paper.

Each block's constant L_ij is bounded from above by its layers' operator norms, and measured from
below by the Jacobian's norm where the images lead. From them follow the products that the paper
compares: the network as it is, the same blocks in sequence, and other weights. Everything is in
Euclidean norms and in eval mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from analysis.block_bounds import Radii, compute_block_bound, compute_chain_bound
from analysis.claims.claim import Claim
from analysis.lipschitz_claims import (
    ModuleConstants,
    compute_products,
    judge_lemma,
    judge_proposition,
)
from analysis.local_lipschitz import (
    ascend_local_constants,
    compute_local_constants,
    record_inputs,
)
from analysis.run_images import first_images
from analysis.style import MARKERS, PALETTE, create_figure, style_axes
from blocks.mbconv import SqueezeExcite
from nasbench_at.attacks import LINF, attack_mode, check_inputs
from nasbench_at.evaluation.runs import Run
from nasbench_at.networks.ds_net import DSNet, RobustModule
from nasbench_at.networks.graph import ModuleStage, find_node, walk_stages

__all__ = ["LipschitzAnalysis", "compute_lipschitz", "compute_run_lipschitz", "draw_lipschitz"]

Measure: TypeAlias = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class LipschitzAnalysis:
    """Constants of a DS-Net and of its parts.

    Attributes:
        modules: The robust modules in order.
        outside: Bounds of what the paper's product leaves out: ``stem``, each ``reduction``, and
            ``head``, the pool and the linear layer together.
        local: The largest local constant of the whole network.
        num_images: Images the local constants are of.
        eps: L-infinity radius of the balls around them in which ``local`` was sought.
        is_global: Whether the bounds hold for all inputs. With squeeze-and-excitation they hold
            where no channel of its input is longer than the longest at these images.
    """

    modules: tuple[ModuleConstants, ...]
    outside: Mapping[str, float]
    local: float
    num_images: int
    eps: float
    is_global: bool

    @property
    def bound_log10(self) -> float:
        """log₁₀ of the bound of the whole network, stem, reductions and head among it."""
        outside = sum(math.log10(bound) for bound in self.outside.values())
        return outside + compute_products(self.modules, "bound").ds_net

    def claims(self) -> tuple[Claim, ...]:
        """Holds Lemma 3.2 and Proposition 3.3 against the network."""
        return (
            judge_lemma(self.bound_log10, self.local, self.num_images),
            *judge_proposition(self.modules, "bound"),
            *judge_proposition(self.modules, "local"),
        )


def compute_lipschitz(
    model: nn.Module,
    images: Tensor,
    *,
    eps: float = 0.0,
    num_ascents: int = 5,
    num_steps: int = 30,
    batch_size: int = 32,
    seed: int = 0,
) -> LipschitzAnalysis:
    """Bounds and measures the Lipschitz constants of a DS-Net.

    Args:
        model: A DS-Net whose blocks :func:`analysis.block_bounds.compute_block_bound` has a rule
            for.
        images: In [0, 1], shape ``(N, C, H, W)``.
        eps: L-infinity radius in which the network's local constant is sought.
        num_ascents: Steps of that search.
        num_steps: Steps of each power iteration on a Jacobian.
        batch_size: Images at a time.
        seed: Of the starts and random directions.

    Raises:
        ValueError: If the model is no DS-Net, a block has no rule, or an argument is not usable.
    """
    if not isinstance(model, DSNet):
        raise ValueError(f"model must be a DS-Net, got a {type(model).__name__}")
    check_inputs(images, torch.zeros(len(images), dtype=torch.int64))
    LINF.check_eps(eps)
    node = model.graph.nodes[find_node(model.graph, "input")]
    shape = (node["channels"], *node["resolution"])
    if tuple(images.shape[1:]) != shape:
        raise ValueError(f"images must be of shape {shape}, got {tuple(images.shape[1:])}")
    with attack_mode(model):
        gates = [module for module in model.modules() if isinstance(module, SqueezeExcite)]
        inputs = record_inputs(model, [*model.stages, *gates], images)
        # A block that takes no part has no input.
        radii: Radii = {gate: _longest_channel(inputs[gate]) for gate in gates if gate in inputs}
        measure = partial(
            compute_local_constants, num_steps=num_steps, batch_size=batch_size, seed=seed
        )
        modules = tuple(_measure_modules(model, inputs, radii, measure))
        local = ascend_local_constants(
            model,
            images,
            eps=eps,
            num_ascents=num_ascents,
            num_steps=num_steps,
            batch_size=batch_size,
            seed=seed,
        )
        return LipschitzAnalysis(
            modules=modules,
            outside=_bound_outside(model, images, inputs),
            local=float(local.max()),
            num_images=len(images),
            eps=eps,
            is_global=not radii,
        )


def _longest_channel(x: Tensor) -> float:
    return float(x.flatten(2).norm(dim=2).max())


def _measure_modules(
    model: DSNet,
    inputs: Mapping[nn.Module, Tensor],
    radii: Radii,
    measure: Measure,
) -> Iterator[ModuleConstants]:
    """Yields the constants of each module's blocks that take part."""
    stages = [stage for stage in walk_stages(model.graph) if isinstance(stage, ModuleStage)]
    modules = [module for module in model.stages if isinstance(module, RobustModule)]
    weights = model.attention.weights().detach().double().cpu().numpy()
    for stage, module, row in zip(stages, modules, weights, strict=True):
        points = inputs[module]
        names, bounds, local, columns = [], [], [], []
        for node, block, column, active in zip(
            stage.block_nodes, module.blocks, module.columns, module.active, strict=True
        ):
            if not active:
                continue
            names.append(model.graph.nodes[node]["block"])
            columns.append(column)
            bounds.append(_bound_of(node, block, tuple(points.shape[1:]), radii))
            local.append(float(measure(block, points).max()))
        yield ModuleConstants(tuple(names), row[columns], np.array(bounds), np.array(local))


def _bound_of(node: str, block: nn.Module, shape: tuple[int, ...], radii: Radii) -> float:
    try:
        return compute_block_bound(block, shape, radii)
    except ValueError as error:
        raise ValueError(f"block {node}: {error}") from None


def _bound_outside(
    model: DSNet, images: Tensor, inputs: Mapping[nn.Module, Tensor]
) -> dict[str, float]:
    reductions = [stage for stage in model.stages if not isinstance(stage, RobustModule)]
    bounds = {"stem": compute_block_bound(model.stem, tuple(images.shape[1:]))}
    for i, reduction in enumerate(reductions, start=1):
        shape = tuple(inputs[reduction].shape[1:])
        bounds[f"reduction{i}"] = compute_block_bound(reduction, shape)
    ((_, _, shape),) = model.graph.in_edges(find_node(model.graph, "pool"), data="shape")
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    bounds["head"] = compute_chain_bound([*pool, model.head], shape)
    return bounds


def compute_run_lipschitz(
    run: Run,
    *,
    num_images: int = 64,
    eps: float | None = None,
    num_ascents: int = 5,
    seed: int = 0,
) -> LipschitzAnalysis:
    """Bounds and measures the Lipschitz constants of a run's network at its test images.

    Args:
        run: The run.
        num_images: How many of them.
        eps: As in :func:`compute_lipschitz`; the run's own by default, and if it is one of L2, that
            of the largest L-infinity ball inside.
        num_ascents: As there.
        seed: As there.

    Raises:
        ValueError: If the folder or an argument is not usable, or the network is no DS-Net.
    """
    images, _ = first_images(run, "test", num_images)
    radius = run.config.eps if eps is None else eps
    if eps is None and run.config.norm == "L2":
        radius = min(1.0, radius / math.sqrt(images[0].numel()))
    return compute_lipschitz(run.network, images, eps=radius, num_ascents=num_ascents, seed=seed)


def draw_lipschitz(analysis: LipschitzAnalysis) -> Figure:
    """Draws each block's bound (hollow) and local constant (filled) by module, on a log scale."""
    figure = create_figure()
    axes = figure.add_subplot()
    names = list(dict.fromkeys(name for module in analysis.modules for name in module.blocks))
    for i, name in enumerate(names):
        color, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        points = [
            (number + 0.08 * (i - (len(names) - 1) / 2), bound, local)
            for number, module in enumerate(analysis.modules, start=1)
            for block, bound, local in zip(module.blocks, module.bounds, module.local, strict=True)
            if block == name
        ]
        at, bounds, local = zip(*points, strict=True)
        axes.plot(at, local, color=color, marker=marker, markersize=4.5, linestyle="", label=name)
        axes.plot(
            at, bounds, color=color, marker=marker, markersize=4.5, linestyle="", fillstyle="none"
        )
    axes.axhline(1, color="#888888", linewidth=0.8)
    axes.set_yscale("log")
    style_axes(
        axes,
        x="module",
        y="Lipschitz constant",
        title=f"{analysis.num_images} images",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(title="filled: local, hollow: bound", title_fontsize=7, frameon=False, fontsize=8)
    return figure
