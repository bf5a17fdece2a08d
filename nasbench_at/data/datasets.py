"""Data sets as tensors on the device: uint8 images, checked, in fixed splits.

A data set is small enough to live on the device whole. Images are uint8 until a batch is taken and
floats in [0, 1] from then on; normalisation, if any, belongs to the network.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nasbench_at.data.custom import custom_loader, load_extra_images
from nasbench_at.data.downloads import default_root
from nasbench_at.data.images import LabelledImages
from nasbench_at.data.mixing import MixedImages
from nasbench_at.data.registry import RawData, find_loader
from nasbench_at.runtime.seeding import make_generator

__all__ = ["DataSet", "load_data", "mix_in"]


@dataclass(frozen=True)
class ImageSpec:
    """What a network must fit.

    Attributes:
        image_shape: Channels, height and width of an image.
        num_classes: Number of classes.
    """

    image_shape: tuple[int, int, int]
    num_classes: int


@dataclass(frozen=True)
class DataSet:
    """A data set with its three parts on one device.

    Attributes:
        name: Registered name, file or function.
        train: Images to train on.
        validation: Images to select the model on: a part of the training images held out, or the
            test images.
        test: Test images.
        num_classes: Number of classes.
        fingerprint: Hash of all images and labels before the split.
        mixture: The images to train on with generated ones among them; None without.
    """

    name: str
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    num_classes: int
    fingerprint: str
    mixture: MixedImages | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def spec(self) -> ImageSpec:
        """What a network for these images must fit."""
        return ImageSpec(self.image_shape, self.num_classes)


def load_data(
    name: str,
    *,
    root: str | Path | None = None,
    download: bool = True,
    validation_fraction: float | None = 0.1,
    split_seed: int = 0,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
) -> DataSet:
    """Loads a data set onto a device, a seeded part of its training images held out.

    Args:
        name: Registered name, ``path/to/file.npz`` or ``module:function``; for the last two see
            :mod:`nasbench_at.data.custom`.
        root: Folder of the data files; :func:`nasbench_at.data.default_root` by default.
        download: Whether files that are not there may be downloaded.
        validation_fraction: Part of the training images held out, in (0, 1); with None all are
            for training, and the test images stand in for the held-out ones.
        split_seed: Seed of that split; the test images are always the same.
        device: Where the images live.
        channels_last: Memory layout of the images.

    Returns:
        The data set.

    Raises:
        ValueError: If the name is unknown, its files are missing or damaged, a part would be
            empty, or the data are not uint8 images with labels in range.
    """
    loader = custom_loader(name) or find_loader(name)
    options = {"root": default_root() if root is None else Path(root), "download": download}
    taken = inspect.signature(loader).parameters
    raw = _checked(name, loader(**{key: options[key] for key in options if key in taken}))

    def part(images: Tensor, labels: Tensor) -> LabelledImages:
        return LabelledImages(images.to(device), labels.to(device), channels_last)

    test = part(raw.test_images, raw.test_labels)
    if validation_fraction is None:
        train, validation = part(raw.train_images, raw.train_labels), test
    else:
        kept, held_out = _split(len(raw.train_labels), validation_fraction, split_seed)
        train, validation = (
            part(raw.train_images[rows], raw.train_labels[rows]) for rows in (kept, held_out)
        )
    return DataSet(
        name=name,
        train=train,
        validation=validation,
        test=test,
        num_classes=raw.num_classes,
        fingerprint=_fingerprint(raw[:4]),
    )


def mix_in(data: DataSet, path: str | Path, fraction: float) -> DataSet:
    """Returns a data set that is trained on with generated images among its own.

    Args:
        data: The data set.
        path: Their ``.npz`` file, see :func:`nasbench_at.data.custom.load_extra_images`. All of
            them are kept on the data set's device.
        fraction: Part of each batch that is drawn from them, in (0, 1).

    Raises:
        ValueError: If the file is not usable, or its images do not fit the data set's.
    """
    extra, real = load_extra_images(path, data.image_shape, data.num_classes), data.train
    device = real.labels.device
    images = torch.cat((real.images, extra.images.to(device)))
    labels = torch.cat((real.labels, extra.labels.to(device)))
    pool = LabelledImages(images, labels, real.channels_last)
    fingerprint = _fingerprint((extra.images, extra.labels))
    mixture = MixedImages(pool, len(real), fraction, fingerprint)
    # A part of the pool, which shares its memory: no image is kept twice.
    return replace(data, train=pool.first(len(real)), mixture=mixture)


def _split(num_images: int, validation_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the indices of the images to train on and of those held out, each in order."""
    num_held_out = round(validation_fraction * num_images)
    if not 0 < num_held_out < num_images:
        raise ValueError(
            f"validation_fraction {validation_fraction} of {num_images} training images "
            "leaves the validation or the training part empty"
        )
    order = torch.randperm(num_images, generator=make_generator(seed, "validation split"))
    return order[num_held_out:].sort().values, order[:num_held_out].sort().values


def _checked(name: str, raw: RawData) -> RawData:
    """Returns the data with int64 labels."""
    for part, images, labels in (
        ("training", raw.train_images, raw.train_labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(labels):
            raise ValueError(
                f"{part} images of {name!r} must be uint8 (N, C, H, W) with N labels, got "
                f"{images.dtype} {tuple(images.shape)} with {len(labels)} labels"
            )
        if not images.numel():
            raise ValueError(f"{part} images of {name!r} are empty, got {tuple(images.shape)}")
        if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
            raise ValueError(
                f"{part} labels of {name!r} must be integers (N,), got {labels.dtype} "
                f"{tuple(labels.shape)}"
            )
        if not 0 <= int(labels.min()) <= int(labels.max()) < raw.num_classes:
            raise ValueError(
                f"{part} labels of {name!r} must lie in 0..{raw.num_classes - 1}, got "
                f"{int(labels.min())}..{int(labels.max())}"
            )
    if raw.train_images.shape[1:] != raw.test_images.shape[1:]:
        raise ValueError(
            f"training and test images of {name!r} must be of one shape, got "
            f"{tuple(raw.train_images.shape[1:])} and {tuple(raw.test_images.shape[1:])}"
        )
    return raw._replace(train_labels=raw.train_labels.long(), test_labels=raw.test_labels.long())


def _fingerprint(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]
