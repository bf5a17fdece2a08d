"""``nasbench-at claim``: a run as an entry of a leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input
from nasbench_at.config.allowed_values import Name, Positional

__all__ = ["ClaimArguments", "run_claim"]


@dataclass(frozen=True)
class ClaimArguments:
    """Arguments of ``nasbench-at claim``.

    Attributes:
        run: The run's folder, attacked by AutoAttack.
        out: Folder to write to.
        name: Title of the entry; the run's id by default.
        authors: Who made the network; left open by default, as are the next two.
        venue: Where it was published.
        link: The publication.
    """

    run: Positional[Path]
    out: Path = Path("claims")
    name: Name | None = None
    authors: Name | None = None
    venue: Name | None = None
    link: Name | None = None


def run_claim(words: Sequence[str]) -> int:
    """Write a run as an entry of a leaderboard such as RobustBench, with log and weights."""
    arguments = parse_flags(ClaimArguments, words, "claim", run_claim.__doc__)
    from nasbench_at.commands.console import stdout
    from nasbench_at.evaluation.leaderboard import Authorship, write_claim

    authorship = Authorship(arguments.name, arguments.authors, arguments.venue, arguments.link)
    with bad_input():
        for path in write_claim(arguments.run, arguments.out, authorship):
            stdout.say(str(path))
    return 0
