"""One rank of a run on stripes, started by the tests: python -m ... OUT, with torchrun's variables.

Trains an epoch with each of :data:`CASES` and writes what the rank saw of it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import nasbench_at.runtime.sync_norm as sync_norm
from nasbench_at.attacks import AutoAttack, LinfPGD
from nasbench_at.config import resolve
from nasbench_at.data import LabelledImages
from nasbench_at.evaluation.robustness import measure_robustness
from nasbench_at.runtime.ranks import Ranks, distributed
from nasbench_at.training.checkpoints import load_checkpoint
from nasbench_at.training.launch import create_network, load_config_data, prepare_training
from nasbench_at.training.methods import LossAndLogits
from nasbench_at.training.trainer import Trainer
from tests.nasbench_at.conftest import tiny_config

# 96 training images in batches of 20: five steps, the last of 16, which three ranks cannot share
# equally. 64 held-out images: four batches, which three ranks cannot either.
SHARED: dict[str, Any] = {
    "validation_fraction": 0.4,
    "batch_size": 20,
    "epochs": 1,
    "attack_start": "none",
    "attack_noise": 0.0,
    "block_options": {"mbconv": {"drop_connect": 0.0}},
}
EXTRA = "extra.npz"
"""The file of generated images, which whoever starts the ranks has to put into OUT."""
MASKED: dict[str, Any] = {"attention": "fixed", "attention_keep": ((0,), (1,), (0,))}
CASES: dict[str, dict[str, Any]] = {
    "at": {"sync_batch_norm": True},
    # Blocks that take no part, which DistributedDataParallel would wait for.
    "masked": {"sync_batch_norm": True, **MASKED},
    # Two forward passes. From the image itself, TRADES' attack would climb rounding errors.
    "mart": {"sync_batch_norm": True, "method": "mart"},
    "extra": {"sync_batch_norm": True, "extra_fraction": 0.4},
    "own_statistics": {"method": "trades", "accumulation_steps": 2, "attack_start": "uniform"},
}


class Watched:
    """A method that counts the exchanges of gradients, and whatever its attack starts."""

    def __init__(self, trainer: Trainer) -> None:
        self.gradients = [0]
        self.in_attacks = 0
        self.seeds: list[int] = []
        self._in_attack = False
        step = trainer.training_step
        self._method, step.method = step.method, self
        if isinstance(step.wrapped, DistributedDataParallel):
            step.wrapped.register_comm_hook(None, self._exchange)
        step.optimizers.blocks.register_step_post_hook(lambda *_: self.gradients.append(0))

    def _exchange(self, _, bucket):  # type: ignore[no-untyped-def]  # DDP reads annotations
        self.gradients[-1] += 1
        self.in_attacks += self._in_attack
        future = torch.distributed.all_reduce(bucket.buffer(), async_op=True).get_future()
        size = torch.distributed.get_world_size()
        return future.then(lambda done: done.value()[0] / size)

    def start_epoch(self, epoch: int) -> Watched:
        self._method = self._method.start_epoch(epoch)
        return self

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        self.seeds.append(generator.initial_seed())
        real = sync_norm.all_reduce

        def counted(tensor: Tensor) -> Tensor:
            self.in_attacks += 1
            return real(tensor)

        self._in_attack, sync_norm.all_reduce = True, counted
        try:
            return self._method.perturb(model, x, y, generator)
        finally:
            self._in_attack, sync_norm.all_reduce = False, real

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossAndLogits:
        return self._method.loss(model, x, x_adv, y)


def run_case(name: str, out: Path, ranks: Ranks) -> dict[str, Any]:
    own = {"extra_data": str(out / EXTRA)} if "extra_fraction" in CASES[name] else {}
    config = tiny_config(**SHARED | CASES[name] | own)
    trainer = prepare_training(config, runs_dir=out / name, device="cpu", ranks=ranks)
    validation = [share * len(trainer.data.validation) for share in trainer._validate()]
    watched = Watched(trainer)
    record = trainer.run()
    return {
        "validation": validation,
        "gradient_reduces": watched.gradients[:-1],
        "in_attacks": watched.in_attacks,
        "seeds": watched.seeds,
        "network": load_checkpoint(trainer.folder.checkpoint)["training_step"]["network"],
        "own_network": trainer.network.state_dict(),
        "row": trainer.progress.history[0],
        "num_ranks": record.provenance["num_ranks"],
    }


def evaluate_shared(out: Path, ranks: Ranks) -> dict[str, Tensor]:
    """Outcomes of a network on images that it classifies as it likes, five batches of them."""
    config = resolve(tiny_config())
    data = load_config_data(config, torch.device("cpu"))
    network = create_network(config, data, torch.device("cpu")).train()
    x, _ = data.train.take(torch.arange(96))
    torch.manual_seed(0)  # mbconv drops samples
    with torch.no_grad():
        network(x)  # BatchNorm statistics
        network.eval().head.bias -= network(x).mean(dim=0)
        labels = network(x).argmax(dim=1)
    images = LabelledImages(data.train.images[:96], labels)
    attacks = {
        "pgd": LinfPGD(0.01, steps=3, noise=0.001, restarts=2, counts="any"),
        "aa": AutoAttack(0.005, batch_size=16, square_queries=20, attacks=("square", "apgd-ce")),
    }
    report = measure_robustness(
        network,
        images,
        attacks,
        batch_size=20,
        progress_dir=out / "progress",
        ranks=ranks,
    )
    return dict(report.outcomes)


def main() -> None:
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    with distributed(torch.device("cpu")) as ranks:
        seen = {name: run_case(name, out, ranks) for name in CASES}
        seen["evaluation"] = evaluate_shared(out, ranks)
        torch.save(seen, out / f"rank{ranks.rank}.pt")


if __name__ == "__main__":
    main()
