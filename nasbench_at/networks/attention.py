"""The attention weights of a DS-Net: logits, initial distributions, fixed weights, masks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files

import torch
from torch import Tensor, nn

from nasbench_at.config.architecture import AttentionSpec

__all__ = ["Attention", "load_authors_logits"]


def load_authors_logits() -> Tensor:
    """Returns the logits that the authors ship for DS-Net-4 after adversarial training.

    Returns:
        Shape ``(15, 4)``; columns residual, mbconv, dense, ada_rk.
    """
    text = files("nasbench_at.networks").joinpath("trained_logits.json").read_text("utf-8")
    return torch.tensor(json.loads(text)["logits"])


class Attention(nn.Module):
    """Weights of the blocks of each module: softmax of the logits over the blocks it has.

    Fixed weights are logits without gradient. The random initial values come from PyTorch's global
    generator.

    Args:
        spec: Mode, initial values, mask.
        columns: Per module, the columns it has; the others weigh nothing.
        num_columns: Number of columns, more than the highest of ``columns``.

    Raises:
        ValueError: If given or trained weights do not have the shape of the network, or a module
            is left without a block.

    Attributes:
        logits: Parameter, shape ``(num_modules, max blocks)``.
        mask: Shape as the logits; True where a block takes part.
        active: The same as plain data.
    """

    mask: Tensor

    def __init__(
        self, spec: AttentionSpec, columns: Sequence[Sequence[int]], num_columns: int
    ) -> None:
        super().__init__()
        # On the CPU, where values can be looked at while a network is built without memory.
        with torch.device("cpu"):
            mask = _mask_of(columns, num_columns)
            if spec.keep is not None:
                _require_rows("attention keep", len(spec.keep), len(columns))
                mask &= _mask_of(spec.keep, num_columns)
            logits = _initial_logits(spec, columns, num_columns)
        mask &= logits.isfinite()
        for i, row in enumerate(mask):
            if not row.any():
                raise ValueError(f"no block of module {i} is left with a positive weight")
        device = torch.get_default_device()
        logits = logits.masked_fill(~mask, 0.0).to(device)
        self.active: list[list[bool]] = mask.tolist()
        self.logits = nn.Parameter(logits, requires_grad=spec.mode == "learned")
        self.register_buffer("mask", mask.to(device), persistent=False)

    def weights(self) -> Tensor:
        """Returns the weights, shape ``(num_modules, max blocks)``; each row sums to 1."""
        return self.logits.masked_fill(~self.mask, -torch.inf).softmax(dim=1)


def _mask_of(columns: Sequence[Sequence[int]], num_columns: int) -> Tensor:
    mask = torch.zeros(len(columns), num_columns, dtype=torch.bool)
    for i, row in enumerate(columns):
        for column in row:
            if not 0 <= column < num_columns:
                raise ValueError(
                    f"module {i} has no block {column}; it must lie in 0..{num_columns - 1}"
                )
            mask[i, column] = True
    return mask


def _initial_logits(
    spec: AttentionSpec, columns: Sequence[Sequence[int]], num_columns: int
) -> Tensor:
    """Draws or reads the logits; −inf stands for a weight of zero."""
    if spec.init in ("trained", "given"):
        rows = load_authors_logits() if spec.weights is None else _logs_of(spec.weights)
        _require_rows(f"attention init {spec.init!r}", len(rows), len(columns))
        return _pad_rows(spec.init, rows, columns, num_columns)
    logits = torch.zeros(len(columns), num_columns)
    values = spec.resolved_parameters()
    scale = values.pop("scale", 1.0)
    if values:  # normal_, uniform_, ... of torch, which take the others in this order
        getattr(logits, f"{spec.init}_")(*values.values())
    return logits * scale


def _logs_of(weights: Sequence[Sequence[float]]) -> list[Tensor]:
    return [torch.tensor(row).log() for row in weights]


def _pad_rows(
    init: str, rows: Iterable[Tensor], columns: Sequence[Sequence[int]], num_columns: int
) -> Tensor:
    """Modules with fewer blocks than the largest have shorter rows."""
    logits = torch.full((len(columns), num_columns), -torch.inf)
    for i, (row, own) in enumerate(zip(rows, columns, strict=True)):
        if not max(own) < len(row) <= num_columns:
            raise ValueError(
                f"attention init {init!r} has {len(row)} columns in module {i}, which needs "
                f"{max(own) + 1} of at most {num_columns}"
            )
        logits[i, : len(row)] = row
    return logits


def _require_rows(what: str, num_rows: int, num_modules: int) -> None:
    if num_rows != num_modules:
        raise ValueError(f"{what} has {num_rows} rows, the network {num_modules} modules")
