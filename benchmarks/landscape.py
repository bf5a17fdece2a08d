"""The loss landscape of a small DS-Net on digits: ours against a plain loop. Run from the checkout.

python benchmarks/landscape.py

The plain loop copies the state_dict for each point, adds the directions tensor by tensor, loads it,
and evaluates the network as built in batches of 128. Both sides may use the same cores: the plain
loop within an operation, as torch does by default, ours by threads that take points each. The
rest of the gain: no state_dict, larger batches, channels last, BatchNorm folded once for the grid.
A round times a coarse grid on each side; the losses at all of its points are compared. The
network is not trained, but for its BatchNorm statistics.

On a busy machine the threads of an operation wait for each other, and the plain loop falls behind
many times over; there, ``--threads 1`` compares like with like.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.landscape import Landscape, compute_landscape
from analysis.landscape.directions import draw_direction
from benchmarks.networks import digits_network
from benchmarks.timing import time_in_turn
from nasbench_at.data import load_data

PLAIN_BATCH = 128


@torch.no_grad()
def plain_losses(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    directions: Sequence[Mapping[str, Tensor]],
    points: Sequence[tuple[float, float]],
) -> list[float]:
    """Returns the mean loss at each point; the network keeps the weights of the last one."""
    center = copy.deepcopy(network.state_dict())
    losses = []
    for point in points:
        state = copy.deepcopy(center)
        for coordinate, direction in zip(point, directions, strict=True):
            for name, step in direction.items():
                state[name] += coordinate * step
        network.load_state_dict(state)
        total = 0.0
        for images, labels in zip(x.split(PLAIN_BATCH), y.split(PLAIN_BATCH), strict=True):
            total += F.cross_entropy(network(images), labels, reduction="sum").item()
        losses.append(total / len(y))
    network.load_state_dict(center)
    return losses


def main() -> None:
    """Prints both times a point, their ratio, the time of a whole grid and the agreement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--points", type=int, default=21, help="points a direction")
    parser.add_argument("--timed", type=int, default=7, help="points a direction of a round")
    parser.add_argument("--threads", type=int, default=2, help="cores for either side")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # what ours may use
    torch.manual_seed(0)

    network = digits_network()
    x, y = load_data("digits").train.take(torch.arange(arguments.images))
    with torch.no_grad():
        for _ in range(20):  # BatchNorm statistics of these images
            network.train()(x)
    network.eval()
    directions = [draw_direction(network, number) for number in range(2)]

    def ours(points: int = arguments.timed) -> Landscape:
        return compute_landscape(network, x, y, points=points)

    found = ours()
    grid = [(float(alpha), float(beta)) for alpha in found.alphas for beta in found.betas]
    expected = plain_losses(network, x, y, directions, grid)
    errors = np.abs(found.losses.ravel() / expected - 1)
    seconds = time_in_turn(
        {"plain": lambda: plain_losses(network, x, y, directions, grid), "ours": ours},
        rounds=arguments.rounds,
        warmup=1,
    )
    start = time.perf_counter()
    ours(arguments.points)
    whole = time.perf_counter() - start
    size = sum(parameter.numel() for parameter in network.parameters())
    print(f"DS-Net of four blocks, {size:,} parameters, {arguments.threads} threads")
    print(f"images             {len(x)} of 1x8x8")
    print(f"plain loop         {1000 * seconds['plain'] / len(grid):.1f} ms a point")
    print(f"ours               {1000 * seconds['ours'] / len(grid):.1f} ms a point")
    print(f"ratio              {seconds['plain'] / seconds['ours']:.2f}")
    print(f"ours, {arguments.points}x{arguments.points} grid  {whole:.1f} s")
    print(f"largest relative difference of a loss  {errors.max():.1g}")


if __name__ == "__main__":
    main()
