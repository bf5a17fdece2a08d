"""Fig. 5: accuracy by where the attention weights start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.comparability import ds_net_of, group_by, prefer_recipe_weight_decay
from analysis.errors import IncomparableRunsError, MissingRunsError
from analysis.study_figures.estimates import (
    Accuracies,
    check_one_setting,
    describe_setting,
    ds_nets_of,
    estimate_both,
)
from analysis.study_figures.points import describe_spread, draw_points
from analysis.style import create_figure
from nasbench_at.records import Record
from nasbench_at.records.naming.labels import network_label

__all__ = ["Initialization", "compute_initialization", "draw_initialization"]

_FIGURE = "the initialisation figure"
_ORDER = ("normal", "uniform", "log_normal", "exponential", "geometric", "equal")
OPTIMISED = "optimised"


@dataclass(frozen=True)
class Initialization:
    """Accuracies by start, in the paper's order.

    Attributes:
        starts: By the distribution's name; ``optimised`` for weights of an earlier training.
        attack: Name of the attack.
        setting: What was trained how, and how attacked.
    """

    starts: Mapping[str, Accuracies]
    attack: str
    setting: str


def compute_initialization(records: Sequence[Record], attack: str = "pgd") -> Initialization:
    """Compares starts of the attention weights, as Sec. 4.4 of the paper does.

    Args:
        records: Runs, of one data set and method.
        attack: Whose accuracy is the robust one.

    Raises:
        MissingRunsError: If no DS-Net was trained from two starts.
        ValueError: If several were, or the runs were trained or evaluated differently.
    """
    learned = [
        record
        for record in ds_nets_of(records, attack, _FIGURE)
        if ds_net_of(record).attention.mode == "learned" and ds_net_of(record).is_whole
    ]
    groups = group_by(learned, lambda r: (ds_net_of(r).blocks, ds_net_of(r).stage_channels))
    found = [group for group in groups.values() if len(set(map(_start_of, group))) > 1]
    if not found:
        raise MissingRunsError(f"{_FIGURE} needs a DS-Net trained from two starts of its weights")
    if len(found) > 1:
        names = "; ".join(network_label(group[0].config) for group in found)
        raise IncomparableRunsError(
            f"{_FIGURE} is of one network, got {len(found)}: {names}; choose one"
        )
    runs = prefer_recipe_weight_decay(found[0])
    check_one_setting(runs, attack, _FIGURE)
    by_init = group_by(runs, _start_of)
    return Initialization(
        {
            # Each seed may start from the weights of an earlier training of its own.
            init: estimate_both(by_init[init], attack, {"attention_weights"})
            for init in sorted(by_init, key=_rank)
        },
        attack,
        describe_setting(runs[0], attack),
    )


def _start_of(record: Record) -> str:
    init = ds_net_of(record).attention.init
    return OPTIMISED if init in ("trained", "given") else init


def _rank(init: str) -> tuple[int, str]:
    return (_ORDER.index(init) if init in _ORDER else len(_ORDER)), init


def draw_initialization(initialization: Initialization) -> Figure:
    """Draws robust and natural accuracy, each on its own scale, by start."""
    figure = create_figure(9.0, 3.4)
    left, right = figure.subplots(1, 2)
    starts = initialization.starts
    labels = [init.replace("_", "-\n") for init in starts]
    for axes, side, y in (
        (left, "robust", "robust accuracy"),
        (right, "natural", "natural accuracy"),
    ):
        estimates = [getattr(accuracies, side) for accuracies in starts.values()]
        draw_points(axes, labels, {side: estimates}, y=y)
    note = describe_spread([accuracies.robust for accuracies in starts.values()])
    figure.suptitle(f"{initialization.setting}\n{note}", fontsize=8)
    return figure
