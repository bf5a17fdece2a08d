"""Everything that was run, as one table."""

from __future__ import annotations

import gc
import html
import json
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from nasbench_at.config.architecture import Architecture, architecture_of
from nasbench_at.config.scalars import write_scalar
from nasbench_at.config.suggestions import suggest
from nasbench_at.records.conditions import condition_names, require_equal_conditions
from nasbench_at.records.copies import MergedRecord, merge_copies
from nasbench_at.records.files import OnBroken, StoredRecord, read_lines, write_lines
from nasbench_at.records.frames import (
    curve_rows,
    frame_of,
    group_seeds,
    record_rows,
    result_rows,
    varying_keys,
)
from nasbench_at.records.measurements import (
    FolderMeasurements,
    Measurements,
    MergedMeasurements,
)
from nasbench_at.records.parquet import read_parquet, write_parquet
from nasbench_at.records.places import TableFile, check_digest, find_table
from nasbench_at.records.record import Record, read_record
from nasbench_at.records.run_folders import find_runs
from nasbench_at.records.seeds import (
    SeedAccuracies,
    SeedComparison,
    collect_seeds,
    compare_seeds,
)
from nasbench_at.records.summary import Summary

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["Benchmark", "no_garbage_collection"]

_COLUMNS = ("blocks", "attention_weights", "attention_keep")
"""What changes when the columns of a module, one a block, are numbered in another way."""
_MAX_VALUES = 8
_READERS = {".jsonl": read_lines, ".parquet": read_parquet}
_WRITERS: Mapping[str, Callable[[Path, Sequence[StoredRecord]], None]] = {
    ".jsonl": write_lines,
    ".parquet": write_parquet,
}


class Benchmark(Sequence[Record]):
    """Records, queried as one table.

    Args:
        records: The records.
        measurements: By run id, what the runs measured beside their records.

    Example:
        ``Benchmark.load("runs/").query(blocks=("residual", "dense"), method="at").to_frame()``
    """

    def __init__(
        self, records: Sequence[Record], measurements: Mapping[str, Measurements] | None = None
    ) -> None:
        self._records = tuple(records)
        self._measurements = dict(measurements or {})

    def __repr__(self) -> str:
        return f"<Benchmark, runs: {len(self)}, networks: {len({r.architecture for r in self})}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row a run."""
        table: str = self.to_frame().to_html(max_rows=10, max_cols=12, border=0)
        return f"<p>{html.escape(repr(self))}</p>{table}"

    @classmethod
    def load(cls, *places: str | Path) -> Benchmark:
        """Loads records, those of several places together.

        Args:
            *places: Folders in which runs lie, at any depth, folders of studies, ``.jsonl`` or
                ``.parquet`` files that :meth:`save` wrote, or names of tables that come with the
                package, such as ``digits``; ``digits:RUN-ID`` is one run of a table or file. A
                name of a table stands before a folder called so, which is ``./digits`` or a Path.
                A run that is found in several counts once, with the evaluations of them all.

        A record that cannot be read is left out: a warning names its file and what is wrong with
        it, and the last warning says how many they are. Others say where copies of a run disagree
        or are of several trainings, of which only the one with the most results is kept.

        Raises:
            ValueError: If a place does not exist or cannot be read as a whole: a file that was cut
                short or edited, or one of a newer version.
        """
        stored: list[StoredRecord] = []
        broken: list[ValueError] = []
        with no_garbage_collection():
            for place in places:
                stored += _read(place, broken.append)
            merged = merge_copies([record for record, _ in stored])
        for error in broken:
            warnings.warn(str(error), stacklevel=2)
        if broken:
            warnings.warn(
                f"left out {len(broken)} of {len(broken) + len(merged)} records", stacklevel=2
            )
        measurements: dict[str, Measurements] = {}
        for each in merged:
            measured = _join_measurements(each, stored)
            if measured is not None:
                measurements[each.record.run_id] = measured
        return cls([each.record for each in merged], measurements)

    def save(self, path: str | Path) -> None:
        """Writes the records to one file: ``.jsonl``, a line each, or ``.parquet``, a row each.

        Learning curves and per-sample outcomes go along, so that the file says all that the runs'
        folders do, but for their weights. A row of a Parquet file has the columns of
        :meth:`to_frame`, and as JSON text the parts of a record and what it measured;
        :func:`nasbench_at.records.describe_column` says what each means.

        Raises:
            ValueError: If the suffix is another, or what a run measured cannot be read.
        """
        path = Path(path)
        if path.suffix not in _WRITERS:
            allowed = " or ".join(_WRITERS)
            raise ValueError(f"records are saved to a {allowed} file, got {str(path)!r}")
        rows = [(record, self._measurements.get(record.run_id)) for record in self]
        _WRITERS[path.suffix](path, rows)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Benchmark: ...
    def __getitem__(self, index: int | slice) -> Record | Benchmark:
        if isinstance(index, slice):
            return Benchmark(self._records[index], self._measurements)
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
        known = {name for record in self for name in record.config} | {*_LEFT_OUT}
        for key in config:
            if self._records and key not in known:
                raise ValueError(f"no configuration key {key!r}; {suggest(key, sorted(known))}")
        wanted = _as_plain(config)
        return self.filter(lambda record: _agrees(record.config, wanted))

    def filter(self, keep: Callable[[Record], bool]) -> Benchmark:
        """Returns the records for which a function says so."""
        return Benchmark([record for record in self if keep(record)], self._measurements)

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
            ValueError: If there is no such configuration, a group has several runs of a seed, no
                seed is common, or the images or the attack's settings differ between any two of
                these runs.
        """
        groups = [
            self._find(**group) if isinstance(group, Mapping) else group
            for group in (first, second)
        ]
        return compare_seeds(groups[0], groups[1], attack)

    def accuracies_of(
        self, network: Architecture | None = None, attack: str = "pgd", **config: Any
    ) -> SeedAccuracies:
        """Returns the accuracies of one configuration, seed by seed.

        Args:
            network: The network, for images of the data's shape; isomorphic ones are the same.
            attack: Name of a row, such as ``natural``, ``pgd`` or ``aa``.
            **config: What to :meth:`query` for besides, or instead.

        Raises:
            ValueError: If nothing has these values (the message says what there is), more than one
                configuration has, or its runs were not evaluated under equal conditions.
        """
        found = self._find(**config)
        if network is not None:
            found = found.filter(lambda record: record.architecture == network.hash)
            if not len(found):
                known = len({record.architecture for record in self})
                sets = dict.fromkeys(_write(record.config.get("blocks")) for record in self)
                raise ValueError(
                    f"no record of the network {network.hash} of {_write(network.block_set)} for "
                    f"images {network.input_shape}; there are {known} networks, of {_some(sets)}"
                )
        groups = group_seeds(found)
        if len(groups) > 1:
            keys = varying_keys([group[0].config for group in groups]) or ["nothing but their ids"]
            raise ValueError(
                f"one configuration must be asked for, got {len(groups)}, which differ in "
                f"{', '.join(keys)}"
            )
        return collect_seeds(found, attack)

    def accuracy_of(
        self,
        network: Architecture | None = None,
        attack: str = "pgd",
        *,
        seeds: Literal["mean"] | np.random.Generator = "mean",
        **config: Any,
    ) -> float:
        """Returns the accuracy of one configuration: its mean over seeds, or one seed's at random.

        ``benchmark.accuracy_of(blocks=("residual", "dense"), method="at")`` is what a search that
        could afford all seeds would see; with ``seeds=np.random.default_rng(0)`` each call draws
        anew what one training would have given.

        Args:
            network: As in :meth:`accuracies_of`.
            attack: Likewise.
            seeds: ``mean``, or the generator that chooses a seed, all equally likely.
            **config: As in :meth:`accuracies_of`.

        Returns:
            In [0, 1].

        Raises:
            ValueError: As :meth:`accuracies_of`.
        """
        found = self.accuracies_of(network, attack, **config)
        if isinstance(seeds, str):
            if seeds != "mean":
                raise ValueError(f"seeds must be 'mean' or a generator of numpy, got {seeds!r}")
            return found.mean
        return found.draw(seeds)

    def _find(self, **config: Any) -> Benchmark:
        """Returns what :meth:`query` does, and raises a ValueError if that is nothing."""
        found = self.query(**config)
        if not len(found):
            raise ValueError(self.explain_no_match(**config))
        return found

    def explain_no_match(self, **config: Any) -> str:
        """Says why no record has these values of its configuration, and which values there are."""
        if not self._records:
            return "there is no record"
        for key, value in config.items():
            if not len(self.query(**{key: value})):
                there = sorted(dict.fromkeys(_write(each.config.get(key)) for each in self))
                return f"no record has {key}={_write(value)}; there is {_some(there)}"
        wanted = " and ".join(f"{key}={_write(value)}" for key, value in config.items())
        return f"no record has {wanted} together"

    def summary(self) -> Summary:
        """Returns what the records are, and a row a configuration, over its seeds.

        Printed, it says how many networks and runs there are, under which conditions they were
        evaluated and how reliably networks that were trained alike are ranked. Its ``frame`` is the
        table: of the configuration a row holds what differs between the records. Columns are
        ``seeds``, and for each attack ``<attack>`` (mean, in [0, 1]), ``<attack>_std`` (the sample
        standard deviation over seeds), ``<attack>_low`` and ``<attack>_high`` (the 95 % interval of
        the mean over seeds, by Student's t distribution); these three are NaN for one seed.
        Beside them stand ``<attack>_seeds`` (how many seeds the mean is over), ``<attack>_norm``,
        ``<attack>_eps`` and ``<attack>_num_samples``.

        Where seeds of a configuration were evaluated under different conditions, all of an
        attack's columns are NaN; a warning names the attack and what differs.
        """
        return Summary.of(self)

    def has_metrics(self, record: Record) -> bool:
        """Whether a run's learning curve is known and has an epoch."""
        found = self._measurements.get(record.run_id)
        return found is not None and bool(found.metrics())

    def metrics_of(self, record: Record) -> list[dict[str, Any]]:
        """Returns a run's learning curve: the lines of its ``metrics.jsonl``, one an epoch.

        It is read now, from the run's folder or the row of the table that the record is from.

        Raises:
            ValueError: If neither is known, or holds no metrics.
        """
        found = self._measurements.get(record.run_id)
        metrics = [] if found is None else found.metrics()
        if not metrics:
            where = f" in {found.folder}" if isinstance(found, FolderMeasurements) else ""
            raise ValueError(f"run {record.run_id!r} has no metrics{where}")
        return metrics

    def outcomes_of(self, record: Record, attack: str = "pgd") -> NDArray[np.bool_]:
        """Returns which images a run gets right under an attack's main row.

        Returns:
            Shape ``(num_samples,)``.

        Raises:
            ValueError: If the run was not evaluated so, or neither its folder nor a table with its
                outcomes is known.
        """
        key = record.result(attack).key
        found = self._measurements.get(record.run_id)
        outcomes = {} if found is None else found.outcomes()
        if key not in outcomes:
            raise ValueError(f"run {record.run_id!r} has no per-sample outcomes {key!r}")
        return outcomes[key]

    def learning_curves(self) -> pd.DataFrame:
        """Returns a row an epoch: ``run_id``, ``epoch``, and each metric that is one number.

        Raises:
            ValueError: If the learning curve of a record is not known.
        """
        return frame_of(curve_rows((record, self.metrics_of(record)) for record in self))

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


_LEFT_OUT = {"norm": "Linf"}  # what plain configurations leave out where it is this


def _agrees(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a configuration has the values that are wanted.

    Wanted attention weights and kept blocks are columns of the wanted blocks; without those, of the
    configuration's.
    """
    columns = [key for key in _COLUMNS if key in wanted] if "blocks" in wanted else []
    config = {**_LEFT_OUT, **config}
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


def _write(value: Any) -> str:
    return write_scalar(_as_plain(value))


def _some(texts: Collection[str]) -> str:
    shown = [*texts][:_MAX_VALUES]
    return ", ".join([*shown, *(["..."] if len(texts) > _MAX_VALUES else [])])


def _read(place: str | Path, on_broken: OnBroken) -> Iterator[StoredRecord]:
    table = find_table(place)
    if table is not None:
        yield from _read_table(table, on_broken)
        return
    for folder in find_runs(place, models=True):
        file = folder / "record.json"
        if not file.exists():  # such as of a run that still trains
            continue
        try:
            yield read_record(file), FolderMeasurements(folder)
        except ValueError as error:
            on_broken(error)


def _join_measurements(run: MergedRecord, stored: Sequence[StoredRecord]) -> Measurements | None:
    """Returns what the copies measured that a run's record is made of."""
    if len(run.sources) == 1:
        return stored[run.sources[0]][1]
    copies = (stored[number] for number in run.sources)
    known = [(record, measured) for record, measured in copies if measured is not None]
    return MergedMeasurements(run.record, known) if known else None


def _read_table(table: TableFile, on_broken: OnBroken) -> Iterator[StoredRecord]:
    if table.is_shipped:
        check_digest(table.path)
    is_found = table.run_id is None
    for record, measured in _READERS[table.path.suffix](table.path, on_broken):
        if table.run_id in (None, record.run_id):
            is_found = True
            yield record, measured
    if not is_found:
        raise ValueError(f"{str(table.path)!r} has no run {table.run_id!r}")
