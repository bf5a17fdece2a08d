"""``nasbench-at study replay``: samplers and pruners compared on recorded runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config.allowed_values import Count, Name, NewFile, Place, Positional

__all__ = ["ReplayArguments", "run_replay"]

_FIGURE_SUFFIXES = (".pdf", ".png", ".svg")


@dataclass(frozen=True)
class ReplayArguments:
    """Arguments of ``nasbench-at study replay``.

    Attributes:
        paths: Folders of runs or of studies, files of records, or tables by name. They stand for
            the search space.
        space: Keys of the configuration to search over.
        attack: Whose test accuracy judges what a search chose.
        samplers: Samplers of Optuna.
        pruners: Pruners of Optuna.
        repetitions: Searches of each sampler with each pruner.
        workers: Processes; by default one a core.
        out: Figure to draw; the table, with more shares of the cost, is written beside it as .csv.
    """

    paths: Positional[tuple[Place, ...]] = ("runs",)
    space: tuple[Name, ...] = ("blocks",)
    attack: Name = "pgd"
    samplers: tuple[Literal["random", "tpe", "gp", "nsga2", "qmc", "brute"], ...] = (
        *("random", "tpe", "gp", "nsga2", "qmc", "brute"),
    )
    pruners: tuple[Literal["none", "hyperband", "sha", "median"], ...] = (
        *("none", "hyperband", "sha", "median"),
    )
    repetitions: Count = 50
    workers: Count | None = None
    out: Annotated[Path, NewFile(_FIGURE_SUFFIXES)] | None = None


def run_replay(words: Sequence[str]) -> int:
    """Show how far from the best recorded network samplers and pruners are, by what was spent."""
    arguments = parse_flags(ReplayArguments, words, "study replay", run_replay.__doc__)
    from nasbench_at.commands.console import PointProgress, show_frame, stdout
    from nasbench_at.records import Benchmark
    from nasbench_at.runtime.atomic_files import write_atomically
    from studies.replay import (
        PRUNERS,
        SAMPLERS,
        SHARES,
        TabularObjective,
        draw_regret,
        regret_by_cost,
    )

    shares = sorted({*SHARES, *(round(0.02 * 1.25**step, 4) for step in range(15))})
    with one_line_warnings(), PointProgress("searches") as progress, bad_input():
        records = Benchmark.load(*arguments.paths)
        objective = TabularObjective(records, arguments.space, arguments.attack)
        frame = regret_by_cost(
            objective,
            {name: SAMPLERS[name] for name in arguments.samplers},
            {name: PRUNERS[name] for name in arguments.pruners},
            shares=shares,
            repetitions=arguments.repetitions,
            workers=arguments.workers,
            on_progress=progress.update,
        )
    show_frame(frame[frame["share"].isin((*SHARES, 1.0))])
    if arguments.out is not None:
        from analysis.style import write_figure

        write_figure(draw_regret(frame), arguments.out)
        table = arguments.out.with_suffix(".csv")
        write_atomically(table, frame.to_csv(index=False).encode())
        stdout.say(f"figure drawn to {arguments.out}, table written to {table}")
    return 0
