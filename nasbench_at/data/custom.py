"""A user's own data: an ``.npz`` file, or a function that returns the same.

Both hold ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

Images are uint8, or floats in [0, 1], which are rounded to 255 steps. They are shaped
``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``; of the last two it is the one whose channel
axis has 1 to 4 entries, and where both or neither have, the shape is refused. Labels are integers
0..C-1, ``(N,)`` or ``(N, 1)``, every class among the training images. A function may also return
:class:`~nasbench_at.data.RawData`, which leaves nothing to guess.

Generated images to train on besides are a file with ``x`` and ``y``, in the same forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nasbench_at.config.contents import import_function
from nasbench_at.data.downloads import reading
from nasbench_at.data.images import LabelledImages
from nasbench_at.data.registry import Loader, RawData

__all__ = ["custom_loader", "load_extra_images", "to_labelled_images"]

KEYS = ("x_train", "y_train", "x_test", "y_test")
EXTRA_KEYS = (("x", "y"), ("image", "label"))
"""What a file of generated images holds; the second as Wang et al. published theirs."""
MAX_CHANNELS = 4


def custom_loader(name: str) -> Loader | None:
    """Returns the loader of ``path/to/file.npz`` or ``module:function``, None of other names."""
    if name.endswith(".npz"):
        return partial(_load_npz, Path(name).expanduser())
    return partial(_call_function, name) if ":" in name else None


def to_labelled_images(x: Any, y: Any) -> LabelledImages:
    """Returns arrays or tensors as images with labels.

    Args:
        x: Images, as a file's: uint8, or floats in [0, 1], which are rounded to 255 steps; shape
            ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``.
        y: Integer labels from 0, shape ``(N,)`` or ``(N, 1)``.

    Raises:
        ValueError: If they are something else.
    """
    images, labels = (
        part.detach().cpu().numpy() if isinstance(part, Tensor) else np.asarray(part)
        for part in (x, y)
    )
    of_images = _to_images("x", images)
    return LabelledImages(
        of_images, _to_labels("y", labels, len(of_images), _count_classes(labels))
    )


def load_extra_images(
    path: str | Path, image_shape: Sequence[int], num_classes: int
) -> LabelledImages:
    """Reads generated images and their labels, which are to be trained on besides a data set's.

    Args:
        path: An ``.npz`` file with ``x``, images, and ``y``, labels, in the forms of a data set's;
            or with ``image`` and ``label``, as Wang et al. (ICML 2023) published theirs. Not
            every class need be there.
        image_shape: Channels, height and width of the data set's images.
        num_classes: Its number of classes.

    Returns:
        The images, on the CPU.

    Raises:
        ValueError: If the file is missing or damaged, or its images or labels do not fit.
    """
    path = Path(path).expanduser()
    arrays = _read_npz(path, [key for keys in EXTRA_KEYS for key in keys])
    with reading(path):
        keys = next((keys for keys in EXTRA_KEYS if arrays.keys() >= set(keys)), None)
        if keys is None:
            raise ValueError(
                f"extra data need {' or '.join(' and '.join(keys) for keys in EXTRA_KEYS)}, got "
                f"{' and '.join(arrays) or 'none of them'}"
            )
        images = _to_images(keys[0], arrays[keys[0]])
        if tuple(images.shape[1:]) != tuple(image_shape):
            raise ValueError(
                f"{keys[0]} must be images of the data set's shape {tuple(image_shape)}, got "
                f"{tuple(images.shape[1:])}"
            )
        labels = _to_labels(keys[1], arrays[keys[1]], len(images), num_classes, "the data set")
        return LabelledImages(images, labels)


def _load_npz(path: Path) -> RawData:
    arrays = _read_npz(path, KEYS)
    with reading(path):
        return _from_arrays(arrays)


def _read_npz(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Returns those of the arrays that a file has."""
    if not path.is_file():
        raise ValueError(f"data file {str(path)!r} does not exist")
    # Opened here, since NumPy leaves the file of a damaged archive open.
    with reading(path), path.open("rb") as file:
        content = np.load(file, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise ValueError("is a single array, not an .npz archive")
        with content:
            return {key: content[key] for key in keys if key in content}


def _call_function(spec: str) -> RawData:
    try:
        content = import_function(spec)()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"data function {spec!r} failed: {reason}") from error
    if isinstance(content, RawData):
        train_images, train_labels, test_images, test_labels = map(torch.as_tensor, content[:4])
        return RawData(train_images, train_labels, test_images, test_labels, content.num_classes)
    if not isinstance(content, Mapping):
        raise ValueError(
            f"data function {spec!r} must return RawData or a mapping with {', '.join(KEYS)}, got "
            f"{type(content).__name__}"
        )
    try:
        return _from_arrays(content)
    except ValueError as error:
        raise ValueError(f"data function {spec!r}: {error}") from None


def _from_arrays(arrays: Mapping[str, Any]) -> RawData:
    absent = [key for key in KEYS if key not in arrays]
    if absent:
        raise ValueError(f"has no {', '.join(absent)}; all of {', '.join(KEYS)} are needed")
    x_train, y_train, x_test, y_test = (np.asarray(arrays[key]) for key in KEYS)
    num_classes = _count_classes(y_train)
    return RawData(
        _to_images("x_train", x_train),
        _to_labels("y_train", y_train, len(x_train), num_classes),
        _to_images("x_test", x_test),
        _to_labels("y_test", y_test, len(x_test), num_classes),
        num_classes,
    )


def _count_classes(y_train: np.ndarray[Any, Any]) -> int:
    return int(y_train.max()) + 1 if y_train.size and y_train.dtype.kind in "iu" else 0


def _to_labels(
    key: str,
    labels: np.ndarray[Any, Any],
    num_images: int,
    num_classes: int,
    owner: str = "y_train",
) -> Tensor:
    """Returns labels as int64, ``(N,)``; the classes are those of the owner, in words."""
    if labels.dtype.kind not in "iu" or labels.shape not in ((num_images,), (num_images, 1)):
        raise ValueError(
            f"{key} must be integers ({num_images},), one for each image, got {labels.dtype} "
            f"{labels.shape}"
        )
    if not labels.size:
        raise ValueError(f"{key} must hold at least one label, got {labels.shape}")
    present = np.unique(labels).tolist()
    if not 0 <= present[0] <= present[-1] < num_classes:
        raise ValueError(
            f"{key} must lie in 0..{num_classes - 1}, the classes of {owner}, got "
            f"{present[0]}..{present[-1]}"
        )
    if key == "y_train" and len(present) < num_classes:
        absent = next(label for label, other in enumerate(present) if label != other)
        raise ValueError(
            f"y_train must hold every label 0..C-1, got {present[0]}..{present[-1]} without "
            f"{absent}"
        )
    return torch.from_numpy(labels.astype(np.int64).reshape(-1))


def _to_images(key: str, images: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(_to_uint8(key, _channels_first(key, images))))


def _to_uint8(key: str, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise ValueError(f"{key} must be uint8 or floats in [0, 1], got {images.dtype}")
    # Written so that NaN fails, too.
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"{key} must be uint8 or floats in [0, 1], got {images.dtype} in "
            f"{images.min():g}..{images.max():g}"
        )
    pixels: np.ndarray[Any, Any] = np.rint(images * images.dtype.type(255)).astype(np.uint8)
    return pixels


def _channels_first(key: str, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns ``(N, C, H, W)``."""
    if images.ndim == 3:
        return images[:, np.newaxis]
    if images.ndim != 4:
        raise ValueError(
            f"{key} must be (N, H, W), (N, H, W, C) or (N, C, H, W), got {images.shape}"
        )
    first, last = (1 <= images.shape[axis] <= MAX_CHANNELS for axis in (1, 3))
    if first == last:
        raise ValueError(
            f"{key} must have 1 to {MAX_CHANNELS} channels on axis 1 or on axis 3, not on both, to "
            f"tell (N, C, H, W) from (N, H, W, C), got {images.shape}"
        )
    return images if first else images.transpose(0, 3, 1, 2)
