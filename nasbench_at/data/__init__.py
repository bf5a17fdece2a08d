"""Data sets as tensors on the device, the augmentation of their batches, and where they come from.

The package's own sets are registered here; :func:`register_data_set` adds others, and a user's
``.npz`` file or ``module:function`` needs no registration.
"""

from __future__ import annotations

# Imported for what it registers.
from nasbench_at.data import sources as _sources  # noqa: F401
from nasbench_at.data.augmentation import Augmentation
from nasbench_at.data.datasets import DataSet, ImageSpec, load_data, mix_in
from nasbench_at.data.downloads import default_root
from nasbench_at.data.images import LabelledImages
from nasbench_at.data.mixing import MixedImages
from nasbench_at.data.registry import RawData, list_data_sets, register_data_set

__all__ = [
    "Augmentation",
    "DataSet",
    "ImageSpec",
    "LabelledImages",
    "MixedImages",
    "RawData",
    "default_root",
    "list_data_sets",
    "load_data",
    "mix_in",
    "register_data_set",
]
