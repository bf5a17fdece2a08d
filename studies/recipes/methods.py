"""Networks by ways of training by seeds (Tabs. 2, 3 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

from nasbench_at.config import RunConfig, resolve
from nasbench_at.networks.zoo import find_models
from nasbench_at.training.methods import list_methods
from studies.config import StudyConfig
from studies.variants import with_model, with_seeds, with_training

__all__ = ["methods", "parse_method"]

PAPER_MODELS = (
    *("resnet50", "wrn_34_10", "sat_resnet50", "sat_wrn_34_10", "ie_resnet50", "ie_wrn_34_10"),
    *("ada_rk_net_62", "robnet_large_v2", "ds_net_4", "ds_net_6"),
)


def methods(
    base: RunConfig,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    models: tuple[str, ...] = PAPER_MODELS,
    methods: tuple[str, ...] = ("at", "trades:1", "trades:6", "mart"),
) -> StudyConfig:
    """Trains each of several networks in each of several ways.

    Forty runs a seed for the paper's ten networks.

    Args:
        base: The run whose other settings hold for all.
        seeds: Train each with each of these.
        models: Names of networks, or shell patterns such as 'tiny_*'; ds_net is the base's own.
        methods: Ways of training, with the weight of the robust term behind a colon.

    Raises:
        ValueError: If a network or a way is unknown.
    """
    own = ["ds_net"] if "ds_net" in models else []
    named = [name for name in models if name != "ds_net"]
    runs = [
        planned
        for method in methods
        for model in (*own, *(find_models(named) if named else ()))
        for planned in with_seeds(
            {"model": model, "method": method},
            with_training(with_model(base, model), *parse_method(method)),
            seeds,
        )
    ]
    return StudyConfig("methods", "methods", resolve(base), tuple(runs))


def parse_method(way: str) -> tuple[str, float | None]:
    """Reads ``at`` or ``trades:6``.

    Raises:
        ValueError: If there is no such method, or no number behind the colon.
    """
    method, colon, beta = way.partition(":")
    if method not in list_methods():
        raise ValueError(f"method must be one of {', '.join(list_methods())}, got {method!r}")
    try:
        return method, float(beta) if colon else None
    except ValueError:
        raise ValueError(f"behind the colon of {way!r} must be a number") from None
