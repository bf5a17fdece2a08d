"""``nasbench-at claims``: the paper's empirical claims held against recorded runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import BadInputError, bad_input, one_line_warnings
from nasbench_at.config.allowed_values import Name, NewFile, Place, Positional
from nasbench_at.config.suggestions import suggest

__all__ = ["ClaimsArguments", "run_claims"]


@dataclass(frozen=True)
class ClaimsArguments:
    """Arguments of ``nasbench-at claims``.

    Attributes:
        paths: Folders of runs or of studies, files of records, or tables by name.
        attack: Whose accuracy is the robust one.
        out: File to write: .md or .csv; without it the claims are printed.
    """

    paths: Positional[tuple[Place, ...]] = ("runs",)
    attack: Name = "pgd"
    out: Annotated[Path, NewFile((".md", ".csv"))] | None = None


def run_claims(words: Sequence[str]) -> int:
    """Hold the paper's empirical claims against runs: effects, intervals, what seeds could show."""
    arguments = parse_flags(ClaimsArguments, words, "claims", run_claims.__doc__)
    from analysis.claims import (
        CLAIMS_NOTE,
        HEADINGS,
        claims_to_csv,
        claims_to_markdown,
        claims_to_rows,
        judge_paper,
    )
    from analysis.run_entries import collect_entries
    from nasbench_at.commands.console import show_table, stdout
    from nasbench_at.runtime.atomic_files import write_atomically

    with bad_input(), one_line_warnings():
        entries = collect_entries(arguments.paths)
        known = sorted({name for entry in entries for name in entry.results})
        if arguments.attack not in known:
            there_is = suggest(arguments.attack, known) if known else "there is no evaluated run"
            raise ValueError(f"no run was evaluated by {arguments.attack!r}; {there_is}")
    claims = judge_paper(entries, arguments.attack)
    if arguments.out is None:
        show_table(HEADINGS, claims_to_rows(claims), notes=[CLAIMS_NOTE])
        return 0
    render = {".md": claims_to_markdown, ".csv": claims_to_csv}[arguments.out.suffix]
    try:
        write_atomically(arguments.out, render(claims).encode())
    except OSError as error:
        raise BadInputError(f"cannot write {str(arguments.out)!r}: {error.strerror}") from None
    stdout.say(f"claims written to {arguments.out}")
    return 0
