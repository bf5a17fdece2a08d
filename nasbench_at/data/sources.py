"""The data sets that come with the package, in the files they are published in.

Files are looked for under the data root, where torchvision puts them. A published archive's
checksum is verified when it is downloaded; what lies in the folder is then read for what it is, so
that a smaller set in the same format will do.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nasbench_at.data.downloads import Download, provide, reading
from nasbench_at.data.registry import RawData, register_data_set
from nasbench_at.data.unpickling import load_arrays
from nasbench_at.runtime.seeding import make_generator

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` puts the four files."""


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


@register_data_set("cifar10")
def _load_cifar10(root: Path, *, download: bool) -> RawData:
    """CIFAR-10: 50,000 and 10,000 images of 3×32×32, in ``<root>/cifar-10-batches-py``."""
    from torchvision.datasets import CIFAR10  # type: ignore[import-untyped]

    return _load_cifar("cifar10", CIFAR10, root, download, num_classes=10)


@register_data_set("cifar100")
def _load_cifar100(root: Path, *, download: bool) -> RawData:
    """CIFAR-100 with its fine labels, in ``<root>/cifar-100-python``."""
    from torchvision.datasets import CIFAR100

    return _load_cifar("cifar100", CIFAR100, root, download, num_classes=100)


def _load_cifar(
    name: str, published: Any, root: Path, download: bool, *, num_classes: int
) -> RawData:
    """Reads what torchvision's class describes; the class itself would unpickle anything."""
    folder = root / published.base_folder
    train = [folder / file for file, _ in published.train_list]
    test = [folder / file for file, _ in published.test_list]
    archive = Download(published.url, published.tgz_md5, folder)
    provide(name, [*train, *test], [archive], download=download)
    key = "labels" if num_classes == 10 else "fine_labels"
    parts = [_read_cifar_batches(files, key) for files in (train, test)]
    return RawData(*parts[0], *parts[1], num_classes=num_classes)


def _read_cifar_batches(files: list[Path], key: str) -> tuple[Tensor, Tensor]:
    images, labels = zip(*(_read_cifar_batch(file, key) for file in files), strict=True)
    return torch.cat(images), torch.cat(labels)


def _read_cifar_batch(path: Path, key: str) -> tuple[Tensor, Tensor]:
    with reading(path):
        batch = load_arrays(path)
        absent = {"data", key} - batch.keys()
        if absent:
            raise ValueError(f"has no {sorted(absent)}, only {sorted(batch)}")
        pixels, labels = np.asarray(batch["data"]), np.asarray(batch[key])
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * 32 * 32):
            raise ValueError(
                f"data must be uint8 (N, 3072) with N labels, got {pixels.dtype} {pixels.shape} "
                f"with {len(labels)} labels"
            )
        return torch.tensor(pixels).view(-1, 3, 32, 32), torch.tensor(labels)


@register_data_set("svhn")
def _load_svhn(root: Path, *, download: bool) -> RawData:
    """SVHN: 73,257 and 26,032 images of 3×32×32, in ``<root>/{train,test}_32x32.mat``."""
    from torchvision.datasets import SVHN

    class Unverified(SVHN):  # type: ignore[misc]
        """The one place where a class of torchvision's would insist on the published files."""

        def _check_integrity(self) -> bool:
            return True

    def read(split: str) -> tuple[Tensor, Tensor]:
        with reading(files[split]):
            part = Unverified(root, split)
            return torch.tensor(part.data), torch.tensor(part.labels).reshape(-1)

    published = {split: SVHN.split_list[split] for split in ("train", "test")}
    files = {split: root / file for split, (_, file, _) in published.items()}
    items = [Download(url, md5, files[split]) for split, (url, _, md5) in published.items()]
    provide("svhn", list(files.values()), items, download=download)
    return RawData(*read("train"), *read("test"), num_classes=10)


@register_data_set("fashion_mnist")
def _load_fashion_mnist(root: Path, *, download: bool) -> RawData:
    """Fashion-MNIST: 60,000 and 10,000 images of 1×28×28, packed or not.

    Looked for in ``<root>/FashionMNIST/raw``, then where Debian's package puts it.
    """
    from torchvision.datasets import FashionMNIST

    folder = root / "FashionMNIST" / "raw"
    packed = [file for file, _ in FashionMNIST.resources]
    files = [_packed_or_not(folder / file) for file in packed]
    debian = [DEBIAN_FASHION_MNIST / file for file in packed]
    if not all(file.is_file() for file in files) and all(file.is_file() for file in debian):
        files = debian
    items = [
        Download(FashionMNIST.mirrors[0] + name, md5, file)
        for (name, md5), file in zip(FashionMNIST.resources, files, strict=True)
    ]
    provide(
        "fashion_mnist",
        files,
        items,
        download=download,
        alternative=" or install Debian's dataset-fashion-mnist",
    )
    train_images, train_labels, test_images, test_labels = map(_read_idx, files)
    return RawData(
        train_images.unsqueeze(1), train_labels, test_images.unsqueeze(1), test_labels, 10
    )


def _packed_or_not(packed: Path) -> Path:
    unpacked = packed.with_suffix("")
    return unpacked if unpacked.is_file() else packed


def _read_idx(path: Path) -> Tensor:
    """Reads an array of unsigned bytes in MNIST's format, in memory if it is packed."""
    with reading(path):
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
        # Two zeros, 8 for unsigned bytes, the number of axes; then each length, big-endian.
        if content[:3] != b"\0\0\x08":
            raise ValueError(f"is no idx file of unsigned bytes, begins with {content[:4]!r}")
        num_axes = content[3]
        shape = np.frombuffer(content, ">u4", count=num_axes, offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes)
        return torch.tensor(values.reshape(shape))
