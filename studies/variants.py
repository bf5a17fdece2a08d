"""Variants of a run: another block set, another width, another network, other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from nasbench_at.config import DS_NET_FIELDS, RunConfig, resolve
from nasbench_at.config.architecture import Blocks, block_sets
from nasbench_at.data import ImageSpec
from nasbench_at.networks.graph import count_planned_parameters
from nasbench_at.networks.widths import match_parameters
from nasbench_at.records.naming.labels import describe_blocks
from nasbench_at.runtime.devices import select_device
from nasbench_at.training.launch import fit_batch_size, load_config_data
from studies.config import Label, PlannedRun

__all__ = [
    "common_blocks",
    "fit_batch",
    "fit_width",
    "image_spec",
    "match_width",
    "num_params",
    "with_blocks",
    "with_model",
    "with_seeds",
    "with_training",
]

ConfigT = TypeVar("ConfigT", bound=RunConfig)


@lru_cache(maxsize=8)
def _image_spec(data: str, data_root: Path | None) -> ImageSpec:
    loaded = load_config_data(RunConfig(data=data), select_device("cpu"), data_root)
    return loaded.spec


def image_spec(config: RunConfig, data_root: str | Path | None = None) -> ImageSpec:
    """Returns what a network for a run's data must fit.

    Raises:
        ValueError: If the data set is unknown or not usable.
    """
    return _image_spec(config.data, None if data_root is None else Path(data_root))


def fit_batch(config: RunConfig, data_root: str | Path | None = None) -> RunConfig:
    """Returns a run whose data are enough for its batch, if that is left to the recipe.

    Raises:
        ValueError: If the data set is unknown or not usable.
    """
    if config.batch_size is not None:
        return config
    resolved = resolve(config)
    data = load_config_data(resolved, select_device("cpu"), data_root)
    fitting = fit_batch_size(resolved, len(data.train)).batch_size
    return config if fitting == resolved.batch_size else replace(config, batch_size=fitting)


def common_blocks(base: RunConfig, recipe: str) -> tuple[str, ...]:
    """Returns the block set of all modules of a run's DS-Net.

    Raises:
        ValueError: If the modules differ; the message names the recipe.
    """
    names = base.architecture((1, 8, 8), 2).block_set  # whatever the images are
    if names is None:
        raise ValueError(f"{recipe} takes one block set for all modules, got one for each")
    return names


def with_blocks(config: ConfigT, blocks: Blocks, **changes: Any) -> ConfigT:
    """Returns a run with another block set; options of blocks that it lacks are left out."""
    sets = block_sets(blocks, changes.get("num_modules", config.num_modules))
    used = {name for names in sets for name in names}

    def restrict(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in used}

    return replace(
        config,
        blocks=blocks,
        block_options=restrict(config.block_options),
        block_copies=restrict(config.block_copies),
        **changes,
    )


def with_model(
    config: RunConfig, model: str, options: Mapping[str, Any] | None = None
) -> RunConfig:
    """Returns a run of another network; what describes a DS-Net does not go with one by name."""
    if model == "ds_net":
        return config
    network = RunConfig(model=model, model_options=dict(options or {})).spelled_out()
    changed = ("model", "model_options", *DS_NET_FIELDS)
    return replace(config, **{name: getattr(network, name) for name in changed})


def with_training(config: RunConfig, method: str, beta: float | None = None) -> RunConfig:
    """Returns a run trained in another way; the other way's options go back to its recipe's.

    Args:
        config: A run, before or after :func:`nasbench_at.config.resolve`.
        method: The other way.
        beta: Weight of its robust term, where it has one.
    """
    if method == config.method and beta is None:
        return config
    return replace(config, method=method, beta=beta, tau_milestones=None)


def with_seeds(
    labels: Mapping[str, Label], config: RunConfig, seeds: Sequence[int]
) -> list[PlannedRun]:
    """Returns a run with each of some seeds, all filled in."""
    return [
        PlannedRun({**labels, "seed": seed}, resolve(replace(config, seed=seed))) for seed in seeds
    ]


def num_params(config: RunConfig, images: ImageSpec) -> int:
    """Returns the parameters of a run's DS-Net, attention logits not counted."""
    return count_planned_parameters(config.architecture(images.image_shape, images.num_classes))


def match_width(
    config: RunConfig, images: ImageSpec, target: int, tolerance: float | None = None
) -> RunConfig:
    """Returns a run of the width that comes closest to a number of parameters (Sec. 4.5).

    Args:
        config: The run, whose ``init_channels`` is replaced.
        images: What the network must fit.
        target: Number of parameters.
        tolerance: As in :func:`match_parameters <nasbench_at.match_parameters>`: where it is
            given, ``widen_factor`` is replaced, too.

    Raises:
        ValueError: If no width comes near it.
    """
    architecture = config.architecture(images.image_shape, images.num_classes)
    found = match_parameters(architecture, target, tolerance)
    return replace(config, init_channels=found.init_channels, widen_factor=found.widen_factor)


def fit_width(config: RunConfig, images: ImageSpec, budget: int) -> RunConfig:
    """Returns a run of the greatest width within a number of parameters.

    Raises:
        ValueError: If no width is.
    """
    matched = match_width(config, images, budget)
    for width in range(matched.init_channels, 0, -1):
        fitting = replace(matched, init_channels=width)
        # Some blocks need several channels, or a multiple of some number.
        with suppress(ValueError):
            if num_params(fitting, images) <= budget:
                return fitting
    blocks = describe_blocks(config.architecture(images.image_shape, images.num_classes))
    raise ValueError(f"no width of blocks {blocks} meets a budget of {budget} parameters")
