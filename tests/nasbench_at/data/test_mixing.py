from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from nasbench_at.data import Augmentation, LabelledImages, MixedImages, load_data, mix_in
from nasbench_at.data.custom import load_extra_images
from tests.nasbench_at.conftest import make_stripes, one_line, save_extra

REAL, EXTRA = 42, 9


def mixed(fraction=0.7, *, num_real=REAL, num_extra=EXTRA):
    """Images that carry their label in every pixel; those from ``num_real`` on are generated."""
    labels = torch.arange(num_real + num_extra)
    images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 3, 3).contiguous()
    return MixedImages(LabelledImages(images, labels), num_real, fraction, "f")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def labels_of(batches):
    return [y.tolist() for _, y in batches]


@pytest.mark.parametrize(("fraction", "share"), [(0.7, 7), (0.8, 8), (0.26, 3), (0.05, 0)])
def test_each_batch_is_full_and_has_its_share_of_generated_images(fraction, share):
    images = mixed(fraction)
    if share == 0:
        with pytest.raises(ValueError, match=r"^extra_fraction must leave a generated and a real"):
            next(images.shuffled_batches(10, generator()))
        return
    batches = labels_of(images.shuffled_batches(10, generator()))
    # As many as the real images alone would make: 42 are four batches of 10, and one of 2.
    assert [len(batch) for batch in batches] == [10] * 5
    assert [sum(label >= REAL for label in batch) for batch in batches] == [share] * 5


def test_real_images_come_once_an_epoch_and_others_in_the_next():
    first, second = (
        [y for batch in labels_of(mixed().shuffled_batches(10, generator(seed))) for y in batch]
        for seed in (0, 1)
    )
    seen = [{label for label in epoch if label < REAL} for epoch in (first, second)]
    assert [len(each) for each in seen] == [15, 15]
    assert seen[0] != seen[1]
    assert {label for label in first if label >= REAL} == set(range(REAL, REAL + EXTRA))


def test_places_of_real_images_that_have_run_out_are_generated():
    batches = labels_of(mixed(0.1, num_real=12).shuffled_batches(10, generator()))
    assert [sum(label >= 12 for label in batch) for batch in batches] == [1, 7]


@pytest.mark.parametrize("skip", [0, 1, 4, 5])
def test_skipped_batches_do_not_change_the_others(skip):
    options = {"augmentation": Augmentation(1), "augmentation_generator": generator}
    whole = list(mixed().shuffled_batches(10, generator(), **options))
    rest = list(mixed().shuffled_batches(10, generator(), skip=skip, **options))
    assert len(rest) == len(whole) - skip
    for (x, y), (x_again, y_again) in zip(whole[skip:], rest, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_share_every_batch_and_see_both_kinds(num_ranks):
    images = mixed(0.5, num_real=48)
    options = {"augmentation": Augmentation(1), "augmentation_generator": generator}
    whole = list(images.shuffled_batches(20, generator(), **options))
    shards = [
        list(images.shuffled_batches(20, generator(), shard=(rank, num_ranks), **options))
        for rank in range(num_ranks)
    ]
    for (x, y), *parts in zip(whole, *shards, strict=True):
        assert torch.equal(torch.cat([x_part for x_part, _ in parts]), x)
        assert torch.equal(torch.cat([y_part for _, y_part in parts]), y)
        for _, labels in parts:
            assert 0 < sum(label >= 48 for label in labels.tolist()) < len(labels)


def test_batches_are_left_out_as_without_generated_images():
    images = mixed(0.5, num_real=23)
    for num_ranks in (1, 2):
        found = list(images.shuffled_batches(10, generator(), shard=(0, num_ranks)))
        assert len(found) == images.pool.first(23).num_batches(10, num_ranks)
    assert len(found) == 2


@pytest.mark.parametrize("channels_last", [False, True])
def test_mixture_of_a_data_set_shares_its_memory(channels_last, tmp_path):
    data = load_data("stripes", channels_last=channels_last)
    both = mix_in(data, save_extra(tmp_path / "extra.npz"), 0.5)
    assert both.mixture.num_extra == 40
    assert both.mixture.num_real == len(data.train) == len(both.train)
    assert torch.equal(both.train.images, data.train.images)
    assert torch.equal(both.train.labels, data.train.labels)
    assert both.train.images.data_ptr() == both.mixture.pool.images.data_ptr()
    added = both.mixture.pool.images[len(data.train) :]
    assert torch.equal(added, make_stripes(40).train_images + 5)
    assert both.fingerprint == data.fingerprint


def test_fingerprint_is_of_the_generated_images(tmp_path):
    data = load_data("stripes")
    found = [
        mix_in(data, save_extra(tmp_path / f"{i}.npz", brightness=brightness), 0.5)
        for i, brightness in enumerate((5, 5, 6))
    ]
    one, same, other = (each.mixture.fingerprint for each in found)
    assert one == same != other
    assert len(one) == 16


def content(**changes):
    images, labels, *_ = make_stripes(12)
    return {"x": images.numpy(), "y": labels.numpy(), **changes}


@pytest.mark.parametrize("keys", [("x", "y"), ("image", "label")])
def test_files_in_either_form_are_read(keys, tmp_path):
    images, labels, *_ = make_stripes(12)
    forms = {"nhwc": images.permute(0, 2, 3, 1), "nhw": images[:, 0], "float": images / 255}
    for name, form in forms.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, **dict(zip(keys, (form.numpy(), labels.numpy()), strict=True)))
        found = load_extra_images(path, (1, 8, 8), 4)
        assert torch.equal(found.images, images)
        assert torch.equal(found.labels, labels)


def test_not_every_class_need_be_there(tmp_path):
    np.savez(tmp_path / "extra.npz", **content(y=np.full(12, 2)))
    assert load_extra_images(tmp_path / "extra.npz", (1, 8, 8), 4).labels.unique().tolist() == [2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((12, 3, 8, 8), np.uint8)}, "shape (1, 8, 8), got (3, 8, 8)"),
        ({"x": np.zeros((12, 1, 9, 8), np.uint8)}, "shape (1, 8, 8), got (1, 9, 8)"),
        ({"x": np.zeros((12, 8, 8), np.int32)}, "x must be uint8 or floats in [0, 1], got int32"),
        ({"x": np.full((12, 8, 8), 1.5)}, "floats in [0, 1], got float64 in 1.5..1.5"),
        ({"y": np.zeros(12)}, "y must be integers (12,), one for each image, got float64 (12,)"),
        ({"y": np.zeros(11, int)}, "one for each image, got int64 (11,)"),
        ({"y": np.full(12, 4)}, "y must lie in 0..3, the classes of the data set, got 4..4"),
        ({"y": np.full(12, -1)}, "y must lie in 0..3, the classes of the data set, got -1..-1"),
        ({"x": np.zeros((0, 8, 8), np.uint8), "y": np.zeros(0, int)}, "at least one label"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_that_do_not_fit_are_refused_in_one_line(changes, message, tmp_path):
    np.savez(tmp_path / "extra.npz", **content(**changes))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_extra_images(tmp_path / "extra.npz", (1, 8, 8), 4)
    assert f"cannot read {str(tmp_path / 'extra.npz')!r}: " in one_line(caught)


@pytest.mark.parametrize(("keys", "got"), [(("x",), "x"), (("x_train",), "none of them")])
def test_missing_arrays_are_named(keys, got, tmp_path):
    np.savez(tmp_path / "extra.npz", **{key: np.zeros((2, 8, 8), np.uint8) for key in keys})
    message = f"extra data need x and y or image and label, got {got}$"
    with pytest.raises(ValueError, match=message):
        load_extra_images(tmp_path / "extra.npz", (1, 8, 8), 4)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^data file '.*none\.npz' does not exist$"):
        load_extra_images(tmp_path / "none.npz", (1, 8, 8), 4)
