"""Gradient variance of the last layer, ours against a loop that backpropagates through everything.

python benchmarks/gradient_variance.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.gradient_variance import compute_gradient_variance
from benchmarks.timing import time_in_turn
from nasbench_at import Architecture, build_network
from nasbench_at.attacks import LinfPGD
from nasbench_at.data import load_data
from nasbench_at.networks.ds_net import DSNet, count_parameters
from nasbench_at.runtime.seeding import make_generator
from nasbench_at.training.methods import AdversarialTraining, Method, StandardTraining


def plain_variance(model: DSNet, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Keeps the last layer's gradients of ``loss.backward()``, then takes their variance."""
    gradients = []
    for x, y in batches:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        found = [p.grad for p in model.head.parameters() if p.grad is not None]
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    stacked = torch.stack(gradients).double()
    return float((stacked - stacked.mean(dim=0)).square().sum(dim=1).mean())


def main() -> None:
    """Prints both times, their ratio, their agreement, and the time of a few attacked batches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-batches", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--attacked-batches", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    count, size = arguments.num_batches, arguments.batch_size

    data = load_data("digits")
    architecture = Architecture(
        num_modules=3, init_channels=8, widen_factor=2, input_shape=data.image_shape
    )
    model = build_network(architecture).eval()
    images, labels = data.train.take(torch.arange(len(data.train)))
    batches = _same_batches(images, labels, size, count)

    def ours(method: Method, num_batches: int) -> float:
        return compute_gradient_variance(
            model, images, labels, method=method, batch_size=size, num_batches=num_batches
        ).variance

    natural, adversarial = StandardTraining(), AdversarialTraining(LinfPGD(0.15, steps=10))
    agreement = abs(ours(natural, count) / plain_variance(model, batches) - 1)
    seconds = time_in_turn(
        {"plain": lambda: plain_variance(model, batches), "ours": lambda: ours(natural, count)},
        rounds=arguments.rounds,
        warmup=0,
    )
    num_attacked = arguments.attacked_batches
    attacked = time_in_turn({"ours": lambda: ours(adversarial, num_attacked)}, rounds=1, warmup=0)
    print(
        f"DS-Net, {count_parameters(model):,} parameters, digits, {count} batches of {size}, "
        f"{arguments.threads} threads"
    )
    print(f"plain loop      {seconds['plain']:.2f} s")
    print(f"ours            {seconds['ours']:.2f} s, same variance to {agreement:.1e}")
    print(f"ratio           {seconds['plain'] / seconds['ours']:.2f}")
    print(f"ours, PGD-10    {attacked['ours']:.2f} s for {num_attacked} batches")


def _same_batches(
    images: Tensor, labels: Tensor, batch_size: int, num_batches: int
) -> list[tuple[Tensor, Tensor]]:
    """Returns the batches that ``compute_gradient_variance`` draws with seed 0."""
    per_pass = len(labels) // batch_size
    batches = []
    for number in range(num_batches):
        generator = make_generator(0, "gradient variance", "order", number // per_pass)
        order = torch.randperm(len(labels), generator=generator)
        rows = order[number % per_pass * batch_size :][:batch_size]
        batches.append((images[rows], labels[rows]))
    return batches


if __name__ == "__main__":
    main()
