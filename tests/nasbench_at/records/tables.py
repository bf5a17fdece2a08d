"""Runs of a few networks and seeds in folders, with curves and outcomes, and a table of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from nasbench_at.config import RunConfig, resolve
from nasbench_at.config.architecture import architecture_of
from nasbench_at.records import AttackResult, Benchmark, Evaluation, Record
from nasbench_at.records.published import TableProse, publish

SHAPE, NUM_CLASSES, NUM_IMAGES = (1, 8, 8), 10, 20
PROSE = TableProse(
    title="Tiny",
    description="Made up | for tests.",
    license="https://creativecommons.org/licenses/by/4.0/",
    url="https://example.org/tiny",
    creators=("A. Person", "B. Person"),
    published="2026-01-31",
    limits=("The images are noise.",),
    not_to_conclude=("That any of it is true.",),
)


def write_run(folder: Path, num_right: int, *, eps: float = 0.1, **changes: Any) -> Record:
    """Writes a run's folder as it is after an evaluation; its weights are missing."""
    config = resolve(RunConfig(**{"data": "digits", "num_modules": 3, "epochs": 2, **changes}))
    network = architecture_of(config.to_dict(), SHAPE, NUM_CLASSES)
    generator = np.random.default_rng(config.seed)
    outcomes, rows = {}, []
    for attack, count in (("natural", NUM_IMAGES), ("pgd", num_right)):
        right = generator.permutation(np.arange(NUM_IMAGES) < count)
        shared = {} if attack == "natural" else {"norm": "Linf", "eps": eps, "seed": 0}
        row = AttackResult(
            attack=attack,
            num_samples=NUM_IMAGES,
            num_correct=count,
            settings={} if attack == "natural" else {"steps": 20, "start": "uniform"},
            data="digits/test",
            data_fingerprint="f",
            seconds=0.1 + 0.2,
            **shared,
        )
        rows.append(row)
        outcomes[row.key] = right
    record = Record(
        run_id=config.run_id,
        config=json.loads(json.dumps(config.to_dict())),
        architecture=config.model if network is None else network.hash,
        num_params=1234,
        provenance={"commit": "abc", "train_seconds": 1800.0, "num_threads": 2},
        training={"epochs": 2, "selected": {"epoch": 1}},
        evaluations=(Evaluation(tuple(rows), provenance={"num_threads": 2}),),
    )
    place = folder / record.run_id
    place.mkdir(parents=True)
    (place / "record.json").write_text(record.to_json())
    (place / "config.yaml").write_text("")
    lines = [
        {
            "epoch": epoch,
            "train_loss": 1 / (3 * epoch),
            "train_accuracy": 0.5,
            "validation_natural": 0.7,
            "validation_robust": 0.1 + 0.2 * epoch,
            "attention": [[1 / 3, 2 / 3]] * 3,
        }
        for epoch in (1, 2)
    ]
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    safetensors.numpy.save_file(outcomes, place / "outcomes.safetensors")
    return record


def write_runs(folder: Path) -> list[Record]:
    """Two networks of three seeds trained by ``at``, one of them also by ``trades``."""
    counts = {("residual", "dense"): (10, 11, 12), ("mbconv", "dense"): (15, 15, 14)}
    records = [
        write_run(folder, count, blocks=blocks, method="at", seed=seed)
        for blocks, found in counts.items()
        for seed, count in enumerate(found)
    ]
    shared = {"blocks": ("mbconv", "dense"), "method": "trades", "beta": 6.0}
    return [*records, *(write_run(folder, 16 + seed, seed=seed, **shared) for seed in (0, 1))]


def ship(tables: Path, runs: Path, name: str = "tiny") -> Path:
    """Makes a table among those that come with the package, and removes the runs' folders."""
    tables.mkdir(exist_ok=True)
    path = tables / f"{name}.parquet"
    publish(Benchmark.load(runs), path, PROSE)
    shutil.rmtree(runs)
    return path
