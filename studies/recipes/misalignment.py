"""Is the best network by natural accuracy the most robust one? (Tab. 1)."""

from __future__ import annotations

from collections.abc import Sequence

from nasbench_at.config import RunConfig, resolve
from nasbench_at.networks.zoo import find_models
from studies.config import StudyConfig
from studies.variants import with_model, with_seeds, with_training

__all__ = ["misalignment"]

PAPER_MODELS = (
    *("wrn_28_10", "resnet_62", "densenet121", "mobilenet_v2", "ada_rk_net_62", "resnet50"),
)


def misalignment(
    base: RunConfig,
    *,
    seeds: Sequence[int] = (0,),
    models: tuple[str, ...] = PAPER_MODELS,
) -> StudyConfig:
    """Trains networks by standard and by adversarial training, to rank them twice.

    Twelve runs a seed for the paper's six networks.

    Args:
        base: The run whose other settings hold for all; its method is the adversarial one.
        seeds: Train each with each of these.
        models: Names of networks, or shell patterns such as 'tiny_*'.

    Raises:
        ValueError: If the base's method is st, or a pattern matches no network.
    """
    if base.method == "st":
        raise ValueError("method must be another than st, which all networks are trained by")
    runs = [
        planned
        for model in find_models(models)
        for config in (with_training(base, "st"), base)
        for planned in with_seeds(
            {"model": model, "method": config.method}, with_model(config, model), seeds
        )
    ]
    return StudyConfig("misalignment", "misalignment", resolve(base), tuple(runs))
