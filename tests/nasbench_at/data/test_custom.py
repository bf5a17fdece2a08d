from __future__ import annotations

import pickle
import re
import sys
import types

import numpy as np
import pytest
import torch

from nasbench_at.data import RawData, load_data
from tests.nasbench_at.conftest import make_stripes, one_line


def arrays(shape=(3, 6, 5), num_train=30, num_test=6, num_classes=3):
    rng = np.random.default_rng(0)
    counts = {"train": num_train, "test": num_test}
    content = {
        f"x_{part}": rng.integers(0, 256, (n, *shape), np.uint8) for part, n in counts.items()
    }
    labels = {f"y_{part}": np.arange(n) % num_classes for part, n in counts.items()}
    return content | labels


@pytest.fixture
def save(tmp_path):
    """Writes an archive; returns its name as a data set."""

    def write(content):
        np.savez(tmp_path / "mine.npz", **content)
        return str(tmp_path / "mine.npz")

    return write


@pytest.fixture
def function(monkeypatch):
    """Puts a function into a module; returns its name as a data set."""

    def install(loader):
        module = types.ModuleType("my_module")
        module.load = loader
        monkeypatch.setitem(sys.modules, "my_module", module)
        return "my_module:load"

    return install


def test_file_is_loaded_by_its_path(save):
    content = arrays()
    data = load_data(save(content))
    assert torch.equal(data.test.images, torch.from_numpy(content["x_test"]))
    assert data.test.labels.tolist() == content["y_test"].tolist()
    assert data.test.labels.dtype == torch.int64
    assert (len(data.train), len(data.validation)) == (27, 3)
    assert data.num_classes == 3
    assert data.image_shape == (3, 6, 5)


def test_path_may_start_at_home(save, tmp_path, monkeypatch):
    save(arrays())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_data("~/mine.npz").test) == 6


@pytest.mark.parametrize(
    ("shape", "channels_first"),
    [
        ((6, 5), lambda x: x[:, None]),
        ((6, 5, 1), lambda x: x.transpose(0, 3, 1, 2)),
        ((6, 5, 3), lambda x: x.transpose(0, 3, 1, 2)),
        ((8, 8, 4), lambda x: x.transpose(0, 3, 1, 2)),
        ((1, 6, 5), lambda x: x),
        ((3, 6, 5), lambda x: x),
        ((2, 8, 8), lambda x: x),
    ],
    ids=lambda value: None if callable(value) else str(value),
)
def test_channel_axis_is_found(shape, channels_first, save):
    content = arrays(shape)
    images = load_data(save(content)).test.images
    assert np.array_equal(images.numpy(), channels_first(content["x_test"]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_the_nearest_grey_value(dtype, save):
    content = arrays((16, 16))
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    floats = content | {key: content[key].astype(dtype) / dtype(255) for key in ("x_train",)}
    floats["x_test"] = np.repeat(grey.astype(dtype) / dtype(255), 6, axis=0)
    assert np.array_equal(load_data(save(floats)).test.images[5].numpy(), grey)
    floats["x_test"] = np.full((6, 16, 16), 100.4 / 255, dtype)
    assert load_data(save(floats)).test.images.unique().tolist() == [100]


def test_labels_may_be_a_column_of_any_integers(save):
    content = arrays()
    column = content["y_train"].astype(np.uint8)[:, None]
    assert load_data(save(content | {"y_train": column})).fingerprint == (
        load_data(save(content)).fingerprint
    )


def without(*keys):
    return {key: value for key, value in arrays().items() if key not in keys}


def changed(**changes):
    content = arrays()
    return content | {key: change(content[key]) for key, change in changes.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without("y_test", "x_train"), "has no x_train, y_test; all of x_train, y_train, x_test"),
        (arrays((3, 7, 4)), "x_train must have 1 to 4 channels on axis 1 or on axis 3, not on bot"),
        (arrays((5, 6, 7)), "to tell (N, C, H, W) from (N, H, W, C), got (30, 5, 6, 7)"),
        (arrays(()), "x_train must be (N, H, W), (N, H, W, C) or (N, C, H, W), got (30,)"),
        (changed(x_test=lambda x: x[..., None]), "x_test must be (N, H, W), (N, H, W, C) or"),
        (changed(x_train=lambda x: x * 1.0), "x_train must be uint8 or floats in [0, 1], got flo"),
        (changed(x_train=lambda x: x / 255 - 0.1), "got float64 in -0.1..0.9"),
        (changed(x_test=lambda x: x * np.nan), "x_test must be uint8 or floats in [0, 1], got fl"),
        (changed(x_test=lambda x: x.astype(int)), "x_test must be uint8 or floats in [0, 1], got"),
        (changed(x_test=lambda x: x > 9), "x_test must be uint8 or floats in [0, 1], got bool"),
        (changed(y_train=lambda y: y * 1.0), "y_train must be integers (30,), one for each image"),
        (changed(y_test=lambda y: y[:5]), "y_test must be integers (6,), one for each image, got"),
        (changed(y_test=np.eye(6).__getitem__), "y_test must be integers (6,), one for each imag"),
        (changed(y_train=lambda y: y + 1), "y_train must hold every label 0..C-1, got 1..3 witho"),
        (changed(y_train=lambda y: 2 * y), "y_train must hold every label 0..C-1, got 0..4 witho"),
        (changed(y_train=lambda y: y * 10**12), "got 0..2000000000000 without 1"),
        (changed(y_train=lambda y: y - 1), "y_train must lie in 0..1, the classes of y_train, go"),
        (changed(y_test=lambda y: y + 1), "y_test must lie in 0..2, the classes of y_train, got"),
        (changed(x_train=lambda x: x[:, :1]), "must be of one shape, got (1, 6, 5) and (3, 6, 5)"),
        (arrays(num_train=0), "y_train must hold at least one label, got (0,)"),
        (arrays(num_test=0), "y_test must hold at least one label, got (0,)"),
        (arrays((3, 0, 0)), "training images of '{}' are empty, got (30, 3, 0, 0)"),
        (changed(x_train=lambda x: x.astype(object)), "allow_pickle=False"),
    ],
)
def test_unusable_archive_is_refused_in_a_line(content, message, save):
    name = save(content)
    with pytest.raises(ValueError, match=re.escape(message.format(name))) as error:
        load_data(name)
    assert name in one_line(error)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 no archive"),
        lambda path: path.write_bytes(path.read_bytes()[:-400]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"NUMPY", b"NUMPI")),
        lambda path: path.write_bytes(path.read_bytes().replace(bytes([1, 0, 0, 0]), b"\xff" * 4)),
        lambda path: path.write_bytes(pickle.dumps({"x_train": 1})),
    ],
    ids=["empty", "garbage", "cut", "header", "bits", "pickle"],
)
def test_damaged_archive_is_named(damage, save, tmp_path):
    name = save(arrays())
    damage(tmp_path / "mine.npz")
    with pytest.raises(ValueError, match=re.escape(f"cannot read {name!r}: ")) as error:
        load_data(name)
    one_line(error)


def test_single_array_under_the_name_of_an_archive_is_refused(tmp_path):
    path = tmp_path / "mine.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"is a single array, not an \.npz archive"):
        load_data(str(path))


def test_missing_archive_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"data file '.*absent\.npz' does not exist"):
        load_data(str(tmp_path / "absent.npz"))


def test_function_may_return_arrays_or_raw_data(function, save):
    content = arrays()
    expected = load_data(save(content)).fingerprint
    assert load_data(function(lambda: content)).fingerprint == expected
    as_arrays = RawData(
        content["x_train"], content["y_train"], content["x_test"], content["y_test"], 3
    )
    as_tensors = RawData(*map(torch.from_numpy, as_arrays[:4]), num_classes=3)
    assert load_data(function(lambda: as_arrays)).fingerprint == expected
    assert load_data(function(lambda: as_tensors)).fingerprint == expected


def test_labels_of_raw_data_become_int64(function):
    raw = make_stripes()
    short = raw._replace(train_labels=raw.train_labels.to(torch.int16))
    data = load_data(function(lambda: short))
    assert data.train.labels.dtype == torch.int64
    assert data.fingerprint == load_data("stripes").fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_labels": torch.zeros(24)}, "test labels of 'my_module:load' must be integers (N,)"),
        ({"test_labels": torch.zeros(24, 1).long()}, "got torch.int64 (24, 1)"),
        (
            {"test_images": torch.zeros(0, 1, 8, 8).byte(), "test_labels": torch.zeros(0).long()},
            "test images of 'my_module:load' are empty, got (0, 1, 8, 8)",
        ),
        ({"num_classes": 3}, "training labels of 'my_module:load' must lie in 0..2, got 0..3"),
    ],
)
def test_unusable_raw_data_of_a_function_are_refused(change, message, function):
    name = function(lambda: make_stripes()._replace(**change))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_data(name)
    one_line(error)


def test_module_in_the_working_directory_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    code = "from tests.nasbench_at.conftest import make_stripes as load\n"
    (tmp_path / "module_of_this_test.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    assert len(load_data("module_of_this_test:load").test) == 24


def fail():
    raise RuntimeError("disk\non fire")


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (fail, "data function 'my_module:load' failed: RuntimeError: disk on fire"),
        (lambda root: root, "data function 'my_module:load' failed: TypeError: "),
        (lambda: 3, "must return RawData or a mapping with x_train, y_train, x_test, y_test, got"),
        (lambda: {"x_train": 1}, "data function 'my_module:load': has no y_train, x_test, y_test;"),
    ],
)
def test_failing_function_is_named(loader, message, function):
    name = function(loader)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_data(name)
    one_line(error)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:load", "data function 'no_such_module:load' failed: ModuleNotFoundError"),
        ("json:load_data", "data function 'json:load_data' failed: AttributeError"),
        (":load", "data function ':load' failed: ValueError"),
    ],
)
def test_unknown_function_is_named(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_data(name)


def test_unknown_name_says_what_would_do():
    hint = "'cifar11'; did you mean 'cifar10' or 'cifar100'? known: digits, cifar10, "
    message = f"{hint}.*a file 'path/to/file"
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        load_data("cifar11")
