"""Every figure by its name, from runs: what ``nasbench-at figure`` draws."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from analysis.attack_steps import compute_run_attack_steps, draw_attack_steps
from analysis.attention import (
    AttentionWeights,
    compute_attention,
    compute_attention_history,
    draw_attention,
    draw_attention_distances,
    draw_attention_entropy,
    draw_attention_history,
)
from analysis.comparability import check_evaluated_alike
from analysis.confusion import compute_run_confusion, draw_class_accuracy, draw_confusion
from analysis.errors import UnsuitableRunsError
from analysis.gradient_variance import compute_run_gradient_variance, draw_gradient_variance
from analysis.landscape import (
    Landscape,
    compute_run_landscape,
    draw_landscape_contour,
    draw_landscape_line,
    draw_landscape_surface,
)
from analysis.lipschitz import compute_run_lipschitz, draw_lipschitz
from analysis.perturbations import compute_run_perturbations, draw_perturbations
from analysis.robustness_curve import compute_robustness_curve, draw_robustness_curve
from analysis.study_figures import (
    compute_block_ensemble,
    compute_block_space,
    compute_co_occurrence,
    compute_initialization,
    compute_learning_curves,
    compute_pareto,
    compute_rank_correlation,
    compute_reliability,
    draw_block_ensemble,
    draw_block_space,
    draw_co_occurrence,
    draw_initialization,
    draw_learning_curves,
    draw_pareto,
    draw_rank_correlation,
    draw_reliability,
)
from nasbench_at.config.suggestions import suggest
from nasbench_at.evaluation.runs import Run
from nasbench_at.records import Benchmark, Record, read_metrics
from nasbench_at.records.naming.variants import name_run, name_variants
from nasbench_at.records.run_folders import RunFolder, find_runs

__all__ = ["FIGURES", "FigureKind", "FigureRequest", "LandscapeForm", "find_figure"]

LandscapeForm = Literal["contour", "surface", "line"]


@dataclass(frozen=True)
class FigureRequest:
    """What a figure is drawn from.

    Attributes:
        paths: Folders of runs, of studies, or in which runs lie.
        attack: Whose accuracy is the robust one.
        num_images: Test images of what is measured anew; None takes the figure's default.
        adversarial: Measure the loss of a landscape on attacked images.
        form: Of a landscape; None is a contour for one run and surfaces for several.
        points: Points of a landscape along a direction.
        span: How far it reaches, in units of each filter's norm.
        seed: Seed of directions, batches and attacks.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data_root: Where the data set's files lie.
        linear: Give a landscape a linear scale instead of a logarithmic one.
        on_progress: Is told how many of how many points of a landscape are done.
    """

    paths: tuple[Path, ...]
    attack: str = "pgd"
    num_images: int | None = None
    adversarial: bool = False
    form: LandscapeForm | None = None
    points: int = 21
    span: float = 1.0
    seed: int = 0
    device: str = "auto"
    data_root: Path | None = None
    linear: bool = False
    on_progress: Callable[[int, int], None] | None = None

    def check(self) -> None:
        """Raises a ValueError if the grid has no middle, or a path is none in which runs lie."""
        if self.points % 2 == 0:
            raise ValueError(f"points must be odd, got {self.points}")
        for path in self.paths:
            find_runs(path)

    def records(self) -> Benchmark:
        """Returns the records of the runs."""
        return Benchmark.load(*self.paths)

    def runs(self) -> list[Run]:
        """Opens the runs.

        Raises:
            UnsuitableRunsError: If there is none.
        """
        folders = dict.fromkeys(run for path in self.paths for run in find_runs(path))
        if not folders:
            raise UnsuitableRunsError(f"there is no run in {', '.join(map(str, self.paths))}")
        return [
            Run.open(folder, device=self.device, data_root=self.data_root) for folder in folders
        ]

    def named_runs(self) -> dict[Run, str]:
        """Opens the runs, and says what each is called beside the others."""
        runs = self.runs()
        configs = [run.config.to_dict() for run in runs]
        names = name_variants(configs, seeds=True) if len(runs) > 1 else map(name_run, configs)
        return dict(zip(runs, names, strict=True))

    def only_run(self) -> Run:
        """Opens the one run that the figure is about.

        Raises:
            UnsuitableRunsError: If there are several.
        """
        runs = self.runs()
        if len(runs) > 1:
            raise UnsuitableRunsError(f"this figure is about one run, got {len(runs)}")
        return runs[0]

    def only_record(self) -> Record:
        """Returns the record of the one network that the figure is about, also a user's model's.

        Raises:
            UnsuitableRunsError: If there are several.
        """
        records = list(self.records())
        if len(records) > 1:
            raise UnsuitableRunsError(f"this figure is about one run, got {len(records)}")
        return records[0]

    def measuring(self, **more: Any) -> dict[str, Any]:
        """Returns the arguments of what is measured anew on a run's test images."""
        values = {"seed": self.seed, **more}
        return values if self.num_images is None else {**values, "num_images": self.num_images}


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


def _attention_groups(request: FigureRequest) -> list[AttentionWeights]:
    """Runs that differ in their seeds only are one group."""
    groups: dict[str, list[RunFolder]] = {}
    configs: dict[str, dict[str, Any]] = {}
    for run in request.runs():
        config = run.config.to_dict()
        key = json.dumps({**config, "seed": None}, sort_keys=True)
        groups.setdefault(key, []).append(run.folder)
        configs.setdefault(key, config)
    names = name_variants(list(configs.values()))
    return [
        compute_attention(runs, name=name)
        for runs, name in zip(groups.values(), names, strict=True)
    ]


def _draw_attention_distances(request: FigureRequest) -> Figure:
    named = request.named_runs()
    attention = compute_attention([run.folder for run in named])
    return draw_attention_distances(attention, list(named.values()))


def _landscapes(request: FigureRequest) -> list[Landscape]:
    options = request.measuring(
        points=request.points,
        span=request.span,
        adversarial=request.adversarial,
        on_progress=request.on_progress,
    )
    dimensions = 1 if request.form == "line" else 2
    return [
        compute_run_landscape(run, dimensions=dimensions, name=name, **options)
        for run, name in request.named_runs().items()
    ]


def _draw_landscape(request: FigureRequest) -> Figure:
    runs = request.runs()
    form = request.form or ("contour" if len(runs) == 1 else "surface")
    if form == "contour" and len(runs) > 1:
        raise UnsuitableRunsError(
            f"a contour is about one run, got {len(runs)}; ask for a surface or line"
        )
    landscapes = _landscapes(request)
    match form:
        case "contour":
            return draw_landscape_contour(landscapes[0], is_linear=request.linear)
        case "surface":
            return draw_landscape_surface(landscapes, is_linear=request.linear)
        case "line":
            return draw_landscape_line(landscapes, is_linear=request.linear)


def _draw_gradient_variance(request: FigureRequest) -> Figure:
    return draw_gradient_variance(
        [
            replace(compute_run_gradient_variance(run, seed=request.seed), title=name)
            for run, name in request.named_runs().items()
        ]
    )


def _draw_learning_curves(request: FigureRequest) -> Figure:
    metrics = {name: read_metrics(run.folder.metrics) for run, name in request.named_runs().items()}
    return draw_learning_curves(compute_learning_curves(metrics))


def _draw_pareto(request: FigureRequest) -> Figure:
    records = request.records()
    check_evaluated_alike(records, ("natural", request.attack), "a Pareto front")
    return draw_pareto(compute_pareto(records.to_frame(), y=request.attack))


def _draw_class_accuracy(request: FigureRequest) -> Figure:
    run = request.only_run()
    return draw_class_accuracy(
        [
            compute_run_confusion(run, natural=natural, **request.measuring())
            for natural in (True, False)
        ]
    )


def _from_run(
    compute: Callable[..., Any], draw: Callable[[Any], Figure]
) -> Callable[[FigureRequest], Figure]:
    """A figure of one run, measured anew on its test images."""
    return lambda request: draw(compute(request.only_run(), **request.measuring()))


def _from_records(
    compute: Callable[[Benchmark, str], Any], draw: Callable[[Any], Figure]
) -> Callable[[FigureRequest], Figure]:
    """A figure of many records."""
    return lambda request: draw(compute(request.records(), request.attack))


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
            compute_attention_history(request.only_run().folder)
        ),
    ),
    "lipschitz": FigureKind(
        "bounds and local Lipschitz constants of each block (Prop. 3.3)",
        _from_run(compute_run_lipschitz, draw_lipschitz),
    ),
    "learning-curves": FigureKind(
        "validation accuracy by epoch, robust overfitting marked", _draw_learning_curves
    ),
    "pareto": FigureKind("natural against robust accuracy, and who is best by both", _draw_pareto),
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
        lambda request: draw_robustness_curve(compute_robustness_curve(request.only_record())),
    ),
}
