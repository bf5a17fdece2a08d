"""Everything that was run, as one table."""

from __future__ import annotations

import gc
import itertools
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from nasbench_at.config.architecture import Architecture, architecture_of
from nasbench_at.config.suggestions import suggest
from nasbench_at.records.conditions import condition_names, require_equal_conditions
from nasbench_at.records.files import OnBroken, read_lines, write_lines
from nasbench_at.records.frames import (
    curve_rows,
    frame_of,
    record_rows,
    result_rows,
    summary_rows,
)
from nasbench_at.records.parquet import read_parquet, write_parquet
from nasbench_at.records.record import Record, read_record
from nasbench_at.records.run_folders import find_runs
from nasbench_at.records.seeds import SeedComparison, compare_seeds

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Benchmark", "no_garbage_collection"]

_COLUMNS = ("blocks", "attention_weights", "attention_keep")
"""What changes when the columns of a module, one a block, are numbered in another way."""
_READERS = {".jsonl": read_lines, ".parquet": read_parquet}
_WRITERS: Mapping[str, Callable[[Path, Sequence[Record]], None]] = {
    ".jsonl": write_lines,
    ".parquet": write_parquet,
}


class Benchmark(Sequence[Record]):
    """Records, queried as one table.

    Args:
        records: The records.
        folders: Where runs lie, by run id.

    Example:
        ``Benchmark.load("runs/").query(blocks=("residual", "dense"), method="at").to_frame()``
    """

    def __init__(
        self, records: Sequence[Record], folders: Mapping[str, Path] | None = None
    ) -> None:
        self._records = tuple(records)
        self._folders = dict(folders or {})

    @classmethod
    def load(cls, *paths: str | Path) -> Benchmark:
        """Loads records, those of several places together.

        Args:
            *paths: Folders in which runs lie, at any depth, folders of studies, or ``.jsonl`` or
                ``.parquet`` files that :meth:`save` wrote. A run that is found twice counts once,
                evaluated if it is so anywhere.

        A record that cannot be read is left out: a warning names its file and what is wrong with
        it, and the last warning says how many they are.

        Raises:
            ValueError: If a path does not exist or cannot be read as a whole.
        """
        found: dict[str, Record] = {}
        folders: dict[str, Path] = {}
        broken: list[ValueError] = []
        with no_garbage_collection():
            for record, folder in itertools.chain.from_iterable(
                _read(Path(path), broken.append) for path in paths
            ):
                name = record.run_id
                is_better = name not in found or not found[name].is_evaluated
                if is_better:
                    found[name] = record
                if folder is not None and (is_better or name not in folders):
                    folders[name] = folder
        for error in broken:
            warnings.warn(str(error), stacklevel=2)
        if broken:
            warnings.warn(
                f"left out {len(broken)} of {len(broken) + len(found)} records", stacklevel=2
            )
        return cls(list(found.values()), folders)

    def save(self, path: str | Path) -> None:
        """Writes the records to one file: ``.jsonl``, a line each, or ``.parquet``, a row each.

        A row of a Parquet file has the columns of :meth:`to_frame`, and as JSON text ``config``,
        ``provenance``, ``training`` and ``evaluations``; it needs the extra
        ``nasbench-at[parquet]``.

        Raises:
            ValueError: If the suffix is another, or pyarrow is not installed.
        """
        path = Path(path)
        if path.suffix not in _WRITERS:
            allowed = " or ".join(_WRITERS)
            raise ValueError(f"records are saved to a {allowed} file, got {str(path)!r}")
        _WRITERS[path.suffix](path, self._records)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Benchmark: ...
    def __getitem__(self, index: int | slice) -> Record | Benchmark:
        if isinstance(index, slice):
            return Benchmark(self._records[index], self._folders)
        return self._records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def query(self, **config: Any) -> Benchmark:
        """Returns the records whose configuration has these values.

        Lists and tuples are the same. Blocks are found in whatever order they were written, and
        one set for all modules is the same as that set once a module; queried along with them,
        ``attention_weights`` and ``attention_keep`` are columns of the blocks as they are queried.

        Raises:
            ValueError: If no record's configuration has such a key.
        """
        known = {name for record in self for name in record.config}
        for key in config:
            if self._records and key not in known:
                raise ValueError(f"no configuration key {key!r}; {suggest(key, sorted(known))}")
        wanted = _as_plain(config)
        return self.filter(lambda record: _agrees(record.config, wanted))

    def filter(self, keep: Callable[[Record], bool]) -> Benchmark:
        """Returns the records for which a function says so."""
        return Benchmark([record for record in self if keep(record)], self._folders)

    def best(self, attack: str = "pgd", **conditions: Any) -> Record:
        """Returns the record of the highest accuracy under an attack, the first of equal ones.

        ``benchmark.best("pgd", eps=8 / 255, norm="Linf")`` looks at these rows alone.

        Args:
            attack: Name of the row.
            **conditions: What the rows must have: fields of
                :class:`Conditions <nasbench_at.records.Conditions>` or names of settings.

        Raises:
            ValueError: If no record was evaluated so, or records were evaluated under conditions
                that forbid to compare them; the message names what differs.
        """
        known = self._known_conditions(attack)
        for name in sorted(conditions.keys() - known):
            raise ValueError(f"no condition {name!r} of {attack!r}; {suggest(name, sorted(known))}")
        found = [(each, each.find_result(attack, **conditions)) for each in self]
        rows = [(record, row) for record, row in found if row is not None]
        if not rows:
            words = "".join(f", {key} {value}" for key, value in conditions.items())
            raise ValueError(f"none of {len(self)} records was evaluated by {attack!r}{words}")
        require_equal_conditions(rows)
        return max(rows, key=lambda pair: pair[1].accuracy)[0]

    def _known_conditions(self, attack: str) -> set[str]:
        rows = (row for record in self for row in record.all_results if row.attack == attack)
        return {name for row in rows for name in condition_names(row)} or {"eps", "norm"}

    def compare(
        self,
        first: Mapping[str, Any] | Sequence[Record],
        second: Mapping[str, Any] | Sequence[Record],
        attack: str = "pgd",
    ) -> SeedComparison:
        """Compares two configurations over the seeds that both were evaluated with.

        ``benchmark.compare({"method": "at"}, {"method": "trades"}, "pgd").interval`` is the 95 %
        interval of the mean difference, that of the paired t test.

        Args:
            first: What to :meth:`query` for, or records: one configuration, a run a seed.
            second: Likewise; its accuracies are subtracted.
            attack: Name of a row, such as ``natural``, ``pgd`` or ``aa``.

        Raises:
            ValueError: If a group has several runs of a seed, no seed is common, or the images or
                the attack's settings differ between any two of these runs.
        """
        groups = [
            self.query(**group) if isinstance(group, Mapping) else group
            for group in (first, second)
        ]
        return compare_seeds(groups[0], groups[1], attack)

    def summary(self) -> pd.DataFrame:
        """Returns a row a configuration: how many seeds, mean and deviation of each accuracy.

        Of the configuration the row holds what differs between the records. Columns are ``seeds``,
        and for each attack ``<attack>`` (mean, in [0, 1]), ``<attack>_std`` (the sample standard
        deviation over seeds), ``<attack>_low`` and ``<attack>_high`` (the 95 % interval of the
        mean over seeds, by Student's t distribution). These three are NaN for one seed. Beside them
        stand ``<attack>_norm``, ``<attack>_eps`` and ``<attack>_num_samples``.

        Where seeds of a configuration were evaluated under different conditions, all of an
        attack's columns are NaN; a warning names the attack and what differs.
        """
        return frame_of(summary_rows(self))

    def learning_curves(self) -> pd.DataFrame:
        """Returns a row an epoch: ``run_id``, ``epoch``, and each metric that is one number.

        They are read now, from the folders that the records were loaded from.

        Raises:
            ValueError: If a record was not loaded from its folder, or that holds no metrics.
        """
        return frame_of(curve_rows(self, self._folders))

    def results_frame(self) -> pd.DataFrame:
        """Returns a row a result, with everything that it may be compared by.

        Columns are ``run_id``, ``seed`` (of the run), ``attack``, ``norm``, ``eps``, ``steps``,
        ``step_size``, ``restarts``, ``num_samples``, ``num_correct``, ``accuracy``, ``low`` and
        ``high`` (the 95 % Wilson interval), ``seconds``, ``conditions`` (in words), ``data``,
        ``data_fingerprint``, ``subset``, ``attack_seed`` and ``key`` (the row's name in the file of
        per-sample outcomes). A record has a row for every result that it holds.
        """
        return frame_of(result_rows(self))

    def to_frame(self) -> pd.DataFrame:
        """Returns a row a record: configuration, parameters, costs, accuracies by attack.

        Accuracies are those of :attr:`Record.results <nasbench_at.Record.results>`, in columns
        such as ``pgd``; beside each stand ``pgd_norm``, ``pgd_eps`` and ``pgd_num_samples``.
        :meth:`results_frame` has all rows and conditions.

        Costs are ``train_seconds``, and ``evaluation_seconds`` over all attacks and radii; NaN
        where they were not recorded.
        """
        return frame_of(record_rows(self))


def _agrees(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a configuration has the values that are wanted.

    Wanted attention weights and kept blocks are columns of the wanted blocks; without those, of the
    configuration's.
    """
    columns = [key for key in _COLUMNS if key in wanted] if "blocks" in wanted else []
    if any(_as_plain(config.get(key)) != wanted[key] for key in wanted.keys() - columns):
        return False
    if not columns:
        return True
    depth = {"num_modules": config["num_modules"]} if "num_modules" in config else {}
    own = _weigh({key: config.get(key) for key in columns} | depth)
    return own is not None and own == _weigh({key: wanted[key] for key in columns} | depth)


def _weigh(columns: Mapping[str, Any]) -> Architecture | None:
    """Returns a network of which nothing but these columns is known; None if they make none."""
    init = "given" if columns.get("attention_weights") else "equal"
    try:
        return architecture_of({"model": "ds_net", "attention_init": init, **columns})
    except ValueError:
        return None


def _as_plain(value: Any) -> Any:
    """Turns tuples into lists."""
    return json.loads(json.dumps(value))


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Twice as fast for many records: the collector searches plain data, which has no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read(path: Path, on_broken: OnBroken) -> Iterator[tuple[Record, Path | None]]:
    if path.suffix in _READERS:
        for record in _READERS[path.suffix](path, on_broken):
            yield record, None
        return
    for folder in find_runs(path, models=True):
        file = folder / "record.json"
        if not file.exists():  # such as of a run that still trains
            continue
        try:
            yield read_record(file), folder
        except ValueError as error:
            on_broken(error)
