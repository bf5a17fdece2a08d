"""Under which conditions an accuracy was measured: who may be compared with whom."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nasbench_at.records.evaluation import AttackResult

if TYPE_CHECKING:
    from nasbench_at.records.record import Record

__all__ = [
    "Conditions",
    "condition_names",
    "conditions_of",
    "curve_conditions",
    "describe_attack",
    "describe_conditions",
    "differences",
    "find_obstacle",
    "images_of",
    "meets",
    "require_equal_conditions",
]

_STANDARD_PARTS = 4
"""Attacks of AutoAttack's standard version."""
_NO_CONDITIONS = frozenset({"name", "seed"})
"""Settings that leave an accuracy comparable."""
_OF_THE_ROW = frozenset({"norm", "eps"})
"""Settings that the row itself names; those of a worst case's attacks it does not."""


@dataclass(frozen=True)
class Conditions:
    """Everything that must be equal for two accuracies to be comparable.

    The seed is not among them: another random start measures the same thing. Comparisons image by
    image ask for equal seeds on top.

    Attributes:
        attack: Name of the row.
        data: Name of the images. Two names of one fingerprint and split are the same images, so
            it is not compared.
        split: Which images of the data; their whole name without a fingerprint.
        data_fingerprint: Hash of the images.
        num_samples: How many of them.
        subset: Hash of which; None for all.
        norm: Threat model.
        eps: Radius.
        settings: The attack's other settings, flat and sorted: ``("pgd.steps", 20)`` is a setting
            of an attack of a worst case.
    """

    attack: str
    data: str = field(compare=False, repr=False)
    split: str
    data_fingerprint: str
    num_samples: int
    subset: str | None
    norm: str | None
    eps: float | None
    settings: tuple[tuple[str, Any], ...]


def conditions_of(result: AttackResult) -> Conditions:
    """Returns the conditions of a row."""
    return Conditions(
        attack=result.attack,
        data=result.data,
        split=result.split,
        data_fingerprint=result.data_fingerprint,
        num_samples=result.num_samples,
        subset=result.subset,
        norm=result.norm,
        eps=result.eps,
        settings=_sorted_settings(json.dumps(result.settings)),
    )


@lru_cache(maxsize=1024)  # thousands of rows have a few settings
def _sorted_settings(settings: str) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(_flatten(json.loads(settings))))


def curve_conditions(result: AttackResult) -> Conditions:
    """Returns what the rows of one attack at several radii have in common.

    The step, which grows with the radius, is not among it.
    """
    conditions = conditions_of(result)
    settings = tuple(
        (key, value)
        for key, value in conditions.settings
        if key.rpartition(".")[2] not in ("eps", "step_size")
    )
    return replace(conditions, eps=None, settings=settings)


def images_of(result: AttackResult) -> tuple[str, str, int, str | None]:
    """Returns what is equal for rows that were measured on the same images."""
    return result.split, result.data_fingerprint, result.num_samples, result.subset


def differences(first: Conditions, second: Conditions) -> list[str]:
    """Returns what keeps two accuracies from being compared, such as ``eps (0.1 and 0.3)``.

    Empty if they may be compared.
    """
    one, other = _as_mapping(first), _as_mapping(second)
    if (first.split, first.data_fingerprint) == (second.split, second.data_fingerprint):
        one["data"] = other["data"]  # two names of the same images
    return [
        f"{key} ({' and '.join(_format_pair(one.get(key), other.get(key)))})"
        for key in one | other
        if one.get(key) != other.get(key)
    ]


def _format_pair(*values: Any) -> Sequence[str]:
    """Numbers with six digits, unless they differ in later ones."""
    short = [f"{value:.6g}" if isinstance(value, float) else repr(value) for value in values]
    return short if len(set(short)) > 1 else [repr(value) for value in values]


def require_equal_conditions(rows: Iterable[tuple[Record, AttackResult]]) -> None:
    """Raises a ValueError, which says what differs, unless rows of records may be compared."""
    if obstacle := find_obstacle(rows):
        raise ValueError(obstacle)


def find_obstacle(rows: Iterable[tuple[Record, AttackResult]]) -> str:
    """Says which two rows of records cannot be compared, and why; empty if all can be."""
    first: tuple[Record, Conditions] | None = None
    for record, row in rows:
        conditions = conditions_of(row)
        if first is None:
            first = record, conditions
        elif conditions != first[1] and (different := differences(first[1], conditions)):
            return (
                f"{first[0].run_id!r} and {record.run_id!r} cannot be compared by {row.attack!r}; "
                f"they differ in {', '.join(different)}"
            )
    return ""


def condition_names(result: AttackResult) -> set[str]:
    """Returns the names by which :func:`meets` knows a row's conditions."""
    return set(_as_mapping(conditions_of(result)))


def meets(result: AttackResult, wanted: Mapping[str, Any]) -> bool:
    """Whether a row was measured under the conditions that are wanted.

    Args:
        result: The row.
        wanted: By field of :class:`Conditions` or name of a setting, such as ``eps`` or ``steps``.
    """
    own = _as_mapping(conditions_of(result))
    return all(_agree(own.get(key), _freeze(value)) for key, value in wanted.items())


def _agree(one: Any, other: Any) -> bool:
    """Whether values are equal, numbers up to the rounding of 8 / 255."""
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)


def describe_conditions(result: AttackResult) -> str:
    """Says under which conditions a row was measured, its attack's name and the data left out.

    Returns:
        Such as ``L∞ eps 0.1, 20 steps of 0.0258, uniform start, 500 images``.
    """
    images = f"{result.num_samples:,} images"
    if result.subset is not None:
        images += f" (subset {result.subset})"
    norm = "" if result.norm is None else "L\N{INFINITY}" if result.norm == "Linf" else result.norm
    radius = "" if result.eps is None else f"eps {result.eps:g}"
    threat = " ".join(filter(None, [norm, radius]))
    return ", ".join(filter(None, [threat, describe_attack(result.settings), images]))


def describe_attack(settings: Mapping[str, Any]) -> str:
    """Says in a few words how an attack was set; empty for natural accuracy."""
    if not settings:
        return ""
    if "version" in settings:
        what, attacks = settings["version"], settings["attacks"]
        is_whole = what != "custom" and len(attacks) >= _STANDARD_PARTS
        return f"{what} version" if is_whole else " + ".join(attacks)
    if "severities" in settings:
        return _describe_corruptions(settings["corruptions"], settings["severities"])
    if "sigma" in settings:
        return (
            f"certified lower bound of the smoothed classifier, sigma {_format(settings['sigma'])},"
            f" n {settings['n']}, alpha {_format(settings['alpha'])}"
        )
    if "steps" not in settings:
        return "the images that no attack fooled" if "attacks" in settings else ""
    steps = "one step" if settings["steps"] == 1 else f"{settings['steps']} steps"
    start, restarts = settings.get("start", ""), settings.get("restarts", 1)
    size = f" of {_format(settings['step_size'])}" if "step_size" in settings else ""
    parts = [
        f"{steps}{size}",
        "from the image" if start == "none" else f"{start} start" if start else "",
        "" if restarts == 1 else f"{restarts} restarts",
        "any iterate" if settings.get("counts") == "any" else "",
    ]
    return ", ".join(filter(None, parts))


def _describe_corruptions(names: Sequence[str], severities: Sequence[int]) -> str:
    several = "severity" if len(severities) == 1 else "severities"
    which = f"{several} {', '.join(map(str, severities))}"
    if len(names) > 1:
        return f"mean of {len(names)} corruptions, {which}"
    return which if len(severities) == 1 else f"mean of {which}"


def _format(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _as_mapping(conditions: Conditions) -> dict[str, Any]:
    """By name; the split, of which the name of the images says more, is left out."""
    own = {item.name: getattr(conditions, item.name) for item in fields(conditions)}
    del own["split"]
    return own | dict(own.pop("settings"))


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            inner = "" if key == "attacks" else f"{prefix}{key}."
            yield from _flatten(value, inner)
        elif key not in _NO_CONDITIONS and (prefix or key not in _OF_THE_ROW):
            yield f"{prefix}{key}", _freeze(value)


def _freeze(value: Any) -> Any:
    return tuple(map(_freeze, value)) if isinstance(value, list | tuple) else value
