"""The registry of atomic blocks: a stable name, frozen metadata, one way to build.

A block is registered by decorating whatever builds it, a class or a function, called as
``build(channels, **options)``. Its options and their defaults are read from the signature, so
that they are written once.
"""

from __future__ import annotations

import difflib
import inspect
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType, NoneType
from typing import Any, Literal, TypeVar, get_args

from torch import nn

__all__ = ["BlockInfo", "BlockKind", "block_info", "create_block", "list_blocks", "register_block"]

BlockKind = Literal["handcrafted", "searched", "ode"]
BlockBuilder = Callable[..., nn.Module]
BuilderT = TypeVar("BuilderT", bound=BlockBuilder)


@dataclass(frozen=True)
class BlockInfo:
    """What is known of a block without building it.

    Args:
        name: The stable name by which architectures and records refer to the block.
        summary: One line: what the block computes.
        reference: Paper and equation or figure, or the code it follows.
        kind: Designed by hand, found by a search, or derived from an ODE solver.
        options: Keyword options and their defaults.
        build: Called as ``build(channels, **options)``.
    """

    name: str
    summary: str
    reference: str
    kind: BlockKind
    options: Mapping[str, Any]
    build: BlockBuilder


_REGISTRY: dict[str, BlockInfo] = {}


def register_block(
    name: str, *, summary: str, reference: str, kind: BlockKind
) -> Callable[[BuilderT], BuilderT]:
    """Registers a block builder under a stable name.

    Args:
        name: Lower-case identifier, such as ``"mbconv"``; once published it never changes meaning.
        summary: One line: what the block computes.
        reference: Where it comes from.
        kind: ``"handcrafted"``, ``"searched"`` or ``"ode"``.

    Returns:
        A decorator that returns the builder unchanged.

    Raises:
        ValueError: If the name is taken by another builder, is not an identifier in lower case,
            or the kind is unknown.
        TypeError: If the builder takes anything but ``channels`` and keyword-only options with
            defaults.

    Example:
        ``@register_block("plain", summary="a convolution", reference="ours", kind="handcrafted")``
    """
    if not (name.isidentifier() and name == name.lower()):
        raise ValueError(f"a block's name must be a lower-case identifier, got {name!r}")
    if kind not in get_args(BlockKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(BlockKind))}, got {kind!r}")

    def decorate(build: BuilderT) -> BuilderT:
        if name in _REGISTRY:
            raise ValueError(
                f"block {name!r} is registered already, by {_REGISTRY[name].build.__module__}; "
                "choose another name"
            )
        options = _read_options(name, build)
        _REGISTRY[name] = BlockInfo(name, summary, reference, kind, options, build)
        return build

    return decorate


def _read_options(name: str, build: BlockBuilder) -> Mapping[str, Any]:
    parameters = list(inspect.signature(build).parameters.values())
    if not parameters:
        raise TypeError(f"block {name!r}: its builder must take the number of channels")
    return options_after(f"block {name!r}", parameters, 1)


def options_after(
    what: str, parameters: Sequence[inspect.Parameter], num_positional: int
) -> Mapping[str, Any]:
    """Returns a builder's options and their defaults, which stand behind what it always takes.

    Args:
        what: What is built, for messages.
        parameters: The builder's parameters.
        num_positional: How many of them, at least one, are no options.

    Raises:
        TypeError: If an option is not keyword-only or has no default.
    """
    last = parameters[num_positional - 1].name
    options = parameters[num_positional:]
    for parameter in options:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or (
            parameter.default is inspect.Parameter.empty
        ):
            raise TypeError(
                f"{what}: after {last!r} every parameter must be keyword-only with a default, but "
                f"{parameter.name!r} is not"
            )
    return MappingProxyType({parameter.name: parameter.default for parameter in options})


_KINDS: Mapping[str, tuple[str, type]] = {
    "bool": ("true or false", bool),
    "int": ("a whole number", numbers.Integral),
    "float": ("a number", numbers.Real),
    "str": ("a text", str),
    "None": ("None", NoneType),
}
"""By a type's name what its values are called, and what they are instances of."""


def check_options(
    what: str, options: Mapping[str, Any], known: Mapping[str, Any], build: Callable[..., Any]
) -> None:
    """Checks that a builder has these options, and that their values are of the right types.

    Types are those of annotations: ``bool``, ``int``, ``float``, ``str``, ``None`` and unions of
    them, and of a default that is none of these. An option without an annotation takes any number
    where its default is one, and a boolean where that is one. All else is the builder's to check.

    Args:
        what: What is built, for messages.
        options: Values by option.
        known: Its options and their defaults.
        build: The builder.

    Raises:
        ValueError: If an option is unknown, or its value of another type.
    """
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"{what} has no option {option!r}; {suggest(option, known)}")
        kinds = _read_kinds(inspect.signature(build).parameters[option])
        if kinds and not any(_is_a(kind, value) for _, kind in kinds):
            allowed = " or ".join(noun for noun, _ in kinds)
            raise ValueError(f"{what}: {option} must be {allowed}, got {value!r}")


def _read_kinds(parameter: inspect.Parameter) -> Sequence[tuple[str, type]]:
    """Returns what an option may be; nothing where only its builder knows."""
    annotation, default = parameter.annotation, parameter.default
    if annotation is inspect.Parameter.empty:
        names = {bool: ["bool"], int: ["float"], float: ["float"]}.get(type(default), [])
    elif isinstance(annotation, str):  # evaluating it may fail
        names = annotation.split(" | ")
    else:
        names = inspect.formatannotation(annotation).split(" | ")
    if not _KINDS.keys() >= set(names):
        return []
    kinds = [_KINDS[name] for name in names]
    if kinds and not any(_is_a(kind, default) for _, kind in kinds):
        kinds += [each for each in _KINDS.values() if _is_a(each[1], default)][:1]
    return kinds


def _is_a(kind: type, value: object) -> bool:
    # To Python a boolean is a whole number.
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


@contextmanager
def registering_all_or_none() -> Iterator[None]:
    """Forgets what was registered in the block if the block fails."""
    before = dict(_REGISTRY)
    try:
        yield
    except BaseException:
        _REGISTRY.clear()
        _REGISTRY.update(before)
        raise


def list_blocks() -> tuple[str, ...]:
    """Returns the names of all registered blocks in order of registration."""
    return tuple(_REGISTRY)


def block_info(name: str) -> BlockInfo:
    """Returns what is known of a block.

    Raises:
        ValueError: If no block has this name; the message lists near matches.
    """
    if name not in _REGISTRY:
        raise ValueError(
            f"unknown block {name!r}; {suggest(name, _REGISTRY)}; register_block adds your own, on "
            "the command line --plugins FILE"
        )
    return _REGISTRY[name]


def create_block(name: str, channels: int, **options: Any) -> nn.Module:
    """Builds a block, a module from ``(N, channels, H, W)`` to the same shape.

    Args:
        name: A registered name.
        channels: Number of input and of output channels, at least 1.
        **options: Options of that block; see ``block_info(name).options``.

    Returns:
        A new module with PyTorch's default initialisation.

    Raises:
        ValueError: If the name or an option is unknown, or a value is of a type or in a range that
            is not allowed.
    """
    info = block_info(name)
    if not _is_a(int, channels) or channels < 1:
        raise ValueError(f"channels must be a whole number of at least 1, got {channels!r}")
    check_options(f"block {name!r}", options, info.options, info.build)
    try:
        return info.build(channels, **options)
    except ValueError as error:
        raise ValueError(f"block {name!r}: {error}") from error


def suggest(name: object, known: Iterable[str]) -> str:
    """Returns which known names come near a wrong one, and all of them, for a message."""
    near = difflib.get_close_matches(str(name), list(known), n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return f"{hint}known: {', '.join(known) or 'none'}"
