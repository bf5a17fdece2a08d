"""One attack gradient step on DS-Net-4, ours against a plain one, within an attack of a few steps.

python benchmarks/attack_step.py
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.plain import plain_attack_step, plain_network
from benchmarks.timing import matmul_peak, resident_mib, time_in_turn
from nasbench_at import Architecture, build_network
from nasbench_at.attacks import LinfPGD

EPS, STEP_SIZE = 0.031, 0.007


def main() -> None:
    """Prints both times, their ratio, the share of the matrix-multiply peak, memory growth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="steps of one attack")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    architecture = Architecture()
    plain = plain_network(architecture).eval()
    ours = build_network(architecture)
    ours.load_state_dict(copy.deepcopy(plain.state_dict()))
    ours = ours.eval().to(memory_format=torch.channels_last)
    attack = LinfPGD(EPS, step_size=STEP_SIZE, steps=arguments.steps, start="none")

    def run_plain() -> torch.Tensor:
        x_adv = x
        for _ in range(arguments.steps):
            x_adv = plain_attack_step(plain, x, x_adv, y, eps=EPS, step_size=STEP_SIZE)
        return x_adv

    x = torch.rand(arguments.batch_size, 3, 32, 32)
    x_last = x.contiguous(memory_format=torch.channels_last)
    y = torch.randint(10, (arguments.batch_size,))

    agreement = (attack(ours, x_last, y) - run_plain()).abs().lt(1e-6).float().mean()
    seconds = time_in_turn(
        {"plain": run_plain, "ours": lambda: attack(ours, x_last, y)},
        rounds=arguments.rounds,
        warmup=1,
    )
    seconds = {name: total / arguments.steps for name, total in seconds.items()}
    before = resident_mib()
    for _ in range(50 // arguments.steps):
        attack(ours, x_last, y)
    growth = resident_mib() - before

    flops = sum(node["flops"] for _, node in ours.graph.nodes(data=True)) * arguments.batch_size
    peak = matmul_peak()
    print(f"DS-Net-4, batch {arguments.batch_size}, 3x32x32, fp32, {arguments.threads} threads")
    print(f"plain attack step  {seconds['plain']:.3f} s")
    print(f"our attack step    {seconds['ours']:.3f} s, same pixels: {agreement:.2%}")
    print(f"ratio              {seconds['plain'] / seconds['ours']:.2f}")
    # Forward, and the gradient of the input, which costs as much.
    print(f"share of the matrix-multiply peak  {2 * flops / seconds['ours'] / peak:.0%}")
    print(f"memory growth over 50 steps  {growth:.1f} MiB")


if __name__ == "__main__":
    main()
