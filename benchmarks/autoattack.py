"""AutoAttack on digits: ours against pyautoattack's, part by part. Run from the checkout.

python benchmarks/autoattack.py

A small network is trained adversarially for some epochs; each part then attacks what the parts
before it left, ours and the library's in turn. The library is given the network as it is after
training, and its loop ``run_standard_evaluation``. Seeds and batches are equal, and verdicts are
compared image by image. Times are the process's CPU seconds, which other work on the machine
disturbs less than the clock's.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Literal, cast

import pyautoattack
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.networks import digits_network
from nasbench_at import create_model
from nasbench_at.attacks import AutoAttack, LinfPGD
from nasbench_at.data import load_data

EPS = {"Linf": 0.1, "L2": 0.5}
NUM_TARGETS = 9
BATCH_SIZE = 256


def train(network: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    """PGD-AT with five steps."""
    attack = LinfPGD(EPS["Linf"], steps=5)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    for epoch in range(epochs):
        order = torch.randperm(len(x))
        for rows in order.split(64):
            x_adv = attack(network, x[rows], y[rows])
            network.train()
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x_adv), y[rows])
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.2f}", file=sys.stderr, flush=True)
    network.eval()


def run_library(attack: AutoAttack, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Returns which images its own loop leaves correct, after the one part of `attack`."""
    library = pyautoattack.AutoAttack(
        network,
        eps=attack.eps,
        norm=attack.norm,
        seed=attack.seed,
        version="custom",
        attacks=list(attack.attacks),
    )
    library.apgd.n_restarts = library.fab.n_restarts = 1
    library.apgd_targeted.n_target_classes = library.fab.n_target_classes = NUM_TARGETS
    library.square.n_queries = attack.square_queries
    library.logger.disabled = True  # it warns of images without a gradient
    _, predicted = library.run_standard_evaluation(x, y, batch_size=attack.batch_size)
    return cast(Tensor, predicted == y)


def run_ours(attack: AutoAttack, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Returns which images ours leaves correct."""
    return attack.run(network, x, y).robust


def main() -> None:
    """Prints both sides' seconds and survivors for each part, and the ratio of their sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ds_net", help="or a name, such as tiny_wrn")
    parser.add_argument("--norm", choices=list(EPS), default="Linf")
    parser.add_argument("--eps", type=float, help="0.1, under L2 0.5")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--queries", type=int, default=5000, help="of Square")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    data = load_data("digits")
    is_named = arguments.model != "ds_net"
    network: nn.Module = (
        create_model(arguments.model, input_shape=(1, 8, 8)) if is_named else digits_network()
    )
    train(network, *data.train.take(torch.arange(len(data.train))), arguments.epochs)
    x, y = data.test.take(torch.arange(arguments.images))
    with torch.no_grad():
        correct = network(x).argmax(dim=1) == y
    norm: Literal["Linf", "L2"] = arguments.norm
    eps = arguments.eps or EPS[norm]
    size = sum(parameter.numel() for parameter in network.parameters())
    print(f"{arguments.model}, {size:,} parameters, {arguments.threads} threads")
    print(f"{norm} eps {eps:g}, {int(correct.sum())} of {len(y)} images correct")
    print("CPU seconds")
    print(f"{'part':9}{'library':>10}{'ours':>10}{'ratio':>8}{'robust':>8}  verdicts")

    sides = {"library": run_library, "ours": run_ours}
    robust = {name: correct.clone() for name in sides}
    total = dict.fromkeys(sides, 0.0)
    for part in AutoAttack(eps).attacks:
        attack = AutoAttack(
            eps,
            norm=norm,
            attacks=(part,),
            batch_size=BATCH_SIZE,
            square_queries=arguments.queries,
        )
        seconds = {}
        for name, run in sides.items():
            rows = robust[name].nonzero().squeeze(1)
            start = time.process_time()
            if len(rows):
                robust[name][rows] = run(attack, network, x[rows], y[rows])
            seconds[name] = time.process_time() - start
            total[name] += seconds[name]
        differ = int((robust["library"] != robust["ours"]).sum())
        print_row(part, seconds, int(robust["ours"].sum()), differ)
    print_row("all", total, int(robust["ours"].sum()), differ)


def print_row(part: str, seconds: dict[str, float], num_robust: int, differ: int) -> None:
    """Prints a line of the table."""
    library, ours = seconds["library"], seconds["ours"]
    ratio = library / max(ours, 1e-9)
    verdicts = "equal" if differ == 0 else f"{differ} differ"
    line = f"{part:9}{library:10.1f}{ours:10.1f}{ratio:8.2f}{num_robust:8}  {verdicts}"
    print(line, flush=True)


if __name__ == "__main__":
    main()
