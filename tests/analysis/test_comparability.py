from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from analysis.comparability import NAMED_KEYS, check_trained_alike, identity_without
from analysis.errors import IncomparableRunsError
from tests.analysis.synthetic import DEPTH, make_run
from tests.nasbench_at.records.test_records import make_record


def test_moved_files_are_the_same_configuration_and_edited_ones_another():
    texts = []
    for folder, digest in (("here", "d1"), ("there", "d1"), ("here", "d2")):
        data = f"{folder}/mine.npz"
        config = {**make_record().config, "data": data, "contents": {data: digest}}
        texts.append(identity_without(replace(make_record(), config=config), ("seed",)))
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [("block_options", {"growth": 4}, {"growth": 8}), ("block_copies", 2, 3)],
)
def test_what_a_block_is_must_agree_between_all_networks_that_have_it_in_any_order(key, one, other):
    without = make_run(blocks=("residual",), **DEPTH)
    first = make_run(blocks=("dense",), **DEPTH, **{key: {"dense": one}})
    second = make_run(blocks=("dense", "mbconv"), **DEPTH, **{key: {"dense": other}})
    message = f"Table 0 compares runs that were trained alike, but {key} of dense is "
    for runs in permutations([without, first, second]):
        with pytest.raises(IncomparableRunsError, match=message):
            check_trained_alike(runs, NAMED_KEYS, "Table 0")
    for runs in permutations([without, first, replace(first, run_id="again")]):
        check_trained_alike(runs, NAMED_KEYS, "Table 0")


def test_networks_by_name_and_ds_nets_are_trained_alike():
    runs = [make_run(block_options={"dense": {"growth": 4}}), make_run(model="resnet50")]
    for each in permutations(runs):
        check_trained_alike(each, NAMED_KEYS, "Table 0")
