"""Numbers, switches and lists as text: one reading for flags, files and queries.

The rules are those of YAML 1.2's core schema: ``5e-4`` is a number, only ``true`` and ``false`` are
booleans, ``null`` is None, and ``off``, ``no``, ``1_000`` or ``2024-01-01`` are texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from yaml import SafeLoader as _BaseLoader
else:  # libyaml, where it is there, is ten times as fast
    _BaseLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

__all__ = ["dump_yaml", "load_yaml", "read_scalar", "write_scalar"]

_MAX_DIGITS = 4000  # Python reads no longer ones


def read_scalar(text: str) -> Any:
    """Returns what a word stands for: None, a boolean, a number, a list, a mapping or a text.

    Args:
        text: As in a YAML file, such as ``5e-4``, ``true``, ``[1, 2]`` or ``'5'``; whatever is none
            of these is itself.

    Raises:
        ValueError: If a list, a mapping or a quoted text does not end.
    """
    if text.startswith(("[", "{", "'", '"')):
        return load_yaml(text)
    for pattern, construct in _SCALARS.values():
        if pattern.match(text):
            return construct(text)
    return text


def write_scalar(value: Any) -> str:
    """Returns the word that :func:`read_scalar` reads as a value, itself plain data."""
    text: str = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


def load_yaml(text: str) -> Any:
    """Returns the plain data of a YAML text.

    Raises:
        ValueError: If the text is no YAML, names a key twice, or holds anything but plain data.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise ValueError("lists or mappings are nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def dump_yaml(value: Any) -> str:
    """Returns YAML text from which :func:`load_yaml` restores plain data."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None)
    return text


def _read_int(text: str) -> int | float:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base) if len(text) <= _MAX_DIGITS else math.inf


def _read_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


# The order matters: a whole number is no float.
_SCALARS: dict[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    "null": (re.compile(r"(?:~|null|Null|NULL|)\Z"), lambda text: None),
    "bool": (
        re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
        lambda text: text.lower() == "true",
    ),
    "int": (re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), _read_int),
    "float": (
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        _read_float,
    ),
}


class _Loader(_BaseLoader):
    """Plain data by the core schema, each key once."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as PyYAML's own resolvers declare it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            names = [key.value for key, _ in node.value]
            twice = next((name for name in names if names.count(name) > 1), names[-1])
            raise yaml.constructor.ConstructorError(
                None, None, f"key {twice!r} is there twice", node.start_mark
            )
        return mapping


class _Dumper(yaml.SafeDumper):
    """Quotes what the core schema or YAML 1.1, which other readers follow, would misread."""


def _construct(loader: Any, node: yaml.Node) -> Any:
    _, read = _SCALARS[node.tag.rpartition(":")[2]]
    return read(loader.construct_scalar(node))


for _name, (_pattern, _) in _SCALARS.items():
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, None)
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _construct)
