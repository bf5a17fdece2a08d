from __future__ import annotations

import gzip
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

import nasbench_at.data.sources
from nasbench_at.data import DataSet, list_data_sets, load_data
from tests.nasbench_at.conftest import one_line

from .published_formats import (
    idx,
    python2_batch,
    random_images,
    write_cifar10,
    write_cifar100,
    write_fashion_mnist,
    write_svhn,
)


@pytest.fixture(autouse=True)
def _no_system_data(monkeypatch, tmp_path):
    absent = tmp_path / "no such folder"
    monkeypatch.setattr(nasbench_at.data.sources, "DEBIAN_FASHION_MNIST", absent)


def load(name: str, root: Path) -> DataSet:
    return load_data(name, root=root, download=False)


def fails(name: str, root: Path) -> str:
    with pytest.raises(ValueError, match=r"^(data set|cannot read|training labels)") as error:
        load(name, root)
    return one_line(error)


def assert_holds(data, images, labels, num_train):
    """The set holds these images with these labels; training and test parts as written."""
    assert data.image_shape == images.shape[1:]
    known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert len(known) == len(images)
    seen = []
    for part in (data.train, data.validation):
        for image, label in zip(part.images.numpy(), part.labels.tolist(), strict=True):
            assert known[image.tobytes()] == label
            seen.append(image.tobytes())
    assert sorted(seen) == sorted(image.tobytes() for image in images[:num_train])
    assert torch.equal(data.test.images, torch.from_numpy(images[num_train:]))
    assert data.test.labels.tolist() == labels[num_train:]


def test_sets_of_the_paper_are_registered():
    paper = ("digits", "cifar10", "cifar100", "svhn", "fashion_mnist")
    assert list_data_sets()[: len(paper)] == paper


def test_cifar10_is_read_from_its_pickled_batches(tmp_path):
    images, labels = write_cifar10(tmp_path)
    data = load("cifar10", tmp_path)
    assert_holds(data, images, labels, num_train=100)
    assert data.num_classes == 10


def test_cifar100_is_read_with_its_fine_labels(tmp_path):
    images, labels = write_cifar100(tmp_path)
    data = load("cifar100", tmp_path)
    assert_holds(data, images, labels, num_train=120)
    assert data.num_classes == 100


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_cifar_batches_of_python_3_are_read(protocol, tmp_path):
    images, labels = write_cifar10(tmp_path)
    # Of every kind that somebody's labels may be: bytes as keys, an array, NumPy's integers.
    mixed = {b"labels": [np.int64(label) for label in labels[:20]]}
    array = {"labels": np.array(labels[20:40])}
    for i, batch in enumerate((mixed, array)):
        key = b"data" if i == 0 else "data"
        batch[key] = images[20 * i : 20 * i + 20].reshape(20, -1)
        path = tmp_path / "cifar-10-batches-py" / f"data_batch_{i + 1}"
        path.write_bytes(pickle.dumps(batch, protocol))
    assert_holds(load("cifar10", tmp_path), images, labels, num_train=100)


def test_svhn_is_read_with_10_for_the_digit_0(tmp_path):
    images, labels = write_svhn(tmp_path)
    data = load("svhn", tmp_path)
    assert_holds(data, images, labels, num_train=40)
    assert data.num_classes == 10


def test_svhn_of_one_test_image_is_read(tmp_path):
    images, _ = write_svhn(tmp_path)
    content = {"X": images[40:41].transpose(2, 3, 1, 0), "y": np.full((1, 1), 10, np.uint8)}
    savemat(tmp_path / "test_32x32.mat", content)
    assert load("svhn", tmp_path).test.labels.tolist() == [0]


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "unpacked"])
def test_fashion_mnist_is_read_packed_or_not(packed, tmp_path):
    images, labels = write_fashion_mnist(tmp_path / "FashionMNIST" / "raw", packed=packed)
    data = load("fashion_mnist", tmp_path)
    assert_holds(data, images, labels, num_train=30)
    assert data.num_classes == 10


def test_fashion_mnist_of_debian_is_read_where_it_is(tmp_path, monkeypatch):
    system, root = tmp_path / "system", tmp_path / "root"
    images, labels = write_fashion_mnist(system, packed=True)
    monkeypatch.setattr(nasbench_at.data.sources, "DEBIAN_FASHION_MNIST", system)
    before = sorted(system.iterdir())
    assert_holds(load("fashion_mnist", root), images, labels, num_train=30)
    assert sorted(system.iterdir()) == before
    assert not root.exists()


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "fashion_mnist"])
def test_file_of_somebody_else_is_preferred_to_a_download(name, tmp_path):
    write = {
        "cifar10": write_cifar10,
        "cifar100": write_cifar100,
        "svhn": write_svhn,
        "fashion_mnist": lambda root: write_fashion_mnist(
            root / "FashionMNIST" / "raw", packed=True
        ),
    }[name]
    write(tmp_path)
    assert load_data(name, root=tmp_path, download=True).fingerprint


class Command:
    """Unpickled, it would create a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("whole", [True, False], ids=["whole file", "inside"])
def test_pickle_that_asks_for_more_than_arrays_is_refused(protocol, whole, tmp_path):
    images, labels = write_cifar10(tmp_path)
    command = Command(tmp_path / "victim")
    batch = {b"data": images[:20].reshape(20, -1), b"labels": labels[:20], b"extra": [command]}
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps(command if whole else batch, protocol))
    message = fails("cifar10", tmp_path)
    assert f"cannot read {str(path)!r}" in message
    assert re.search(r"refused to load (posix|nt).mkdir; only NumPy arrays are allowed", message)
    assert not command.victim.exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__", "bytearray"])
def test_builtins_are_refused(name, tmp_path):
    write_cifar10(tmp_path)
    content = b"\x80\x02cbuiltins\n" + name.encode() + b"\n(U\x0211tR."
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    assert f"refused to load builtins.{name}" in fails("cifar10", tmp_path)


def test_bytes_are_rebuilt_from_latin1_alone(tmp_path):
    write_cifar10(tmp_path)
    content = b"\x80\x02c_codecs\nencode\n(U\x0211U\x04zlibtR."
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    assert "bytes must be encoded as latin1, got 'zlib'" in fails("cifar10", tmp_path)


FEW = random_images(4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EOFError"),
        (b"no pickle", "Error"),
        (python2_batch(FEW, [0, 1, 2, 3])[:-500], "truncated|exhausted|EOF|Ran out"),
        (pickle.dumps([1, 2]), "must hold a dictionary, got list"),
        (pickle.dumps({b"data": 1}), "has no ['labels'], only ['data']"),
        (python2_batch(FEW, [0] * 4, b"fine_labels"), "has no ['labels'], only ['batch_label'"),
        (
            python2_batch(FEW, [0, 1, 2]),
            "data must be uint8 (N, 3072) with N labels, got uint8 (4, 3072) with 3 labels",
        ),
        (python2_batch(FEW[:, :, :8], [0] * 4), "got uint8 (4, 768) with 4 labels"),
        (
            pickle.dumps({"data": FEW.reshape(4, -1) / 255, "labels": [0] * 4}),
            "got float64 (4, 3072) with 4 labels",
        ),
    ],
    ids=["empty", "garbage", "cut", "list", "no labels", "cifar100", "few labels", "8", "float"],
)
def test_damaged_cifar_batch_is_named(content, reason, tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(content)
    message = fails("cifar10", tmp_path)
    assert message.startswith(f"cannot read {str(path)!r}: ")
    assert reason in message or re.search(reason, message)


def test_cifar_label_out_of_range_is_named(tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(python2_batch(FEW, [0, 1, 2, 10]))
    assert fails("cifar10", tmp_path) == "training labels of 'cifar10' must lie in 0..9, got 0..10"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "Error: "),
        ({"y": np.ones((4, 1))}, "KeyError: 'X'"),
        ({"X": FEW.transpose(2, 3, 1, 0)}, "KeyError: 'y'"),
        ({"X": np.zeros(3), "y": np.ones(3)}, "axes don't match"),
    ],
    ids=["garbage", "no X", "no y", "flat"],
)
def test_damaged_svhn_file_is_named(content, reason, tmp_path):
    write_svhn(tmp_path)
    path = tmp_path / "test_32x32.mat"
    if content is None:
        path.write_bytes(b"no matlab file" * 50)
    else:
        savemat(path, content)
    message = fails("svhn", tmp_path)
    assert message.startswith(f"cannot read {str(path)!r}: ")
    assert reason in message or "Unknown mat file type" in message


GREY = random_images(10, (1, 28, 28))[:, 0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(idx(GREY))[:-900], "EOFError: "),
        (idx(GREY), "BadGzipFile: "),
        (gzip.compress(b"\0\0\x0d\x03" + bytes(40)), "is no idx file of unsigned bytes, begins"),
        (gzip.compress(idx(GREY)[:-5]), "cannot reshape array of size 7835 into shape (10,28,28)"),
        (gzip.compress(b"\0\0\x08\x03\0"), "buffer"),
    ],
    ids=["cut", "not packed", "floats", "short", "header"],
)
def test_damaged_idx_file_is_named(content, reason, tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    write_fashion_mnist(folder, packed=True)
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(content)
    message = fails("fashion_mnist", tmp_path)
    assert message.startswith(f"cannot read {str(path)!r}: ")
    assert reason in message


@pytest.mark.parametrize(
    ("name", "files", "folder", "way"),
    [
        (
            "cifar10",
            "data_batch_1, data_batch_2, data_batch_3, data_batch_4, data_batch_5, test_batch",
            "cifar-10-batches-py",
            "unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz in '{root}'",
        ),
        (
            "cifar100",
            "train, test",
            "cifar-100-python",
            "unpack https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz in '{root}'",
        ),
        ("svhn", "train_32x32.mat, test_32x32.mat", "", "test_32x32.mat in '{root}'"),
        (
            "fashion_mnist",
            "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
            "t10k-labels-idx1-ubyte.gz",
            "FashionMNIST/raw",
            "or install Debian's dataset-fashion-mnist",
        ),
    ],
)
def test_missing_files_are_named_with_the_way_to_get_them(name, files, folder, way, tmp_path):
    message = fails(name, tmp_path)
    assert message.startswith(
        f"data set {name!r} needs {files} in {str(tmp_path / folder)!r}, not found; "
    )
    assert way.format(root=tmp_path) in message
    assert message.endswith("name the folder that has them by --data-root or NASBENCH_AT_DATA")


def test_only_missing_files_are_named(tmp_path):
    write_svhn(tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    message = fails("svhn", tmp_path)
    assert "needs test_32x32.mat in" in message
    assert "housenumbers/train_32x32.mat" not in message


def test_default_root_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("NASBENCH_AT_DATA", str(tmp_path))
    write_svhn(tmp_path)
    assert len(load_data("svhn", download=False).test) == 10
    monkeypatch.delenv("NASBENCH_AT_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / ".cache" / "nasbench-at"))):
        load_data("svhn", download=False)


def test_user_s_loader_is_given_the_root(own_data_sets, tmp_path):
    from nasbench_at.data import register_data_set
    from tests.nasbench_at.conftest import make_stripes

    seen = {}

    @register_data_set("rooted")
    def _(root, download):
        seen.update(root=root, download=download)
        return make_stripes()

    load_data("rooted", root=str(tmp_path), download=False)
    assert seen == {"root": tmp_path, "download": False}
