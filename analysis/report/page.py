"""From runs to the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.report.attention import attention_views
from analysis.report.entries import RunEntry, collect_entries, name_anchors
from analysis.report.figures import graph_figures, learning_curve_figure, study_figures
from analysis.report.landscapes import LandscapeData
from analysis.report.views import (
    attack_names,
    headlines,
    provenance_groups,
    run_views,
    summarise,
)
from analysis.study_figures import compute_learning_curves
from analysis.tables import TABLE_NUMBERS, Grid, MissingRunsError, Table, compute_table, lay_out
from analysis.theory import RunTheory
from nasbench_at.files import write_atomically
from nasbench_at.naming.labels import metric_label
from nasbench_at.records import Record
from nasbench_at.runs import StudyRuns

__all__ = ["write_report"]

_MAX_ATTENTION = 24


def write_report(
    paths: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    title: str = "Robustness of networks",
    landscapes: Iterable[LandscapeData] = (),
    theories: Iterable[RunTheory] = (),
) -> Path:
    """Writes one HTML page about runs: numbers, tables, figures, records, where they come from.

    The page needs no network and no other file. Equal runs give equal pages.

    Args:
        paths: Folders in which runs lie, at any depth, folders of studies, or ``.jsonl`` or
            ``.parquet`` files of records; also one.
        out: The page's file, ``.html``.
        title: What stands on top.
        landscapes: Loss landscapes to turn around.
        theories: Runs held against the paper's claims.

    Returns:
        ``out``.

    Raises:
        ValueError: If there is no run, a file cannot be read, or ``out`` cannot be written.
    """
    out = Path(out)
    if out.suffix != ".html":
        raise ValueError(f"report must end in .html, got {str(out)!r}")
    if not out.parent.is_dir():
        raise ValueError(f"cannot write report {str(out)!r}: no such folder")
    places = [paths] if isinstance(paths, str | Path) else list(paths)
    entries = collect_entries(places)
    template = _environment().get_template("report.html.j2")
    page = template.render(
        title=title,
        studies=_studies(places),
        theories=list(theories),
        **_collect(entries, out, list(landscapes)),
    )
    try:
        write_atomically(out, page.encode())
    except OSError as error:
        raise ValueError(f"cannot write report {str(out)!r}: {error.strerror}") from None
    return out


def _studies(places: Iterable[str | Path]) -> dict[str, StudyRuns]:
    """The studies among the places."""
    found = {Path(place).name: StudyRuns.read(Path(place)) for place in places}
    return {name: study for name, study in found.items() if study is not None}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = _asset
    environment.filters["metric"] = metric_label
    return environment


def _asset(name: str) -> Markup:
    """A style sheet or a script of ours, which is no text to escape."""
    return Markup((files("analysis.report") / "templates" / name).read_text("utf-8"))


def _collect(
    entries: Sequence[RunEntry], out: Path, landscapes: Sequence[LandscapeData]
) -> dict[str, Any]:
    """Everything the template shows; empty where there is nothing to show."""
    anchors = name_anchors(entries)
    by_id = {entry.run_id: entry for entry in entries}
    runs = run_views(entries, anchors, out)
    evaluated = [e.record for e in entries if e.record is not None and e.status == "evaluated"]
    tables, table_conflicts = _tables([entry.record for entry in entries if entry.record])
    figures, figure_conflicts = study_figures(evaluated)
    attention = attention_views(sorted(entries, key=_robustness, reverse=True))
    curves = compute_learning_curves(m) if (m := _metrics(entries)) else ()
    return {
        "anchors": anchors,
        "runs": runs,
        "attacks": attack_names(runs),
        "summary": summarise(runs, entries),
        "headlines": headlines(runs),
        "waiting": [run for run in runs if run.status != "evaluated"],
        "tables": tables,
        "figures": figures,
        "conflicts": [*table_conflicts, *figure_conflicts],
        "graphs": graph_figures(attention, by_id),
        "attention": attention[:_MAX_ATTENTION],
        "num_attention": len(attention),
        "curves": curves,
        "curve_figure": learning_curve_figure(curves) if curves else None,
        "landscapes": landscapes,
        "provenance": provenance_groups(runs),
    }


def _tables(records: Sequence[Record]) -> tuple[list[tuple[Table, Grid]], list[str]]:
    """The tables that can be made, and why others cannot although there are runs for them."""
    tables: list[tuple[Table, Grid]] = []
    conflicts: list[str] = []
    for number in TABLE_NUMBERS:
        try:
            table = compute_table(number, records)
        except MissingRunsError:
            continue
        except ValueError as error:
            conflicts.append(str(error))
            continue
        tables.append((table, lay_out(table)))
    return tables, conflicts


def _robustness(entry: RunEntry) -> float:
    return entry.results["pgd"].accuracy if "pgd" in entry.results else -1.0


def _metrics(entries: Sequence[RunEntry]) -> dict[str, Sequence[Any]]:
    return {entry.run_id: entry.metrics for entry in entries if entry.metrics}
