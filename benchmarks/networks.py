"""Networks that several benchmarks time."""

from __future__ import annotations

from nasbench_at import Architecture, DSNet, build_network

__all__ = ["digits_network"]


def digits_network() -> DSNet:
    """Returns the README's network for digits, not trained."""
    architecture = Architecture(
        blocks=("residual", "mbconv", "dense", "ada_rk"),
        num_modules=3,
        init_channels=8,
        widen_factor=2,
        input_shape=(1, 8, 8),
    )
    return build_network(architecture)
