"""``nasbench-at study replay``: samplers compared on recorded runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config.allowed_values import Count, Name, Place, Positional

__all__ = ["ReplayArguments", "run_replay"]


@dataclass(frozen=True)
class ReplayArguments:
    """Arguments of ``nasbench-at study replay``.

    Attributes:
        paths: Folders of runs or of studies, files of records, or tables by name. They stand for
            the search space.
        space: Keys of the configuration to search over.
        attack: Whose accuracy is searched for.
        samplers: Samplers of Optuna.
        trials: Trials of each search.
        seeds: Searches of each sampler.
    """

    paths: Positional[tuple[Place, ...]] = ("runs",)
    space: tuple[Name, ...] = ("blocks",)
    attack: Name = "pgd"
    samplers: tuple[Literal["random", "tpe", "nsga2"], ...] = ("random", "tpe")
    trials: Count = 20
    seeds: Count = 20


def run_replay(words: Sequence[str]) -> int:
    """Show how far from the best recorded network samplers are, trial by trial."""
    arguments = parse_flags(ReplayArguments, words, "study replay", run_replay.__doc__)
    import optuna

    from nasbench_at.commands.console import show_frame
    from nasbench_at.records import Benchmark
    from studies.tabular import SamplerFactory, TabularObjective, regret_curves

    kinds: dict[str, SamplerFactory] = {
        "random": optuna.samplers.RandomSampler,
        "tpe": optuna.samplers.TPESampler,
        "nsga2": optuna.samplers.NSGAIISampler,
    }
    samplers: dict[str, SamplerFactory] = {name: kinds[name] for name in arguments.samplers}
    with one_line_warnings():
        with bad_input():
            if not samplers:
                raise ValueError(f"samplers must be at least one of {', '.join(kinds)}, got none")
            records = list(Benchmark.load(*arguments.paths))
            objective = TabularObjective(records, arguments.space, arguments.attack)
        frame = regret_curves(objective, samplers, arguments.trials, range(arguments.seeds))
    show_frame(frame)
    return 0
