"""Fig. 4: learned weights of different blocks against fixed weights, and against equal blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.comparability import (
    ATTENTION_KEYS,
    check_trained_alike,
    ds_net_of,
    group_by,
    prefer_recipe_weight_decay,
)
from analysis.errors import MissingRunsError
from analysis.study_figures.estimates import (
    Accuracies,
    check_one_setting,
    describe_setting,
    ds_nets_of,
    estimate_both,
)
from analysis.study_figures.points import describe_spread, draw_points
from analysis.style import LEGEND_BELOW, create_figure
from nasbench_at.config.architecture import Architecture
from nasbench_at.records import Record
from nasbench_at.records.naming.labels import describe_blocks, method_label, metric_label
from nasbench_at.records.naming.variants import weights_label

__all__ = ["BlockEnsemble", "compute_block_ensemble", "draw_block_ensemble"]

_FIGURE = "the block-ensemble figure"
_WEIGHTS = ("learned", "fixed")


@dataclass(frozen=True)
class BlockEnsemble:
    """The variants, by method.

    Attributes:
        variants: Accuracies by method, with its β, and variant (``learned``, ``fixed`` for equal
            weights, or several of one block), in order.
        attack: Name of the attack.
        setting: On what the networks were trained and how attacked.
    """

    variants: Mapping[tuple[str, str], Accuracies]
    attack: str
    setting: str


def compute_block_ensemble(records: Sequence[Record], attack: str = "pgd") -> BlockEnsemble:
    """Compares DS-Nets with the variants of Sec. 4.3 of the paper.

    Learned weights start at N(0, 1); fixed ones are equal, of the same blocks or of several of one
    block. All are of the blocks that the fixed ones have.

    Args:
        records: Runs, of one data set and depth.
        attack: Whose accuracy is the robust one.

    Raises:
        MissingRunsError: If no method has two of the variants.
        ValueError: If the runs of a method were trained or evaluated differently, or learned and
            fixed weights are of networks that differ in more.
    """
    nets = ds_nets_of(records, attack, _FIGURE)
    fixed = frozenset().union(*(_fixed_blocks(ds_net_of(record)) for record in nets))
    variants: dict[tuple[str, str], Accuracies] = {}
    used: list[Record] = []
    candidates = [record for record in nets if _variant_of(record, fixed) is not None]
    methods = group_by(candidates, _method_of)
    for method, runs in methods.items():
        kept = prefer_recipe_weight_decay(runs)
        by_variant = group_by(kept, lambda r: str(_variant_of(r, fixed)))
        if len(by_variant) < 2:
            continue
        check_one_setting(kept, attack, _FIGURE)
        weighted = [r for name in _WEIGHTS for r in by_variant.get(name, ())]
        check_trained_alike(weighted, ATTENTION_KEYS, _FIGURE)
        used += kept
        for name in sorted(by_variant, key=_order):
            variants[method, name] = estimate_both(by_variant[name], attack)
    if not used:
        raise MissingRunsError(
            f"{_FIGURE} needs, of one method, two of: learned weights, fixed and equal weights, "
            "several of one block"
        )
    setting = describe_setting(used[0], attack, with_method=False)
    return BlockEnsemble(variants, attack, setting)


def _fixed_blocks(network: Architecture) -> frozenset[str]:
    is_fixed = (network.attention.mode, network.attention.init) == ("fixed", "equal")
    return frozenset(network.block_set or ()) if is_fixed else frozenset()


def _variant_of(record: Record, blocks: frozenset[str]) -> str | None:
    network = ds_net_of(record)
    if network.is_same_block:
        return describe_blocks(network)
    if not network.is_whole or frozenset(network.block_set or ()) != blocks:
        return None
    label = weights_label(network.attention)
    return label if label in _WEIGHTS else None


def _method_of(record: Record) -> str:
    return method_label(str(record.config.get("method")), record.config.get("beta"))


def _order(variant: str) -> tuple[int, str]:
    return (_WEIGHTS.index(variant) if variant in _WEIGHTS else len(_WEIGHTS)), variant


def draw_block_ensemble(ensemble: BlockEnsemble) -> Figure:
    """Draws robust accuracy at the left and natural accuracy at the right, a group a method."""
    figure = create_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    variants = ensemble.variants
    methods = list(dict.fromkeys(method for method, _ in variants))
    names = sorted({name for _, name in variants}, key=_order)
    robust, natural = (
        {
            name: [getattr(variants.get((method, name)), side, None) for method in methods]
            for name in names
        }
        for side in ("robust", "natural")
    )
    note = describe_spread([accuracies.robust for accuracies in variants.values()])
    draw_points(left, methods, robust, y=f"accuracy under {metric_label(ensemble.attack)}")
    draw_points(right, methods, natural, y="natural accuracy")
    figure.suptitle(f"{ensemble.setting}\n{note}", fontsize=8)
    figure.legend(*left.get_legend_handles_labels(), **LEGEND_BELOW)
    return figure
