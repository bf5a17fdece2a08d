"""The recipes: hyper-parameters by data set, method and source, as data.

``paper`` is what Sec. 4.1 prints, ``authors`` what the authors' code (d12306/dsnet) does. Methods
that the paper does not train with have their own papers' values under both names. A data set
without a recipe takes CIFAR-10's, with its own values of :data:`DATA_VALUES` in their place.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from nasbench_at.config.architecture import Recipe
from nasbench_at.config.contents import changed_contents, hash_contents
from nasbench_at.config.run_config import Hyperparameters, RunConfig

__all__ = ["DATA_NETWORKS", "DATA_VALUES", "find_preset", "resolve"]

_AT = Hyperparameters(
    eps=0.031,
    step_size=0.007,
    attack_steps=10,
    attack_start="uniform",
    attack_noise=0.0,
    beta=None,
    tau_milestones=None,
    epochs=120,
    batch_size=128,
    augment=True,
    lr=0.1,
    lr_schedule="milestones",
    warmup_epochs=0,
    momentum=0.9,
    weight_decay=5e-4,
    milestones=(60, 90),
    milestone_factors=(0.1, 0.01),
    attention_lr=1e-3,
    attention_weight_decay=1e-3,
    attention_betas=(0.9, 0.999),
)
# Started at 0.001 N(0, 1) from the image, as in the TRADES and MART papers' code.
_TRADES = replace(
    _AT, attack_start="normal", beta=6.0, epochs=85, milestones=(75,), milestone_factors=(0.1,)
)
_MART = replace(
    _AT, attack_start="normal", beta=6.0, epochs=90, milestones=(60,), milestone_factors=(0.1,)
)
# Zhang et al., "Attacks Which Do Not Kill Training Make Adversarial Learning Stronger", ICML 2020.
_FAT = replace(
    _AT,
    attack_noise=0.001,
    tau_milestones=(51, 91),
    weight_decay=2e-4,
    milestones=(60, 90, 110),
    milestone_factors=(0.1, 0.01, 0.005),
)
_FAT_TRADES = replace(_TRADES, tau_milestones=(31, 51, 71), weight_decay=2e-4)
# Wong et al., "Fast is better than free", ICLR 2020.
_FAST_AT = replace(
    _AT,
    eps=8 / 255,
    step_size=10 / 255,
    attack_steps=1,
    epochs=15,
    lr=0.2,
    lr_schedule="cyclic",
    milestones=(),
    milestone_factors=(),
)

_AUTHORS: Mapping[str, Any] = {"attention_betas": (0.5, 0.999)}
_SVHN_WARMUP: Mapping[str, Any] = {"step_size": 0.0031, "warmup_epochs": 5}

_PRESETS: Mapping[tuple[str, str, Recipe], Hyperparameters] = {
    ("cifar10", "st", "paper"): _AT,
    ("cifar10", "at", "paper"): _AT,
    ("cifar10", "trades", "paper"): _TRADES,
    ("cifar10", "mart", "paper"): _MART,
    ("cifar10", "fat", "paper"): _FAT,
    ("cifar10", "fat_trades", "paper"): _FAT_TRADES,
    ("cifar10", "fast_at", "paper"): _FAST_AT,
    ("cifar10", "st", "authors"): replace(_AT, **_AUTHORS),
    ("cifar10", "at", "authors"): replace(
        _AT,
        attack_noise=0.001,
        milestones=(60, 90, 110),
        milestone_factors=(0.1, 0.01, 0.005),
        **_AUTHORS,
    ),
    ("cifar10", "trades", "authors"): replace(
        _TRADES, attack_noise=0.001, milestones=(75, 90), milestone_factors=(0.1, 0.01), **_AUTHORS
    ),
    ("cifar10", "mart", "authors"): replace(
        _MART,
        attack_start="uniform",
        milestones=(60, 90),
        milestone_factors=(0.1, 0.01),
        **_AUTHORS,
    ),
    ("cifar10", "fat", "authors"): replace(_FAT, **_AUTHORS),
    ("cifar10", "fat_trades", "authors"): replace(_FAT_TRADES, **_AUTHORS),
    ("cifar10", "fast_at", "authors"): replace(_FAST_AT, **_AUTHORS),
    # "Reduced by 20" epochs, the epochs of the decays too.
    ("svhn", "at", "paper"): replace(_AT, step_size=0.003, epochs=100, milestones=(40, 70)),
    ("svhn", "trades", "paper"): replace(_TRADES, step_size=0.003, epochs=65, milestones=(55,)),
    ("svhn", "mart", "paper"): replace(_MART, step_size=0.003, epochs=70, milestones=(40,)),
    ("svhn", "at", "authors"): replace(
        _AT,
        attack_noise=0.001,
        epochs=100,
        milestones=(40, 70, 90),
        milestone_factors=(0.1, 0.01, 0.005),
        **_SVHN_WARMUP,
        **_AUTHORS,
    ),
    ("svhn", "trades", "authors"): replace(
        _TRADES,
        attack_noise=0.001,
        epochs=65,
        milestones=(55, 70),
        milestone_factors=(0.1, 0.01),
        **_SVHN_WARMUP,
        **_AUTHORS,
    ),
    ("svhn", "mart", "authors"): replace(
        _MART,
        attack_start="uniform",
        epochs=70,
        milestones=(40, 70),
        milestone_factors=(0.1, 0.01),
        **_SVHN_WARMUP,
        **_AUTHORS,
    ),
}

DATA_VALUES: Mapping[str, Mapping[str, Any]] = {
    "cifar10": {},
    "cifar100": {},
    "svhn": {},
    "digits": {"eps": 0.1, "epochs": 20, "batch_size": 64, "augment": False},
    "fashion_mnist": {"eps": 0.1, "epochs": 40, "augment": False},
}
"""Values chosen here for data sets that the paper does not use.

Data that is not known here is not augmented: a mirrored or shifted image may mean something else.
"""

DATA_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "digits": {"num_modules": 3, "init_channels": 8, "widen_factor": 2},
}
"""DS-Nets of a size that fits data much smaller than CIFAR-10, for the trials of studies."""


def find_preset(data: str, method: str, recipe: Recipe) -> Hyperparameters:
    """Returns the recipe for a data set and a method.

    A method of the user's own takes those of ``at``.
    """
    preset = (
        _PRESETS.get((data, method, recipe))
        or _PRESETS.get(("cifar10", method, recipe))
        or _PRESETS["cifar10", "at", recipe]
    )
    return _adapt(preset, DATA_VALUES.get(data, {"augment": False}))


def resolve(config: RunConfig) -> RunConfig:
    """Fills in every unset field from the recipe.

    Another ``eps`` scales the recipe's step size along with it, and another number of epochs its
    warm-up and its milestones, unless those are set too. The contents of its files are taken anew:
    a stored configuration whose files have changed becomes another run, and a warning names them.

    Args:
        config: A configuration, possibly with unset fields.

    Returns:
        The configuration without unset fields but those that the method does not have.
    """
    preset = find_preset(config.data, config.method, config.recipe)
    asked = {
        name: value
        for name in ("eps", "epochs")
        if (value := getattr(config, name)) is not None and value > 0
    }
    preset = _adapt(preset, asked)
    if config.milestones is not None and config.milestone_factors is None:
        factors = tuple(0.1 ** (i + 1) for i in range(len(config.milestones)))
        preset = replace(preset, milestone_factors=factors)
    unset = {
        field.name: getattr(preset, field.name)
        for field in fields(preset)
        if getattr(config, field.name) is None
    }
    if config.model == "ds_net":
        init = config.architecture((1, 8, 8), 2).attention.init
        config = replace(config, attention_init=init)
    select_on = config.select_on or ("test" if config.recipe == "authors" else "validation")
    return replace(config, select_on=select_on, contents=_contents_of(config), **unset)


def _contents_of(config: RunConfig) -> dict[str, str]:
    names = (*config.plugins, config.data)
    stored = {name: config.contents[name] for name in names if name in config.contents}
    changed = changed_contents(stored)
    if changed:
        warnings.warn(
            f"{', '.join(map(repr, changed))} changed since the configuration was written: this "
            "is another run",
            stacklevel=3,
        )
    return hash_contents(names)


def _adapt(preset: Hyperparameters, values: Mapping[str, Any]) -> Hyperparameters:
    """Puts values in a recipe's place; what is measured in them moves along."""
    adapted = replace(preset, **values)
    if adapted.eps != preset.eps:
        adapted = replace(adapted, step_size=preset.step_size * adapted.eps / preset.eps)
    if adapted.epochs != preset.epochs:
        taus = preset.tau_milestones
        adapted = replace(
            adapted,
            warmup_epochs=round(preset.warmup_epochs * adapted.epochs / preset.epochs),
            milestones=_scale(preset.milestones, preset.epochs, adapted.epochs),
            tau_milestones=None if taus is None else _scale(taus, preset.epochs, adapted.epochs),
        )
    return adapted


def _scale(milestones: tuple[int, ...], epochs: int, new_epochs: int) -> tuple[int, ...]:
    """Keeps each milestone's share of the epochs; the first epoch always comes before them."""
    return tuple(
        max(2, 1 + round((milestone - 1) * new_epochs / epochs)) for milestone in milestones
    )
