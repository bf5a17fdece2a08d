"""``nasbench-at theory``: the paper's claims held against a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config.allowed_values import Count, DataRoot, Device, Positional, Range, Seed

__all__ = ["TheoryArguments", "run_theory"]


@dataclass(frozen=True)
class TheoryArguments:
    """Arguments of ``nasbench-at theory``.

    Attributes:
        run: The run's folder.
        num_images: Images of constants and curvature.
        num_batches: Batches of the gradient's variance, drawn from all training images.
        seed: Seed of all that is random.
        device: auto, cpu, cuda or cuda:N.
        data_root: Where the data set's files lie.
    """

    run: Positional[Path]
    num_images: Count = 64
    num_batches: Annotated[int, Range("[2, 1000000]")] = 10
    seed: Seed = 0
    device: Device = "auto"
    data_root: DataRoot = None


def run_theory(words: Sequence[str]) -> int:
    """Measure Lipschitz constants, curvature and bounds; say which of the paper's claims hold."""
    arguments = parse_flags(TheoryArguments, words, "theory", run_theory.__doc__)
    from analysis.errors import UnsuitableRunsError
    from analysis.theory import compute_run_theory
    from nasbench_at.commands.console import stdout
    from nasbench_at.evaluation.runs import Run

    with bad_input():
        run = Run.open(arguments.run, device=arguments.device, data_root=arguments.data_root)
    with bad_input(UnsuitableRunsError), one_line_warnings():
        theory = compute_run_theory(
            run,
            num_images=arguments.num_images,
            num_batches=arguments.num_batches,
            seed=arguments.seed,
        )
    lines = [f"{name}: {value}" for name, value in theory.constants.items()]
    for claim in theory.claims:
        lines.append(f"{claim.source}, {claim.statement}: {claim.verdict}; {claim.explanation}")
    lines += [f"left out: {reason}" for reason in theory.left_out]
    for line in lines:
        stdout.say(line)
    return 0
