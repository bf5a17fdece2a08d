"""What a run measured beside its record: its learning curve, and which images it got right.

A record that was read from its folder has them in files beside it; one from a table has them in
its row.
"""

from __future__ import annotations

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from nasbench_at.records.metrics import check_metrics, read_metrics
from nasbench_at.records.outcomes import SUBSET_PREFIX, outcomes_path, read_outcomes
from nasbench_at.records.record import Record
from nasbench_at.records.validation import CHECKED, Count, Text, check, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MEASURED",
    "FolderMeasurements",
    "Measurements",
    "MergedMeasurements",
    "StoredMeasurements",
]

MEASURED = ("metrics", "outcomes", "subsets")
"""What stands beside a record's own keys in a table."""


class Measurements(ABC):
    """A run's learning curve and per-sample outcomes, read when they are asked for."""

    @abstractmethod
    def metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of ``metrics.jsonl``, one an epoch; none if there are none.

        Raises:
            ValueError: If they cannot be read.
        """

    @abstractmethod
    def outcomes(self) -> dict[str, NDArray[Any]]:
        """Returns what :func:`nasbench_at.records.outcomes.read_outcomes` does; maybe nothing.

        Raises:
            ValueError: If they cannot be read.
        """

    def to_dict(self, record: Record) -> dict[str, Any]:
        """Returns them as JSON-ready data, from which :class:`StoredMeasurements` restores them.

        Returns:
            ``metrics``, the lines; ``outcomes``, by key of a row the base64 text of its bits, image
            by image, the highest bit of a byte first; ``subsets``, by hash the indices of images.

        Raises:
            ValueError: If they cannot be read, or outcomes contradict the record's counts.
        """
        found = self.outcomes()
        packed = {}
        for row in record.all_results:
            if row.key not in found:
                continue
            right = found[row.key]
            if right.dtype != bool or right.shape != (row.num_samples,):
                raise ValueError(
                    f"outcomes {row.key!r} of run {record.run_id!r} must be a truth value for each "
                    f"of {row.num_samples} images, got {right.dtype} {right.shape}"
                )
            if int(right.sum()) != row.num_correct:
                raise ValueError(
                    f"outcomes {row.key!r} of run {record.run_id!r} have {int(right.sum())} images "
                    f"right, its record {row.num_correct}"
                )
            packed[row.key] = _pack(right)
        subsets = {
            name.removeprefix(SUBSET_PREFIX): indices.tolist()
            for name, indices in found.items()
            if name.startswith(SUBSET_PREFIX)
        }
        return {
            "metrics": self.metrics(),
            "outcomes": dict(sorted(packed.items())),
            "subsets": dict(sorted(subsets.items())),
        }


@dataclass(frozen=True)
class FolderMeasurements(Measurements):
    """Those of a record that lies in a run's folder.

    Attributes:
        folder: The folder.
    """

    folder: Path

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of the folder's ``metrics.jsonl``."""
        return read_metrics(self.folder / "metrics.jsonl")

    def outcomes(self) -> dict[str, NDArray[Any]]:
        """Returns what the folder's ``outcomes.safetensors`` holds."""
        record = self.folder / "record.json"
        return read_outcomes(record) if outcomes_path(record).exists() else {}


@dataclass(frozen=True)
class StoredMeasurements(Measurements):
    """Those that a table holds.

    Attributes:
        record: Whose they are.
        parts: ``metrics``, ``outcomes`` and ``subsets`` as :meth:`Measurements.to_dict` returns
            them, or their JSON text.
    """

    record: Record
    parts: Mapping[str, Any]

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of the row's learning curve."""
        rows = self._part("metrics", [])
        if not isinstance(rows, list):
            raise ValueError(f"metrics of run {self.record.run_id!r} are no list")
        found = []
        for number, row in enumerate(rows, start=1):
            try:
                found.append(check_metrics(row))
            except ValueError as error:
                raise ValueError(
                    f"cannot read metrics of run {self.record.run_id!r}: line {number}: {error}"
                ) from None
        return found

    def outcomes(self) -> dict[str, NDArray[Any]]:
        """Returns what the row's bits say of each image."""
        import numpy as np

        try:
            content = check(
                _OUTCOMES, {name: self._part(name, {}) for name in ("outcomes", "subsets")}
            )
            sizes = {row.key: row for row in self.record.all_results}
            if unknown := content["outcomes"].keys() - sizes.keys():
                raise ValueError(f"its record has no row {min(unknown)!r}")
            rows: dict[str, NDArray[Any]] = {}
            for key, text in content["outcomes"].items():
                rows[key] = _unpack(key, text, sizes[key].num_samples, sizes[key].num_correct)
        except ValueError as error:
            raise ValueError(
                f"cannot read outcomes of run {self.record.run_id!r}: {error}"
            ) from None
        for name, indices in content["subsets"].items():
            rows[SUBSET_PREFIX + name] = np.array(indices, dtype=np.int64)
        return rows

    def _part(self, name: str, default: Any) -> Any:
        part = self.parts.get(name)
        part = parse(part) if isinstance(part, str) else part
        return default if part is None else part


@dataclass(frozen=True)
class MergedMeasurements(Measurements):
    """Those of a run's copies, whose records were made one.

    Attributes:
        record: That one record.
        copies: The record and the measurements of each copy, of which the later ones hold.
    """

    record: Record
    copies: Sequence[tuple[Record, Measurements]]

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of a copy that has some."""
        found = (measured.metrics() for _, measured in reversed(self.copies))
        return next(filter(None, found), [])

    def outcomes(self) -> dict[str, NDArray[Any]]:
        """Returns what the copies know of each image, as far as they agree with the record."""
        counts = _counts(self.record)
        found: dict[str, NDArray[Any]] = {}
        for record, measured in self.copies:
            own = _counts(record)
            known = measured.outcomes().items()
            found |= {key: rows for key, rows in known if own.get(key) == counts.get(key)}
        return found


def _counts(record: Record) -> dict[str, int]:
    return {row.key: row.num_correct for row in record.all_results}


class _Outcomes(TypedDict):
    __pydantic_config__ = CHECKED  # type: ignore[misc]  # pydantic's way to configure a TypedDict

    outcomes: dict[Text, Text]
    subsets: dict[Text, list[Count]]


_OUTCOMES = TypeAdapter(_Outcomes)


def _pack(outcomes: NDArray[Any]) -> str:
    import numpy as np

    return base64.b64encode(np.packbits(outcomes).tobytes()).decode()


def _unpack(key: str, text: str, num_samples: int, num_correct: int) -> NDArray[Any]:
    """Returns bits as bool ``(num_samples,)``; those of another count are an error."""
    import numpy as np

    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{key}: {error}") from None
    if len(content) != (num_samples + 7) // 8:
        raise ValueError(f"{key}: {len(content)} bytes are not the bits of {num_samples} images")
    bits = np.unpackbits(np.frombuffer(content, np.uint8), count=num_samples).astype(np.bool_)
    if int(bits.sum()) != num_correct:
        raise ValueError(f"{key}: {int(bits.sum())} images are right, its record has {num_correct}")
    return bits
