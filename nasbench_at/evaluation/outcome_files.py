"""Files of an evaluation: its outcomes by image, and AutoAttack's progress.

The progress makes a killed evaluation lose a batch of one attack at most.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor, nn

from nasbench_at.attacks import AutoAttackResult
from nasbench_at.records import Record
from nasbench_at.records.outcomes import SUBSET_PREFIX, outcomes_path, read_outcomes
from nasbench_at.runtime.atomic_files import write_atomically

__all__ = [
    "ProgressFile",
    "hash_images",
    "hash_subset",
    "hash_weights",
    "remove_progress",
    "write_outcomes",
]

_DIGEST_LENGTH = hashlib.sha256().digest_size


def write_outcomes(path: Path, record: Record, new: Mapping[str, Tensor]) -> None:
    """Writes the outcomes of new rows beside those of the record's other rows.

    Args:
        path: The record's file.
        record: The record with the new rows.
        new: What to add, by the names that :func:`read_outcomes` returns.
    """
    arrays = {name: tensor.numpy() for name, tensor in new.items()}
    names = {row.key for row in record.all_results}
    names |= {
        f"{SUBSET_PREFIX}{row.subset}" for row in record.all_results if row.subset is not None
    }
    if outcomes_path(path).exists():
        try:
            old = read_outcomes(path)
        except ValueError as error:
            warnings.warn(f"{error}; outcomes of earlier evaluations are lost", stacklevel=2)
        else:
            arrays = {name: old[name] for name in names & old.keys()} | arrays
    write_atomically(outcomes_path(path), safetensors.numpy.save(arrays))


def hash_subset(indices: Tensor) -> str:
    """Returns a hash of which images a part is of."""
    return hashlib.sha256(repr(indices.tolist()).encode()).hexdigest()[:8]


def hash_weights(model: nn.Module) -> str:
    """Returns a hash of everything in a model's ``state_dict``, names and shapes included."""
    state = model.state_dict().items()
    return _hash((f"{name} ", value) for name, value in state if isinstance(value, Tensor))


def hash_images(images: Tensor, labels: Tensor) -> str:
    """Returns a hash of images and labels, of their values and order."""
    return _hash([("", images), ("", labels)])


def _hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name}{tensor.dtype} {tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()[:16]


def remove_progress(directory: Path, attacks: Mapping[str, Mapping[str, Any]]) -> None:
    """Removes the files of attacks whose results are written, of all ranks, and no other's.

    The directory goes too if nothing is left in it, and then the one it lies in.

    Args:
        directory: Where the files lie; it need not be there.
        attacks: Settings of each AutoAttack, by the name of its row.
    """
    for name, settings in attacks.items():
        for path in directory.glob(f"{_file_stem(name, settings)}-rank*.safetensors"):
            path.unlink(missing_ok=True)
    for folder in (directory, directory.parent):
        if not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


def _file_stem(name: str, settings: Mapping[str, Any]) -> str:
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return f"{name}-{key}"


@dataclass(frozen=True)
class ProgressFile:
    """Verdicts of AutoAttack by attack and image, of one model on some images.

    The adversarial images themselves are not kept: they would be written anew after each batch.

    Attributes:
        path: The file. It begins with a SHA-256 of the rest, which is in the safetensors format.
        identity: What the verdicts belong to: settings, hashes of weights and images. A file with
            another identity is not used.
    """

    path: Path
    identity: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        directory: Path,
        name: str,
        *,
        settings: Mapping[str, Any],
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        shard: tuple[int, int] = (0, 1),
    ) -> ProgressFile:
        """Returns the file for an attack's settings, a model and images, in a directory.

        Each of several ranks has a file of its own, which holds for that number of ranks.
        """
        stem = _file_stem(name, settings)
        return cls(
            directory / f"{stem}-rank{shard[0]}of{shard[1]}.safetensors",
            {
                "settings": settings,
                "weights": hash_weights(model),
                "images": hash_images(images, labels),
            },
        )

    def save(self, result: AutoAttackResult) -> None:
        """Writes what is known so far."""
        tensors = {"correct": result.correct.cpu()}
        tensors |= {f"after/{name}": robust.cpu() for name, robust in result.robust_after.items()}
        state = {
            "identity": self.identity,
            "num_batches": result.num_batches,
            "seconds": result.seconds,
        }
        content = safetensors.torch.save(tensors, metadata={"state": json.dumps(state)})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, hashlib.sha256(content).digest() + content)

    def load(self, x: Tensor) -> AutoAttackResult | None:
        """Returns what was known, or None, with a warning if there is a file but not for this.

        Args:
            x: The images, which stand in the result where a fooled sample's adversarial image
                would be.
        """
        if not self.path.exists():
            return None
        try:
            return self._read(x)
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            reason = " ".join(str(error).split())
            warnings.warn(
                f"progress file {str(self.path)!r} is not used, AutoAttack starts anew: {reason}",
                stacklevel=2,
            )
            return None

    def _read(self, x: Tensor) -> AutoAttackResult:
        raw = self.path.read_bytes()
        content = raw[_DIGEST_LENGTH:]
        if hashlib.sha256(content).digest() != raw[:_DIGEST_LENGTH]:
            raise ValueError("it is damaged")
        tensors = safetensors.torch.load(content)
        header_length = int.from_bytes(content[:8], "little")
        state = json.loads(json.loads(content[8 : 8 + header_length])["__metadata__"]["state"])
        for key, value in self.identity.items():
            if state["identity"].get(key) != value:
                raise ValueError(f"it is of other {key}: {state['identity'].get(key)}, not {value}")
        names = state["num_batches"]
        return AutoAttackResult(
            x_adv=x.detach().clone(),
            correct=tensors["correct"].to(x.device),
            robust_after={name: tensors[f"after/{name}"].to(x.device) for name in names},
            num_batches=dict(names),
            seconds=dict(state["seconds"]),
            settings=dict(self.identity["settings"]),
        )
