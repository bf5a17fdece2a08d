"""Every figure by its name, from runs: what ``nasbench-at figure`` draws."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from matplotlib.figure import Figure

from analysis.attack_steps import compute_run_attack_steps, draw_attack_steps
from analysis.attention import (
    AttentionWeights,
    TableRun,
    compute_attention,
    compute_attention_history,
    draw_attention,
    draw_attention_distances,
    draw_attention_entropy,
    draw_attention_history,
)
from analysis.confusion import compute_run_confusion, draw_class_accuracy, draw_confusion
from analysis.errors import MissingRunsError, UnsuitableRunsError
from analysis.figure_request import FigureRequest, check_points
from analysis.gradient_variance import compute_run_gradient_variance, draw_gradient_variance
from analysis.knockout import compute_run_knockout, draw_knockout
from analysis.landscape import (
    compute_run_landscape,
    draw_landscape_contour,
    draw_landscape_line,
    draw_landscape_surface,
)
from analysis.lipschitz import compute_run_lipschitz, draw_lipschitz
from analysis.perturbations import compute_run_perturbations, draw_perturbations
from analysis.robustness_curve import compute_robustness_curve, draw_robustness_curve
from analysis.run_entries import collect_entries
from analysis.similarity import compute_run_similarity, draw_similarity
from analysis.study_figures import (
    compute_block_ensemble,
    compute_block_space,
    compute_co_occurrence,
    compute_importance,
    compute_initialization,
    compute_pareto,
    compute_rank_correlation,
    compute_reliability,
    draw_block_ensemble,
    draw_block_space,
    draw_co_occurrence,
    draw_importance,
    draw_initialization,
    draw_learning_curves,
    draw_pareto,
    draw_rank_correlation,
    draw_reliability,
)
from analysis.transfer import compute_run_transfer, draw_transfer
from nasbench_at.config.suggestions import suggest
from nasbench_at.evaluation.runs import Run
from nasbench_at.records import Benchmark
from nasbench_at.records.naming.variants import name_run, name_variants
from nasbench_at.records.places import find_table
from nasbench_at.records.run_folders import RunFolder, find_runs

__all__ = ["FIGURES", "FigureKind", "check_request", "find_figure"]

FoundT = TypeVar("FoundT")


@dataclass(frozen=True)
class FigureKind:
    """A figure that can be asked for by its name.

    Attributes:
        summary: What it shows, and where it is in the paper.
        draw: Draws it.
    """

    summary: str
    draw: Callable[[FigureRequest], Figure]


def find_figure(name: str) -> FigureKind:
    """Returns a figure by its name.

    Raises:
        ValueError: If there is none; the message names near ones.
    """
    if name not in FIGURES:
        raise ValueError(f"unknown figure {name!r}; {suggest(name, FIGURES)}")
    return FIGURES[name]


def check_request(request: FigureRequest) -> None:
    """Raises a ValueError if the grid has no middle, or a path is none in which runs lie."""
    check_points(request.points)
    for path in request.paths:
        if find_table(path) is None:
            find_runs(path)
            continue
        with warnings.catch_warnings(action="ignore"):  # which are shown when it is drawn
            Benchmark.load(path)


def _runs_of(request: FigureRequest) -> list[Run]:
    for path in request.paths:
        if find_table(path) is not None:
            raise UnsuitableRunsError(
                f"this figure is drawn from weights, and the table {path!r} holds none; name the "
                "folders of runs"
            )
    folders = dict.fromkeys(run for path in request.paths for run in find_runs(path))
    if not folders:
        raise UnsuitableRunsError(f"there is no run in {', '.join(map(str, request.paths))}")
    return [
        Run.open(folder, device=request.device, data_root=request.data_root) for folder in folders
    ]


def _named_runs_of(request: FigureRequest) -> dict[Run, str]:
    """The runs, and what each is called beside the others."""
    runs = _runs_of(request)
    return dict(zip(runs, _name([run.config.to_dict() for run in runs]), strict=True))


def _name(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    return name_variants(configs, seeds=True) if len(configs) > 1 else [*map(name_run, configs)]


def _attention_runs_of(request: FigureRequest) -> list[RunFolder | TableRun]:
    """The runs, of tables too: these hold the attention weights after each epoch."""
    tables = [path for path in request.paths if find_table(path) is not None]
    folders = tuple(path for path in request.paths if path not in tables)
    found: list[RunFolder | TableRun] = []
    if folders:
        found += [run.folder for run in _runs_of(replace(request, paths=folders))]
    stored = Benchmark.load(*tables)
    known = {run.config.run_id for run in found}
    found += [
        TableRun(record, stored.metrics_of(record))
        for record in stored
        if record.run_id not in known and stored.has_metrics(record)
    ]
    if not found:
        raise UnsuitableRunsError(f"there is no attention weight in {', '.join(request.paths)}")
    return found


def _only(found: Sequence[FoundT]) -> FoundT:
    if len(found) > 1:
        raise UnsuitableRunsError(f"this figure is about one run, got {len(found)}")
    return found[0]


def _measuring(request: FigureRequest) -> dict[str, Any]:
    """The arguments of what is measured anew on a run's test images."""
    images = {} if request.num_images is None else {"num_images": request.num_images}
    return {"seed": request.seed, **images}


def _attention_groups(request: FigureRequest) -> list[AttentionWeights]:
    """Runs that differ in their seeds only are one group."""
    groups: dict[str, list[RunFolder | TableRun]] = {}
    configs: dict[str, dict[str, Any]] = {}
    for run in _attention_runs_of(request):
        config = run.config.to_dict()
        key = json.dumps({**config, "seed": None}, sort_keys=True)
        groups.setdefault(key, []).append(run)
        configs.setdefault(key, config)
    names = name_variants(list(configs.values()))
    return [
        compute_attention(runs, name=name)
        for runs, name in zip(groups.values(), names, strict=True)
    ]


def _draw_attention_distances(request: FigureRequest) -> Figure:
    runs = _attention_runs_of(request)
    names = _name([run.config.to_dict() for run in runs])
    return draw_attention_distances(compute_attention(runs), names)


def _draw_landscape(request: FigureRequest) -> Figure:
    runs = _named_runs_of(request)
    form = request.form or ("contour" if len(runs) == 1 else "surface")
    if form == "contour" and len(runs) > 1:
        raise UnsuitableRunsError(
            f"a contour is about one run, got {len(runs)}; ask for a surface or line"
        )
    landscapes = [
        compute_run_landscape(
            run,
            name=name,
            dimensions=1 if form == "line" else 2,
            points=request.points,
            span=request.span,
            adversarial=request.adversarial,
            on_progress=request.on_progress,
            **_measuring(request),
        )
        for run, name in runs.items()
    ]
    match form:
        case "contour":
            return draw_landscape_contour(landscapes[0], is_linear=request.linear)
        case "surface":
            return draw_landscape_surface(landscapes, is_linear=request.linear)
        case "line":
            return draw_landscape_line(landscapes, is_linear=request.linear)


def _draw_gradient_variance(request: FigureRequest) -> Figure:
    variances = {
        name: compute_run_gradient_variance(run, loss="training", seed=request.seed)
        for run, name in _named_runs_of(request).items()
    }
    return draw_gradient_variance(variances, loss="training")


def _draw_learning_curves(request: FigureRequest) -> Figure:
    entries = collect_entries(request.paths)
    names = _name([entry.config for entry in entries])
    curves = []
    for entry, name in zip(entries, names, strict=True):
        if entry.curve is None:
            raise MissingRunsError(f"run {entry.run_id!r} has no finished epoch")
        curves.append(replace(entry.curve, name=name))
    return draw_learning_curves(curves)


def _draw_importance(request: FigureRequest) -> Figure:
    entries = collect_entries(request.paths)
    weights = {entry.run_id: entry.attention[1] for entry in entries if entry.attention}
    records = [entry.record for entry in entries if entry.record is not None]
    return draw_importance(compute_importance(records, request.attack, weights=weights))


def _draw_class_accuracy(request: FigureRequest) -> Figure:
    run = _only(_runs_of(request))
    return draw_class_accuracy(
        [
            compute_run_confusion(run, natural=natural, **_measuring(request))
            for natural in (True, False)
        ]
    )


def _draw_transfer(request: FigureRequest) -> Figure:
    runs = {name: run for run, name in _named_runs_of(request).items()}
    return draw_transfer(compute_run_transfer(runs, **_measuring(request)))


def _from_run(
    compute: Callable[..., Any], draw: Callable[[Any], Figure]
) -> Callable[[FigureRequest], Figure]:
    """A figure of one run, measured anew on its test images."""
    return lambda request: draw(compute(_only(_runs_of(request)), **_measuring(request)))


def _from_records(
    compute: Callable[[Benchmark, str], Any], draw: Callable[[Any], Figure]
) -> Callable[[FigureRequest], Figure]:
    """A figure of many records."""
    return lambda request: draw(compute(Benchmark.load(*request.paths), request.attack))


FIGURES: Mapping[str, FigureKind] = {
    "block-ensemble": FigureKind(
        "learned, uniform and same-block ensembles by method (Fig. 4)",
        _from_records(compute_block_ensemble, draw_block_ensemble),
    ),
    "initialization": FigureKind(
        "accuracy by the initial attention weights (Fig. 5)",
        _from_records(compute_initialization, draw_initialization),
    ),
    "block-space": FigureKind(
        "accuracy by subset of the blocks and its size (Fig. 6)",
        _from_records(compute_block_space, draw_block_space),
    ),
    "importance": FigureKind(
        "what each block contributes, from all subsets: Shapley values, leave-one-out, weights",
        _draw_importance,
    ),
    "knockout": FigureKind(
        "what a trained network loses without each block, not trained again",
        _from_run(compute_run_knockout, draw_knockout),
    ),
    "landscape": FigureKind("the loss around the weights (Fig. 7a)", _draw_landscape),
    "gradient-variance": FigureKind(
        "variance of the gradient over batches (Fig. 7b)", _draw_gradient_variance
    ),
    "attention": FigureKind(
        "attention weights by module, a band over seeds (Fig. 8)",
        lambda request: draw_attention(_attention_groups(request)),
    ),
    "attention-entropy": FigureKind(
        "how evenly each module weighs its blocks",
        lambda request: draw_attention_entropy(_attention_groups(request)),
    ),
    "attention-distances": FigureKind(
        "how far apart the weights of runs are, l-infinity (Sec. 4.4)",
        _draw_attention_distances,
    ),
    "attention-history": FigureKind(
        "attention weights by epoch",
        lambda request: draw_attention_history(
            compute_attention_history(_only(_attention_runs_of(request)))
        ),
    ),
    "lipschitz": FigureKind(
        "bounds and local Lipschitz constants of each block (Prop. 3.3)",
        _from_run(compute_run_lipschitz, draw_lipschitz),
    ),
    "learning-curves": FigureKind(
        "validation accuracy by epoch, robust overfitting marked", _draw_learning_curves
    ),
    "pareto": FigureKind(
        "natural against robust accuracy, and who is best by both",
        _from_records(compute_pareto, draw_pareto),
    ),
    "co-occurrence": FigureKind(
        "which blocks the best networks have in common",
        _from_records(compute_co_occurrence, draw_co_occurrence),
    ),
    "rank-correlation": FigureKind(
        "rank by natural against rank by robust accuracy",
        _from_records(compute_rank_correlation, draw_rank_correlation),
    ),
    "reliability": FigureKind(
        "how far each way of training ranks networks reliably, by seeds and hours",
        _from_records(compute_reliability, draw_reliability),
    ),
    "cka": FigureKind(
        "how alike the outputs of a module's blocks are, clean and attacked (linear CKA)",
        _from_run(compute_run_similarity, draw_similarity),
    ),
    "transfer": FigureKind(
        "accuracy on images made against other networks; masked gradients are framed",
        _draw_transfer,
    ),
    "perturbations": FigureKind(
        "images, attacked images and their difference",
        _from_run(compute_run_perturbations, draw_perturbations),
    ),
    "confusion": FigureKind(
        "which classes are taken for which under attack",
        _from_run(compute_run_confusion, draw_confusion),
    ),
    "class-accuracy": FigureKind("accuracy by class, clean and attacked", _draw_class_accuracy),
    "attack-steps": FigureKind(
        "accuracy by the number of the attack's steps",
        _from_run(compute_run_attack_steps, draw_attack_steps),
    ),
    "robustness-curve": FigureKind(
        "accuracy by radius, of a run evaluated at several",
        lambda request: draw_robustness_curve(
            compute_robustness_curve(_only(Benchmark.load(*request.paths)))
        ),
    ),
}
"""What ``nasbench-at figure`` draws, by name."""
