"""The recipes: hyper-parameters by data set, method and source, as data.

``paper`` is what Sec. 4.1 prints, ``authors`` what the authors' code (d12306/dsnet) does. Methods
that the paper does not train with have their own papers' values under both names. A data set
without a recipe takes CIFAR-10's, with its own values of :data:`DATA_VALUES` in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasbench_at.config.architecture import Recipe

__all__ = [
    "DATA_NETWORKS",
    "DATA_VALUES",
    "L2_RADII",
    "L2_VALUES",
    "SCALED",
    "adapt_preset",
    "find_preset",
]

SCALED = ("step_size", "warmup_epochs", "milestones", "tau_milestones")
"""Values of a recipe that move along with its radius and its number of epochs."""

# A perturbation of 0.001 N(0, 1) to start from, as in the TRADES and MART papers' code.
_TRADES = {"attack_start": "normal", "beta": 6.0, "epochs": 85}
_TRADES |= {"milestones": (75,), "milestone_factors": (0.1,)}
_SVHN_WARMUP = {"step_size": 0.0031, "warmup_epochs": 5}

_LAYERS: Mapping[tuple[str, str, str], Mapping[str, Any]] = {
    ("*", "st", "*"): {},
    ("*", "trades", "*"): _TRADES,
    ("*", "mart", "*"): {**_TRADES, "epochs": 90, "milestones": (60,)},
    # Zhang et al., "Attacks Which Do Not Kill Training Make Adversarial Learning Stronger",
    # ICML 2020.
    ("*", "fat", "*"): {
        "attack_noise": 0.001,
        "tau_milestones": (51, 91),
        "weight_decay": 2e-4,
        "milestones": (60, 90, 110),
        "milestone_factors": (0.1, 0.01, 0.005),
    },
    ("*", "fat_trades", "*"): {
        **_TRADES,
        "tau_milestones": (31, 51, 71),
        "weight_decay": 2e-4,
    },
    # Wong et al., "Fast is better than free", ICLR 2020.
    ("*", "fast_at", "*"): {
        "eps": 8 / 255,
        "step_size": 10 / 255,
        "attack_steps": 1,
        "epochs": 15,
        "lr": 0.2,
        "lr_schedule": "cyclic",
        "milestones": (),
        "milestone_factors": (),
    },
    # "Reduced by 20" epochs, the epochs of the decays too.
    ("svhn", "at", "*"): {"step_size": 0.003, "epochs": 100, "milestones": (40, 70)},
    ("svhn", "trades", "*"): {"step_size": 0.003, "epochs": 65, "milestones": (55,)},
    ("svhn", "mart", "*"): {"step_size": 0.003, "epochs": 70, "milestones": (40,)},
    ("*", "*", "authors"): {"attention_betas": (0.5, 0.999), "select_on": "test"},
    ("*", "at", "authors"): {
        "attack_noise": 0.001,
        "milestones": (60, 90, 110),
        "milestone_factors": (0.1, 0.01, 0.005),
    },
    ("*", "trades", "authors"): {
        "attack_noise": 0.001,
        "milestones": (75, 90),
        "milestone_factors": (0.1, 0.01),
    },
    ("*", "mart", "authors"): {
        "attack_start": "uniform",
        "milestones": (60, 90),
        "milestone_factors": (0.1, 0.01),
    },
    ("svhn", "at", "authors"): {"milestones": (40, 70, 90), **_SVHN_WARMUP},
    ("svhn", "trades", "authors"): {"milestones": (55, 70), **_SVHN_WARMUP},
    ("svhn", "mart", "authors"): {"milestones": (40, 70), **_SVHN_WARMUP},
}
"""What differs from the paper's values for a data set, a method and a recipe, ``*`` being any.

Later layers win.
"""

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

L2_VALUES: Mapping[str, Any] = {"eps": 128 / 255, "step_size": 15 / 255}
"""Radius and step of training under L2, for every method: PGD-10 on CIFAR-10 of Rice et al.,
"Overfitting in adversarially robust deep learning", ICML 2020. RobustBench evaluates at 0.5.
"""

L2_RADII: Mapping[str, float] = {"digits": 0.5, "fashion_mnist": 1.0}
"""Radii chosen here, at which a network keeps some of its accuracy; the step moves along."""

DATA_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "digits": {"num_modules": 3, "init_channels": 8, "widen_factor": 2},
}
"""DS-Nets of a size that fits data much smaller than CIFAR-10, for the trials of studies."""


def find_preset(
    paper: Mapping[str, Any], data: str, method: str, recipe: Recipe, *, norm: str = "Linf"
) -> dict[str, Any]:
    """Returns the recipe for a data set and a method: field to value.

    Args:
        paper: What all recipes start from.
        data: Name of the data set.
        method: Way of training; one of the user's own takes the values of ``at``.
        recipe: ``paper`` or ``authors``.
        norm: ``Linf`` or ``L2``; neither source has values of L2, which are of :data:`L2_VALUES`.
    """
    if all(known != method for _, known, _ in _LAYERS):
        method = "at"
    preset = dict(paper)
    for (of_data, of_method, of_recipe), values in _LAYERS.items():
        if of_data in ("*", data) and of_method in ("*", method) and of_recipe in ("*", recipe):
            preset |= values
    values = dict(DATA_VALUES.get(data, {"augment": False}))
    if norm == "L2":
        preset |= L2_VALUES
        values["eps"] = L2_RADII.get(data, L2_VALUES["eps"])
    return adapt_preset(preset, values)


def adapt_preset(preset: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe with values in its own's place; what is measured in them moves along."""
    adapted = {**preset, **values}
    if adapted["eps"] != preset["eps"]:  # else the step stays as it is, to the last bit
        adapted["step_size"] = preset["step_size"] * adapted["eps"] / preset["eps"]
    epochs = preset["epochs"], adapted["epochs"]
    adapted["warmup_epochs"] = round(preset["warmup_epochs"] * epochs[1] / epochs[0])
    for name in ("milestones", "tau_milestones"):
        if name in preset:
            adapted[name] = _scale(preset[name], *epochs)
    return adapted


def _scale(milestones: tuple[int, ...], epochs: int, new_epochs: int) -> tuple[int, ...]:
    """Keeps each milestone's share of the epochs; the first epoch always comes before them."""
    return tuple(
        max(2, 1 + round((milestone - 1) * new_epochs / epochs)) for milestone in milestones
    )
