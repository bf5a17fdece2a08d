"""Records of runs that never ran, with the configurations that real ones have."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasbench_at.config import RunConfig, resolve
from nasbench_at.evaluation.standard_attacks import standard_attacks
from nasbench_at.records import AttackResult, Evaluation, Record, TrustCheck

DEPTH = {"num_modules": 3, "init_channels": 6, "widen_factor": 2}
"""A DS-Net that is none of the paper's."""
FOUR = ("residual", "mbconv", "dense", "ada_rk")


def make_run(
    accuracies: Mapping[str, float] | None = None,
    *,
    num_samples: int = 10_000,
    num_params: int = 1_000_000,
    eps: float | None = None,
    fingerprint: str | None = None,
    **config: Any,
) -> Record:
    """A record with these accuracies in percent; one that was not evaluated without."""
    resolved = resolve(RunConfig(**config))
    return Record(
        run_id=resolved.run_id,
        config=resolved.to_dict(),
        architecture=resolved.network_id((3, 32, 32), 10),
        num_params=num_params,
        provenance={
            "commit": "0123456789ab",
            "device": "cpu",
            "nasbench_at": "0.1.0",
            "precision": "fp32",
            "data_fingerprint": resolved.data,
            "train_seconds": 61.0,
        },
        training={
            "epochs": resolved.epochs,
            "stopped": None,
            "num_train": 900,
            "selected": {
                "epoch": 2,
                "validation_natural": 0.9,
                "validation_robust": 0.5,
                "num_samples": 100,
                "attack": {},
            },
        },
        evaluations=()
        if accuracies is None
        else (_evaluation(resolved, accuracies, num_samples, eps, fingerprint),),
    )


def _evaluation(
    config: RunConfig,
    accuracies: Mapping[str, float],
    num_samples: int,
    eps: float | None,
    fingerprint: str | None,
) -> Evaluation:
    radius = config.eps if eps is None else eps
    assert radius is not None
    names = [name for name in accuracies if name != "natural"]
    attacks = standard_attacks(names, eps=radius, recipe=config.recipe, method=config.method)
    return Evaluation(
        results=tuple(
            AttackResult(
                attack=name,
                num_samples=num_samples,
                num_correct=round(num_samples * value / 100),
                norm=None if name == "natural" else "Linf",
                eps=None if name == "natural" else radius,
                settings={} if name == "natural" else attacks[name].settings(),
                seed=None if name == "natural" else 0,
                data=f"{config.data}/test",
                data_fingerprint=fingerprint or config.data,
                seconds=1.0,
            )
            for name, value in accuracies.items()
        ),
        recipe=config.recipe,
        data=f"{config.data}/test",
        data_fingerprint=fingerprint or config.data,
        provenance={"commit": "0123456789ab", "device": "cpu"},
        checks=(TrustCheck(name="gradients", passed=True, detail="they are finite"),),
    )


def make_metrics(epochs: int = 4, *, weights: list[list[float]] | None = None) -> list[Any]:
    """Lines of metrics whose robust accuracy is best in epoch 2."""
    return [
        {
            "epoch": epoch,
            "lr": 0.1,
            "train_loss": 1.0,
            "train_accuracy": 0.5,
            "validation_natural": 0.9,
            "validation_robust": 0.5 - 0.05 * abs(epoch - 2),
            **({} if weights is None else {"attention": weights}),
        }
        for epoch in range(1, epochs + 1)
    ]


def write_run(runs: Path, record: Record, metrics: Sequence[Any] = ()) -> Path:
    """Writes a run's folder: a finished one's, as far as a report reads it."""
    folder = runs / re.sub(r"[^\w-]", "_", record.run_id)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(record.to_json(), "utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    return folder
