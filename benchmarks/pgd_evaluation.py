"""PGD-20 and C&W-30 evaluation of a half-robust DS-Net: ours against a plain loop.

python benchmarks/pgd_evaluation.py        # from the checkout

The plain loop attacks all images to the end; ours drops an image as soon as it is fooled. The
network is not trained. Its answers are the labels but for one image in eight, as the paper's
DS-Net-4 is wrong on one in seven without attack, and the radius is chosen so that half of the
images survive PGD. Verdicts are compared with those of looking at every iterate of the plain loop,
which is not timed. Times are the process's CPU seconds, which other work on the machine disturbs
less than the clock's.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.plain import plain_attack_step, plain_network
from benchmarks.timing import time_in_turn
from nasbench_at import Architecture, build_network
from nasbench_at.attacks import LINF, GradientAttack, LinfPGD, MarginPGD, margin_loss


@dataclass(frozen=True)
class Evaluation:
    """One of the paper's evaluations, plain and ours.

    Attributes:
        name: As papers have it.
        loss: What the plain loop maximises.
        make_attack: Radius -> our attack, which counts any iterate and therefore drops the fooled.
    """

    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    make_attack: Callable[[float], GradientAttack]


PGD = Evaluation("PGD-20", F.cross_entropy, lambda eps: LinfPGD(eps, steps=20, counts="any"))
CW = Evaluation("C&W-30", margin_loss, lambda eps: MarginPGD(eps, steps=30, counts="any"))


@torch.no_grad()
def predict(network: nn.Module, x: Tensor) -> Tensor:
    """Returns the predicted classes, ``(N,)``."""
    logits: Tensor = network(x)
    return logits.argmax(dim=1)


def plain_evaluation(
    evaluation: Evaluation, network: nn.Module, x: Tensor, y: Tensor, eps: float
) -> Tensor:
    """Returns which images the last iterate does not fool, as the authors' evaluation does."""
    x_adv = LINF.uniform(x, eps, torch.Generator(x.device).manual_seed(0))
    for _ in range(evaluation.make_attack(eps).steps):
        x_adv = plain_attack_step(
            network, x, x_adv, y, eps=eps, step_size=eps / 4, loss=evaluation.loss
        )
    return predict(network, x_adv) == y


def plain_survivors(
    evaluation: Evaluation, network: nn.Module, x: Tensor, y: Tensor, eps: float
) -> Tensor:
    """Returns which images no iterate fools; none of them is dropped."""
    x_adv = LINF.uniform(x, eps, torch.Generator().manual_seed(0))
    survives = predict(network, x_adv) == y
    for _ in range(evaluation.make_attack(eps).steps):
        x_adv = plain_attack_step(
            network, x, x_adv, y, eps=eps, step_size=eps / 4, loss=evaluation.loss
        )
        survives &= predict(network, x_adv) == y
    return survives


def our_survivors(
    evaluation: Evaluation, network: nn.Module, x: Tensor, y: Tensor, eps: float
) -> Tensor:
    """Returns which images survive the attack that drops the fooled ones."""
    generator = torch.Generator(x.device).manual_seed(0)
    x_adv = evaluation.make_attack(eps)(network, x, y, generator=generator)
    return predict(network, x_adv) == y


@torch.no_grad()
def settle(network: nn.Module, x: Tensor) -> None:
    """Gives an untrained network BatchNorm statistics of some images, and different answers."""
    for _ in range(5):
        network.train()(x)
    # An untrained head gives all images one class; without its mean, they differ.
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    head.bias.sub_(network.eval()(x).mean(dim=0))


def half_robust_radius(network: nn.Module, x: Tensor, y: Tensor, rounds: int = 12) -> float:
    """Returns a radius at which half of the images survive, by bisection of its logarithm."""
    low, high = 1e-4, 0.1
    for _ in range(rounds):
        middle = math.sqrt(low * high)
        num_survivors = int(our_survivors(PGD, network, x, y, middle).sum())
        print(f"eps {middle:.2g}: {num_survivors} of {len(y)} survive", file=sys.stderr, flush=True)
        if 2 * num_survivors == len(y):
            break
        low, high = (middle, high) if 2 * num_survivors > len(y) else (low, middle)
    return middle


def main() -> None:
    """Prints both times, their ratio, survivors, and on how many images the verdicts agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--eps", type=float, help="searched for by default")
    parser.add_argument("--num-modules", type=int, default=6)
    parser.add_argument("--init-channels", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    architecture = Architecture(
        num_modules=arguments.num_modules, init_channels=arguments.init_channels
    )
    plain = plain_network(architecture)
    x = torch.rand(arguments.batch_size, 3, 32, 32)
    settle(plain, x)
    ours = build_network(architecture)
    ours.load_state_dict(copy.deepcopy(plain.state_dict()))
    ours = ours.eval().to(memory_format=torch.channels_last)
    x_last = x.contiguous(memory_format=torch.channels_last)
    y = predict(ours, x_last)
    y[::8] = (y[::8] + 1) % architecture.num_classes

    eps = arguments.eps or half_robust_radius(ours, x_last, y)
    size = sum(parameter.numel() for parameter in ours.parameters())
    print(f"DS-Net of four blocks, {size:,} parameters, {arguments.threads} threads")
    print(f"batch {len(y)}, eps {eps:.2g}, CPU seconds")
    print(f"{'':8}{'plain':>9}{'ours':>9}{'ratio':>8}{'survive':>9}{'agree':>7}")
    for evaluation in (PGD, CW):
        expected = plain_survivors(evaluation, plain, x, y, eps)
        found = our_survivors(evaluation, ours, x_last, y, eps)
        seconds = time_in_turn(
            {
                "plain": partial(plain_evaluation, evaluation, plain, x, y, eps),
                "ours": partial(our_survivors, evaluation, ours, x_last, y, eps),
            },
            rounds=arguments.rounds,
            warmup=0,
            clock=time.process_time,
        )
        print(
            f"{evaluation.name:8}{seconds['plain']:9.1f}{seconds['ours']:9.1f}"
            f"{seconds['plain'] / seconds['ours']:8.2f}{int(found.sum()):9}"
            f"{int((found == expected).sum()):7}",
            flush=True,
        )


if __name__ == "__main__":
    main()
