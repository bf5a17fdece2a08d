"""The paper's claims, held against recorded runs, with the noise beside every number.

What a single trained network says of the theory is in :mod:`analysis.theory`; both say it as a
:class:`Claim`.
"""

from __future__ import annotations

from analysis.claims.claim import Claim, Verdict, verdict_of
from analysis.claims.effects import Effect
from analysis.claims.paper import RecordedClaim, judge_paper
from analysis.claims.rendering import (
    CLAIMS_NOTE,
    HEADINGS,
    claims_to_csv,
    claims_to_markdown,
    claims_to_rows,
)

__all__ = [
    "CLAIMS_NOTE",
    "HEADINGS",
    "Claim",
    "Effect",
    "RecordedClaim",
    "Verdict",
    "claims_to_csv",
    "claims_to_markdown",
    "claims_to_rows",
    "judge_paper",
    "verdict_of",
]
