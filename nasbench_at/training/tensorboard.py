"""A run's metrics for TensorBoard: an event file in its folder, beside what it always writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from nasbench_at.config import ResolvedConfig
from nasbench_at.config.architecture import architecture_of
from nasbench_at.networks.graph import ModuleStage, build_graph, walk_stages
from nasbench_at.records import read_metrics
from nasbench_at.records.run_folders import RunFolder
from nasbench_at.training.trainer import TrainingReporter

__all__ = ["TensorBoardReporter", "check_tensorboard"]

_SUFFIX = ".nasbench-at"
"""Ends the names of our event files, so that nobody else's in the folder are taken for them."""
_TAGS: Mapping[str, str] = {
    "train_loss": "loss/train",
    "train_accuracy": "accuracy/train",
    "validation_natural": "accuracy/natural",
    "validation_robust": "accuracy/pgd",
    "lr": "lr",
    "gradients_lost": "gradients/lost",
    "gradients_flipped": "gradients/flipped",
}
"""Metrics and what they are called in TensorBoard."""


class _Writer(Protocol):
    """What is used of ``torch.utils.tensorboard.SummaryWriter``."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Writes a number."""

    def flush(self) -> None:
        """Returns when all that was written is in the file."""

    def close(self) -> None:
        """Writes what is left and ends."""


def check_tensorboard() -> None:
    """Checks that event files can be written.

    Raises:
        ValueError: If the package is missing.
    """
    try:
        import_module("torch.utils.tensorboard")
    except ImportError:
        raise ValueError(
            "log tensorboard needs the package tensorboard: pip install 'nasbench-at[tensorboard]'"
        ) from None


def _open_event_file(folder: Path) -> _Writer:
    """Opens a new event file in a folder; what others there hold from epoch 1 on is forgotten."""
    tensorboard: Any = import_module("torch.utils.tensorboard")
    writer: _Writer = tensorboard.SummaryWriter(str(folder), purge_step=1, filename_suffix=_SUFFIX)
    return writer


class TensorBoardReporter:
    """Tells another reporter how training goes, and TensorBoard each epoch's metrics.

    Whenever training begins or goes on, the epochs so far are written anew to another file, from
    whose beginning on TensorBoard forgets those before: as in ``metrics.jsonl`` none can be missing
    or doubled. The older files stay, since a TensorBoard that reads one follows no further once it
    is gone. A run that was finished before gets its file, too. To be used as a context.

    Args:
        reporter: The other one.
        folder: The run's folder.
    """

    def __init__(self, reporter: TrainingReporter, folder: RunFolder) -> None:
        self._reporter = reporter
        self._folder = folder
        self._attention_tags = _attention_tags(folder.config)
        self._writer: _Writer | None = None

    def __enter__(self) -> Self:
        return self

    def start(self, num_epochs: int, num_steps: int, num_done: int) -> None:
        """Writes the epochs that are finished already."""
        self._write_history()
        self._reporter.start(num_epochs, num_steps, num_done)

    def step(self) -> None:
        """Passes on that a step was taken."""
        self._reporter.step()

    def epoch(self, row: dict[str, Any]) -> None:
        """Writes an epoch's metrics, so that they can be seen at once."""
        assert self._writer is not None
        self._write(self._writer, row)
        self._writer.flush()
        self._reporter.epoch(row)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is None and kind is None and not self._has_file():
            self._write_history()  # of a run that was finished before
        if self._writer is not None:
            self._writer.close()

    def _write_history(self) -> None:
        self._writer = _open_event_file(self._folder.path)
        for row in read_metrics(self._folder.metrics):
            self._write(self._writer, row)
        self._writer.flush()

    def _has_file(self) -> bool:
        return any(self._folder.path.glob(f"events.out.tfevents.*{_SUFFIX}"))

    def _write(self, writer: _Writer, row: Mapping[str, Any]) -> None:
        for tag, value in self._scalars(row):
            writer.add_scalar(tag, value, row["epoch"])

    def _scalars(self, row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
        for name, tag in _TAGS.items():
            if name in row:
                yield tag, row[name]
        weights = row.get("attention")
        if weights is not None:
            for tag, (module, column) in self._attention_tags.items():
                yield tag, weights[module][column]


def _attention_tags(config: ResolvedConfig) -> dict[str, tuple[int, int]]:
    """What the attention weights are called, and in which row and column each stands."""
    network = architecture_of(config.to_dict())
    if network is None:
        return {}
    graph = build_graph(network, with_costs=False)
    stages = [stage for stage in walk_stages(graph) if isinstance(stage, ModuleStage)]
    return {
        f"attention/{node.replace('.', '/', 1)}": (number, graph.nodes[node]["column"])
        for number, stage in enumerate(stages)
        for node in stage.block_nodes
    }
