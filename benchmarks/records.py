"""``nasbench-at query`` of 2,000 records: seconds and peak memory of the whole process.

The runs are made up, but as large as real ones: DS-Nets of every block set and of the paper, some
of its baselines, three methods, several seeds, all evaluated. Run it from the checkout.

python benchmarks/records.py
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, islice, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nasbench_at.config import RunConfig, dump_config, resolve
from nasbench_at.records import AttackResult, Evaluation, Record

BLOCKS = ("residual", "mbconv", "dense", "ada_rk")
ATTACKS = ("fgsm", "pgd", "cw", "aa")
NUM_IMAGES = 10_000
ROOT = Path(__file__).resolve().parents[1]


def make_configs() -> Iterator[RunConfig]:
    """Yields configurations without end, each once."""
    subsets = chain.from_iterable(combinations(BLOCKS, size) for size in range(1, 5))
    networks: list[dict[str, Any]] = [{"blocks": blocks} for blocks in subsets]
    networks += [
        {"model": name} for name in ("ds_net_4_fixed", "ds_net_6", "wrn_34_10", "resnet50")
    ]
    for seed in range(10**6):
        for network, method in product(networks, ("at", "trades", "mart")):
            yield resolve(
                RunConfig(data="cifar10", method=method, seed=seed, epochs=120, **network)
            )


def make_record(config: RunConfig, generator: random.Random) -> Record:
    """Makes a run's record up: one evaluation by the paper's attacks and AutoAttack's parts."""
    from nasbench_at.evaluation.standard_attacks import standard_attacks  # torch, see run_apart

    assert config.eps is not None
    attacks = standard_attacks(ATTACKS, eps=config.eps, method=config.method)
    settings: dict[str, dict[str, Any]] = {"natural": {}}
    for name, attack in attacks.items():
        found = attack.settings()
        parts = found.get("attacks")
        if name == "aa" and isinstance(parts, list):
            settings |= {f"aa/{part}": found | {"attacks": [part]} for part in parts}
        settings[name] = found
    settings["worst_case"] = {"attacks": {name: settings[name] for name in ATTACKS}}
    results = tuple(
        AttackResult(
            attack=name,
            num_samples=NUM_IMAGES,
            num_correct=generator.randint(4000, 6000),
            norm=None if name == "natural" else "Linf",
            eps=None if name == "natural" else config.eps,
            settings={k: v for k, v in found.items() if k not in ("norm", "eps", "seed")},
            seed=None if name == "natural" else 0,
            data="cifar10/test",
            data_fingerprint="0123456789abcdef",
            seconds=1.0,
        )
        for name, found in settings.items()
    )
    evaluation = Evaluation(results, data="cifar10/test", data_fingerprint="0123456789abcdef")
    return Record(
        run_id=config.run_id,
        config=config.to_dict(),
        architecture=config.network_id((3, 32, 32), 10),
        num_params=20_780_245,
        provenance={"commit": "0", "device": "cpu", "train_seconds": 3600.0},
        training={"epochs": 120, "selected": {"epoch": 100}},
        evaluations=(evaluation,),
    )


def write_runs(folder: Path, num_runs: int) -> None:
    """Writes the folders of so many runs: configurations and records."""
    generator = random.Random(0)
    for config in islice(make_configs(), num_runs):
        run = folder / config.run_id
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(dump_config(config))
        (run / "record.json").write_text(make_record(config, generator).to_json())


def run_apart(function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function in a process of its own.

    The peak memory of a command counts what the process that started it held, so that this one
    must not load torch.
    """
    process = get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} exited with {process.exitcode}")


def measure(words: Sequence[str]) -> tuple[float, float]:
    """Runs ``nasbench-at`` and returns its seconds and its peak memory in MB (10^6 bytes)."""
    command = [sys.executable, "-m", "nasbench_at", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
    scale = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, else kibibytes
    return time.perf_counter() - start, usage.ru_maxrss * scale / 1e6


def main() -> None:
    """Times several queries and prints the best of some rounds each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run_apart(write_runs, Path(name), arguments.runs)
        for more in ([], ["--summary"], ["--where", "method=at", "--sort", "pgd", "--top", "10"]):
            rounds = [measure(["query", name, *more]) for _ in range(arguments.rounds)]
            seconds, memory = (min(values) for values in zip(*rounds, strict=True))
            query = " ".join(["query", *more])
            print(f"{query:45} {arguments.runs} records: {seconds:5.2f} s, {memory:4.0f} MB")


if __name__ == "__main__":
    main()
