"""A run's record: configuration, provenance and results, one JSON object."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import GetPydanticSchema, TypeAdapter
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from nasbench_at.records.conditions import Conditions, curve_conditions, images_of, meets
from nasbench_at.records.evaluation import AttackResult, Evaluation, format_results
from nasbench_at.records.validation import (
    CHECKED,
    OPEN,
    Count,
    Integer,
    NonNegative,
    Share,
    Text,
    Word,
    check,
    parse,
)

__all__ = ["SCHEMA_VERSION", "Record", "read_record"]

SCHEMA_VERSION: Literal[2] = 2


class _Config(TypedDict, total=False):
    """What is read of a configuration, which is checked in full only where it is used."""

    __pydantic_config__ = OPEN  # type: ignore[misc]  # pydantic's way to configure a TypedDict

    model: Text
    data: Text
    method: Text
    seed: Integer
    norm: Text
    eps: NonNegative | None
    extra_data: Text | None
    extra_fraction: NonNegative | None
    beta: NonNegative | None
    epochs: Count | None
    plugins: list[Text]
    contents: dict[str, Text]


class _Provenance(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]

    train_seconds: NonNegative
    data_fingerprint: Text
    extra_data_fingerprint: Text


class _Selected(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]

    epoch: Count
    validation_natural: Share
    validation_robust: Share
    num_samples: Count


class _Training(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]

    epochs: Count
    stopped: Text | None
    num_train: Count
    num_extra: Count
    selected: _Selected


def _checked_as(schema: Any) -> GetPydanticSchema:
    """Lets plain data through that fit a schema, and whatever else they hold."""
    return GetPydanticSchema(lambda _, handler: handler(schema))


@dataclass(frozen=True, config=CHECKED)
class Record:
    """A run's configuration, provenance and results.

    Attributes:
        run_id: Name of the run's folder.
        config: The full configuration.
        architecture: Hash of a DS-Net; name, classes, shape and options of a network by name.
        num_params: Its parameters, attention logits not counted.
        provenance: Versions, commit, device, precision, data fingerprint, seconds.
        training: Epochs, the selected epoch and its validation accuracies; empty before the end.
        evaluations: What :func:`nasbench_at.evaluate_run` found, the latest last.
        schema_version: Layout of this object.
    """

    run_id: Word
    config: Annotated[dict[str, Any], _checked_as(_Config)]
    architecture: Text
    num_params: Count
    provenance: Annotated[dict[str, Any], _checked_as(_Provenance)]
    training: Annotated[dict[str, Any], _checked_as(_Training)] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    schema_version: Literal[2] = SCHEMA_VERSION

    def __str__(self) -> str:
        network = f"{self.run_id}: {self.num_params:,} parameters"
        return f"{network}\n{format_results(self.results)}" if self.results else network

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready data from which :meth:`from_dict` restores the record."""
        return asdict(self)

    def to_json(self) -> str:
        """Returns the record as JSON text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, data: Any) -> Record:
        """Restores a record from plain data.

        Raises:
            ValueError: If the data are no record, or one of another schema; the message names the
                field.
        """
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION or isinstance(version, float):
            raise ValueError(
                f"schema_version must be {SCHEMA_VERSION}, got {version!r}; another one needs "
                "another nasbench-at"
            )
        return check(_SCHEMA, data)

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """Reads a record.

        Raises:
            ValueError: If the text is no record, or one of another schema; the message names the
                field.
        """
        return cls.from_dict(parse(text))

    def with_evaluation(self, evaluation: Evaluation) -> Record:
        """Returns the record with another evaluation beside those it has.

        Its rows replace those of exactly the same conditions and seed.
        """
        new = {row.key for row in evaluation.results}
        kept = []
        for old in self.evaluations:
            if rows := tuple(row for row in old.results if row.key not in new):
                kept.append(replace(old, results=rows))
        return replace(self, evaluations=(*kept, evaluation))

    @property
    def is_evaluated(self) -> bool:
        """Whether there is any accuracy on the test images."""
        return bool(self.evaluations)

    @cached_property
    def all_results(self) -> tuple[AttackResult, ...]:
        """Every row, in the order they were measured."""
        return tuple(row for evaluation in self.evaluations for row in evaluation.results)

    @cached_property
    def results(self) -> Mapping[str, AttackResult]:
        """The main row of each attack; empty before an evaluation.

        Of several it is the latest under the run's own norm and eps; without one, the latest
        evaluation's row of the largest eps. ``worst_case`` is that over the most attacks.
        """
        return {name: self._choose_main(rows) for name, rows in self._rows.items()}

    @cached_property
    def _rows(self) -> Mapping[str, Sequence[AttackResult]]:
        """The rows of each attack, of an evaluation those of larger eps last.

        Natural accuracy comes first and the worst case last, the attacks as they were run.
        """
        names = dict.fromkeys(row.attack for row in self.all_results)
        in_order = sorted(names, key=lambda name: (name != "natural", name == "worst_case"))
        rows: dict[str, list[AttackResult]] = {name: [] for name in in_order}
        for evaluation in self.evaluations:
            for row in sorted(evaluation.results, key=lambda row: row.eps or 0.0):
                rows[row.attack].append(row)
        return rows

    def _choose_main(self, rows: Sequence[AttackResult]) -> AttackResult:
        own_norm = self.config.get("norm", "Linf")  # left out where it is this
        own = [r for r in rows if r.norm == own_norm and r.eps == self.config.get("eps")]
        *_, main = sorted(own or rows, key=_num_attacks)
        return main

    @cached_property
    def curves(self) -> Mapping[str, tuple[AttackResult, ...]]:
        """By attack, its rows by eps where there are several that differ in nothing else.

        All are of one norm and the same images: those of the most rows, parts of AutoAttack not
        counted. Of several such curves of an attack it is that of the most radii. Of equal ones the
        latest counts.
        """
        found: dict[Any, dict[str, dict[Conditions, dict[float, AttackResult]]]] = {}
        for row in self.all_results:
            if row.eps is not None:
                attacks = found.setdefault((row.norm, images_of(row)), {})
                alike = attacks.setdefault(row.attack, {})
                alike.setdefault(curve_conditions(row), {})[row.eps] = row
        curves = map(_longest_curves, reversed(found.values()))
        return max(curves, key=_num_rows, default={})

    def was_evaluated_by(self, attack: str) -> bool:
        """Whether the record has an accuracy under an attack."""
        return attack in self.results

    def accuracy(self, attack: str) -> float:
        """Returns the test accuracy in [0, 1] of an attack's main row, such as ``"pgd"``.

        Raises:
            ValueError: If that attack was not run.
        """
        return self.result(attack).accuracy

    def result(self, attack: str) -> AttackResult:
        """Returns the main row of an attack.

        Raises:
            ValueError: If that attack was not run.
        """
        if attack not in self.results:
            raise ValueError(
                f"run {self.run_id!r} was not evaluated by {attack!r}; it has: "
                f"{', '.join(self.results) or 'nothing'}"
            )
        return self.results[attack]

    def find_result(self, attack: str, **conditions: Any) -> AttackResult | None:
        """Returns an attack's row under some conditions, of several the main one; None if none.

        Args:
            attack: Name of the row.
            **conditions: Fields of :class:`Conditions <nasbench_at.records.Conditions>` or names of
                settings, such as ``eps=0.1, restarts=10``.
        """
        rows = [row for row in self._rows.get(attack, ()) if meets(row, conditions)]
        return self._choose_main(rows) if rows else None


def _longest_curves(
    found: Mapping[str, dict[Conditions, dict[float, AttackResult]]],
) -> dict[str, tuple[AttackResult, ...]]:
    """The curve of the most radii of each attack that has several, the latest of equal ones."""
    longest = {name: max(reversed(each.values()), key=len) for name, each in found.items()}
    return {
        name: tuple(rows[eps] for eps in sorted(rows))
        for name, rows in longest.items()
        if len(rows) > 1
    }


def _num_rows(curves: Mapping[str, Sequence[AttackResult]]) -> int:
    """How many rows curves have without those of AutoAttack's parts."""
    return sum(len(rows) for name, rows in curves.items() if "/" not in name)


def _num_attacks(row: AttackResult) -> int:
    return len(row.settings.get("attacks", ())) if row.attack == "worst_case" else 0


_SCHEMA = TypeAdapter(Record)


def read_record(path: str | Path) -> Record:
    """Reads a record from a file.

    Raises:
        ValueError: If the file cannot be read or holds no record; the message names it.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  a Path costs as much as reading
            return Record.from_json(file.read())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read record {str(path)!r}: {error}") from None
