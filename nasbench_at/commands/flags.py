"""Command-line flags from typed dataclasses and from signatures of functions.

argparse takes the words apart and writes the help; what the words stand for is read here, and
checked by the annotations, as in files and in Python (:mod:`nasbench_at.config.allowed_values`).
"""

from __future__ import annotations

import argparse
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser

from nasbench_at.commands.input_errors import bad_input
from nasbench_at.config.allowed_values import (
    FromFile,
    InsteadOf,
    OneOf,
    RunPlace,
    WithoutFlag,
    check_fields,
    check_value,
    field_annotations,
    split_annotation,
)
from nasbench_at.config.scalars import read_scalar, write_scalar
from nasbench_at.config.suggestions import near_names

__all__ = ["Flag", "fill_in", "flags_of", "parameter_flags", "parse_flags", "read_flags"]

ArgumentsT = TypeVar("ArgumentsT")


@dataclass(frozen=True)
class Flag:
    """What sets a field of a dataclass, or a parameter of a function.

    Attributes:
        name: Its name.
        annotation: What it may hold.
        default: What it holds without the flag; MISSING if it cannot be left out.
        text: What it is, for the help.
        group: Title above it in the help.
    """

    name: str
    annotation: Any
    default: Any
    text: str
    group: str

    @property
    def word(self) -> str:
        """How the flag is written."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def metavar(self) -> str:
        """What stands for its words in the help."""
        metavar = _metavar(self.annotation)
        return f"[{metavar}]" if self.is_positional and self.default is not MISSING else metavar

    @property
    def is_positional(self) -> bool:
        """Whether its words stand on the command line without it."""
        return self.marker(WithoutFlag) is not None

    def marker(self, kind: type[ArgumentsT]) -> ArgumentsT | None:
        """Returns what of a kind stands in the annotation beside the type."""
        extras = split_annotation(self.annotation)[1]
        return next((extra for extra in extras if isinstance(extra, kind)), None)

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        """Tells argparse how many words it takes and what its help says."""
        default = [] if self.default in (None, MISSING) else _write_words(self.default)
        text = f"{self.text} (default: {' '.join(default)})" if default else self.text
        options: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
        if split_annotation(self.annotation)[0] == (bool,):  # --compile and --no-compile
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"nargs": _num_words(self.annotation), "metavar": self.metavar}
        if not self.is_positional:
            group.add_argument(self.word, dest=self.name, **options)
            return
        if options["nargs"] == 1 and self.default is not MISSING:
            options["nargs"] = "?"
        # read_flags says in its own words what is missing.
        group.add_argument(self.name, **options).required = False


def parse_flags(
    kind: type[ArgumentsT], words: Sequence[str], command: str, description: str | None
) -> ArgumentsT:
    """Parses the flags of a command, as :func:`flags_of` lists them, into its dataclass.

    The other arguments are those of :func:`read_flags`.

    Raises:
        SystemExit: With code 0 after ``--help``.
        BadInputError: If a flag is unknown or cannot be read, or a value is not allowed.
    """
    with bad_input():
        return fill_in(kind, read_flags([*flags_of(kind)], words, command, description))


def flags_of(kind: type, group: str = "options") -> Iterator[Flag]:
    """Yields the flags of a dataclass: its fields, whose help is in its docstring.

    A field that holds a dataclass stands for that one's flags, and, if there is a file to read it
    from, for a flag that names the file.
    """
    texts, annotations = _texts(*kind.__mro__), field_annotations(kind)
    for item in fields(kind):
        annotation = annotations[item.name]
        (inner, *_), extras = split_annotation(annotation)
        if not item.metadata.get("is_flag", True):
            continue
        if isinstance(inner, type) and is_dataclass(inner):
            if extras:
                file = Annotated[(Path, *extras)]
                yield Flag(item.name, file, None, texts[item.name], group)
            title, _, _ = (inner.__doc__ or item.name).partition("\n")
            yield from flags_of(inner, title.rstrip("."))
        else:
            make = item.default_factory
            default = item.default if make is MISSING else make()
            yield Flag(item.name, annotation, default, texts[item.name], group)


def parameter_flags(function: Callable[..., Any], names: Sequence[str], group: str) -> list[Flag]:
    """Returns the flags of some of a function's parameters."""
    texts, hints = _texts(function), get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters
    return [Flag(n, hints[n], parameters[n].default, texts[n], group) for n in names]


def read_flags(
    flags: Sequence[Flag], words: Sequence[str], command: str, description: str | None
) -> dict[str, Any]:
    """Parses words, and checks every value by its annotation.

    Args:
        flags: What there is.
        words: Words of the command line behind the command.
        command: Its name, for the usage line.
        description: What it does.

    Returns:
        Name to value, of the flags that are given alone.

    Raises:
        SystemExit: With code 0 after ``--help``.
        ValueError: If a flag is unknown or cannot be read, or a value is not allowed.
    """
    given = _split(flags, words, f"nasbench-at {command}", description)
    values = {}
    for flag in flags:
        if flag.name in given:
            instead = flag.marker(InsteadOf)
            if instead is not None and instead.other in given:
                raise ValueError(
                    f"{flag.name} does not go with {instead.other}, got "
                    f"{' '.join(given[flag.name])} and {' '.join(given[instead.other])}"
                )
            values[flag.name] = _read(flag, given[flag.name])
    return values


def fill_in(kind: Callable[..., ArgumentsT], given: Mapping[str, Any], **bases: Any) -> ArgumentsT:
    """Makes a dataclass of flags that were given.

    Args:
        kind: The dataclass.
        given: Name to value; what is not of this dataclass is left alone.
        bases: For a field that holds a dataclass, what the flags are changes of, unless a file is
            given.

    Raises:
        ValueError: If a value is not allowed.
    """
    values = {}
    for name, annotation in field_annotations(kind).items():
        inner = split_annotation(annotation)[0][0]
        if isinstance(inner, type) and is_dataclass(inner):
            base = given.get(name, bases.get(name))
            known = {item.name for item in fields(inner)}
            changes = {key: value for key, value in given.items() if key in known}
            values[name] = inner(**({} if base is None else vars(base)) | changes)
        elif name in given:
            values[name] = given[name]
    made = kind(**values)
    check_fields(made)
    return made


class _Parser(argparse.ArgumentParser):
    """Takes no shortened flag, and words such as ``-1e-3`` or ``-inf`` for values."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False, exit_on_error=False, formatter_class=_HelpFormatter, **options
        )
        self._negative_number_matcher = re.compile(r"-[^-]")


class _HelpFormatter(argparse.HelpFormatter):
    """Writes the words of a flag as its metavar says."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=27)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar)


def _split(
    flags: Sequence[Flag], words: Sequence[str], prog: str, description: str | None
) -> dict[str, Any]:
    """The words behind each flag that is given, or a switch's value."""
    names = [flag.metavar for flag in flags if flag.is_positional]
    usage = " ".join([prog, *names, "[FLAGS]"])
    parser = _Parser(prog=prog, usage=usage, description=description, add_help=False)
    titles = dict.fromkeys(["arguments", *(flag.group for flag in flags), "options"])
    groups = {title: parser.add_argument_group(title) for title in titles}
    groups["options"].add_argument("-h", "--help", action="help", help="Show this and exit.")
    for flag in flags:
        flag.add_to(groups["arguments" if flag.is_positional else flag.group])
    try:
        parsed, unknown = parser.parse_known_args(list(map(_hyphenate, words)))
    except argparse.ArgumentError as error:
        raise ValueError(_describe(error, flags)) from None
    if unknown:
        raise ValueError(_describe_unknown(unknown[0], flags))
    given = vars(parsed)
    missing = [f for f in flags if f.default is MISSING and f.name not in given]
    if missing:
        what = " ".join(f"{flag.metavar} {flag.text} (required)" for flag in missing)
        raise ValueError(f"Missing from {prog}: {what}")
    return given


def _hyphenate(word: str) -> str:
    name, *value = word.split("=", 1)
    return "=".join([name.replace("_", "-"), *value]) if name.startswith("--") else word


def _describe(error: argparse.ArgumentError, flags: Sequence[Flag]) -> str:
    for flag in flags:
        if flag.word == error.argument_name:
            file = flag.marker(FromFile)
            if file is not None:
                return f"{flag.word} needs the path of {file.kind}"
            length = _num_words(flag.annotation)
            return f"Missing value for argument {flag.word!r}. Expected {length} values"
    return f"a switch takes no value: {error}"


def _describe_unknown(word: str, flags: Sequence[Flag]) -> str:
    flag, _, _ = word.partition("=")
    if not flag.startswith("--"):
        return f"unexpected word {word!r}"
    near = near_names(flag, [known.word for known in flags])
    return f"unknown flag {flag!r}" + (f"; did you mean {near}?" if near else "; see --help")


def _texts(*sources: Any) -> dict[str, str]:
    """What docstrings say of fields and parameters."""
    docstrings = (docstring_parser.parse(source.__doc__ or "") for source in sources)
    return {
        p.arg_name: _without_markup(p.description or "") for doc in docstrings for p in doc.params
    }


def _without_markup(text: str) -> str:
    """Text without what Sphinx alone reads: code in double backticks, references by role."""
    text = re.sub(r":[a-z:]+:`([^`<]+?)(\s+<[^`]+>)?`", r"\1", text)
    return text.replace("``", "")


def _read(flag: Flag, words: Any) -> Any:
    if isinstance(words, bool):
        return words
    file = flag.marker(FromFile)
    if file is not None:
        return file.read(words[0])
    value = _read_words(flag.name, flag.annotation, [words] if isinstance(words, str) else words)
    return check_value(flag.name, flag.annotation, value)


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
        if isinstance(extra, RunPlace):
            return "PLACE"
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
