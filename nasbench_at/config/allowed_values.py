"""What a field may hold, read from its annotation: one check for Python, files and flags.

A dataclass says it once, ``epochs: Annotated[int, Range("[1, 100000]")]``, and calls
:func:`check_fields` in its constructor; every message is made of the annotation. No torch here.
"""

from __future__ import annotations

import math
import numbers
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import unquote

from nasbench_at.config.suggestions import near_names

__all__ = [
    "CheckpointMinutes",
    "Count",
    "DataRoot",
    "Device",
    "Distinct",
    "ExistingFile",
    "Folder",
    "FromFile",
    "InOrder",
    "InsteadOf",
    "Matches",
    "Name",
    "NewFile",
    "OneOf",
    "Place",
    "Positional",
    "Range",
    "Requirement",
    "RunPlace",
    "Seed",
    "StorageUrl",
    "WithoutFlag",
    "check_fields",
    "check_value",
    "describe_allowed",
    "field_annotations",
    "hide_passwords",
    "split_annotation",
]

# Up to the last @ of the line, or in the query: a password may hold any sign.
_IN_TEXT = re.compile(r"(://[^\s:/@]*:).*(?=@)|(\b\w*password=)[^\s&'\"]*", re.IGNORECASE)
_URL = re.compile(r"\s*\w[\w+.-]*://")
_USER_PASSWORD = re.compile(r"(://[^:/@]*:).*(?=@)", re.DOTALL)
_QUERY_ITEM = re.compile(r"([?&]([^=&]*)=)[^&]*")


class Requirement(ABC):
    """What an annotation demands beyond the type.

    Attributes:
        one: What a value is called, where the type's words do not say it.
        many: What several are.
    """

    one: str
    many: str

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether a value of the right type is allowed."""

    def describe(self, noun: str, *, many: bool) -> str:
        """Returns the type's words, such as ``a number``, with what is demanded, or its own."""
        return (self.many or self.one) if many else self.one


@dataclass(frozen=True)
class Range(Requirement):
    """Numbers of an interval, written as in ``[0, 1)`` or ``(0, inf)``.

    Args:
        interval: The interval.
        note: What else helps who met its ends.
    """

    interval: str
    note: str = ""

    @property
    def _ends(self) -> tuple[float, float]:
        lowest, highest = self.interval[1:-1].split(",")
        return float(lowest), float(highest)

    def holds(self, value: float) -> bool:
        """Whether a number lies in the interval."""
        lowest, highest = self._ends
        above = value > lowest if self.interval[0] == "(" else value >= lowest
        return above and (value < highest if self.interval[-1] == ")" else value <= highest)

    def describe(self, noun: str, *, many: bool) -> str:
        """Returns such as ``a number in [0, 1)``."""
        lowest, highest = self.interval[1:-1].split(", ")
        if highest == "inf":
            words = f"above {lowest}" if self.interval[0] == "(" else f"of at least {lowest}"
        elif "whole" in noun and self.interval[0] == "[":
            words = f"from {lowest} to {highest}"
        else:
            words = f"in {self.interval}"
        return f"{noun} {words}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True)
class OneOf(Requirement):
    """One of some names.

    Args:
        names: The names.
        also_called: What else they are called, and the name that a hint answers with.
    """

    names: tuple[str, ...]
    also_called: tuple[tuple[str, str], ...] = ()

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the names."""
        return isinstance(value, str) and value in self.names

    def describe(self, noun: str, *, many: bool) -> str:
        """Returns such as ``one of paper, authors``."""
        return f"{'names among' if many else 'one of'} {', '.join(self.names)}"


@dataclass(frozen=True)
class Matches(Requirement):
    """Texts of a form.

    Args:
        pattern: Regular expression of the whole text.
        one: What such a text is called.
        many: What several are.
    """

    pattern: str
    one: str
    many: str = ""

    def holds(self, value: str) -> bool:
        """Whether a text has the form."""
        return re.fullmatch(self.pattern, value, re.DOTALL) is not None


class InOrder(Requirement):
    """Lists that do not descend."""

    def holds(self, value: Sequence[Any]) -> bool:
        """Whether a list does not descend."""
        return list(value) == sorted(value)

    def describe(self, noun: str, *, many: bool) -> str:
        """Returns such as ``a list of numbers, in order``."""
        return f"{noun}, in order"


class Distinct(Requirement):
    """Lists without repetition."""

    def holds(self, value: Sequence[Any]) -> bool:
        """Whether no entry occurs twice."""
        return len(set(value)) == len(value)

    def describe(self, noun: str, *, many: bool) -> str:
        """Returns such as ``a list of numbers, each once``."""
        return f"{noun}, each once"


class Folder(Requirement):
    """Folders, there already or yet to be made."""

    one, many = "a folder", "folders"

    def holds(self, value: Path) -> bool:
        """Whether a path is a folder, or nothing that is no folder stands in its way."""
        return next(path for path in (value, *value.parents) if path.exists()).is_dir()


class ExistingFile(Requirement):
    """Existing files."""

    one, many = "an existing file", "existing files"

    def holds(self, value: Path) -> bool:
        """Whether a path is a file, or a link to one."""
        return value.is_file()


@dataclass(frozen=True)
class NewFile(Requirement):
    """Files to write in an existing folder.

    Args:
        suffixes: What their names may end in; anything if there is none.
    """

    suffixes: tuple[str, ...] = ()

    def holds(self, value: Path) -> bool:
        """Whether the suffix is allowed, the folder is there, and no folder has the name."""
        if self.suffixes and value.suffix not in self.suffixes:
            return False
        return value.parent.is_dir() and not value.is_dir()

    def describe(self, noun: str, *, many: bool) -> str:
        """Returns such as ``a file ending in .csv or .tex, in an existing folder``."""
        ending = f" ending in {_enumerate(self.suffixes)}" if self.suffixes else ""
        return f"a file{ending}, in an existing folder"


class RunPlace(Requirement):
    """Folders, files and names of tables in which there may be runs; they are looked for later."""

    one, many = "a folder, file or table", "folders, files or tables"

    def holds(self, value: str) -> bool:
        """Whether there is a word."""
        return bool(value)


@dataclass(frozen=True)
class InsteadOf:
    """Marks what a command line gives instead of another field, and not beside it.

    Args:
        other: The other field.
    """

    other: str


@dataclass(frozen=True)
class FromFile:
    """Marks an object whose fields are flags, and which a file may hold besides.

    Args:
        kind: What the file is called.
        read: Makes the object of its path.
    """

    kind: str
    read: Callable[[str], Any]


class WithoutFlag:
    """Marks words that stand on a command line without a flag before them."""


_T = TypeVar("_T")
Positional = Annotated[_T, WithoutFlag()]
Name = Annotated[str, Matches(".+", "a name", "names")]
Place = Annotated[str, RunPlace()]
"""Where records lie; kept as it was written, since ``./digits`` is a folder and no name."""
Count = Annotated[int, Range("[1, 1000000]")]
CheckpointMinutes = Annotated[float, Range("[0, inf)")]
Seed = Annotated[int, Range("[0, 4294967295]")]
DataRoot = Annotated[Path, Folder()] | None
StorageUrl = Annotated[
    str,
    Matches(
        r"sqlite(\+\w+)?://.*|postgresql(\+\w+)?://[^\s'\"]*",
        "a URL of sqlite or postgresql, blanks and quotes in it as %20, %22 and %27",
    ),
]
Device = Annotated[str, Matches(r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or cuda:N")]


def check_fields(instance: Any) -> None:
    """Checks every field of a dataclass and gives equal values equal forms.

    To be called by its constructor: 6 and 6.0 become the same number, a list becomes a tuple.

    Raises:
        ValueError: If a field holds what its annotation does not allow; one line names the field,
            what it may hold and the value.
    """
    kind: Any = type(instance)
    for name, annotation in field_annotations(kind).items():
        checked = check_value(name, annotation, getattr(instance, name))
        object.__setattr__(instance, name, checked)


def check_value(name: str, annotation: Any, value: Any) -> Any:
    """Returns a value in the form that its annotation names.

    Args:
        name: What the value is called, for the message.
        annotation: A type, with :class:`Requirement` objects where it is ``Annotated``.
        value: Anything.

    Raises:
        ValueError: If the annotation does not allow the value.
    """
    try:
        return _fit(annotation, value)
    except _MisfitError:
        message = f"{name} must be {describe_allowed(annotation)}, got {_show(value)}"
        raise ValueError(message + _hint(annotation, value)) from None


@lru_cache
def field_annotations(kind: Any) -> Mapping[str, Any]:
    """Returns the annotation of each field of a dataclass, ``Annotated`` included."""
    hints = get_type_hints(kind, include_extras=True)
    return {item.name: hints[item.name] for item in fields(kind)}


@lru_cache(maxsize=1024)
def split_annotation(annotation: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Returns the types that an annotation allows, None's among them, and what stands beside.

    A type variable stands for what an unset field holds: None.
    """
    if get_origin(annotation) is Annotated:
        base, *extras = get_args(annotation)
        kinds, inner = split_annotation(base)
        return kinds, (*inner, *extras)
    if get_origin(annotation) in (Union, UnionType):
        kinds = get_args(annotation)
        return tuple(NoneType if isinstance(kind, TypeVar) else kind for kind in kinds), ()
    return (annotation,), ()


def hide_passwords(text: str) -> str:
    """Returns a URL, or a text such as a message, without the passwords of the URLs in it."""
    if not _URL.match(text):
        return _IN_TEXT.sub(r"\1\2***", text)

    def hide(item: re.Match[str]) -> str:
        return f"{item[1]}***" if unquote(item[2]).lower().endswith("password") else item[0]

    return _QUERY_ITEM.sub(hide, _USER_PASSWORD.sub(r"\1***", text))


class _MisfitError(Exception):
    """A value does not fit its annotation."""


def _fit(annotation: Any, value: Any) -> Any:
    kinds, extras = split_annotation(annotation)
    fitted = _fit_first(kinds, value) if len(kinds) > 1 else _fit_one(kinds[0], value)
    demands = [extra for extra in extras if isinstance(extra, Requirement)]  # others are the flags'
    try:
        holds = fitted is None or all(demand.holds(fitted) for demand in demands)
    except OSError:  # a path that is too long, or leads where nobody may look
        holds = False
    return _require(fitted, holds)


def _fit_first(kinds: Sequence[Any], value: Any) -> Any:
    for kind in kinds:
        try:
            return _fit(kind, value)
        except _MisfitError:
            continue
    raise _MisfitError


def _fit_one(kind: Any, value: Any) -> Any:
    origin = get_origin(kind)
    if origin is Annotated or origin in (Union, UnionType):
        return _fit(kind, value)
    if origin is Literal:
        return _require(value, isinstance(value, str) and value in get_args(kind))
    if origin is tuple:
        return _fit_tuple(get_args(kind), value)
    if origin is not None:
        return _fit_mapping(get_args(kind)[1], value)
    if kind in _PLAIN_TYPES:
        return _PLAIN_TYPES[kind](value)
    return _require(value, isinstance(value, kind))


def _fit_tuple(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    _require(value, isinstance(value, Sequence) and not isinstance(value, str | bytes))
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    _require(value, len(kinds) == len(value))
    return tuple(_fit(kind, entry) for kind, entry in zip(kinds, value, strict=True))


def _fit_mapping(kind: Any, value: Any) -> dict[str, Any]:
    _require(value, isinstance(value, Mapping))
    return {_fit(Name, name): _fit(kind, entry) for name, entry in value.items()}


def _require(value: Any, holds: bool) -> Any:
    if not holds:
        raise _MisfitError
    return value


def _fit_int(value: Any) -> int:
    number = _require(value, isinstance(value, numbers.Real) and not isinstance(value, bool))
    if isinstance(number, numbers.Integral):
        return int(number)
    return int(_require(number, math.isfinite(number) and number == int(number)))


def _fit_float(value: Any) -> float:
    _require(value, isinstance(value, numbers.Real) and not isinstance(value, bool))
    try:
        number = float(value)
    except OverflowError:
        raise _MisfitError from None
    return float(_require(number, math.isfinite(number)))


def _fit_path(value: Any) -> Path:
    return Path(_require(value, isinstance(value, str | os.PathLike) and bool(os.fspath(value))))


def _fit_plain(value: Any) -> Any:
    """Lets through what JSON and YAML hold, lists as tuples."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return _fit_mapping(Any, value)
    if isinstance(value, Sequence):
        return _fit_tuple((Any, ...), value)
    return _fit_float(value)


_PLAIN_TYPES: Mapping[Any, Callable[[Any], Any]] = {
    Any: _fit_plain,
    NoneType: lambda value: _require(value, value is None),
    bool: lambda value: _require(value, isinstance(value, bool)),
    int: _fit_int,
    float: _fit_float,
    str: lambda value: _require(value, isinstance(value, str)),
    Path: _fit_path,
}
_NOUNS: Mapping[Any, tuple[str, str]] = {
    Any: ("plain data", "plain data"),
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
}


def describe_allowed(annotation: Any, *, many: bool = False) -> str:
    """Returns in words what an annotation allows, such as ``a number in [0, 1]``."""
    kinds, extras = split_annotation(annotation)
    nouns = (_describe_one(kind, many=many) for kind in kinds if kind is not NoneType)
    text = " or ".join(dict.fromkeys(nouns))
    for extra in extras:
        if isinstance(extra, Requirement):
            text = extra.describe(text, many=many)
    return text


def _describe_one(kind: Any, *, many: bool) -> str:
    origin = get_origin(kind)
    if origin is Annotated or origin in (Union, UnionType):
        return describe_allowed(kind, many=many)
    if origin is Literal:
        return OneOf(get_args(kind)).describe("", many=many)
    if origin is tuple:
        first, *others = get_args(kind)
        entries = describe_allowed(first, many=True)
        if others == [Ellipsis]:
            return f"{'lists' if many else 'a list'} of {entries}"
        return f"{len(others) + 1} {entries}"
    if origin is not None:
        entries = describe_allowed(get_args(kind)[1], many=True)
        return f"{'mappings' if many else 'a mapping'} of names to {entries}"
    return _NOUNS[kind][many] if kind in _NOUNS else f"of type {kind.__name__}"


def _hint(annotation: Any, value: Any) -> str:
    """What a name that is none of a closed set may have meant."""
    meant = dict(_choices(annotation))
    known = dict.fromkeys(meant.values())
    words = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    wrong = [word for word in words if isinstance(word, str) and word not in known]
    near = near_names(meant.get(wrong[0].lower(), wrong[0]), known) if wrong else ""
    return f"; did you mean {near}?" if near else ""


def _choices(annotation: Any) -> Iterator[tuple[str, str]]:
    """Yields words and the names that are meant by them, mostly themselves."""
    kinds, extras = split_annotation(annotation)
    for extra in extras:
        if isinstance(extra, OneOf):
            yield from zip(extra.names, extra.names, strict=True)
            yield from extra.also_called
    for kind in kinds:
        if get_origin(kind) is Literal:
            yield from zip(get_args(kind), get_args(kind), strict=True)
        elif get_origin(kind) is not None:
            for part in get_args(kind):
                yield from _choices(part)


def _show(value: Any) -> str:
    """A value in a line that a screen can hold."""
    try:
        text = repr(hide_passwords(str(value)) if isinstance(value, str | Path) else value)
    except ValueError:  # a whole number of more digits than Python writes
        return "a number of thousands of digits"
    text = hide_passwords(text)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} letters)"


def _enumerate(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
