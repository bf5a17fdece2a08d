"""What a network by name costs: parameters, operations, and seconds of an attack step."""

from __future__ import annotations

import timeit

import torch

from nasbench_at.attacks import LinfPGD
from nasbench_at.config.catalogue import ModelCosts
from nasbench_at.networks.ds_net import count_parameters
from nasbench_at.networks.flops import count_flops
from nasbench_at.networks.zoo import create_model, model_info

__all__ = ["ModelCosts", "measure_model"]

EPS, NUM_STEPS = 0.031, 3


def measure_model(
    name: str,
    *,
    num_classes: int = 10,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    time_on: torch.device | None = None,
    batch_size: int = 8,
) -> ModelCosts:
    """Counts a network's parameters and operations, without memory for them, and may time it.

    Args:
        name: A registered name.
        num_classes: Number of classes.
        input_shape: Channels, height and width of the images.
        time_on: Time PGD steps on this device, channels last, in float32.
        batch_size: Images of a timed step.

    Raises:
        ValueError: If there is no such network, or it does not take such images.
    """
    info = model_info(name)
    with torch.device("meta"):
        network = create_model(name, num_classes, input_shape).eval()
        flops = count_flops(network, input_shape)
    return ModelCosts(
        name=name,
        summary=info.summary,
        reference=info.reference,
        num_params=count_parameters(network),
        flops=flops,
        seconds_per_step=(
            None
            if time_on is None
            else _time_attack_step(name, num_classes, input_shape, time_on, batch_size)
        ),
    )


def _time_attack_step(
    name: str,
    num_classes: int,
    input_shape: tuple[int, int, int],
    device: torch.device,
    batch_size: int,
) -> float:
    network = create_model(name, num_classes, input_shape).eval()
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(batch_size, *input_shape, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.zeros(batch_size, dtype=torch.int64, device=device)
    attack = LinfPGD(EPS, steps=NUM_STEPS, start="none")

    def run() -> None:
        attack(network, x, y)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    return min(timeit.repeat(run, number=1, repeat=3)) / NUM_STEPS
