"""Checkpoints: the whole state of a training run, and the weights of its selected epoch."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from nasbench_at.runtime.atomic_files import write_atomically
from nasbench_at.runtime.plain_data import read_plain_data

__all__ = [
    "CheckpointError",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
    "save_weights",
]

_DIGEST_SIZE = hashlib.sha256().digest_size


class CheckpointError(ValueError):
    """A checkpoint's file is damaged."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state of tensors, numbers, strings and containers of these, whole or not at all.

    The checkpoint that was there is kept beside it under ``previous_path(path)``.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    new = path.with_name(f"{path.name}.new")
    write_atomically(new, content + hashlib.sha256(content).digest())
    if path.exists():
        path.replace(previous_path(path))
    new.replace(path)


def previous_path(path: Path) -> Path:
    """Returns where the checkpoint before the last one lies."""
    return path.with_name(f"previous-{path.name}")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a state onto the CPU; nothing but data is unpickled.

    Raises:
        CheckpointError: If the file cannot be read, is damaged or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {str(path)!r}: {error.strerror}") from None
    body, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
    if hashlib.sha256(body).digest() != digest:
        raise CheckpointError(f"checkpoint {str(path)!r} is damaged: its checksum is wrong")
    try:
        state = read_plain_data(io.BytesIO(body))
    except ValueError as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} holds no state of a run: {error}"
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(
            f"checkpoint {str(path)!r} holds no state of a run, but a {type(state).__name__}"
        )
    return state


def save_weights(path: Path, model: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Writes a model's state_dict as safetensors, with metadata as JSON in its header.

    The metadata are one entry: several would be written in an order that changes from run to run.
    """
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    header = {"nasbench_at": json.dumps(metadata, sort_keys=True)}
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
