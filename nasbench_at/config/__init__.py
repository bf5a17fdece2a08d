"""What a user asks for, as data: the network, the run, and what a recipe fills in.

No torch here, so that ``nasbench-at --help`` answers at once.
"""

from __future__ import annotations

from nasbench_at.config.run_config import (
    DS_NET_FIELDS,
    ModelOptions,
    OptimizerImpl,
    Precision,
    ResolvedConfig,
    RunConfig,
    config_from_mapping,
    dump_config,
    load_config,
    resolve,
)

__all__ = [
    "DS_NET_FIELDS",
    "ModelOptions",
    "OptimizerImpl",
    "Precision",
    "ResolvedConfig",
    "RunConfig",
    "config_from_mapping",
    "dump_config",
    "load_config",
    "resolve",
]
