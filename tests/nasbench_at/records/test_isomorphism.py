from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasbench_at.records import canonical_form
from nasbench_at.records.isomorphism import agrees

NAMES = ("dense", "mbconv", "residual")
WEIGHTS = ((0.25, 0.75), (0.75, 0.25), (0.5, 0.5))
KEPT = ((0,), (1,), (0, 1))


def columns_of(blocks, weights, keep):
    """What a module is, whatever its columns are called: the bag of its blocks."""
    return sorted((name, weights[j], j in keep) for j, name in enumerate(blocks))


def test_forms_are_equal_just_when_a_permutation_makes_them_so():
    """Brute force over every module of two blocks out of three."""
    modules = list(itertools.product(itertools.product(NAMES, repeat=2), WEIGHTS, KEPT))
    forms = [
        canonical_form(
            {"blocks": [names], "num_modules": 1, "attention_weights": [w], "attention_keep": [k]}
        )
        for names, w, k in modules
    ]
    bags = [columns_of(*module) for module in modules]
    for (one, bag), (other, other_bag) in itertools.combinations(zip(forms, bags, strict=True), 2):
        assert (one == other) == (bag == other_bag)


@given(st.data())
def test_any_numbering_of_the_columns_has_the_same_form(data):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    blocks = [
        data.draw(st.lists(st.sampled_from(NAMES), min_size=size, max_size=size)) for size in sizes
    ]
    widest = max(sizes)
    weights = [[*range(1, size + 1), *[0] * (widest - size)] for size in sizes]
    keep = [sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))) for size in sizes]
    orders = [data.draw(st.permutations(range(size))) for size in sizes]
    config = {"blocks": blocks, "attention_weights": weights, "attention_keep": keep}
    renumbered = {
        "blocks": [[row[j] for j in order] for row, order in zip(blocks, orders, strict=True)],
        "attention_weights": [
            [row[j] for j in order] + row[len(order) :]
            for row, order in zip(weights, orders, strict=True)
        ],
        "attention_keep": [
            [new for new, old in enumerate(order) if old in row]
            for row, order in zip(keep, orders, strict=True)
        ],
    }
    form = canonical_form(config)
    assert canonical_form(renumbered) == form
    assert canonical_form(form) == form


def test_weights_and_kept_blocks_go_with_their_columns():
    form = canonical_form(
        {
            "blocks": [["residual", "dense", "mbconv"], ["residual", "dense"]],
            "num_modules": 2,
            "attention_weights": [[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]],
            "attention_keep": [[0, 1], [0]],
            "lr": 0.1,
        }
    )
    assert form == {
        "blocks": (("dense", "mbconv", "residual"), ("dense", "residual")),
        "num_modules": 2,
        "attention_weights": ((0.3, 0.2, 0.5), (0.1, 0.9, 0.0)),
        "attention_keep": ((0, 2), (1,)),
        "lr": 0.1,
    }


def test_to_keep_every_block_is_to_keep_none_in_particular():
    config = {"blocks": ["b", "a"], "num_modules": 2}
    every = canonical_form({**config, "attention_keep": [[0, 1], [1, 0]]})
    assert every == canonical_form({**config, "attention_keep": None})


def test_one_set_is_that_set_once_a_module():
    once = canonical_form({"blocks": ("b", "a"), "num_modules": 2})
    assert once["blocks"] == (("a", "b"), ("a", "b"))
    assert once == canonical_form({"blocks": [["a", "b"], ["b", "a"]], "num_modules": 2})
    assert canonical_form({"blocks": ["b", "a"]}) == {"blocks": ("a", "b")}


@pytest.mark.parametrize(
    "config",
    [
        {"method": "at"},
        {"blocks": "dense"},
        {"blocks": ()},
        {"blocks": ("b", ("a",))},
        {"blocks": ("b", "a"), "num_modules": 2, "attention_weights": ((0.5, 0.5),)},
        {"blocks": ("b", "a"), "num_modules": 1, "attention_weights": ((1.0,),)},
        {"blocks": ("b", "a"), "num_modules": 2, "attention_keep": ((0,),)},
    ],
)
def test_what_is_no_network_stays_as_it_is(config):
    assert canonical_form(config) == config


CONFIG = {
    "blocks": ["residual", "dense"],
    "num_modules": 3,
    "attention_weights": [[0.7, 0.3]] * 3,
    "attention_keep": [[0]] * 3,
    "milestones": (1, 2),
}


@pytest.mark.parametrize(
    ("wanted", "is_found"),
    [
        ({"blocks": ["dense", "residual"]}, True),
        ({"blocks": [["dense", "residual"]] * 3}, True),
        ({"blocks": [["dense", "residual"]] * 2}, False),
        ({"blocks": ["dense", "residual"], "num_modules": 4}, False),
        ({"blocks": ["dense", "residual", "residual"]}, False),
        ({"blocks": ["dense"]}, False),
        ({"blocks": "dense"}, False),
        # Columns of the blocks as they are wanted
        ({"blocks": ["dense", "residual"], "attention_weights": [[0.3, 0.7]] * 3}, True),
        ({"blocks": ["dense", "residual"], "attention_weights": [[0.7, 0.3]] * 3}, False),
        ({"blocks": ["dense", "residual"], "attention_weights": [[0.3, 0.7]] * 4}, False),
        ({"blocks": ["dense", "residual"], "attention_keep": [[1]] * 3}, True),
        ({"blocks": ["dense", "residual"], "attention_keep": [[0]] * 3}, False),
        # Columns of the configuration's own
        ({"attention_weights": [[0.7, 0.3]] * 3}, True),
        ({"attention_weights": [[0.3, 0.7]] * 3}, False),
        ({"milestones": [1, 2]}, True),
        ({"milestones": [2, 1]}, False),
        ({"milestones": [1, 2], "blocks": ["mbconv"]}, False),
        ({}, True),
    ],
)
def test_configurations_agree_in_what_is_wanted(wanted, is_found):
    assert agrees(CONFIG, wanted) == is_found


def test_modules_are_counted_by_their_blocks_where_their_number_is_not_recorded():
    config = {"blocks": [["dense", "residual"], ["residual", "dense"]]}
    assert agrees(config, {"blocks": ["residual", "dense"]})
    assert not agrees(config, {"blocks": [["residual", "dense"]]})
