"""Checkpoints: the whole state of a training run, and the weights of its selected epoch."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from nasbench_at.files import write_atomically

__all__ = ["load_checkpoint", "load_weights", "save_checkpoint", "save_weights"]


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state of tensors, numbers, strings and containers of these, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a state onto the CPU; nothing but data is unpickled.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged file can make torch raise anything
        reason = str(error).splitlines()[0]
        raise ValueError(f"checkpoint {str(path)!r} is damaged: {reason}") from None
    return state


def save_weights(path: Path, model: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Writes a model's state_dict as safetensors, with metadata as JSON in its header."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    header = {key: json.dumps(value) for key, value in metadata.items()}
    write_atomically(path, safetensors.torch.save(tensors, header))


def load_weights(path: Path, model: nn.Module) -> None:
    """Loads a model's weights from safetensors.

    Raises:
        ValueError: If the file is missing or damaged, or holds another architecture's weights.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"cannot read weights {str(path)!r}: {error}") from None
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"weights {str(path)!r} are of another architecture: {reason[:300]}"
        ) from None
