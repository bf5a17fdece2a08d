"""One step of adversarial training on DS-Net-4, ours against the authors' loop written plainly.

python benchmarks/training_step.py --method trades --precision bf16 --compile

Both attack with ten PGD steps and update all weights; the authors' loop computes in float32. Peak
memory is that of a process of its own in which only one of the two runs.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.plain import PlainTraining, plain_network
from benchmarks.timing import matmul_peak, time_in_turn
from nasbench_at import Architecture, RunConfig, build_network
from nasbench_at.config import resolve
from nasbench_at.runtime.seeding import make_generator
from nasbench_at.training.compilation import compile_blocks
from nasbench_at.training.step import TrainingStep

BETA = 6.0
BF16_UNITS = 1.5
"""Matrix products in bf16 are so many times as fast at least where a machine has units for it."""


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
    config = RunConfig(
        data="cifar10",
        method=arguments.method,
        recipe="authors",
        beta=beta,
        precision=arguments.precision,
    )
    step = TrainingStep(network, resolve(config))
    x = x.contiguous(memory_format=torch.channels_last)

    def take_step() -> object:
        return step(x, y, make_generator(0, "attack"), num_images=len(x))

    if arguments.compile:
        begun = time.perf_counter()
        if not compile_blocks(network, x):
            raise SystemExit("nothing was compiled")
        take_step()
        print(f"compiling, with a step: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    return take_step


def peak_mib(side: str, arguments: argparse.Namespace) -> float:
    """Takes one step and returns the peak resident memory of this process in MiB."""
    make_step(side, arguments)()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Prints both times, their ratio, and both peaks of memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=("at", "trades"), default="at")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="ours")
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
        f"DS-Net-4, {arguments.method}, batch {arguments.batch_size}, 3x32x32, "
        f"{arguments.threads} threads, ours {arguments.precision}, {how}"
    )
    torch.set_num_threads(arguments.threads)
    peaks_of = {dtype: matmul_peak(dtype=dtype) / 1e9 for dtype in (torch.float32, torch.bfloat16)}
    gain = peaks_of[torch.bfloat16] / peaks_of[torch.float32]
    print(
        f"matrix products: {peaks_of[torch.float32]:.0f} GFLOP/s in fp32, "
        f"{peaks_of[torch.bfloat16]:.0f} in bf16 ({gain:.1f} times as many)"
    )
    if gain < BF16_UNITS:
        print("this machine has no bf16 units to speak of: bf16 saves memory here, not time")
    for side in sides:
        print(f"{side:6}{seconds[side]:7.2f} s a training step, peak memory {peaks[side]:.0f} MiB")
    print(f"ratio {seconds['plain'] / seconds['ours']:.2f}")


if __name__ == "__main__":
    main()
