"""What was run, as data: a record a run, and a table over many.

No torch here, so that records can be read and queried anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["SCHEMA_VERSION", "Benchmark", "Record", "read_record"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Record:
    """A run's configuration, provenance and results.

    Attributes:
        run_id: Name of the run's folder.
        config: The full configuration.
        architecture: Hash of the network.
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

    def to_json(self) -> str:
        """Returns the record as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads a record.

        Raises:
            ValueError: If the text is no record, or one of a newer schema.
        """
        data = json.loads(text)
        version = data.get("schema_version") if isinstance(data, dict) else None
        if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
            raise ValueError(
                f"schema_version must lie in 1..{SCHEMA_VERSION}, got {version!r}; a newer one "
                "needs a newer nasbench-at"
            )
        known = {f.name for f in fields(cls)}
        if set(data) - known:
            raise ValueError(f"unknown record keys: {', '.join(sorted(set(data) - known))}")
        return cls(**data)

    def accuracy(self, attack: str) -> float:
        """Returns the test accuracy in [0, 1] under an attack, such as ``"pgd"``.

        Raises:
            ValueError: If that attack was not run.
        """
        results = (self.evaluation or {}).get("results", {})
        if attack not in results:
            raise ValueError(
                f"run {self.run_id!r} was not evaluated by {attack!r}; it has: "
                f"{', '.join(results) or 'nothing'}"
            )
        return float(results[attack]["accuracy"])


def read_record(path: str | Path) -> Record:
    """Reads a record from a file.

    Raises:
        ValueError: If the file cannot be read or holds no record; the message names it.
    """
    try:
        return Record.from_json(Path(path).read_text("utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"cannot read record {str(path)!r}: {error}") from None


class Benchmark(Sequence[Record]):
    """Records, queried as one table.

    Args:
        records: The records.

    Example:
        ``Benchmark.load("runs/").query(blocks=("residual", "dense"), method="at").to_frame()``
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = tuple(records)

    @classmethod
    def load(cls, path: str | Path) -> Benchmark:
        """Loads the record of every run in a folder of runs.

        Raises:
            ValueError: If the folder does not exist or a record cannot be read.
        """
        if not Path(path).is_dir():
            raise ValueError(f"{str(path)!r} is no folder of runs")
        return cls([read_record(file) for file in sorted(Path(path).glob("*/record.json"))])

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        return self._records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def query(self, **config: Any) -> Benchmark:
        """Returns the records whose configuration has these values.

        Raises:
            ValueError: If no record's configuration has such a key.
        """
        for key in config:
            known = {name for record in self for name in record.config}
            if self._records and key not in known:
                raise ValueError(f"no configuration key {key!r}; known: {', '.join(sorted(known))}")
        wanted = json.loads(json.dumps(config))
        return Benchmark(
            [r for r in self if all(r.config.get(key) == value for key, value in wanted.items())]
        )

    def to_frame(self) -> pd.DataFrame:
        """Returns a row a record: configuration, parameters, accuracies under each attack."""
        rows = []
        for record in self:
            results = (record.evaluation or {}).get("results", {})
            accuracies = {name: result["accuracy"] for name, result in results.items()}
            rows.append(
                {
                    "run_id": record.run_id,
                    **record.config,
                    "num_params": record.num_params,
                    **accuracies,
                }
            )
        return pd.DataFrame(rows)
