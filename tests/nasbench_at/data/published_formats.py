"""Writes small sets in the formats that CIFAR, SVHN and Fashion-MNIST are published in."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from scipy.io import savemat

Images = np.ndarray  # uint8 (N, C, H, W)

CIFAR10_FILES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def random_images(count: int, shape: tuple[int, int, int] = (3, 32, 32), seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def _string(content: bytes) -> bytes:
    if len(content) < 256:
        return b"U" + struct.pack("<B", len(content)) + content
    return b"T" + struct.pack("<i", len(content)) + content


def _integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def python2_batch(images: Images, labels: list[int], key: bytes = b"labels") -> bytes:
    """The pickle of a CIFAR batch, operation by operation as Python 2 and its NumPy wrote it."""
    rows = images.reshape(len(images), -1)
    dtype = b"cnumpy\ndtype\n" + _string(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + _string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _string(b"b")
    array += b"\x87R(K\x01" + _integer(rows.shape[0]) + _integer(rows.shape[1]) + b"\x86"
    array += dtype + b"\x89" + _string(rows.tobytes()) + b"tb"
    entries = {
        b"batch_label": _string(b"batch 1 of 5"),
        key: b"](" + b"".join(map(_integer, labels)) + b"e",
        b"data": array,
        b"filenames": b"](" + b"".join(_string(b"%d.png" % i) for i in labels) + b"e",
    }
    items = b"".join(_string(name) + value for name, value in entries.items())
    return b"\x80\x02}(" + items + b"u."


def write_cifar10(root: Path, per_batch: int = 20) -> tuple[Images, list[int]]:
    """Writes five training batches and a test batch; returns all images and labels in order."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    images = random_images(6 * per_batch)
    labels = [i % 10 for i in range(len(images))]
    for i, name in enumerate(CIFAR10_FILES):
        part = slice(i * per_batch, (i + 1) * per_batch)
        (folder / name).write_bytes(python2_batch(images[part], labels[part]))
    return images, labels


def write_cifar100(root: Path) -> tuple[Images, list[int]]:
    """Writes 120 training images and 30 test images, of classes 0 to 99."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    images, labels = random_images(150), [i % 100 for i in range(150)]
    (folder / "train").write_bytes(python2_batch(images[:120], labels[:120], b"fine_labels"))
    (folder / "test").write_bytes(python2_batch(images[120:], labels[120:], b"fine_labels"))
    return images, labels


def write_svhn(root: Path) -> tuple[Images, list[int]]:
    """Writes 40 training images and 10 test images; returns labels with 0 for the digit 0."""
    images, labels = random_images(50), [i % 10 for i in range(50)]
    for name, part in (("train", slice(40)), ("test", slice(40, 50))):
        published = np.array([label or 10 for label in labels[part]], dtype=np.uint8)
        content = {"X": images[part].transpose(2, 3, 1, 0), "y": published[:, np.newaxis]}
        savemat(root / f"{name}_32x32.mat", content, do_compression=True)
    return images, labels


def idx(array: np.ndarray) -> bytes:
    """An array of unsigned bytes in MNIST's format."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion_mnist(folder: Path, *, packed: bool) -> tuple[Images, list[int]]:
    """Writes 30 training images and 10 test images, by gzip or plainly."""
    folder.mkdir(parents=True)
    images, labels = random_images(40, (1, 28, 28)), [i % 10 for i in range(40)]
    for name, part in (("train", slice(30)), ("t10k", slice(30, 40))):
        pixels, numbers = images[part, 0], np.array(labels[part], dtype=np.uint8)
        for kind, array in (("images-idx3-ubyte", pixels), ("labels-idx1-ubyte", numbers)):
            content = gzip.compress(idx(array)) if packed else idx(array)
            suffix = ".gz" if packed else ""
            (folder / f"{name}-{kind}{suffix}").write_bytes(content)
    return images, labels
