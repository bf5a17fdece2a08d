"""Command-line flags from typed dataclasses: how each type is written, and ``--config``."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, make_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import docstring_parser
import tyro
import yaml
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from nasbench_at.config import (
    BlockOptions,
    Blocks,
    Counts,
    Keep,
    ModelOptions,
    Parameters,
    RunConfig,
    Weights,
    load_config,
)

__all__ = ["parse_flags", "split_config_flag"]

ArgumentsT = TypeVar("ArgumentsT")

_REGISTRY = ConstructorRegistry()


def parse_flags(
    kind: type[ArgumentsT],
    words: Sequence[str],
    *,
    command: str,
    description: str | None,
    default: Any = None,
) -> ArgumentsT:
    """Parses flags into a flat dataclass.

    Args:
        kind: The dataclass; its fields are the flags, its docstring's attributes their help.
        words: Words of the command line behind the command.
        command: Its name, for the usage line.
        description: What it does.
        default: An object whose fields are the flags' defaults where it has them.

    Raises:
        SystemExit: With code 0 after ``--help``.
        ValueError: If a flag is unknown or cannot be read, or a value is out of its range.
    """
    box = io.StringIO()
    try:
        with _REGISTRY, contextlib.redirect_stderr(box):
            parsed: Any = tyro.cli(
                _unchecked_twin(kind, default),
                args=list(words),
                prog=f"nasbench-at {command}",
                description=description,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_first_sentence(box.getvalue())) from None
    return kind(**vars(parsed))


def _first_sentence(box: str) -> str:
    """What one of tyro's boxes says, in a line, with the flag that it thinks was meant.

    Below the title are paragraphs between rules; the frame is missing where the terminal has none.
    """
    _, *lines = (line.strip("│ ") for line in box.splitlines())
    is_rule = [not line.strip("╰╯─-") for line in lines]
    start = is_rule.index(False)
    end = is_rule.index(True, start)
    sentence = " ".join(lines[start:end]).rstrip(".")
    near = [line.split()[0] for line in lines[end:] if re.match("--[a-z]", line)]
    if "Perhaps you meant:" in lines and near:
        sentence += f"; did you mean {near[0]}?"
    return sentence


def _unchecked_twin(kind: type, default: Any) -> type:
    """A dataclass of the same fields that accepts any value.

    Checks that fail while tyro parses are reported in its boxes; ours are to be one line.
    """
    help_texts = {
        parameter.arg_name: parameter.description or ""
        for parent in kind.__mro__
        for parameter in docstring_parser.parse(parent.__doc__ or "").params
    }
    hints = get_type_hints(kind, include_extras=True)
    twin_fields: list[tuple[str, Any, Any]] = []
    for item in fields(kind):
        documented: Any = Annotated[hints[item.name], tyro.conf.arg(help=help_texts[item.name])]
        if not item.metadata.get("is_flag", True):
            documented = Annotated[documented, tyro.conf.Fixed, tyro.conf.Suppress]
        twin_fields.append((item.name, documented, _default_of(item, default)))
    return make_dataclass(kind.__name__, twin_fields)


def _default_of(item: Field[Any], default: Any) -> Any:
    """A field entry with the value that ``default`` or the field itself holds."""
    value = getattr(default, item.name, item.default)
    if value is MISSING and item.default_factory is not MISSING:
        value = item.default_factory()
    return field() if value is MISSING else field(default_factory=lambda: value)


def split_config_flag(arguments: Sequence[str]) -> tuple[RunConfig, list[str]]:
    """Takes ``--config FILE`` out of the words and reads the file.

    Returns:
        The file's configuration, or the default one, and the words that are left; those win over
        the file.

    Raises:
        ValueError: If the file is missing or no configuration.
    """
    words = list(arguments)
    for i, word in enumerate(words):
        flag, _, value = word.partition("=")
        if flag == "--config":
            length = 1 if value else 2
            if not value and i + 1 == len(words):
                raise ValueError("--config needs the path of a YAML file")
            return load_config(value or words[i + 1]), words[:i] + words[i + length :]
    return RunConfig(), words


def _read_pairs(words: Sequence[str], *, depth: int) -> dict[str, Any]:
    """Reads ``a=1`` (depth 1) or ``a.b=1`` (depth 2) words into nested dictionaries."""
    result: dict[str, Any] = {}
    for word in words:
        path, separator, value = word.partition("=")
        keys = path.split(".")
        if not separator or len(keys) != depth or not all(keys):
            shape = ".".join(["NAME", "OPTION"][:depth])
            raise ValueError(f"must be written {shape}=VALUE, got {word}")
        target = result
        for key in keys[:-1]:
            target = target.setdefault(key, {})
        target[keys[-1]] = _read_value(value)
    return result


def _read_value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"cannot be read as a value: {text}") from None


def _read_numbers(kind: type[int] | type[float]) -> Callable[[Sequence[str]], dict[str, Any]]:
    """Reads ``a=1`` words into a dictionary of numbers."""

    def read(words: Sequence[str]) -> dict[str, Any]:
        return {
            name: _to_number(value, kind) for name, value in _read_pairs(words, depth=1).items()
        }

    return read


def _to_number(value: Any, kind: type[int] | type[float]) -> int | float:
    try:
        number = kind(value)
    except (TypeError, ValueError):
        number = None
    if number is None or float(number) != float(value):
        whole = "a whole number" if kind is int else "a number"
        raise ValueError(f"must be {whole}, got {value}")
    return number


def _write_pairs(value: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}.{option}={setting}" if isinstance(entry, Mapping) else f"{name}={entry}"
        for name, entry in value.items()
        for option, setting in (entry.items() if isinstance(entry, Mapping) else [("", "")])
    ]


def _read_blocks(words: Sequence[str]) -> Blocks:
    """Names for every module, or comma-separated names, a word a module."""
    if any("," in word for word in words):
        return tuple(tuple(name for name in word.split(",") if name) for word in words)
    return tuple(words)


def _write_blocks(value: Blocks) -> list[str]:
    return [row if isinstance(row, str) else ",".join(row) + "," * (len(row) == 1) for row in value]


def _read_rows(kind: type[int] | type[float]) -> Callable[[Sequence[str]], Any]:
    """Reads comma-separated numbers, a word a module."""

    def read(words: Sequence[str]) -> tuple[tuple[int | float, ...], ...]:
        return tuple(
            tuple(_to_number(entry, kind) for entry in word.split(",") if entry) for word in words
        )

    return read


def _write_rows(value: Weights) -> list[str]:
    return [",".join(map(str, row)) for row in value or ()]


def _rule(
    annotation: Any,
    metavar: str,
    read: Callable[[list[str]], Any],
    write: Callable[[Any], list[str]],
) -> None:
    spec: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(
        nargs="*",
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: True,
        str_from_instance=write,
    )

    @_REGISTRY.primitive_rule
    def match(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        return spec if info.type == annotation else None


_rule(Blocks, "NAME ... | NAME,NAME ...", _read_blocks, _write_blocks)
_rule(BlockOptions, "NAME.OPTION=VALUE ...", lambda w: _read_pairs(w, depth=2), _write_pairs)
_rule(Counts, "NAME=COUNT ...", _read_numbers(int), _write_pairs)
_rule(ModelOptions, "NAME=VALUE ...", lambda w: _read_pairs(w, depth=1), _write_pairs)
_rule(Parameters, "NAME=VALUE ...", _read_numbers(float), _write_pairs)
_rule(Weights, "W,W,... ...", _read_rows(float), _write_rows)
_rule(Keep, "COLUMN,COLUMN,... ...", _read_rows(int), _write_rows)
