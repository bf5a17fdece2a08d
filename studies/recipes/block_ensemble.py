"""Do diversity and learned weights matter? (Fig. 4, Sec. 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nasbench_at.config import RunConfig, resolve
from nasbench_at.training.plugins import load_plugins
from studies.config import StudyConfig
from studies.recipes.methods import parse_method
from studies.variants import (
    common_blocks,
    image_spec,
    match_width,
    num_params,
    with_blocks,
    with_seeds,
    with_training,
)

__all__ = ["block_ensemble"]


def block_ensemble(
    base: RunConfig,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    methods: tuple[str, ...] = ("at", "trades:1", "mart"),
    match_parameters: bool = True,
    data_root: Path | None = None,
) -> StudyConfig:
    """Compares learned weights with fixed uniform ones and with ensembles of one block.

    Six networks a way of training and seed for the paper's four blocks. The paper does not say
    whether the ensembles of one block have the network's number of parameters.

    Args:
        base: The run with learned weights.
        seeds: Train each with each of these.
        methods: Ways of training, with the weight of the robust term behind a colon.
        match_parameters: Give the ensembles of one block the parameters of the diverse network.
        data_root: Where the data set's files lie.

    Raises:
        ValueError: If the blocks differ from module to module, a way is unknown or no width meets
            the parameters.
    """
    base = base.spelled_out()
    names = common_blocks(base, "block_ensemble")
    load_plugins(base.plugins)
    images = image_spec(base, data_root)
    target = num_params(base, images)
    learned = replace(base, attention="learned")
    uniform = replace(base, attention="fixed", attention_init="equal", attention_init_options={})
    variants = {"learned": learned, "uniform": uniform}
    for name in dict.fromkeys(names):
        same = with_blocks(uniform, (name,) * len(names))
        variants[f"{name} x{len(names)}"] = (
            match_width(same, images, target) if match_parameters else same
        )
    runs = [
        planned
        for method in methods
        for variant, config in variants.items()
        for planned in with_seeds(
            {"method": method, "variant": variant},
            with_training(config, *parse_method(method)),
            seeds,
        )
    ]
    return StudyConfig("block-ensemble", "block-ensemble", resolve(base), tuple(runs))
