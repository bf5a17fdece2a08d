"""Data sets as tensors on the device: uint8 images, fixed splits, shuffled batches.

A data set is small enough to live on the device whole. Images are uint8 until a batch is taken and
floats in [0, 1] from then on; normalisation, if any, belongs to the network.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from nasbench_at.seeding import make_generator

__all__ = [
    "DataSet",
    "LabelledImages",
    "RawData",
    "list_data_sets",
    "load_data",
    "register_data_set",
]


class RawData(NamedTuple):
    """What a data set's loader returns: uint8 images ``(N, C, H, W)`` and labels ``(N,)``."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int


@dataclass(frozen=True)
class LabelledImages:
    """One part of a data set.

    Attributes:
        images: uint8, shape ``(N, C, H, W)``.
        labels: int64, shape ``(N,)``.
        channels_last: Memory layout of the batches.
    """

    images: Tensor
    labels: Tensor
    channels_last: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> LabelledImages:
        """Returns the part made of the first ``count`` images."""
        return LabelledImages(self.images[:count], self.labels[:count], self.channels_last)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the images of the indices as floats in [0, 1], and their labels."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        images = self.images[indices].to(torch.float32, memory_format=layout).div_(255)
        return images, self.labels[indices]

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields all images in order; the last batch may be smaller."""
        order = torch.arange(len(self), device=self.labels.device)
        for start in range(0, len(self), batch_size):
            indices = order[start : start + batch_size]
            yield self.take(indices)

    def shuffled_batches(
        self, batch_size: int, generator: Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields all images in an order drawn from a CPU generator.

        A last batch of one image is left out, since BatchNorm cannot train on it.
        """
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for start in range(0, len(self), batch_size):
            indices = order[start : start + batch_size]
            if len(indices) > 1:
                yield self.take(indices)

    def num_batches(self, batch_size: int) -> int:
        """Number of batches that :meth:`shuffled_batches` yields."""
        full, rest = divmod(len(self), batch_size)
        return full + (rest > 1)


@dataclass(frozen=True)
class DataSet:
    """A data set with its three parts on one device.

    Attributes:
        name: Registered name.
        train: Images to train on.
        validation: Part of the training images held out to select the model.
        test: Test images.
        num_classes: Number of classes.
        fingerprint: Hash of all images and labels before the split.
    """

    name: str
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    num_classes: int
    fingerprint: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


_LOADERS: dict[str, Callable[[], RawData]] = {}


def register_data_set(
    name: str,
) -> Callable[[Callable[[], RawData]], Callable[[], RawData]]:
    """Registers a loader of raw data under a name.

    Raises:
        ValueError: If the name is taken.
    """
    if name in _LOADERS:
        raise ValueError(f"data set {name!r} is registered already; choose another name")

    def decorate(loader: Callable[[], RawData]) -> Callable[[], RawData]:
        _LOADERS[name] = loader
        return loader

    return decorate


def list_data_sets() -> tuple[str, ...]:
    """Returns the names of all registered data sets."""
    return tuple(_LOADERS)


def load_data(
    name: str,
    *,
    validation_fraction: float = 0.1,
    split_seed: int = 0,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
) -> DataSet:
    """Loads a data set onto a device, a seeded part of its training images held out.

    Args:
        name: Registered name.
        validation_fraction: Part of the training images held out, in (0, 1).
        split_seed: Seed of that split; the test images are always the same.
        device: Where the images live.
        channels_last: Memory layout of the batches.

    Returns:
        The data set.

    Raises:
        ValueError: If the name is unknown, a part would be empty, or the data are not uint8 images
            with labels in range.
    """
    if name not in _LOADERS:
        near = difflib.get_close_matches(name, _LOADERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown data set {name!r}; {hint}known: {', '.join(_LOADERS)}")
    raw = _LOADERS[name]()
    _check_raw(name, raw)
    num_held_out = round(validation_fraction * len(raw.train_labels))
    if not 0 < num_held_out < len(raw.train_labels):
        raise ValueError(
            f"validation_fraction {validation_fraction} of {len(raw.train_labels)} training images "
            "leaves the validation or the training part empty"
        )
    order = torch.randperm(
        len(raw.train_labels), generator=make_generator(split_seed, "validation split")
    )
    held_out, kept = order[:num_held_out].sort().values, order[num_held_out:].sort().values

    def part(images: Tensor, labels: Tensor) -> LabelledImages:
        return LabelledImages(images.to(device), labels.to(device), channels_last)

    return DataSet(
        name=name,
        train=part(raw.train_images[kept], raw.train_labels[kept]),
        validation=part(raw.train_images[held_out], raw.train_labels[held_out]),
        test=part(raw.test_images, raw.test_labels),
        num_classes=raw.num_classes,
        fingerprint=_fingerprint(raw),
    )


def _check_raw(name: str, raw: RawData) -> None:
    for part, images, labels in (
        ("training", raw.train_images, raw.train_labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(labels):
            raise ValueError(
                f"{part} images of {name!r} must be uint8 (N, C, H, W) with N labels, got "
                f"{images.dtype} {tuple(images.shape)} with {len(labels)} labels"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < raw.num_classes:
            raise ValueError(
                f"{part} labels of {name!r} must lie in 0..{raw.num_classes - 1}, got "
                f"{int(labels.min())}..{int(labels.max())}"
            )


def _fingerprint(raw: RawData) -> str:
    digest = hashlib.sha256()
    for tensor in raw[:4]:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@register_data_set("digits")
def _load_digits() -> RawData:
    """scikit-learn's handwritten digits: 1,797 images of 1×8×8, grey values 0 to 16.

    They ship with scikit-learn. It has no official test part; here a fixed random 500 images are
    held out for testing.
    """
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=make_generator(0, "digits test part"))
    test, train = order[:500], order[500:]
    return RawData(images[train], labels[train], images[test], labels[test], num_classes=10)
