"""One door for randomness: every stream is derived from the run's seed and what it is for.

Because a stream depends on where it is used and not on what ran before, a resumed run draws the
same numbers as one that was never interrupted, without storing any generator's state.
"""

from __future__ import annotations

import hashlib

import torch

__all__ = ["derive_seed", "make_generator"]


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derives an independent seed in [0, 2⁶³) for a purpose, such as ``("attack", 3)``."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_generator(
    seed: int, *purpose: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Returns a generator on a device, seeded for a purpose."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *purpose))
