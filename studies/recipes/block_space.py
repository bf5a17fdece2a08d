"""Does a larger set of atomic blocks make a more robust network? (Fig. 6, Sec. 4.5)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from nasbench_at.config import RunConfig, resolve
from nasbench_at.config.architecture import NumParameters
from nasbench_at.training.plugins import load_plugins
from studies.config import StudyConfig
from studies.variants import (
    common_blocks,
    fit_width,
    image_spec,
    match_width,
    num_params,
    with_blocks,
    with_seeds,
)

__all__ = ["block_space"]


def block_space(
    base: RunConfig,
    *,
    seeds: Sequence[int] = (0,),
    sizes: tuple[int, ...] = (),
    match_parameters: NumParameters | None = None,
    max_parameters: NumParameters | None = None,
    data_root: Path | None = None,
) -> StudyConfig:
    """Trains every subset of a block set, at equal numbers of parameters.

    Fifteen runs a seed for the paper's four blocks; the paper reports seed 0.

    Args:
        base: The run with the full set.
        seeds: Train each subset with each of these.
        sizes: Sizes of the subsets; all of them by default.
        match_parameters: Parameters that widths are matched to; by default the full set's.
        max_parameters: Instead, the greatest widths with no more parameters than this.
        data_root: Where the data set's files lie.

    Raises:
        ValueError: If the blocks differ from module to module, a size is not possible or no width
            meets the parameters.
    """
    base = base.spelled_out()
    names = common_blocks(base, "block_space")
    if len(set(names)) < len(names):
        raise ValueError(f"blocks must be different, got {', '.join(names)}")
    for size in sizes:
        if not 1 <= size <= len(names):
            raise ValueError(f"sizes must lie in 1..{len(names)}, got {size}")
    if match_parameters is not None and max_parameters is not None:
        raise ValueError("match_parameters and max_parameters both choose the width; give one")
    load_plugins(base.plugins)
    images = image_spec(base, data_root)
    target = match_parameters or num_params(base, images)
    runs = []
    for size in sizes or range(1, len(names) + 1):
        for subset in combinations(names, size):
            config = with_blocks(base, subset)
            if max_parameters is not None:
                config = fit_width(config, images, max_parameters)
            elif match_parameters is not None or size < len(names):
                config = match_width(config, images, target)
            labels = {name: name in subset for name in names}
            runs += with_seeds(labels, config, seeds)
    return StudyConfig("block-space", "block-space", resolve(base), tuple(runs))
