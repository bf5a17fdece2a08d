"""What commands that train share: a configuration, where to write and where to compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, TypeVar

from nasbench_at.config import RunConfig
from nasbench_at.config.allowed_values import DataRoot, Device, Distinct, Folder, InsteadOf, Seed

__all__ = ["RunArguments", "parse_run_flags"]


@dataclass(frozen=True)
class RunArguments(RunConfig):
    """A configuration with what does not decide the result.

    Attributes:
        seeds: Train once with each of these seeds, instead of ``seed``.
        runs_dir: The runs' folders are created in here; a finished run found there is not repeated.
        data_root: Where the data set's files lie.
        device: auto, cpu, cuda or cuda:N.
    """

    seeds: Annotated[tuple[Seed, ...], Distinct(), InsteadOf("seed")] = ()
    runs_dir: Annotated[Path, Folder()] = Path("runs")
    data_root: DataRoot = None
    device: Device = "auto"

    def config(self) -> RunConfig:
        """Returns the configuration alone."""
        return RunConfig(**{f.name: getattr(self, f.name) for f in fields(RunConfig)})

    def configs(self) -> list[RunConfig]:
        """Returns the configuration with each of the seeds."""
        return [replace(self.config(), seed=seed) for seed in self.seeds or (self.seed,)]


RunArgumentsT = TypeVar("RunArgumentsT", bound=RunArguments)


def parse_run_flags(
    kind: type[RunArgumentsT], words: Sequence[str], *, command: str, description: str | None
) -> RunArgumentsT:
    """Parses flags, which win over the file that ``--config`` names.

    Raises:
        ValueError: If the file or a flag cannot be read, or a value is out of its range.
    """
    from nasbench_at.commands.flags import parse_flags, split_config_flag

    config, rest = split_config_flag(words)
    return parse_flags(kind, rest, command=command, description=description, default=config)
