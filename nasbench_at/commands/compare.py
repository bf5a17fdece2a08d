"""``nasbench-at compare``: two networks on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input
from nasbench_at.config.allowed_values import Name, Place, Positional

__all__ = ["CompareArguments", "run_compare"]


@dataclass(frozen=True)
class CompareArguments:
    """Arguments of ``nasbench-at compare``.

    Attributes:
        first: An evaluated run's folder, the record of a model of your own, or a run of a table,
            such as digits:RUN-ID.
        second: The other one.
        attack: The row to compare: natural, fgsm, pgd, cw, aa, worst_case, ...
    """

    first: Positional[Place]
    second: Positional[Place]
    attack: Name = "pgd"


def run_compare(words: Sequence[str]) -> int:
    """Compare two evaluated runs image by image: McNemar's exact test."""
    arguments = parse_flags(CompareArguments, words, "compare", run_compare.__doc__)
    from nasbench_at.commands.console import show_comparison
    from nasbench_at.evaluation.comparison import compare_runs

    with bad_input():
        comparison = compare_runs(arguments.first, arguments.second, attack=arguments.attack)
    show_comparison(comparison, arguments.first, arguments.second, arguments.attack)
    return 0
