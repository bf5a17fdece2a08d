from __future__ import annotations

import re

import pytest
import torch

from nasbench_at.data import (
    LabelledImages,
    RawData,
    list_data_sets,
    load_data,
    register_data_set,
)
from tests.nasbench_at.conftest import make_stripes, one_line


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def numbered(count: int) -> LabelledImages:
    """Images that carry their label in every pixel."""
    labels = torch.arange(count)
    images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 3, 3).contiguous()
    return LabelledImages(images, labels)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_digits_have_their_documented_sizes(digits):
    sizes = [len(part) for part in (digits.train, digits.validation, digits.test)]
    assert sizes == [1167, 130, 500]
    assert digits.image_shape == (1, 8, 8)
    assert digits.num_classes == 10
    assert digits.train.labels.unique().tolist() == list(range(10))


def test_digits_are_grey_values_from_0_to_255(digits):
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.labels.dtype == torch.int64
    low, high = digits.train.images.aminmax()
    assert (int(low), int(high)) == (0, 255)


def test_parts_are_disjoint_and_together_everything(digits):
    from sklearn.datasets import load_digits

    rows = torch.cat([part.images.flatten(1) for part in parts(digits)])
    original = torch.from_numpy(load_digits().data).mul(255 / 16).round().to(torch.uint8)
    assert sorted(rows.tolist()) == sorted(original.tolist())


def parts(data):
    return data.train, data.validation, data.test


def test_labels_stay_with_their_images(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    known = {tuple(row): label for row, label in zip(bunch.data, bunch.target, strict=True)}
    for part in parts(digits):
        grey = part.images.flatten(1).double().mul(16 / 255).round()
        assert [known[tuple(row)] for row in grey.tolist()] == part.labels.tolist()


def test_split_depends_on_its_seed_alone(digits):
    torch.manual_seed(5)
    again, other = load_data("digits"), load_data("digits", split_seed=1)
    assert torch.equal(again.validation.images, digits.validation.images)
    assert torch.equal(again.train.images, digits.train.images)
    assert not torch.equal(other.validation.images, digits.validation.images)
    assert torch.equal(other.test.images, digits.test.images)
    assert other.fingerprint == digits.fingerprint


def test_loading_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    load_data("digits")
    assert torch.equal(torch.get_rng_state(), before)


def test_test_images_stand_in_for_held_out_ones():
    data = load_data("stripes", validation_fraction=None)
    assert len(data.train) == 160
    assert data.validation is data.test


def test_validation_fraction_sets_the_size_of_the_part():
    data = load_data("stripes", validation_fraction=0.25)
    assert (len(data.validation), len(data.train)) == (40, 120)


@pytest.mark.parametrize("fraction", [0.0001, 0.9999])
def test_split_that_leaves_a_part_empty_is_refused(fraction):
    with pytest.raises(ValueError, match=f"validation_fraction {fraction} of 160 .* empty"):
        load_data("stripes", validation_fraction=fraction)


def test_unknown_data_set_gets_a_suggestion():
    with pytest.raises(
        ValueError, match=r"unknown data set 'digit'; did you mean 'digits'. known: .*digits"
    ) as error:
        load_data("digit")
    one_line(error)


def test_registered_data_set_is_listed_and_loaded(own_data_sets):
    assert register_data_set("mine")(make_stripes) is make_stripes
    assert "mine" in list_data_sets()
    data = load_data("mine")
    assert data.name == "mine"
    assert data.fingerprint == load_data("stripes").fingerprint


def test_taken_name_is_refused():
    with pytest.raises(ValueError, match="data set 'digits' is registered already; choose another"):
        register_data_set("digits")


def test_fingerprint_tells_data_apart(own_data_sets):
    raw = make_stripes()
    labels = raw.test_labels.clone()
    labels[-1] = (labels[-1] + 1) % 4
    register_data_set("relabelled")(lambda: raw._replace(test_labels=labels))
    assert load_data("relabelled").fingerprint != load_data("stripes").fingerprint


IMAGES, LABELS = torch.zeros(20, 1, 4, 4, dtype=torch.uint8), torch.arange(20) % 4


@pytest.mark.parametrize("part", ["training", "test"])
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.float(), LABELS, "images of 'bad' must be uint8 (N, C, H, W) with N labels"),
        (IMAGES[:, 0], LABELS, "must be uint8 (N, C, H, W) with N labels, got torch.uint8 (20, 4"),
        (IMAGES, LABELS[:7], "must be uint8 (N, C, H, W) with N labels"),
        (IMAGES, LABELS + 1, "labels of 'bad' must lie in 0..3, got 1..4"),
        (IMAGES, LABELS - 1, "labels of 'bad' must lie in 0..3, got -1..2"),
    ],
    ids=["float", "no channels", "few labels", "label 4", "label -1"],
)
def test_unusable_raw_data_are_refused(part, images, labels, message, own_data_sets):
    bad, good = (images, labels), (IMAGES, LABELS)
    raw = RawData(*(bad + good if part == "training" else good + bad), num_classes=4)
    register_data_set("bad")(lambda: raw)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_data("bad")
    assert one_line(error).startswith(part)


def test_images_become_floats_from_0_to_1():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    x, y = LabelledImages(images, torch.tensor([2, 1, 0])).take(torch.tensor([2, 0, 1]))
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.flatten(), torch.tensor([1.0, 0.0, 0.2]), rtol=0, atol=1e-7)
    assert y.tolist() == [0, 2, 1]
    assert images.flatten().tolist() == [0, 51, 255]


@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_have_the_memory_layout_asked_for(channels_last):
    images = torch.zeros(6, 3, 4, 5, dtype=torch.uint8)
    part = LabelledImages(images, torch.zeros(6, dtype=torch.int64), channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    batches = [*part.batches(4), *part.shuffled_batches(3, generator()), *part.first(2).batches(9)]
    assert all(x.is_contiguous(memory_format=layout) for x, _ in batches)


def test_layout_reaches_all_parts():
    data = load_data("stripes", channels_last=True)
    assert all(part.channels_last for part in parts(data))


def test_batches_come_in_order_with_the_rest_at_the_end():
    batches = list(numbered(10).batches(4))
    assert [y.tolist() for _, y in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for x, y in batches:
        assert torch.equal(x[:, 0, 0, 0].mul(255).round().long(), y)


def test_shuffled_batches_are_a_permutation_drawn_from_the_generator():
    part = numbered(50)
    orders = [
        torch.cat([y for _, y in part.shuffled_batches(8, generator(seed))]).tolist()
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(50)) != orders[0]
    for x, y in part.shuffled_batches(8, generator()):
        assert torch.equal(x[:, 0, 0, 0].mul(255).round().long(), y)


@pytest.mark.parametrize(
    ("count", "sizes"), [(9, [4, 4]), (10, [4, 4, 2]), (8, [4, 4]), (3, [3]), (1, [])]
)
def test_a_last_batch_of_one_image_is_left_out_of_training(count, sizes):
    part = numbered(count)
    assert [len(y) for _, y in part.shuffled_batches(4, generator())] == sizes
    assert part.num_batches(4) == len(sizes)


def test_first_images_are_a_part_of_their_own():
    part = numbered(10).first(3)
    assert len(part) == 3
    assert part.labels.tolist() == [0, 1, 2]
