"""What a report measures anew, of the most robust runs: landscapes, and the paper's theory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.report.groups import rank_by_robustness
from analysis.run_entries import RunEntry
from nasbench_at.records.naming.variants import name_run, name_variants

if TYPE_CHECKING:
    from analysis.landscape import Landscape
    from analysis.theory import RunTheory

__all__ = ["best_landscapes", "best_theories", "can_be_measured"]


def best_landscapes(
    entries: Sequence[RunEntry],
    count: int,
    *,
    num_images: int = 128,
    points: int = 21,
    device: str = "auto",
    data_root: str | Path | None = None,
    **options: Any,
) -> list[Landscape]:
    """Measures the loss around the weights of the most robust runs.

    What is measured is kept in the run's folder, so that another report takes it from there.

    Args:
        entries: The runs, from :func:`analysis.report.collect_entries`.
        count: How many runs.
        num_images: Test images, or all of them where there are fewer.
        points: Points along each of the two directions, odd.
        device: As in :meth:`nasbench_at.evaluation.runs.Run.open`.
        data_root: Likewise.
        **options: Other arguments of :func:`analysis.landscape.compute_run_landscape`.

    Raises:
        ValueError: If a path or an argument is not usable.
    """
    chosen = _most_robust(entries)[:count]
    if not chosen:
        return []
    from analysis.landscape import compute_run_landscape  # torch
    from nasbench_at.evaluation.runs import Run

    configs = [entry.config for entry, _ in chosen]
    names = [name_run(c) for c in configs] if count == 1 else name_variants(configs, seeds=True)
    found = []
    for (entry, folder), name in zip(chosen, names, strict=True):
        images = min(num_images, entry.results["natural"].num_samples)
        landscape = compute_run_landscape(
            Run.open(folder, device=device, data_root=data_root),
            name=name,
            num_images=images,
            points=points,
            progress_file=folder / f"landscape-{points}-{images}.safetensors",
            **options,
        )
        found.append(landscape)
    return found


def best_theories(
    entries: Sequence[RunEntry],
    count: int,
    *,
    device: str = "auto",
    data_root: str | Path | None = None,
) -> list[RunTheory]:
    """Holds the paper's theory against the most robust DS-Nets with learned weights.

    Args:
        entries: The runs, from :func:`analysis.report.collect_entries`.
        count: How many runs.
        device: As in :meth:`nasbench_at.evaluation.runs.Run.open`.
        data_root: Likewise.

    Raises:
        ValueError: If a path or an argument is not usable.
    """
    nets = [
        entry
        for entry in entries
        if (entry.config.get("model"), entry.config.get("attention")) == ("ds_net", "learned")
    ]
    chosen = _most_robust(nets)[:count]
    if not chosen:
        return []
    from analysis.theory import compute_run_theory  # torch
    from nasbench_at.evaluation.runs import Run

    return [
        compute_run_theory(Run.open(folder, device=device, data_root=data_root))
        for _, folder in chosen
    ]


def _most_robust(entries: Iterable[RunEntry]) -> list[tuple[RunEntry, Path]]:
    """Runs with weights that PGD attacked, those first whose conditions most of them share."""
    return [
        (entry, entry.folder)
        for entry in rank_by_robustness(filter(can_be_measured, entries))
        if entry.folder is not None
    ]


def can_be_measured(entry: RunEntry) -> bool:
    """Whether a run has weights and was attacked by PGD."""
    folder = entry.folder
    has_weights = folder is not None and (folder / "best.safetensors").exists()
    return has_weights and "pgd" in entry.results
