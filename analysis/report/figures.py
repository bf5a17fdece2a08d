"""The figures of a report, each as an image within the page."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure

from analysis.comparability import NAMED_KEYS, TECHNICAL_KEYS, group_by
from analysis.errors import IncomparableRunsError, MissingRunsError
from analysis.network_drawing import draw_graph
from analysis.report.attention import AttentionView, find_graph
from analysis.robustness_curve import compute_robustness_curve, draw_robustness_curve
from analysis.run_entries import RunEntry
from analysis.study_figures import (
    LearningCurve,
    compute_block_ensemble,
    compute_block_space,
    compute_co_occurrence,
    compute_initialization,
    compute_pareto,
    compute_rank_correlation,
    draw_block_ensemble,
    draw_block_space,
    draw_co_occurrence,
    draw_initialization,
    draw_learning_curves,
    draw_pareto,
    draw_rank_correlation,
)
from analysis.study_figures.estimates import Accuracies, describe_setting
from analysis.style import render
from nasbench_at.records import Record, conditions_of
from nasbench_at.records.naming.variants import name_run, name_variants

__all__ = ["FigureView", "graph_figures", "learning_curve_figure", "study_figures"]

_MAX_GRAPHS = 3  # a large graph takes seconds to build and to draw
_MAX_ROBUSTNESS_CURVES = 4
_MAX_CURVES = 10
_MAX_FIGURES = 24
_MIN_FRONT = 3
_ATTACK = "pgd"


@dataclass(frozen=True)
class FigureView:
    """A figure.

    Attributes:
        title: What it is.
        caption: What it shows.
        alternative: The same for those who do not see it.
        source: The image as a data URI.
        run_ids: The runs behind it.
    """

    title: str
    caption: str
    alternative: str
    source: str
    run_ids: tuple[str, ...] = ()


def _embed(figure: Figure) -> str:
    image = base64.b64encode(render(figure, "svg")).decode("ascii")
    return f"data:image/svg+xml;base64,{image}"


def study_figures(records: Sequence[Record]) -> tuple[list[FigureView], list[str]]:
    """Draws the figures for which there are runs.

    Returns:
        At most so many figures that the page stays small, and why others are not among them
        although there are runs for them.
    """
    figures, conflicts = _draw_all(
        (make, group) for make, key in _MAKERS for group in group_by(records, key).values()
    )
    curves = [r for r in records if r.curves]
    figures += [_robustness_curve(record) for record in curves[:_MAX_ROBUSTNESS_CURVES]]
    return figures, conflicts


def _draw_all(
    groups: Iterable[tuple[Callable[[Sequence[Record]], FigureView], Sequence[Record]]],
) -> tuple[list[FigureView], list[str]]:
    figures: list[FigureView] = []
    conflicts: list[str] = []
    for make, group in groups:
        if len(figures) == _MAX_FIGURES:
            conflicts.append(f"Figures beyond the first {_MAX_FIGURES} are left out.")
            break
        try:
            figures.append(make(group))
        except MissingRunsError:
            continue
        except IncomparableRunsError as error:
            conflicts.append(str(error))
    return figures, conflicts


def _block_space(records: Sequence[Record]) -> FigureView:
    space = compute_block_space(records, _ATTACK)
    means = ", ".join(
        f"{size} to choose from: robust {robust.mean:.1%}, natural {natural.mean:.1%}"
        for size, robust, natural in zip(space.sizes, space.robust, space.natural, strict=True)
    )
    return FigureView(
        "Fewer blocks to choose from",
        f"As Fig. 6 of the paper: {space.setting}.",
        f"Mean accuracies by number of blocks. {means}.",
        _embed(draw_block_space(space)),
        _runs_behind(space.subsets.values()),
    )


def _block_ensemble(records: Sequence[Record]) -> FigureView:
    ensemble = compute_block_ensemble(records, _ATTACK)
    return FigureView(
        "Learned, fixed and equal blocks",
        f"As Fig. 4 of the paper: {ensemble.setting}.",
        _describe_means(
            "method and variant",
            {", ".join(key): accuracies for key, accuracies in ensemble.variants.items()},
        ),
        _embed(draw_block_ensemble(ensemble)),
        _runs_behind(ensemble.variants.values()),
    )


def _initialization(records: Sequence[Record]) -> FigureView:
    result = compute_initialization(records, _ATTACK)
    return FigureView(
        "Where the attention weights start",
        f"As Fig. 5 of the paper: {result.setting}.",
        _describe_means("initial distribution", result.starts),
        _embed(draw_initialization(result)),
        _runs_behind(result.starts.values()),
    )


def _describe_means(by: str, found: Mapping[str, Accuracies]) -> str:
    means = "; ".join(
        f"{name}: robust {accuracies.robust.mean:.1%}, natural {accuracies.natural.mean:.1%}"
        for name, accuracies in found.items()
    )
    return f"Accuracies by {by}. {means}."


def _runs_behind(found: Iterable[Accuracies]) -> tuple[str, ...]:
    return tuple(run_id for accuracies in found for run_id in accuracies.robust.run_ids)


def _co_occurrence(records: Sequence[Record]) -> FigureView:
    pairs = compute_co_occurrence(records, _ATTACK)
    ratios = "; ".join(
        f"{block} and {other}: {pairs.ratio[i, j]:.2f}"
        for i, block in enumerate(pairs.blocks)
        for j, other in enumerate(pairs.blocks[:i])
        if pairs.expected[i, j] > 0
    )
    return FigureView(
        "Blocks of the best networks",
        "How often two blocks share a module in the best quarter of the networks, by how often "
        "they would by chance; on the diagonal single blocks.",
        f"Ratios to chance. {ratios or 'No two blocks share a module'}.",
        _embed(draw_co_occurrence(pairs)),
        tuple(record.run_id for record in records),
    )


def _pareto(records: Sequence[Record]) -> FigureView:
    pareto = compute_pareto(records, _ATTACK)
    if len(pareto.run_ids) < _MIN_FRONT:
        raise MissingRunsError(f"a front needs {_MIN_FRONT} runs, got {len(pareto.run_ids)}")
    configs = {record.run_id: record.config for record in records}
    best = [
        (configs[name], x, y)
        for name, x, y, is_best in zip(
            pareto.run_ids, pareto.natural, pareto.robust, pareto.on_front, strict=True
        )
        if is_best
    ]
    names = name_variants([config for config, *_ in best], seeds=True)
    front = "; ".join(
        f"{name}: natural {x:.1%}, robust {y:.1%}"
        for name, (_, x, y) in zip(names, best, strict=True)
    )
    return FigureView(
        "Natural against robust accuracy",
        f"{describe_setting(records[0], _ATTACK, with_method=False)}, {len(pareto.run_ids)} runs; "
        "the line joins those that no other beats in both.",
        f"The runs on the front. {front}.",
        _embed(draw_pareto(pareto)),
        pareto.run_ids,
    )


def _rank_correlation(records: Sequence[Record]) -> FigureView:
    ranks = compute_rank_correlation(records, _ATTACK)
    low, high = ranks.interval
    text = f"Spearman's correlation {ranks.spearman:.2f}, 95 % interval {low:.2f} to {high:.2f}"
    return FigureView(
        "Ranks by natural and by robust accuracy",
        f"{ranks.setting}, {len(ranks.networks)} networks, means over seeds.",
        f"{text}.",
        _embed(draw_rank_correlation(ranks)),
        tuple(name for names in ranks.run_ids for name in names),
    )


def _robustness_curve(record: Record) -> FigureView:
    curve = compute_robustness_curve(record)
    points = "; ".join(
        f"{line.attack} at the largest radius, {line.eps[-1]:g}: {line.accuracy[-1]:.1%}"
        for line in curve.lines
    )
    return FigureView(
        "Accuracy by radius",
        f"{curve.title}: accuracy against the radius of the attack, with 95 % intervals.",
        points,
        _embed(draw_robustness_curve(curve)),
        (record.run_id,),
    )


def _by_training(record: Record) -> str:
    """Runs that differ in their networks only, attacked alike."""
    ignored = NAMED_KEYS | TECHNICAL_KEYS
    config = {key: value for key, value in record.config.items() if key not in ignored}
    return json.dumps([config, _by_attack(record)], sort_keys=True, default=str)


def _by_attack(record: Record) -> str:
    """Runs on the same images under the same attack."""
    result = record.results.get(_ATTACK)
    return "" if result is None else repr(conditions_of(result))


_MAKERS: tuple[
    tuple[Callable[[Sequence[Record]], FigureView], Callable[[Record], str]],
    ...,
] = (
    (_block_ensemble, _by_attack),
    (_initialization, _by_training),
    (_block_space, _by_training),
    (_co_occurrence, _by_training),
    (_pareto, _by_attack),
    (_rank_correlation, _by_attack),
)


def learning_curve_figure(
    curves: Sequence[LearningCurve], entries: Sequence[RunEntry]
) -> FigureView:
    """Draws the curves of the runs that overfit most, as many as can be told apart."""
    worst = sorted(curves, key=lambda curve: -curve.robust_overfitting)[:_MAX_CURVES]
    configs = {entry.run_id: entry.config for entry in entries}
    names = name_variants([configs[curve.name] for curve in worst], seeds=True)
    named = [replace(curve, name=name) for curve, name in zip(worst, names, strict=True)]
    shown = (
        f"The {len(worst)} runs of {len(curves)} that lost most." if curves[len(worst) :] else ""
    )
    lost = "; ".join(f"{c.name}: {100 * c.robust_overfitting:.1f} points" for c in named)
    return FigureView(
        "Learning curves",
        f"Accuracy on held-out images by epoch. {shown}".rstrip(),
        f"Robust accuracy lost since the best epoch. {lost}.",
        _embed(draw_learning_curves(named)),
        tuple(curve.name for curve in worst),
    )


def graph_figures(views: Iterable[AttentionView], entries: dict[str, RunEntry]) -> list[FigureView]:
    """Draws the first few networks, their blocks' lines as wide as their attention weights."""
    figures: list[FigureView] = []
    drawn: set[str] = set()
    for view in views:
        entry = entries[view.run_id]
        architecture = "" if entry.record is None else entry.record.architecture
        if len(figures) == _MAX_GRAPHS or architecture in drawn:
            continue
        try:
            graph = find_graph(entry)
            image = None if graph is None else _embed(draw_graph(graph, weights=view.weights))
        except ValueError:  # a block or network that is not registered here
            continue
        if image is None:
            continue
        drawn.add(architecture)
        label = name_run(entry.config)
        figures.append(
            FigureView(
                f"Graph of {label}",
                f"{label}, epoch {view.epoch}: the wider and darker a line, the more the block "
                "weighs.",
                f"A graph of {len(view.weights)} modules; the weights are in the table below.",
                image,
                (view.run_id,),
            )
        )
    return figures
