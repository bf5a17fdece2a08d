"""A run's record: configuration, provenance and results, one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

__all__ = ["SCHEMA_VERSION", "Record", "read_record"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Record:
    """A run's configuration, provenance and results.

    Attributes:
        run_id: Name of the run's folder.
        config: The full configuration.
        architecture: Hash of a DS-Net; name, classes, shape and options of a network by name.
        num_params: Its parameters, attention logits not counted.
        provenance: Versions, commit, device, precision, data fingerprint, seconds.
        training: Epochs, the selected epoch and its validation accuracies; empty before the end.
        evaluation: A :meth:`RobustnessReport.to_dict <nasbench_at.evaluation.RobustnessReport>`;
            None before :func:`nasbench_at.evaluate`.
        schema_version: Layout of this object.
    """

    run_id: str
    config: Mapping[str, Any]
    architecture: str
    num_params: int
    provenance: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready data from which :meth:`from_dict` restores the record."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def to_json(self) -> str:
        """Returns the record as JSON text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, data: Any) -> Record:
        """Restores a record from plain data.

        Raises:
            ValueError: If the data are no record, or one of a newer schema.
        """
        version = data.get("schema_version") if isinstance(data, dict) else None
        if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
            raise ValueError(
                f"schema_version must lie in 1..{SCHEMA_VERSION}, got {version!r}; a newer one "
                "needs a newer nasbench-at"
            )
        if unknown := data.keys() - _KEYS:
            raise ValueError(f"unknown record keys: {', '.join(sorted(unknown))}")
        if missing := _REQUIRED_KEYS - data.keys():
            raise ValueError(f"missing record keys: {', '.join(sorted(missing))}")
        return cls(**data)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads a record.

        Raises:
            ValueError: If the text is no record, or one of a newer schema.
        """
        return cls.from_dict(json.loads(text))

    @property
    def results(self) -> Mapping[str, Mapping[str, Any]]:
        """The evaluation's results by attack; empty before :func:`nasbench_at.evaluate`."""
        results: Mapping[str, Mapping[str, Any]] = (self.evaluation or {}).get("results", {})
        return results

    def was_evaluated_by(self, attack: str) -> bool:
        """Whether the record has an accuracy under an attack."""
        return attack in self.results

    def accuracy(self, attack: str) -> float:
        """Returns the test accuracy in [0, 1] under an attack, such as ``"pgd"``.

        Raises:
            ValueError: If that attack was not run.
        """
        if not self.was_evaluated_by(attack):
            raise ValueError(
                f"run {self.run_id!r} was not evaluated by {attack!r}; it has: "
                f"{', '.join(self.results) or 'nothing'}"
            )
        return float(self.results[attack]["accuracy"])


_KEYS = frozenset(item.name for item in fields(Record))
_REQUIRED_KEYS = frozenset(
    item.name
    for item in fields(Record)
    if item.default is MISSING and item.default_factory is MISSING
)


def read_record(path: str | Path) -> Record:
    """Reads a record from a file.

    Raises:
        ValueError: If the file cannot be read or holds no record; the message names it.
    """
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  a Path costs as much as reading
            return Record.from_json(file.read())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read record {str(path)!r}: {error}") from None
