from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from nasbench_at.config.architecture import (
    INIT_PARAMETERS,
    NAMED_DS_NETS,
    Architecture,
    AttentionSpec,
    architecture_of,
    block_rank,
)
from nasbench_at.config.catalogue import catalogue

ROOT = Path(__file__).resolve().parents[3]

# What records and run folders refer to: a change here orphans every run made before it.
DEFAULT_HASH = "c2995c4d76488812"
PER_MODULE_HASH = "d261e1b781efddf6"


@pytest.fixture
def per_module() -> Architecture:
    """Uses every field with a value other than its default."""
    return Architecture(
        blocks=(("residual",), ("dense", "mbconv"), ("ada_rk", "ada_rk")),
        num_modules=3,
        init_channels=6,
        widen_factor=2,
        num_classes=7,
        input_shape=(1, 8, 8),
        block_options={"mbconv": {"kernel_size": 5}, "ada_rk": {"separate_norms": True}},
        block_copies={"dense": 2},
        attention=AttentionSpec(
            mode="fixed",
            init="given",
            weights=((1.0, 0.0), (0.25, 0.75), (0.5, 0.5)),
            keep=((0,), (0, 1), (1,)),
        ),
    )


def test_defaults_are_ds_net_4():
    arch = Architecture()
    assert arch.blocks == (("residual", "mbconv", "dense", "ada_rk"),) * 15
    assert arch.stage_channels == (20, 80, 160)
    assert arch.reduction_points == (5, 10)
    assert (arch.num_classes, arch.input_shape, arch.max_blocks) == (10, (3, 32, 32), 4)
    assert arch.attention == AttentionSpec(mode="learned", init="normal", recipe="paper")


@pytest.mark.parametrize(("num_modules", "points"), [(3, (1, 2)), (4, (1, 2)), (20, (6, 13))])
def test_reductions_follow_one_and_two_thirds_of_the_modules(num_modules, points):
    assert Architecture(num_modules=num_modules).reduction_points == points


def test_largest_module_gives_the_number_of_columns(per_module):
    assert per_module.max_blocks == 2
    assert per_module.blocks == (("residual",), ("mbconv", "dense"), ("ada_rk", "ada_rk"))


def test_one_set_equals_the_same_set_for_every_module():
    once = Architecture(blocks=("residual", "dense"), num_modules=3)
    each = Architecture(blocks=(("residual", "dense"),) * 3, num_modules=3)
    assert once == each
    assert once.blocks == each.blocks == (("residual", "dense"),) * 3
    assert once.to_dict()["blocks"] == ["residual", "dense"]
    assert (once.hash, hash(once)) == (each.hash, hash(each))


def test_lists_and_empty_options_are_normalised():
    plain = Architecture(blocks=("residual", "dense"), num_modules=3, input_shape=(1, 8, 8))
    listed = Architecture(
        blocks=["residual", "dense"],
        num_modules=3,
        input_shape=[1, 8, 8],
        block_options={"residual": {}},
        block_copies={"dense": 1},
    )
    assert listed == plain
    assert listed.hash == plain.hash


def test_kept_columns_are_sorted_and_unique():
    assert AttentionSpec(keep=[[2, 0, 2], [1]]).keep == ((0, 2), (1,))


def test_blocks_and_options_of_a_block_change_the_hash():
    arch = Architecture(blocks=("residual", "dense"))
    others = [
        replace(arch, blocks=("residual", "dense", "dense")),
        replace(arch, block_options={"dense": {"growth": 4}}),
        replace(arch, block_copies={"dense": 2}),
        replace(arch, attention=AttentionSpec(recipe="authors")),
        replace(arch, input_shape=(1, 32, 32)),
    ]
    assert len({arch.hash, *(other.hash for other in others)}) == 1 + len(others)


def test_json_holds_every_field(per_module):
    for arch in (Architecture(), per_module):
        data = json.loads(arch.to_json())
        assert data == arch.to_dict()
        attention = AttentionSpec(**data.pop("attention"))
        restored = Architecture(**data, attention=attention)
        assert restored == arch
        assert restored.hash == arch.hash


def test_canonical_json_does_not_depend_on_the_order_of_options():
    first = Architecture(
        block_options={"dense": {"growth": 4, "num_layers": 3}, "mbconv": {"expansion": 1}}
    )
    second = Architecture(
        block_options={"mbconv": {"expansion": 1}, "dense": {"num_layers": 3, "growth": 4}}
    )
    assert first.to_json() == second.to_json()


def test_hash_is_pinned(per_module):
    assert Architecture().hash == DEFAULT_HASH
    assert per_module.hash == PER_MODULE_HASH


def test_blocks_are_in_the_catalogues_order_and_others_behind_them_by_the_alphabet():
    assert [*catalogue().blocks][:4] == ["residual", "mbconv", "dense", "ada_rk"]
    names = ("mine", "dla_tree", "ada_rk", "another", "residual", "mine")
    (row, *_) = Architecture(blocks=names, num_modules=3).blocks
    assert row == ("residual", "ada_rk", "dla_tree", "another", "mine", "mine")
    assert sorted(catalogue().blocks, key=block_rank) == [*catalogue().blocks]


NAMES = ("dense", "mbconv", "unregistered")
WEIGHTS = ((0.25, 0.75), (0.75, 0.25), (0.5, 0.5))
KEPT = ((0,), (1,), (0, 1))


def test_architectures_are_equal_just_when_a_permutation_of_columns_makes_them_so():
    """Brute force over every module of two blocks out of three."""
    modules = list(itertools.product(itertools.product(NAMES, repeat=2), WEIGHTS, KEPT))
    networks = [
        Architecture(
            (names,) * 3,
            num_modules=3,
            attention=AttentionSpec(init="given", weights=(weights,) * 3, keep=(kept,) * 3),
        )
        for names, weights, kept in modules
    ]
    # What a module is, whatever its columns are called: the bag of its blocks.
    bags = [sorted((names[j], w[j], j in kept) for j in (0, 1)) for names, w, kept in modules]
    for (one, bag), (other, other_bag) in itertools.combinations(
        zip(networks, bags, strict=True), 2
    ):
        assert (one == other) == (one.hash == other.hash) == (bag == other_bag)


@for_all(st.data())
def test_any_numbering_of_the_columns_is_the_same_network(data):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=3, max_size=4))
    blocks = [
        data.draw(st.lists(st.sampled_from(NAMES), min_size=size, max_size=size)) for size in sizes
    ]
    weights = [[2 * (j + 1) / (size * (size + 1)) for j in range(size)] for size in sizes]
    keep = [data.draw(st.sets(st.integers(0, size - 1), min_size=1)) for size in sizes]
    orders = [data.draw(st.permutations(range(size))) for size in sizes]

    def build(orders):
        def renumber(rows):
            return [[row[j] for j in order] for row, order in zip(rows, orders, strict=True)]

        kept = [
            [new for new, old in enumerate(order) if old in row]
            for row, order in zip(keep, orders, strict=True)
        ]
        spec = AttentionSpec(init="given", weights=renumber(weights), keep=kept)
        return Architecture(renumber(blocks), num_modules=len(sizes), attention=spec)

    network = build([range(size) for size in sizes])
    assert build(orders) == network
    assert replace(network) == network


def test_weights_and_kept_blocks_go_with_their_columns():
    network = Architecture(
        (("dense", "residual", "mbconv"), ("dense", "residual"), ("residual",)),
        num_modules=3,
        attention=AttentionSpec(
            init="given",
            weights=((0.5, 0.3, 0.2), (0.9, 0.1, 0.0), (1.0,)),
            keep=((0, 1), (0,), (0,)),
        ),
    )
    assert network.blocks == (
        ("residual", "mbconv", "dense"),
        ("residual", "dense"),
        ("residual",),
    )
    assert network.attention.weights == ((0.3, 0.2, 0.5), (0.1, 0.9), (1.0,))
    assert network.attention.keep == ((0, 2), (1,), (0,))


def test_to_keep_every_block_is_to_keep_none_in_particular():
    every = AttentionSpec(keep=((0, 1, 2, 3), (3, 2, 1, 0), (0, 1, 2, 3)))
    network = Architecture(num_modules=3, attention=every)
    assert network == Architecture(num_modules=3)
    assert network.attention.keep is None


def test_trained_logits_are_found_under_any_order_of_their_blocks():
    spec = AttentionSpec(init="trained")
    shuffled = ("ada_rk", "dense", "mbconv", "residual")
    assert Architecture(shuffled, attention=spec) == Architecture(attention=spec)


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_hash_is_the_same_in_another_process(hash_seed):
    code = "from nasbench_at.config.architecture import Architecture; print(Architecture().hash)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == DEFAULT_HASH


def test_architecture_is_frozen_and_hashable(per_module):
    with pytest.raises(FrozenInstanceError):
        per_module.num_modules = 5
    assert len({per_module, replace(per_module), Architecture()}) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_modules": 2}, "num_modules must be a whole number from 3 to 1000, got 2"),
        ({"init_channels": 0}, "init_channels must be a whole number from 1 to 100000, got 0"),
        ({"widen_factor": -1}, r"widen_factor must be a number in \[1, 100\], got -1"),
        ({"num_classes": 1}, "num_classes must be a whole number from 2 to 1000000, got 1"),
        ({"input_shape": (3, 32)}, r"input_shape must be 3 whole numbers from 1 .* got \(3, 32\)"),
        ({"input_shape": (3, 0, 32)}, r"input_shape must be 3 whole .* got \(3, 0, 32\)"),
        ({"blocks": ()}, "blocks must name at least one block, got an empty set"),
        (
            {"blocks": ("residual", ("dense",)), "num_modules": 3},
            r"blocks must be a list of names or a list of lists of names, got \('residual', \(",
        ),
        (
            {"blocks": (("residual",), ("dense",)), "num_modules": 3},
            "blocks must be a set for each of 3 modules, got 2",
        ),
        (
            {"blocks": (("residual",), (), ("dense",)), "num_modules": 3},
            "module 1 has an empty block set; it needs at least one block",
        ),
        (
            {"block_options": {"resnext": {"cardinality": 4}}},
            "block with options must be one of ada_rk, dense, mbconv, residual, got 'resnext'",
        ),
        (
            {"block_copies": {"resnext": 2}},
            "block with copies must be one of ada_rk, dense, mbconv, residual, got 'resnext'",
        ),
        (
            {"block_copies": {"dense": 0}},
            "block_copies must be a mapping of names to whole numbers from 1 to 100, got ",
        ),
        ({"block_options": 5}, "block_options must be a mapping of names to mappings .* got 5"),
        ({"init_channels": 2.5}, "init_channels must be a whole number .* got 2.5"),
        ({"blocks": "residual"}, "blocks must be a list of names .* got 'residual'"),
        ({"blocks": ("",)}, r"blocks must be a list of names .* got \('',\)"),
    ],
)
def test_invalid_architecture_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "frozen"}, "mode must be one of learned, fixed, got 'frozen'"),
        ({"init": "cauchy"}, "init must be one of normal, uniform, .* got 'cauchy'"),
        ({"recipe": "ours"}, "recipe must be one of paper, authors, got 'ours'"),
        (
            {"init": "uniform", "init_options": {"std": 1.0}},
            "parameter of attention init 'uniform' must be one of scale, low, high, got 'std'",
        ),
        (
            {"init": "equal", "init_options": {"scale": 1.0}},
            "parameter of attention init 'equal' must be one of none, got 'scale'",
        ),
        ({"init": "given"}, "weights go with init 'given', .* got init 'given' and weights None"),
        (
            {"init": "normal", "weights": ((1.0,),)},
            r"weights go with init 'given', .* got init 'normal' and weights \(\(1\.0,\),\)",
        ),
        (
            {"init": "given", "weights": ((1.0, 0.0), (0.5, 0.4))},
            r"attention weights of module 1 must be at least 0 and sum to 1, got \(0\.5, 0\.4\)",
        ),
        (
            {"init": "given", "weights": ((1.5, -0.5),)},
            r"attention weights of module 0 must be at least 0 and sum to 1, got \(1\.5, -0\.5\)",
        ),
        ({"init": "given", "weights": ((),)}, "attention weights of module 0 must be at least 0"),
        ({"keep": ((-1,),)}, r"keep must be a list of lists of whole numbers .* got \(\(-1,\),\)"),
        (
            {"init_options": {"scale": -1}},
            "scale of attention init 'normal' must be a number of at least 0, got -1.0",
        ),
    ],
)
def test_invalid_attention_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttentionSpec(**arguments)


RAGGED = (("residual",), ("residual", "dense"), ("dense", "mbconv", "ada_rk"))


def given(*rows, keep=None):
    return Architecture(
        RAGGED,
        num_modules=3,
        attention=AttentionSpec(mode="fixed", init="given", weights=rows, keep=keep),
    )


def test_rows_padded_with_zeros_are_the_same_network():
    ragged = given((1.0,), (0.25, 0.75), (0.5, 0.0, 0.5))
    padded = given((1.0, 0.0, 0.0), (0.25, 0.75, 0.0), (0.5, 0.0, 0.5))
    assert padded == ragged
    assert padded.hash == ragged.hash


@pytest.mark.parametrize(
    ("rows", "keep", "message"),
    [
        (((1.0,),) * 2, None, "attention weights must have a row for each of 3 modules, got 2"),
        (
            ((1.0,), (1.0,), (1.0, 0.0, 0.0)),
            None,
            r"attention weights of module 1 must be one for each of its 2 blocks, got \(1.0,\)",
        ),
        (
            ((0.5, 0.5), (1.0, 0.0), (1.0, 0.0, 0.0)),
            None,
            r"attention weights of module 0 must be one for each of its 1 blocks, got \(0.5, 0.5\)",
        ),
        (
            ((1.0,), (1.0, 0.0), (1.0, 0.0, 0.0)),
            ((0,), (0,)),
            "attention keep must have a row for each of 3 modules, got 2",
        ),
        (
            ((1.0,), (1.0, 0.0), (1.0, 0.0, 0.0)),
            ((0,), (2,), (0,)),
            r"attention keep of module 1 must be some of its columns 0..1, got \(2,\)",
        ),
        (
            ((1.0,), (1.0, 0.0), (1.0, 0.0, 0.0)),
            ((0,), (), (0,)),
            r"attention keep of module 1 must be some of its columns 0..1, got \(\)",
        ),
        (
            ((1.0,), (1.0, 0.0), (1.0, 0.0, 0.0)),
            ((0,), (0,), (1, 2)),
            "no block of module 2 is left with a positive weight",
        ),
    ],
)
def test_rows_that_do_not_fit_the_modules_are_refused(rows, keep, message):
    with pytest.raises(ValueError, match=message):
        given(*rows, keep=keep)


def test_weights_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="weights must be a list of lists of numbers, got"):
        AttentionSpec(init="given", weights=((float("nan"), 1.0),))


def test_equal_architectures_have_equal_hashes_whatever_the_type_of_a_number():
    first, second = (
        Architecture(attention=AttentionSpec(init_options={"scale": scale})) for scale in (1, 1.0)
    )
    assert first == second
    assert first.hash == second.hash


@pytest.mark.parametrize("recipe", ["paper", "authors"])
def test_networks_are_searched_from_the_recipe_s_normal_distribution_alone(recipe):
    def is_searched(**spec):
        return Architecture(attention=AttentionSpec(recipe=recipe, **spec)).is_searched

    usual = INIT_PARAMETERS[recipe]["normal"]
    assert is_searched()
    assert is_searched(init_options=usual)
    for name in usual:
        assert not is_searched(init_options={name: 25.0})
    assert not is_searched(init="uniform")
    assert not is_searched(mode="fixed", init="equal")


@pytest.mark.parametrize("init", INIT_PARAMETERS["paper"])
def test_recipes_differ_by_the_authors_scale(init):
    paper = AttentionSpec(init=init).resolved_parameters()
    authors = AttentionSpec(init=init, recipe="authors").resolved_parameters()
    assert paper["scale"] == 1.0
    assert authors["scale"] == 1e-3
    assert set(paper) == set(authors)


def test_log_normal_has_the_mean_and_deviation_of_its_recipe():
    paper = AttentionSpec(init="log_normal").resolved_parameters()
    authors = AttentionSpec(init="log_normal", recipe="authors").resolved_parameters()
    assert (paper["mean"], paper["std"]) == (0.0, 1.0)
    assert (authors["mean"], authors["std"]) == (1.0, 2.0)


def test_overrides_win_over_the_recipe_and_leave_the_rest():
    spec = AttentionSpec(init="normal", recipe="authors", init_options={"std": 3.0})
    assert spec.resolved_parameters() == {"scale": 1e-3, "mean": 0.0, "std": 3.0}
    assert AttentionSpec(init="equal").resolved_parameters() == {}


@pytest.mark.parametrize(
    ("spec", "num_kept", "is_whole"),
    [
        (AttentionSpec(), (4, 4, 4), True),
        (AttentionSpec(keep=((0, 1),) * 3), (2, 2, 2), False),
        (AttentionSpec(keep=((0, 1), (0, 1), (2,))), (2, 2, 1), False),
        (AttentionSpec(init="given", weights=((1.0, 0.0, 0.0, 0.0),) * 3), (1, 1, 1), False),
        (
            AttentionSpec(init="given", weights=((0.5, 0.5, 0.0, 0.0),) * 3, keep=((0, 2),) * 3),
            (1, 1, 1),
            False,
        ),
    ],
)
def test_kept_blocks_are_counted(spec, num_kept, is_whole):
    network = Architecture(num_modules=3, attention=spec)
    assert (network.num_kept, network.is_whole) == (num_kept, is_whole)


def test_several_of_one_block_are_an_ensemble_only_at_fixed_and_equal_weights():
    fixed = AttentionSpec(mode="fixed", init="equal")
    assert Architecture(("dense",) * 2, attention=fixed).is_same_block
    sets = (("dense",), ("dense",) * 2, ("dense",))
    for network in (
        Architecture(("dense",) * 2),
        Architecture(("dense",), attention=fixed),
        Architecture(("dense", "residual"), attention=fixed),
        Architecture(sets, num_modules=3, attention=fixed),
    ):
        assert not network.is_same_block


def test_a_registered_network_is_known_by_its_fields_whatever_the_data_and_recipe():
    for name, network in NAMED_DS_NETS.items():
        attention = replace(network.attention, recipe="authors")
        other = replace(network, num_classes=7, input_shape=(1, 8, 8), attention=attention)
        assert other.registered_name == name
        assert replace(network, init_channels=7).registered_name is None


def test_a_configuration_describes_its_network_by_fields_or_by_name():
    fields = {"blocks": ["dense", "residual"], "num_modules": 3, "attention": "fixed"}
    network = architecture_of({"model": "ds_net", **fields}, (1, 8, 8), 5)
    assert network == Architecture(
        (("residual", "dense"),) * 3,
        num_modules=3,
        input_shape=(1, 8, 8),
        num_classes=5,
        attention=AttentionSpec(mode="fixed", init="equal"),
    )
    options = {"init_channels": 8, "attention_init": "uniform"}
    named = architecture_of({"model": "ds_net_6", "model_options": options, "recipe": "authors"})
    assert named == Architecture(
        init_channels=8,
        widen_factor=6,
        attention=AttentionSpec(init="uniform", recipe="authors"),
    )


@pytest.mark.parametrize("model", ["resnet50", "mine:factory", None])
def test_other_networks_have_no_architecture(model):
    assert architecture_of({"model": model, "blocks": ["dense"]}) is None
    assert architecture_of({}) is None
