"""The registry of networks by name, the paper's own and those it compares with.

A network is registered by decorating a function called as
``build(num_classes, input_shape, **options)``. Its options and their defaults are read from the
signature, so that they are written once.
"""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from torch import nn

from blocks.registry import check_options, options_after
from nasbench_at.config.allowed_values import check_value
from nasbench_at.config.architecture import InputShape, NumClasses
from nasbench_at.config.suggestions import suggest

__all__ = [
    "InputShape",
    "ModelInfo",
    "create_model",
    "find_models",
    "list_families",
    "list_models",
    "model_info",
    "register_model",
    "register_model_pattern",
]

ModelBuilder: TypeAlias = Callable[..., nn.Module]
BuilderT = TypeVar("BuilderT", bound=ModelBuilder)


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a network without building it.

    Attributes:
        name: The stable name by which configurations and records refer to it.
        summary: One line: what it is.
        reference: Paper, or the code it follows.
        options: Keyword options and their defaults.
        build: Called as ``build(num_classes, input_shape, **options)``.
    """

    name: str
    summary: str
    reference: str
    options: Mapping[str, Any]
    build: ModelBuilder


_REGISTRY: dict[str, ModelInfo] = {}
_FAMILIES: dict[str, tuple[str, Callable[..., ModelInfo]]] = {}
"""By example, the expression of the names, and what describes the network of one's numbers."""


def register_model(name: str, *, summary: str, reference: str) -> Callable[[BuilderT], BuilderT]:
    """Registers a network builder under a stable name.

    Args:
        name: Lower-case identifier, such as ``"wrn_34_10"``.
        summary: One line: what the network is.
        reference: Where it comes from.

    Returns:
        A decorator that returns the builder unchanged.

    Raises:
        ValueError: If the name is taken or is no identifier in lower case.
        TypeError: If the builder takes anything but ``num_classes``, ``input_shape`` and
            keyword-only options with defaults.
    """
    if not (name.isidentifier() and name == name.lower()):
        raise ValueError(f"a model's name must be a lower-case identifier, got {name!r}")

    def decorate(build: BuilderT) -> BuilderT:
        if name in _REGISTRY:
            raise ValueError(f"model {name!r} is registered already; choose another name")
        _REGISTRY[name] = _describe(name, summary, reference, build)
        return build

    return decorate


def register_model_pattern(
    example: str, expression: str, *, summary: str, reference: str
) -> Callable[[Callable[..., ModelBuilder]], Callable[..., ModelBuilder]]:
    """Registers a family whose members' names carry numbers, such as ``wrn_D_W``.

    What is decorated takes the expression's groups as integers and returns the member's builder;
    it raises a ValueError for numbers that make no network.

    Args:
        example: How the names look, for messages.
        expression: Regular expression of the whole name; its groups are digits.
        summary: One line: what the networks are.
        reference: Where they come from.
    """

    def decorate(make: Callable[..., ModelBuilder]) -> Callable[..., ModelBuilder]:
        def describe(name: str, *numbers: int) -> ModelInfo:
            return _describe(name, summary, reference, make(*numbers))

        _FAMILIES[example] = expression, describe
        return make

    return decorate


def _describe(name: str, summary: str, reference: str, build: ModelBuilder) -> ModelInfo:
    parameters = list(inspect.signature(build).parameters.values())
    if [parameter.name for parameter in parameters[:2]] != ["num_classes", "input_shape"]:
        raise TypeError(f"model {name!r}: its builder must take num_classes and input_shape")
    options = options_after(f"model {name!r}", parameters, 2)
    return ModelInfo(name, summary, reference, options, build)


def list_models(pattern: str = "*") -> tuple[str, ...]:
    """Returns the registered names that match a shell pattern, in order of registration."""
    return tuple(fnmatch.filter(_REGISTRY, pattern))


def list_families() -> dict[str, str]:
    """Returns the families whose names carry numbers: an example and the regular expression."""
    return {example: expression for example, (expression, _) in _FAMILIES.items()}


def find_models(patterns: Iterable[str]) -> tuple[str, ...]:
    """Returns the networks that names and shell patterns stand for, each once, in order.

    Raises:
        ValueError: If one of them stands for none; the message lists near matches.
    """
    # A word that matches no registered name may be a member of a family.
    names = (name for pattern in patterns for name in list_models(pattern) or (pattern,))
    return tuple(model_info(name).name for name in dict.fromkeys(names))


def model_info(name: str) -> ModelInfo:
    """Returns what is known of a network.

    Raises:
        ValueError: If no network has this name; the message lists near matches.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    for expression, describe in _FAMILIES.values():
        if match := re.fullmatch(expression, name):
            return describe(name, *map(int, match.groups()))
    raise ValueError(f"unknown model {name!r}; {suggest(name, [*_REGISTRY, *_FAMILIES])}")


def create_model(
    name: str,
    num_classes: int = 10,
    input_shape: InputShape = (3, 32, 32),
    **options: Any,
) -> nn.Module:
    """Builds a network from images in [0, 1] to logits.

    Weights come from the global generator: call ``torch.manual_seed`` first to repeat a network.

    Args:
        name: A registered name, see :func:`list_models`.
        num_classes: Number of classes, at least 2.
        input_shape: Channels, height and width of the images.
        **options: Options of that network; see ``model_info(name).options``.

    Returns:
        A new module in training mode.

    Raises:
        ValueError: If the name or an option is unknown, a value is not allowed, or the images are
            too small.
    """
    info = model_info(name)
    num_classes = check_value("num_classes", NumClasses, num_classes)
    input_shape = check_value("input_shape", InputShape, input_shape)
    if min(input_shape[1:]) < 8:
        raise ValueError(
            f"input_shape must be channels, height and width with at least 8x8 pixels, got "
            f"{input_shape}"
        )
    check_options(f"model {name!r}", options, info.options, info.build)
    return info.build(num_classes, input_shape, **options)
