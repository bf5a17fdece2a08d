"""One step of adversarial training on DS-Net-4, ours against the authors' loop written plainly.

python benchmarks/training_step.py --method trades --compile

Both attack with ten PGD steps and update all weights. Peak memory is that of a process of its own
in which only one of the two runs.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.plain import PlainTraining, plain_network
from benchmarks.timing import time_in_turn
from nasbench_at import Architecture, RunConfig, build_network
from nasbench_at.config import resolve
from nasbench_at.runtime.seeding import make_generator
from nasbench_at.training.compilation import compile_blocks
from nasbench_at.training.step import TrainingStep

BETA = 6.0


def make_step(side: str, arguments: argparse.Namespace) -> Callable[[], object]:
    """Returns a function that takes one training step, plain or ours, on a network of seed 0."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    x = torch.rand(arguments.batch_size, 3, 32, 32)
    y = torch.randint(10, (arguments.batch_size,))
    beta = BETA if arguments.method == "trades" else None
    plain = plain_network(Architecture())
    if side == "plain":
        training = PlainTraining(plain, beta=beta)
        return lambda: training(x, y)
    network = build_network(Architecture())
    network.load_state_dict(copy.deepcopy(plain.state_dict()))
    network.to(memory_format=torch.channels_last)
    config = RunConfig(data="cifar10", method=arguments.method, recipe="authors", beta=beta)
    step = TrainingStep(network, resolve(config))
    x = x.contiguous(memory_format=torch.channels_last)
    if arguments.compile and not compile_blocks(network, x):
        raise SystemExit("nothing was compiled")
    return lambda: step(x, y, make_generator(0, "attack"), num_images=len(x))


def peak_mib(side: str, arguments: argparse.Namespace) -> float:
    """Takes one step and returns the peak resident memory of this process in MiB."""
    make_step(side, arguments)()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Prints both times, their ratio, and both peaks of memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=("at", "trades"), default="at")
    parser.add_argument("--compile", action="store_true", help="ours, block by block")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    sides = ("plain", "ours")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {side: pool.apply(peak_mib, (side, arguments)) for side in sides}
    seconds = time_in_turn(
        {side: make_step(side, arguments) for side in sides}, rounds=arguments.rounds, warmup=1
    )
    how = "compiled block by block" if arguments.compile else "eager"
    print(
        f"DS-Net-4, {arguments.method}, batch {arguments.batch_size}, 3x32x32, fp32, "
        f"{arguments.threads} threads, ours {how}"
    )
    for side in sides:
        print(f"{side:6}{seconds[side]:7.2f} s a training step, peak memory {peaks[side]:.0f} MiB")
    print(f"ratio {seconds['plain'] / seconds['ours']:.2f}")


if __name__ == "__main__":
    main()
