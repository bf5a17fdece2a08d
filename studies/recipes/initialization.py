"""Does it matter where the attention weights begin? (Fig. 5, Sec. 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nasbench_at.config import RunConfig, resolve
from nasbench_at.config.architecture import TRAINED_BLOCKS, AttentionInit
from studies.config import StudyConfig
from studies.parents import learned_weights
from studies.variants import with_seeds

__all__ = ["initialization"]

DISTRIBUTIONS: tuple[AttentionInit, ...] = (
    "normal",
    "uniform",
    "log_normal",
    "exponential",
    "geometric",
)


def initialization(
    base: RunConfig,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    inits: tuple[AttentionInit, ...] = DISTRIBUTIONS,
    parent: Path | None = None,
    data_root: Path | None = None,
) -> StudyConfig:
    """Trains from each distribution of initial weights, and from optimised ones.

    Six runs a seed. The optimised weights are those of a finished run, or, for fifteen modules of
    the paper's four blocks, those that its authors ship; otherwise they are left out.

    Args:
        base: The run.
        seeds: Train each with each of these.
        inits: The distributions.
        parent: Folder of a finished run whose learned weights are the optimised ones.
        data_root: Where the data set's files lie.

    Raises:
        ValueError: If the weights are not learned, or the parent has none that fit.
    """
    base = base.spelled_out()
    if base.attention != "learned" or base.model != "ds_net":
        raise ValueError(
            f"initialization needs a ds_net with learned weights, got {base.model!r} with "
            f"{base.attention} ones"
        )
    variants: dict[str, RunConfig] = {
        name: replace(base, attention_init=name, attention_init_options={}, attention_weights=None)
        for name in inits
    }
    if parent is not None:
        weights = learned_weights(parent, base, data_root)
        variants["optimised"] = replace(
            base, attention_init="given", attention_init_options={}, attention_weights=weights
        )
    elif base.blocks == TRAINED_BLOCKS and base.num_modules == 15:
        variants["optimised"] = replace(
            base, attention_init="trained", attention_init_options={}, attention_weights=None
        )
    runs = [
        planned
        for name, config in variants.items()
        for planned in with_seeds({"init": name}, config, seeds)
    ]
    return StudyConfig("initialization", "initialization", resolve(base), tuple(runs))
