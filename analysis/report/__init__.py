"""One self-contained HTML page about runs, which opens from disk without a network.

Example:
    ``write_report(["runs/"], "report.html")``
"""

from __future__ import annotations

from analysis.report.measuring import best_landscapes, best_theories, can_be_measured
from analysis.report.page import write_report
from analysis.run_entries import RunEntry, collect_entries

__all__ = [
    "RunEntry",
    "best_landscapes",
    "best_theories",
    "can_be_measured",
    "collect_entries",
    "write_report",
]
