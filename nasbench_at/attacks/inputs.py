"""Are these images, labels and settings that an attack can work with?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_inputs(
    x: Tensor, y: Tensor, *, num_classes: int | None = None, check_values: bool = True
) -> None:
    """Raises if `x` and `y` are not images in [0, 1] with their classes.

    Looking at values on a GPU makes the host wait. Attacks therefore look at values on the CPU
    only; whoever feeds them from a GPU calls this once for the whole data set.

    Args:
        x: Images.
        y: True classes.
        num_classes: How many classes there are, if known.
        check_values: Whether to look at the values, or only at types and shapes.

    Shapes:
        x: (N, ...). y: (N,).

    Raises:
        ValueError: If `x` is not floating point, `y` is not int64 or not of the length of `x`, if
            there are no images, a pixel lies outside [0, 1] or is not a number, or a label lies
            outside 0..num_classes-1.
    """
    if not x.is_floating_point():
        raise ValueError(f"images must be floating point in [0, 1], got {x.dtype}")
    if y.dtype != torch.int64:
        raise ValueError(f"labels must be int64, got {y.dtype}")
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
        raise ValueError(
            "images (N, ...) and labels (N,) must be of one length, "
            f"got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if len(x) == 0:
        raise ValueError("there must be at least one image, got none")
    if check_values:
        _check_pixels(x)
        _check_labels(y, num_classes)


def _check_pixels(x: Tensor) -> None:
    low, high = (bound.item() for bound in x.aminmax())
    if not (low >= 0 and high <= 1):  # written so that a nan is refused too
        raise ValueError(f"images must lie in [0, 1], got values from {low:.4g} to {high:.4g}")


def _check_labels(y: Tensor, num_classes: int | None) -> None:
    low, high = (int(bound) for bound in y.aminmax())
    if low < 0 or (num_classes is not None and high >= num_classes):
        allowed = "at least 0" if num_classes is None else f"in 0..{num_classes - 1}"
        raise ValueError(f"labels must be {allowed}, got labels from {low} to {high}")


def check_number(name: str, value: object, *, whole: bool = False) -> None:
    """Raises ValueError unless a setting is a number, or a whole one; not its range."""
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ValueError(f"{name} must be a {'whole ' * whole}number, got {value!r}")


def check_count(name: str, value: int, *, least: int = 1) -> None:
    """Raises ValueError unless a setting is a whole number from `least` on."""
    check_number(name, value, whole=True)
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raises ValueError unless a setting is one of some words."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
