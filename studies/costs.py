"""What a study will cost, from a step or two of each of its networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nasbench_at.config import RunConfig
from nasbench_at.runtime.devices import select_device
from nasbench_at.training.launch import Estimate, load_config_data, prepare_estimate
from studies.config import Label, StudyConfig
from studies.study import check_fit

__all__ = ["CostRow", "StudyCost", "estimate_study"]


@dataclass(frozen=True)
class CostRow:
    """Runs of one network, trained in one way.

    Attributes:
        labels: What tells them apart; the seed is left out.
        num_params: Parameters, attention logits among them.
        num_runs: How many there are.
        seconds: Training of each.
    """

    labels: Mapping[str, Label]
    num_params: int
    num_runs: int
    seconds: float


@dataclass(frozen=True)
class StudyCost:
    """What a study's training costs; validation and evaluation come on top.

    Attributes:
        rows: The runs.
        is_upper_bound: Whether it is a search's: as if every trial were the network of all blocks,
            trained in full.
    """

    rows: tuple[CostRow, ...]
    is_upper_bound: bool

    @property
    def seconds(self) -> float:
        """Training of everything, one after the other."""
        return sum(row.seconds * row.num_runs for row in self.rows)


def estimate_study(
    config: StudyConfig,
    *,
    data_root: Path | None = None,
    device: str = "auto",
    on_row: Callable[[int, int], None] | None = None,
) -> StudyCost:
    """Times a step of each network of a study, which is thrown away.

    Args:
        config: The study.
        data_root: Where the data set's files lie.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        on_row: Is told how many networks of how many are timed.

    Raises:
        ValueError: If a configuration, the data or the device is not usable.
        RuntimeError: If a step fails.
    """
    check_fit(config, load_config_data(config.base, select_device("cpu"), data_root))

    def measure(run: RunConfig) -> Estimate:
        prepared = prepare_estimate(run, data_root=data_root, device=device)
        try:
            return prepared.run(num_timed=1)
        except ValueError as error:  # what was checked is not to blame
            raise RuntimeError(f"a step of {run.run_id} failed: {error}") from error

    if config.space is not None:
        found = measure(config.base)
        row = CostRow({}, found.num_params, config.num_trials, found.seconds)
        return StudyCost((row,), is_upper_bound=True)
    groups: dict[tuple[tuple[str, Label], ...], list[RunConfig]] = {}
    for planned in config.runs:
        labels = tuple((name, value) for name, value in planned.labels.items() if name != "seed")
        groups.setdefault(labels, []).append(planned.config)
    rows = []
    for i, (labels, runs) in enumerate(groups.items(), start=1):
        found = measure(runs[0])
        rows.append(CostRow(dict(labels), found.num_params, len(runs), found.seconds))
        if on_row is not None:
            on_row(i, len(groups))
    return StudyCost(tuple(rows), is_upper_bound=False)
