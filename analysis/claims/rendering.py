"""Claims as rows for a terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO

from analysis.claims.paper import RecordedClaim, Unit
from analysis.tables.rendering import escape_markdown, pipe_row

__all__ = ["CLAIMS_NOTE", "HEADINGS", "claims_to_csv", "claims_to_markdown", "claims_to_rows"]

HEADINGS = (
    *("where", "claim", "verdict", "effect [95 %]", "runs", "would show", "margin"),
    *("compared", "setting", "how, or what is missing"),
)
CLAIMS_NOTE = (
    "Effect: mean over seeds with its 95 % interval, each comparison by itself; accuracies in "
    "points. Would show: the smallest true effect that as many seeds find with probability 0.8 "
    "(two-sided t test at 5 %). A claim of a gain holds where the interval lies above 0, and does "
    "not where it lies below the margin; a claim of little difference holds where it lies within "
    "the margin on both sides, and does not where it lies beyond. Else it cannot be told."
)
_SCALES: Mapping[Unit, float] = {
    "points": 100.0,
    "points a block": 100.0,
    "correlation": 1.0,
    "weight": 1.0,
}
CSV_FIELDS = (
    *("source", "statement", "verdict", "effect", "low", "high", "num_runs", "degrees", "design"),
    *("smallest_detectable", "margin", "unit", "comparison", "setting", "explanation"),
)


def claims_to_rows(claims: Sequence[RecordedClaim]) -> list[list[str]]:
    """Returns a row a claim, cells as :data:`HEADINGS` names them."""
    return [_row(claim) for claim in claims]


def _row(claim: RecordedClaim) -> list[str]:
    effect, scale = claim.effect, _SCALES[claim.unit]
    numbers = ["", "", ""]
    if effect is not None:
        low, high = effect.interval
        numbers = [
            f"{scale * effect.value:+.2f} [{scale * low:+.2f}, {scale * high:+.2f}]",
            str(effect.num_runs),
            f"{scale * effect.smallest_detectable:.2f}",
        ]
    return [
        *(claim.source, claim.statement, claim.verdict, *numbers),
        f"{scale * claim.margin:g} {claim.unit}",
        *(claim.comparison, claim.setting, claim.explanation),
    ]


def claims_to_markdown(claims: Sequence[RecordedClaim]) -> str:
    """Renders claims as a table of GitHub-flavoured Markdown, with a note on how to read it."""
    rows = [pipe_row([*map(escape_markdown, row)]) for row in claims_to_rows(claims)]
    ruler = pipe_row(["---"] * len(HEADINGS))
    return "\n".join([pipe_row(HEADINGS), ruler, *rows, "", CLAIMS_NOTE]) + "\n"


def claims_to_csv(claims: Sequence[RecordedClaim]) -> str:
    """Renders claims as CSV, accuracies in [0, 1] and not rounded; empty where unknown."""
    out = StringIO()
    writer = csv.DictWriter(out, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for claim in claims:
        row: dict[str, str | float] = {
            "source": claim.source,
            "statement": claim.statement,
            "verdict": claim.verdict,
            "margin": claim.margin,
            "unit": claim.unit,
            "comparison": claim.comparison,
            "setting": claim.setting,
            "explanation": claim.explanation,
        }
        if claim.effect is not None:
            low, high = claim.effect.interval
            row |= {
                "effect": claim.effect.value,
                "low": low,
                "high": high,
                "num_runs": claim.effect.num_runs,
                "degrees": claim.effect.degrees,
                "design": claim.effect.design,
                "smallest_detectable": claim.effect.smallest_detectable,
            }
        writer.writerow(row)
    return out.getvalue()
