"""A network's forward and backward pass as one program with fewer passes over memory.

`recording` sees what a network does, `sums` holds what need not be computed yet, `fusing` turns one
into the other, `program` is the result, `weights` what it computes once an attack, and `network`
lets attacks use it.
"""

from __future__ import annotations

from .network import fused

__all__ = ["fused"]
