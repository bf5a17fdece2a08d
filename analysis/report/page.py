"""From runs to the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.claims import CLAIMS_NOTE, HEADINGS, claims_to_rows, judge_paper
from analysis.errors import IncomparableRunsError, MissingRunsError
from analysis.report.attention import attention_views
from analysis.report.data_tables import curves_table, means_table, runs_table
from analysis.report.figures import graph_figures, learning_curve_figure, study_figures
from analysis.report.groups import (
    ConditionNotes,
    attack_names,
    find_headlines,
    group_seeds,
    rank_by_robustness,
)
from analysis.report.landscapes import describe_landscape, landscape_to_json
from analysis.report.views import describe_runs, provenance_groups, summarise
from analysis.run_entries import RunEntry, collect_entries, name_anchors
from analysis.tables import TABLE_NUMBERS, Grid, Table, compute_table, lay_out
from nasbench_at.records import Record, describe_attack
from nasbench_at.records.naming.labels import metric_label
from nasbench_at.records.naming.variants import describe_shared, name_variants
from nasbench_at.records.places import find_table
from nasbench_at.records.run_folders import StudyRuns
from nasbench_at.runtime.atomic_files import write_atomically

if TYPE_CHECKING:  # which import torch
    from analysis.landscape import Landscape
    from analysis.theory import RunTheory

__all__ = ["write_report"]

_MAX_ATTENTION = 24


def write_report(
    paths: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    title: str = "Robustness of networks",
    landscapes: Iterable[Landscape] = (),
    theories: Iterable[RunTheory] = (),
    entries: Sequence[RunEntry] | None = None,
) -> Path:
    """Writes one HTML page about runs: numbers, tables, figures, records, where they come from.

    The page needs no network and no other file. Equal runs give equal pages.

    Args:
        paths: Places, as in :meth:`nasbench_at.Benchmark.load`; also one.
        out: The page's file, ``.html``.
        title: What stands on top.
        landscapes: Loss landscapes of two directions, to turn around.
        theories: Runs held against the paper's claims.
        entries: The runs of the paths, where they were collected before.

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
    entries = collect_entries(places) if entries is None else entries
    template = _environment().get_template("report.html.j2")
    page = BytesIO()  # piece by piece: the whole as text would take several times its bytes
    for piece in template.generate(
        title=title,
        studies=_studies(places),
        theories=list(theories),
        **_collect(entries, out, list(landscapes)),
    ):
        page.write(piece.encode())
    try:
        write_atomically(out, page.getvalue())
    except OSError as error:
        raise ValueError(f"cannot write report {str(out)!r}: {error.strerror}") from None
    return out


def _studies(places: Iterable[str | Path]) -> dict[str, StudyRuns]:
    """The studies among the places."""
    found = {
        Path(place).name: StudyRuns.read(Path(place))
        for place in places
        if find_table(place) is None
    }
    return {name: study for name, study in found.items() if study is not None}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Data is most of the page: no spaces in it.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    environment.globals["asset"] = _asset
    environment.filters["metric"] = metric_label
    environment.filters["attack"] = describe_attack
    environment.filters["describe_landscape"] = describe_landscape
    environment.filters["landscape_to_json"] = landscape_to_json
    return environment


def _asset(name: str) -> Markup:
    """A style sheet or a script of ours, which is no text to escape."""
    return Markup((files("analysis.report") / "templates" / name).read_text("utf-8"))


def _collect(
    entries: Sequence[RunEntry], out: Path, landscapes: Sequence[Landscape]
) -> dict[str, Any]:
    """Everything the template shows; empty where there is nothing to show."""
    anchors = name_anchors(entries)
    configs = [entry.config for entry in entries]
    ids = [entry.run_id for entry in entries]
    networks = dict(zip(ids, name_variants(configs), strict=True))
    names = dict(zip(ids, name_variants(configs, seeds=True), strict=True))
    notes = ConditionNotes(entries)
    groups = group_seeds(entries, networks)
    records = [entry.record for entry in entries if entry.record is not None]
    tables, table_conflicts = _tables(records)
    figures, figure_conflicts = study_figures([r for r in records if r.is_evaluated])
    attention = attention_views(rank_by_robustness(entries))
    curves = [entry.curve for entry in entries if entry.curve is not None]
    data_tables = [runs_table(entries, networks, anchors, notes)]
    data_tables += [means_table(groups, anchors, notes)] if groups else []
    data_tables += [curves_table(curves, names, anchors)] if curves else []
    claims = judge_paper(entries)
    has_claims = any(claim.comparison for claim in claims)
    return {
        "anchors": anchors,
        "claims": claims_to_rows(claims) if has_claims else [],
        "claims_headings": HEADINGS,
        "claims_note": CLAIMS_NOTE,
        "names": names,
        "num_runs": len(entries),
        "shared": describe_shared(configs),
        "conditions": notes.texts(attack_names(entries)),
        "summary": summarise(entries, len({group.identity for group in groups})),
        "headlines": find_headlines(groups),
        "waiting": [entry for entry in entries if entry.status != "evaluated"],
        "data_tables": {table.name: table for table in data_tables},
        "details": describe_runs(entries, names, anchors, attention, out),
        "tables": tables,
        "figures": figures,
        "conflicts": [*table_conflicts, *figure_conflicts],
        "graphs": graph_figures(attention, {entry.run_id: entry for entry in entries}),
        "attention": attention[:_MAX_ATTENTION],
        "num_attention": len(attention),
        "curve_figure": learning_curve_figure(curves, entries) if curves else None,
        "landscapes": landscapes,
        "provenance": provenance_groups(entries),
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
        except IncomparableRunsError as error:
            conflicts.append(str(error))
            continue
        tables.append((table, lay_out(table)))
    return tables, conflicts
