"""Fig. 6: accuracy by the number of atomic blocks to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.comparability import (
    describe_sizes,
    ds_net_of,
    group_by,
    prefer_recipe_weight_decay,
)
from analysis.errors import MissingRunsError
from analysis.study_figures.block_families import has_one_set
from analysis.study_figures.estimates import (
    Accuracies,
    Estimate,
    average,
    check_one_setting,
    describe_setting,
    ds_nets_of,
    estimate_both,
)
from analysis.study_figures.points import describe_spread, draw_estimate, draw_points
from analysis.style import (
    LEGEND_BELOW,
    MARKERS,
    PALETTE,
    create_figure,
    show_percent,
    style_axes,
)
from nasbench_at.records import Record

__all__ = ["BlockSpace", "compute_block_space", "draw_block_space"]

_FIGURE = "the block-space figure"


@dataclass(frozen=True)
class BlockSpace:
    """Accuracies by block set and by its size.

    Attributes:
        subsets: Accuracies by the names of a set's blocks, small sets first.
        sizes: The sizes in order.
        natural: By size, the mean over its sets, a value a set; of one set without an interval.
        robust: The same under the attack.
        attack: Name of the attack.
        setting: How the networks were trained and attacked, and how large they are where their
            parameters differ by more than 10 %.
    """

    subsets: Mapping[tuple[str, ...], Accuracies]
    sizes: tuple[int, ...]
    natural: tuple[Estimate, ...]
    robust: tuple[Estimate, ...]
    attack: str
    setting: str


def compute_block_space(records: Sequence[Record], attack: str = "pgd") -> BlockSpace:
    """Averages accuracies over the block sets of each size, as Sec. 4.5 of the paper does.

    DS-Nets with learned weights from N(0, 1) and one set of different blocks for all modules count.

    Args:
        records: Runs, of one data set, method and depth.
        attack: Whose accuracy is the robust one.

    Raises:
        MissingRunsError: If there are not two block sets.
        ValueError: If the runs were trained or evaluated differently, or those of a set are not of
            one network.
    """
    runs_of_sets = [r for r in ds_nets_of(records, attack, _FIGURE) if has_one_set(ds_net_of(r))]
    kept = prefer_recipe_weight_decay(runs_of_sets)
    by_set = group_by(kept, lambda r: tuple(sorted(ds_net_of(r).all_blocks)))
    if len(by_set) < 2:
        raise MissingRunsError(f"{_FIGURE} needs DS-Nets of two block sets, got {len(by_set)}")
    check_one_setting(kept, attack, _FIGURE)
    subsets = {
        blocks: estimate_both(by_set[blocks], attack)
        for blocks in sorted(by_set, key=lambda blocks: (len(blocks), blocks))
    }
    sizes = tuple(dict.fromkeys(map(len, subsets)))
    of_size = [[s for blocks, s in subsets.items() if len(blocks) == size] for size in sizes]
    return BlockSpace(
        subsets=subsets,
        sizes=sizes,
        natural=tuple(average([subset.natural for subset in group]) for group in of_size),
        robust=tuple(average([subset.robust for subset in group]) for group in of_size),
        attack=attack,
        setting=", ".join(filter(None, (describe_setting(kept[0], attack), describe_sizes(kept)))),
    )


def draw_block_space(space: BlockSpace) -> Figure:
    """Draws accuracies by size at the left, and by block set at the right."""
    figure = create_figure(9.0, max(3.4, 1.2 + 0.24 * len(space.subsets)))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
    counts = [sum(len(blocks) == size for blocks in space.subsets) for size in space.sizes]
    draw_points(
        left,
        [f"{size}\n({count})" for size, count in zip(space.sizes, counts, strict=True)],
        {"robust": space.robust, "natural": space.natural},
        x="atomic blocks to choose from (number of sets)",
        y="accuracy",
        title=fill(describe_spread(space.robust, of="block set"), 48),
    )
    _draw_subsets(right, space)
    figure.suptitle(space.setting, fontsize=8)
    figure.legend(*left.get_legend_handles_labels(), **LEGEND_BELOW)
    return figure


def _draw_subsets(axes: Axes, space: BlockSpace) -> None:
    """A line for each block set, the most robust on top."""
    ordered = sorted(space.subsets.items(), key=lambda subset: subset[1].robust.mean)
    for y, (_, subset) in enumerate(ordered):
        for color, marker, item in zip(
            PALETTE, MARKERS, (subset.robust, subset.natural), strict=False
        ):
            draw_estimate(axes, y, item, color, marker, is_vertical=False)
    title = fill(describe_spread([subset.robust for _, subset in ordered]), 64)
    style_axes(axes, x="accuracy", y="", title=title)
    axes.set_yticks(range(len(ordered)), [" + ".join(blocks) for blocks, _ in ordered], fontsize=7)
    axes.grid(visible=False, axis="y")
    show_percent(axes.xaxis)
