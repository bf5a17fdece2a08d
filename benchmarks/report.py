"""The report: seconds and size of 10 and of 100 runs of 120 epochs each, and their ratio.

The runs are made up, but as large as real ones: DS-Nets of every block set and of the paper, some
of its baselines, three methods, several seeds, all evaluated. Run it from the checkout.

python benchmarks/report.py
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, combinations, islice, product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.report import write_report
from nasbench_at.config import RunConfig
from nasbench_at.presets import resolve
from nasbench_at.records import AttackResult, Evaluation, Record
from nasbench_at.standard_attacks import standard_attacks

BLOCKS = ("residual", "mbconv", "dense", "ada_rk")
ATTACKS = ("fgsm", "pgd", "cw", "aa")
NUM_IMAGES = 10_000


def configs() -> Iterator[RunConfig]:
    """Yields configurations without end, each once."""
    subsets = chain.from_iterable(combinations(BLOCKS, size) for size in range(1, 5))
    networks: list[dict[str, Any]] = [{"blocks": blocks} for blocks in subsets]
    networks += [{"model": name} for name in ("ds_net_4", "ds_net_6", "wrn_34_10", "resnet50")]
    for seed in range(10**6):
        for network, method in product(networks, ("at", "trades", "mart")):
            yield resolve(
                RunConfig(data="cifar10", method=method, seed=seed, epochs=120, **network)
            )


def make_record(config: RunConfig, generator: random.Random) -> Record:
    """Makes a run's record up."""
    assert config.eps is not None
    attacks = standard_attacks(ATTACKS, eps=config.eps, method=config.method)
    settings = {"natural": {}, **{name: attack.settings() for name, attack in attacks.items()}}
    results = tuple(
        AttackResult(
            attack=name,
            num_samples=NUM_IMAGES,
            num_correct=generator.randint(4000, 6000),
            norm=found.get("norm"),
            eps=found.get("eps"),
            settings=found,
            seconds=1.0,
        )
        for name, found in settings.items()
    )
    return Record(
        run_id=config.run_id,
        config=config.to_dict(),
        architecture=config.network_id((3, 32, 32), 10),
        num_params=20_780_245,
        provenance={"commit": "0", "device": "cpu", "train_seconds": 3600.0},
        training={"selected": {"epoch": 100}},
        evaluations=(Evaluation(results=results),),
    )


def make_metrics(config: RunConfig, generator: random.Random) -> Iterator[dict[str, Any]]:
    """Makes the lines of a run's epochs up, with attention weights if it is a DS-Net."""
    num_blocks = len(config.blocks) if "ds_net" in config.model else 0
    for epoch in range(1, 121):
        row = {name: generator.random() for name in ("train_accuracy", "validation_natural")}
        attention = [[1 / num_blocks] * num_blocks] * 15 if num_blocks else None
        robust = generator.random()
        yield {"epoch": epoch, **row, "validation_robust": robust, "attention": attention}


def write_runs(folder: Path, num_runs: int) -> None:
    """Writes the folders of so many runs."""
    generator = random.Random(0)
    for config in islice(configs(), num_runs):
        run = folder / config.run_id
        run.mkdir(parents=True)
        (run / "record.json").write_text(make_record(config, generator).to_json())
        lines = (json.dumps(row) + "\n" for row in make_metrics(config, generator))
        (run / "metrics.jsonl").write_text("".join(lines))


def main() -> None:
    """Times both in turn and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    seconds: dict[int, list[float]] = {10: [], 100: []}
    sizes: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for num_runs in seconds:
            write_runs(folder / str(num_runs), num_runs)
        write_report(folder / "10", folder / "warmup.html")
        for _ in range(arguments.rounds):
            for num_runs in seconds:
                start = time.perf_counter()
                out = write_report(folder / str(num_runs), folder / f"{num_runs}.html")
                seconds[num_runs].append(time.perf_counter() - start)
                sizes[num_runs] = out.stat().st_size / 2**20
    best = {num_runs: min(values) for num_runs, values in seconds.items()}
    for num_runs, value in best.items():
        print(f"{num_runs:4d} runs: {value:6.2f} s, {sizes[num_runs]:5.2f} MiB")
    print(f"ratio of 100 runs to 10: {best[100] / best[10]:.2f}")


if __name__ == "__main__":
    main()
