"""Command-line flags from typed dataclasses: how each type is written, and ``--config``.

tyro takes the words apart and writes the help; what the words stand for is read here, and checked
by the annotations, as in files and in Python (:mod:`nasbench_at.config.allowed_values`).
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, make_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import docstring_parser
import tyro
from tyro.constructors import PrimitiveConstructorSpec

from nasbench_at.config import RunConfig, load_config
from nasbench_at.config.allowed_values import (
    InsteadOf,
    OneOf,
    Requirement,
    check_value,
    field_annotations,
    split_annotation,
)
from nasbench_at.config.scalars import read_scalar, write_scalar
from nasbench_at.config.suggestions import near_names

__all__ = ["parse_flags", "split_config_flag"]

ArgumentsT = TypeVar("ArgumentsT")


def parse_flags(
    kind: type[ArgumentsT],
    words: Sequence[str],
    *,
    command: str,
    description: str | None,
    default: Any = None,
) -> ArgumentsT:
    """Parses flags into a flat dataclass and checks every field by its annotation.

    Args:
        kind: The dataclass; its fields are the flags, its docstring's attributes their help.
        words: Words of the command line behind the command.
        command: Its name, for the usage line.
        description: What it does.
        default: An object whose fields are the flags' defaults where it has them.

    Raises:
        SystemExit: With code 0 after ``--help``.
        ValueError: If a flag is unknown or cannot be read, or a value is not allowed.
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            parsed: Any
            parsed, unknown = tyro.cli(
                _unread_twin(kind, default),
                args=list(words),
                prog=f"nasbench-at {command}",
                description=description,
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_first_sentence(box.getvalue())) from None
    if unknown:
        raise ValueError(_describe_unknown(unknown[0], kind))
    return kind(**_read_fields(kind, vars(parsed)))


def _read_fields(kind: type, parsed: Mapping[str, Any]) -> dict[str, Any]:
    annotations = field_annotations(kind)
    values = {}
    for name, value in parsed.items():
        annotation = annotations[name]
        if isinstance(value, _Words):
            _check_companions(name, annotation, parsed)
            value = _read_words(name, annotation, value.words)
        values[name] = check_value(name, annotation, value)
    return values


def _check_companions(name: str, annotation: Any, parsed: Mapping[str, Any]) -> None:
    for extra in split_annotation(annotation)[1]:
        if isinstance(extra, InsteadOf) and isinstance(other := parsed[extra.other], _Words):
            raise ValueError(
                f"{name} does not go with {extra.other}, got {' '.join(parsed[name].words)} and "
                f"{' '.join(other.words)}"
            )


def _describe_unknown(word: str, kind: type) -> str:
    flag, _, _ = word.partition("=")
    if not flag.startswith("--"):
        return f"unexpected word {word!r}"
    near = near_names(flag, [f"--{item.name.replace('_', '-')}" for item in fields(kind)])
    return f"unknown flag {flag!r}" + (f"; did you mean {near}?" if near else "; see --help")


def _first_sentence(box: str) -> str:
    """What one of tyro's boxes says, in a line.

    Below the title are paragraphs between rules; the frame is missing where the terminal has none.
    """
    _, *lines = (line.strip("│ ") for line in box.splitlines())
    is_rule = [not line.strip("╰╯─-") for line in lines]
    start = is_rule.index(False)
    return " ".join(lines[start : is_rule.index(True, start)]).rstrip(".")


@dataclass(frozen=True)
class _Words:
    """What stands behind a flag, not read yet."""

    words: tuple[str, ...]


def _unread_twin(kind: type, default: Any) -> type:
    """A dataclass of the same flags that leaves their words unread.

    What is wrong with a word is then said once, by the field's annotation, and in one line.
    """
    help_texts = {
        parameter.arg_name: parameter.description or ""
        for parent in kind.__mro__
        for parameter in docstring_parser.parse(parent.__doc__ or "").params
    }
    annotations = field_annotations(kind)
    return make_dataclass(
        kind.__name__,
        [
            (
                item.name,
                _flag_type(annotations[item.name], help_texts[item.name])
                if item.metadata.get("is_flag", True)
                else Annotated[Any, tyro.conf.Fixed, tyro.conf.Suppress],
                _default_of(item, default),
            )
            for item in fields(kind)
        ],
    )


def _flag_type(annotation: Any, help_text: str) -> Any:
    """What tyro is told of a flag."""
    kinds, extras = split_annotation(annotation)
    markers = [extra for extra in extras if not isinstance(extra, Requirement)]
    documented: Any = Annotated[Any, tyro.conf.arg(help=help_text)]
    if kinds == (bool,):  # two flags without a word: --compile and --no-compile
        return Annotated[bool, tyro.conf.arg(help=help_text)]
    spec: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(
        nargs=_num_words(annotation),
        metavar=_metavar(annotation),
        instance_from_str=lambda words: _Words(tuple(words)),
        is_instance=lambda value: True,
        str_from_instance=_write_words,
    )
    for marker in (spec, *markers):
        documented = Annotated[documented, marker]
    return documented


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


def _read_words(name: str, annotation: Any, words: Sequence[str]) -> Any:
    """Returns what words stand for, where they can be read; checked is nothing here."""
    kinds = _bare_kinds(annotation)
    if NoneType in kinds and tuple(words) in (("None",), ("null",)):
        return None
    if lists := [kind for kind in kinds if get_origin(kind) is tuple]:
        return _read_list(lists, words)
    if mappings := [kind for kind in kinds if _is_mapping(kind)]:
        return _read_pairs(name, words, depth=_depth(mappings[0]))
    return _read_word(kinds, words[0])


def _bare_kinds(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without what is demanded of them."""
    kinds, _ = split_annotation(annotation)
    return [
        bare for kind in kinds for bare in ([kind] if kind is annotation else _bare_kinds(kind))
    ]


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) not in (None, tuple, Literal)


def _depth(mapping: Any) -> int:
    return 2 if any(map(_is_mapping, _bare_kinds(get_args(mapping)[1]))) else 1


def _read_list(kinds: Sequence[Any], words: Sequence[str]) -> tuple[Any, ...]:
    """Reads an entry a word; entries that are lists themselves are separated by commas."""
    entries = [_bare_kinds(get_args(kind)[0]) for kind in kinds]
    rows = [entry[0] for entry in entries if get_origin(entry[0]) is tuple]
    if rows and (len(rows) == len(kinds) or any("," in word for word in words)):
        inner = _bare_kinds(get_args(rows[0])[0])
        return tuple(
            tuple(_read_word(inner, part) for part in word.split(",") if part) for word in words
        )
    return tuple(_read_word(entries[0], word) for word in words)


def _read_word(kinds: Sequence[Any], word: str) -> Any:
    """Reads a number or a switch where one may stand; any other word is itself."""
    try:
        value = read_scalar(word)
    except ValueError:
        return word
    if isinstance(value, bool):
        return value if bool in kinds else word
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return value if is_number and {int, float}.intersection(kinds) else word


def _read_pairs(name: str, words: Sequence[str], *, depth: int) -> dict[str, Any]:
    """Reads ``a=1`` (depth 1) or ``a.b=1`` (depth 2) words into nested dictionaries."""
    result: dict[str, Any] = {}
    for word in words:
        path, separator, value = word.partition("=")
        keys = path.split(".")
        if not separator or len(keys) != depth or not all(keys):
            shape = ".".join(["NAME", "OPTION"][:depth])
            raise ValueError(f"{name} must be written {shape}=VALUE, got {word!r}")
        target = result
        for key in keys[:-1]:
            target = target.setdefault(key, {})
        try:
            target[keys[-1]] = read_scalar(value)
        except ValueError as error:
            raise ValueError(f"{name} cannot be read from {word!r}: {error}") from None
    return result


def _num_words(annotation: Any) -> int | Literal["*"]:
    for kind in _bare_kinds(annotation):
        if get_origin(kind) is tuple and get_args(kind)[-1] is not Ellipsis:
            return len(get_args(kind))
        if get_origin(kind) is tuple or _is_mapping(kind):
            return "*"
    return 1


def _metavar(annotation: Any) -> str:
    kinds, extras = split_annotation(annotation)
    for extra in extras:
        if isinstance(extra, OneOf):
            return "{" + ",".join(extra.names) + "}"
    return " | ".join(dict.fromkeys(_metavar_of(kind) for kind in kinds if kind is not NoneType))


def _metavar_of(kind: Any) -> str:
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        return _metavar(kind)
    if get_origin(kind) is Literal:
        return "{" + ",".join(parts) + "}"
    if get_origin(kind) is tuple:
        entry = _metavar(parts[0])
        if entry.endswith(" ..."):  # a list of lists: commas within, blanks between
            entry = f"{entry.removesuffix(' ...')},..."
        return f"{entry} ..." if parts[-1] is Ellipsis else " ".join([entry] * len(parts))
    if _is_mapping(kind):
        return "NAME.OPTION=VALUE ..." if _depth(kind) == 2 else "NAME=VALUE ..."
    return _METAVARS.get(kind, "VALUE")


_METAVARS: Mapping[Any, str] = {
    int: "INT",
    float: "FLOAT",
    str: "NAME",
    Path: "PATH",
    bool: "{true,false}",
}


def _write_words(value: Any) -> list[str]:
    """The words of a default, for the help."""
    if isinstance(value, Mapping):
        return [
            f"{name}.{option}={write_scalar(setting)}"
            if isinstance(entry, Mapping)
            else f"{name}={write_scalar(entry)}"
            for name, entry in value.items()
            for option, setting in (entry.items() if isinstance(entry, Mapping) else [("", "")])
        ]
    if isinstance(value, tuple):
        return [
            ",".join(map(str, entry)) + "," * (len(entry) == 1)
            if isinstance(entry, tuple)
            else str(entry)
            for entry in value
        ]
    return [str(value)]
