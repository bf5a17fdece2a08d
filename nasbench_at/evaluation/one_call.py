"""Anybody's model measured in one call, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from nasbench_at.config.run_config import NormName
from nasbench_at.data.custom import to_labelled_images
from nasbench_at.data.images import LabelledImages
from nasbench_at.evaluation.measures import measures_by_eps
from nasbench_at.evaluation.options import EvaluationOptions
from nasbench_at.evaluation.robustness import RobustnessReport, measure_robustness

__all__ = ["evaluate"]


def evaluate(
    model: nn.Module,
    x: Any,
    y: Any,
    *,
    eps: float,
    attacks: Sequence[str] | None = None,
    norm: NormName = "Linf",
    num_images: int | str | None = None,
    aa_samples: int | str | None = None,
    counts: Literal["last", "any"] = "any",
    restarts: int = 1,
    step_size: float | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> RobustnessReport:
    """Measures a model's accuracy, natural and under attacks, where the model lies.

    The model is attacked in float32 and eval mode and comes back as it was. Printed, the report is
    a table.

    Args:
        model: From images in [0, 1] to logits, normalisation included.
        x: Images: an array or tensor of uint8, or of floats in [0, 1], which are rounded to 255
            steps; shape ``(N, C, H, W)``, ``(N, H, W, C)`` or ``(N, H, W)``.
        y: Labels from 0, integers, shape ``(N,)``.
        eps: Radius; under ``Linf`` in pixel scale, 8/255 or the like.
        attacks: Some of :data:`nasbench_at.evaluation.options.ROW_NAMES`; by default ``fgsm``,
            ``pgd`` (20 steps), ``cw`` (30) and ``aa`` (AutoAttack), under ``L2`` ``pgd`` and
            ``aa``.
        norm: ``Linf`` or ``L2``.
        num_images: Measure on a part of the images, drawn at random with the seed: a count or a
            percentage such as ``"12.5%"``.
        aa_samples: Let AutoAttack alone see a part.
        counts: Whether ``any`` iterate of ``pgd`` and ``cw`` counts, or the ``last``.
        restarts: Runs of ``pgd`` and ``cw`` from other random starts.
        step_size: Their step; the paper's by default.
        batch_size: Images at a time.
        seed: Of everything random.

    Raises:
        ValueError: If an argument is out of range, the images or labels are not usable, or the
            model does not take them.
    """
    options = EvaluationOptions(
        attacks=None if attacks is None else tuple(attacks),
        eps=(eps,),
        norm=norm,
        step_size=step_size,
        restarts=restarts,
        counts=counts,
        seed=seed,
    )
    (measures,) = measures_by_eps(options, method="at").values()
    data = to_labelled_images(x, y)
    weight = next(model.parameters(), torch.empty(0))
    data = LabelledImages(data.images.to(weight.device), data.labels.to(weight.device))
    return measure_robustness(
        model,
        data,
        measures,
        batch_size=batch_size,
        seed=seed,
        num_images=num_images,
        aa_samples=aa_samples,
    )
