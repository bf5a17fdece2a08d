"""What was run, as data: a record a run, and a table over many.

No torch here, so that records can be read and queried anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from nasbench_at.files import write_atomically

__all__ = ["SCHEMA_VERSION", "Benchmark", "Record", "read_record"]

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

    def was_evaluated_by(self, attack: str) -> bool:
        """Whether the record has an accuracy under an attack."""
        return attack in (self.evaluation or {}).get("results", {})

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
    def load(cls, *paths: str | Path) -> Benchmark:
        """Loads records, those of several places together.

        Args:
            *paths: Folders in which runs lie, at any depth, or ``.jsonl`` files that :meth:`save`
                wrote. A run that is found twice counts once, evaluated if it is so anywhere.

        Raises:
            ValueError: If a path does not exist or a record cannot be read.
        """
        found: dict[str, Record] = {}
        for path in map(Path, paths):
            for record in _read_lines(path) if path.suffix == ".jsonl" else _read_runs(path):
                if record.run_id not in found or found[record.run_id].evaluation is None:
                    found[record.run_id] = record
        return cls(list(found.values()))

    def save(self, path: str | Path) -> None:
        """Writes the records to one ``.jsonl`` file, a line each.

        Raises:
            ValueError: If the suffix is another.
        """
        path = Path(path)
        if path.suffix != ".jsonl":
            raise ValueError(f"records are saved to a .jsonl file, got {str(path)!r}")
        lines = (json.dumps(asdict(record)) + "\n" for record in self)
        write_atomically(path, "".join(lines).encode())

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

    def filter(self, keep: Callable[[Record], bool]) -> Benchmark:
        """Returns the records for which a function says so."""
        return Benchmark([record for record in self if keep(record)])

    def best(self, attack: str = "pgd") -> Record:
        """Returns the record of the highest accuracy under an attack, the first of equal ones.

        Raises:
            ValueError: If no record was evaluated by it.
        """
        evaluated = self.filter(lambda record: record.was_evaluated_by(attack))
        if not len(evaluated):
            raise ValueError(f"none of {len(self)} records was evaluated by {attack!r}")
        return max(evaluated, key=lambda record: record.accuracy(attack))

    def summary(self) -> pd.DataFrame:
        """Returns a row a configuration: how many seeds, mean and deviation of each accuracy.

        Of the configuration the row holds what differs between the records. Columns are ``seeds``,
        and for each attack ``<attack>`` (mean, in [0, 1]) and ``<attack>_std`` (the sample standard
        deviation over seeds; NaN for one seed).
        """
        groups: dict[str, list[Record]] = {}
        for record in self:
            identity = {key: value for key, value in record.config.items() if key != "seed"}
            groups.setdefault(json.dumps(identity, sort_keys=True), []).append(record)
        varying = _varying_keys([json.loads(key) for key in groups])
        rows = []
        for records in groups.values():
            row: dict[str, Any] = {key: records[0].config.get(key) for key in varying}
            row |= {"num_params": records[0].num_params, "seeds": len(records)}
            for attack in _attacks_of(records):
                values = [r.accuracy(attack) for r in records if r.was_evaluated_by(attack)]
                series = pd.Series(values)
                row |= {attack: series.mean(), f"{attack}_std": series.std()}
            rows.append(row)
        return pd.DataFrame(rows)

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


def _read_runs(path: Path) -> Iterator[Record]:
    if not path.is_dir():
        raise ValueError(f"{str(path)!r} is no folder of runs")
    return map(read_record, sorted(path.glob("**/record.json")))


def _read_lines(path: Path) -> Iterator[Record]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read records {str(path)!r}: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            yield Record.from_json(line)
        except (ValueError, TypeError) as error:
            raise ValueError(f"cannot read line {number} of {str(path)!r}: {error}") from None


def _varying_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for config in configs for key in config)
    first = configs[0] if configs else {}
    return [key for key in keys if any(config.get(key) != first.get(key) for config in configs)]


def _attacks_of(records: Sequence[Record]) -> list[str]:
    results = [(record.evaluation or {}).get("results", {}) for record in records]
    return list(dict.fromkeys(attack for result in results for attack in result))
