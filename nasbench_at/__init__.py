"""Diverse-structured networks for adversarial robustness, from any set of atomic blocks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasbench_at.config import RunConfig
    from nasbench_at.config.architecture import Architecture, AttentionSpec
    from nasbench_at.evaluation.exported import load_model
    from nasbench_at.evaluation.one_call import evaluate
    from nasbench_at.evaluation.robustness import RobustnessReport
    from nasbench_at.evaluation.run_evaluation import evaluate_run
    from nasbench_at.networks.authors import load_authors_checkpoint
    from nasbench_at.networks.ds_net import DSNet
    from nasbench_at.networks.graph import build_graph, build_network
    from nasbench_at.networks.widths import match_parameters
    from nasbench_at.networks.zoo import create_model, list_models
    from nasbench_at.records import Benchmark, Record
    from nasbench_at.training.launch import train

# Imported on first use: the command line's --help and the plain-data modules need no torch.
_HOMES = {
    "Architecture": "config.architecture",
    "AttentionSpec": "config.architecture",
    "Benchmark": "records",
    "DSNet": "networks.ds_net",
    "Record": "records",
    "RobustnessReport": "evaluation.robustness",
    "RunConfig": "config",
    "build_graph": "networks.graph",
    "build_network": "networks.graph",
    "create_model": "networks.zoo",
    "evaluate": "evaluation.one_call",
    "evaluate_run": "evaluation.run_evaluation",
    "list_models": "networks.zoo",
    "load_authors_checkpoint": "networks.authors",
    "load_model": "evaluation.exported",
    "match_parameters": "networks.widths",
    "train": "training.launch",
}

__all__ = [
    "Architecture",
    "AttentionSpec",
    "Benchmark",
    "DSNet",
    "Record",
    "RobustnessReport",
    "RunConfig",
    "build_graph",
    "build_network",
    "create_model",
    "evaluate",
    "evaluate_run",
    "list_models",
    "load_authors_checkpoint",
    "load_model",
    "match_parameters",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
