"""Predictions of attacked images, and the words for them in figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nasbench_at.attacks import Attack, attack_mode, check_inputs
from nasbench_at.runtime.seeding import make_generator

__all__ = ["describe_attack", "predict_under_attack"]


def predict_under_attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack | None,
    *,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the labels and logits, ``(N, K)``, of each batch, attacked first unless that is None.

    Raises:
        ValueError: If images, labels or the batch size are not usable.
    """
    check_inputs(images, labels)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for number, start in enumerate(range(0, len(labels), batch_size)):
        x, y = images[start : start + batch_size], labels[start : start + batch_size]
        if attack is not None:
            generator = make_generator(seed, "perturbations", number, device=x.device)
            x = attack(model, x, y, generator=generator)
        with attack_mode(model), torch.no_grad():
            logits = model(x)
        yield y, logits


def describe_attack(attack: Mapping[str, Any]) -> str:
    """Returns an attack's settings in a few words, for a title."""
    if not attack:
        return "no attack"
    count = attack.get("steps")
    steps = "" if count is None else f", {count} step{'' if count == 1 else 's'}"
    return f"{attack['name']}, {attack.get('norm', '')} ε {attack['eps']:g}{steps}"
