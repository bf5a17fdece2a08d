"""The recipes: hyper-parameters by data set, method and source, as data.

``paper`` is what Sec. 4.1 prints, ``authors`` what the authors' code (d12306/dsnet) does. Where a
data set has no recipe of its own, the values below were chosen for it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from nasbench_at.config import Hyperparameters, RunConfig
from nasbench_at.networks.architecture import Recipe

__all__ = ["find_preset", "resolve"]


_CIFAR10_AT = Hyperparameters(
    eps=0.031,
    step_size=0.007,
    attack_steps=10,
    attack_start="uniform",
    attack_noise=0.0,
    epochs=120,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    milestones=(60, 90),
    milestone_factors=(0.1, 0.01),
    attention_lr=1e-3,
    attention_weight_decay=1e-3,
    attention_betas=(0.9, 0.999),
)

_PRESETS: Mapping[tuple[str, str, Recipe], Hyperparameters] = {
    ("cifar10", "at", "paper"): _CIFAR10_AT,
    ("cifar10", "at", "authors"): replace(
        _CIFAR10_AT,
        attack_noise=0.001,
        milestones=(60, 90, 110),
        milestone_factors=(0.1, 0.01, 0.005),
        attention_betas=(0.5, 0.999),
    ),
}
# Data sets without a recipe in the paper take CIFAR-10's, with these values in their place.
_DATA_VALUES: Mapping[str, Mapping[str, float | int]] = {
    "digits": {"eps": 0.1, "step_size": 0.025, "epochs": 20},
}


def find_preset(data: str, method: str, recipe: Recipe) -> Hyperparameters:
    """Returns the recipe for a data set and a method.

    Raises:
        ValueError: If there is none for this method.
    """
    preset = _PRESETS.get((data, method, recipe)) or _PRESETS.get(("cifar10", method, recipe))
    if preset is None:
        methods = sorted({known for _, known, _ in _PRESETS})
        raise ValueError(f"no recipe for method {method!r}; known: {', '.join(methods)}")
    values = _DATA_VALUES.get(data, {})
    epochs = int(values.get("epochs", preset.epochs))
    milestones = _scale_milestones(preset.milestones, preset.epochs, epochs)
    return replace(preset, **values, milestones=milestones)  # type: ignore[arg-type]


def resolve(config: RunConfig) -> RunConfig:
    """Fills in every unset field from the recipe.

    Another ``eps`` scales the recipe's step size along with it, and another number of epochs its
    milestones, unless those are set too.

    Args:
        config: A configuration, possibly with unset fields.

    Returns:
        The configuration without unset training fields; itself if there were none.

    Raises:
        ValueError: If there is no recipe for the method.
    """
    preset = find_preset(config.data, config.method, config.recipe)
    if config.eps not in (None, 0, preset.eps):
        preset = replace(preset, step_size=preset.step_size * config.eps / preset.eps)
    if config.epochs is not None:
        milestones = _scale_milestones(preset.milestones, preset.epochs, config.epochs)
        preset = replace(preset, milestones=milestones)
    if config.milestones is not None and config.milestone_factors is None:
        preset = replace(
            preset, milestone_factors=tuple(0.1 ** (i + 1) for i in range(len(config.milestones)))
        )
    unset = {
        field.name: getattr(preset, field.name)
        for field in fields(preset)
        if getattr(config, field.name) is None
    }
    init = config.architecture((1, 8, 8), 2).attention.init
    return replace(config, attention_init=init, **unset)


def _scale_milestones(milestones: tuple[int, ...], epochs: int, new_epochs: int) -> tuple[int, ...]:
    """Keeps each rate's share of the epochs; the first epoch always runs at the full rate."""
    if new_epochs == epochs:
        return milestones
    return tuple(
        max(2, 1 + round((milestone - 1) * new_epochs / epochs)) for milestone in milestones
    )
