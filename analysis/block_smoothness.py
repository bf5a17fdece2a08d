"""Theorem 3.5: smoothness and gradient variance of a module's blocks, in parallel and in sequence.

The theorem takes blocks to be matrices W_i and derives from the module (Fig. 3 a) what holds of the
same blocks in sequence (Fig. 3 b). Here both networks exist: the sequence is the trained network
with one module's blocks applied one after the other, weights unchanged. So the theorem's bounds can
be held against what is measured, and not only against its remark that they are larger.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from analysis.claims.claim import Claim, verdict_of
from analysis.curvature import compute_curvature
from analysis.gradient_variance import compute_gradient_variance
from analysis.local_lipschitz import compute_local_constants, record_inputs
from analysis.loss_gradients import Loss, choose_method
from analysis.run_images import first_images
from nasbench_at.attacks import attack_mode
from nasbench_at.evaluation.runs import Run
from nasbench_at.networks.ds_net import DSNet, RobustModule
from nasbench_at.training.methods import Method

__all__ = [
    "BlockSmoothness",
    "SequentialModule",
    "compute_block_smoothness",
    "compute_run_block_smoothness",
    "compute_sequence_bounds",
    "put_in_sequence",
]

Array = NDArray[np.float64]


class SequentialModule(RobustModule):
    """A module's blocks one after the other, Fig. 3 (b) of the paper; the weights are not used."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        for block, active in zip(self.blocks, self.active, strict=True):
            x = block(x) if active else x
        return x


@dataclass(frozen=True)
class BlockSmoothness:
    """The quantities of Theorem 3.5 for one module of N blocks; every array is of shape ``(N,)``.

    Attributes:
        blocks: Names of the blocks' parameters, in order i = 1..N.
        eigenvalues: λ_i: the block's largest local Lipschitz constant, for want of a matrix W_i.
        smoothness: L_i: the largest eigenvalue of the Hessian in the block's parameters.
        variances: σ_i²: variance of the gradient in them.
        smoothness_bounds: L_i Π_{k<i} λ_k.
        variance_bounds: N Σ_{k≥i} (σ_k/λ_i Π_{j≤k} λ_j)².
        sequence_smoothness: As ``smoothness``, measured with the blocks in sequence.
        sequence_variances: As ``variances``, measured with the blocks in sequence.
    """

    blocks: tuple[str, ...]
    eigenvalues: Array
    smoothness: Array
    variances: Array
    smoothness_bounds: Array
    variance_bounds: Array
    sequence_smoothness: Array
    sequence_variances: Array

    def claims(self) -> tuple[Claim, ...]:
        """Holds the theorem and its remark against the numbers."""
        num_below = int((self.eigenvalues < 1).sum())
        size = len(self.blocks)
        remark = (
            "all eigenvalues are at least 1, as the remark supposes"
            if num_below == 0
            else f"{num_below} of {size} eigenvalues are below 1, where the remark does not apply"
        )
        return (
            _compare(
                "the blocks in sequence are at least as smooth as Eq. (12) says, L_i Π λ_k",
                self.sequence_smoothness,
                self.smoothness_bounds,
                "the proof takes the blocks to be matrices and the gradients of their outputs to "
                "be those in parallel, and L_i was measured at these weights alone",
            ),
            _compare(
                "the blocks in sequence have at most the gradient variance of Eq. (12)",
                self.sequence_variances,
                self.variance_bounds,
                "on the same assumptions",
            ),
            _compare(
                "the module is at least as smooth as the blocks in sequence",
                self.smoothness,
                self.sequence_smoothness,
                remark,
            ),
            _compare(
                "the module has at most the gradient variance of the blocks in sequence",
                self.variances,
                self.sequence_variances,
                remark,
            ),
        )


def _compare(statement: str, smaller: Array, larger: Array, rest: str) -> Claim:
    num_held = int((smaller <= larger).sum())
    pairs = ", ".join(f"{a:.3g} <= {b:.3g}" for a, b in zip(smaller, larger, strict=True))
    return Claim(
        source="Thm. 3.5",
        statement=statement,
        verdict=verdict_of(num_held == smaller.size),
        explanation=f"so for {num_held} of {smaller.size} blocks (asked: {pairs}); {rest}",
    )


def compute_sequence_bounds(
    eigenvalues: ArrayLike, smoothness: ArrayLike, variances: ArrayLike
) -> tuple[Array, Array]:
    """Evaluates Eq. (12) of the paper.

    Args:
        eigenvalues: λ_i, positive, N of them.
        smoothness: L_i.
        variances: σ_i², at least 0.

    Returns:
        The bounds L_i Π_{k<i} λ_k and N Σ_{k≥i} (σ_k/λ_i Π_{j≤k} λ_j)², both of shape ``(N,)``.

    Raises:
        ValueError: If the three are not of one length, or a value is outside its range.
    """
    lambdas, slopes, noise = (
        np.asarray(row, dtype=np.float64) for row in (eigenvalues, smoothness, variances)
    )
    if not lambdas.shape == slopes.shape == noise.shape or lambdas.ndim != 1:
        raise ValueError(
            "eigenvalues, smoothness and variances must be of one length, got "
            f"shapes {lambdas.shape}, {slopes.shape} and {noise.shape}"
        )
    if not (lambdas > 0).all():
        raise ValueError(f"eigenvalues must be positive, got {lambdas.min():.4g}")
    if not (noise >= 0).all():
        raise ValueError(f"variances must be at least 0, got {noise.min():.4g}")
    products = np.cumprod(lambdas)
    terms = noise * products**2
    tails = np.cumsum(terms[::-1])[::-1]
    return slopes * products / lambdas, lambdas.size * tails / lambdas**2


def put_in_sequence(model: DSNet, module: int) -> DSNet:
    """Returns a copy of a network in which one module's blocks follow one another.

    Parameters keep their names.

    Args:
        model: The network.
        module: Which module, from 0.

    Raises:
        ValueError: If there is no such module.
    """
    stage = _stage_of(model, module)
    sequence = copy.deepcopy(model)
    parallel = sequence.stages[stage]
    assert isinstance(parallel, RobustModule)
    sequence.stages[stage] = SequentialModule(
        list(parallel.blocks), parallel.columns, parallel.active
    ).train(parallel.training)
    return sequence


def _stage_of(model: DSNet, module: int) -> int:
    stages = [i for i, stage in enumerate(model.stages) if isinstance(stage, RobustModule)]
    if not 0 <= module < len(stages):
        raise ValueError(f"module must lie in 0..{len(stages) - 1}, got {module}")
    return stages[module]


def compute_block_smoothness(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    module: int = 0,
    method: Method | None = None,
    num_images: int | None = None,
    batch_size: int = 128,
    num_batches: int | None = None,
    seed: int = 0,
) -> BlockSmoothness:
    """Evaluates Theorem 3.5 for one module of a DS-Net.

    Args:
        model: The network.
        images: In [0, 1], shape ``(N, C, H, W)``; the variance's batches are drawn from them.
        labels: True classes, shape ``(N,)``.
        module: Which module, from 0.
        method: How images become a loss; by default the cross entropy of the clean images.
        num_images: How many images L_i and λ_i are of, the first ones; all by default.
        batch_size: Images in a batch of the variance.
        num_batches: Batches of the variance; one pass by default.
        seed: Of starts, orders and attacks.

    Raises:
        ValueError: If the model is no DS-Net or an argument is not usable.
    """
    if not isinstance(model, DSNet):
        raise ValueError(f"model must be a DS-Net, got a {type(model).__name__}")
    stage = _stage_of(model, module)
    parallel = model.stages[stage]
    assert isinstance(parallel, RobustModule)
    names = tuple(f"stages.{stage}.blocks.{j}" for j, on in enumerate(parallel.active) if on)
    if num_images is not None and not 1 <= num_images <= len(labels):
        raise ValueError(f"num_images must lie in 1..{len(labels)}, got {num_images}")
    first, first_labels = images[:num_images], labels[:num_images]
    eigenvalues = np.array(_measure_eigenvalues(model, parallel, first, batch_size))

    def measure(network: DSNet) -> tuple[Array, Array]:
        smoothness, variances = [], []
        for name in names:
            curvature = compute_curvature(
                network,
                first,
                first_labels,
                method=method,
                layer=name,
                batch_size=batch_size,
                seed=seed,
            )
            variance = compute_gradient_variance(
                network,
                images,
                labels,
                method=method,
                layer=name,
                batch_size=batch_size,
                num_batches=num_batches,
                seed=seed,
            )
            smoothness.append(max(0.0, curvature.top_eigenvalue))
            variances.append(variance.variance)
        return np.array(smoothness), np.array(variances)

    smoothness, variances = measure(model)
    bounds = compute_sequence_bounds(eigenvalues, smoothness, variances)
    sequence = measure(put_in_sequence(model, module))
    return BlockSmoothness(names, eigenvalues, smoothness, variances, *bounds, *sequence)


def _measure_eigenvalues(
    model: DSNet, module: RobustModule, images: Tensor, batch_size: int
) -> list[float]:
    with attack_mode(model):
        points = record_inputs(model, [module], images)[module]
        return [
            float(compute_local_constants(block, points, batch_size=batch_size).max())
            for block, active in zip(module.blocks, module.active, strict=True)
            if active
        ]


def compute_run_block_smoothness(
    run: Run,
    *,
    module: int = 0,
    loss: Loss = "training",
    num_images: int = 512,
    num_batches: int = 50,
    seed: int = 0,
) -> BlockSmoothness:
    """Evaluates Theorem 3.5 for one module of a run's network, on its training images.

    Args:
        run: The run.
        module: As in :func:`compute_block_smoothness`.
        loss: ``natural``, ``adversarial`` or ``training``, see
            :func:`analysis.loss_gradients.choose_method`.
        num_images: As there.
        num_batches: Batches of the variance, of the run's size, drawn from all training images.
        seed: Of starts, orders and attacks.

    Raises:
        ValueError: If the folder or an argument is not usable, or the network is no DS-Net.
    """
    return compute_block_smoothness(
        run.network,
        *first_images(run, "train"),
        module=module,
        method=choose_method(run.config, loss),
        num_images=num_images,
        batch_size=run.config.batch_size,
        num_batches=num_batches,
        seed=seed,
    )
