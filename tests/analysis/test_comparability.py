from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from analysis.comparability import (
    NAMED_KEYS,
    check_one_number,
    check_trained_alike,
    identity_without,
)
from analysis.errors import IncomparableRunsError
from nasbench_at.records import Record
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


def with_plugin(path: Path, text: str, *, seed: int = 0, blocks: tuple[str, ...]) -> Record:
    """A run with a plugin that held this when it was trained."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return make_run(blocks=blocks, plugins=(str(path),), seed=seed, **DEPTH)


def test_plugins_make_a_difference_only_to_networks_that_share_a_block_of_them(tmp_path):
    def mine(name: str, text: str, *blocks: str) -> Record:
        return with_plugin(tmp_path / name, text, blocks=blocks)

    first = mine("mine.py", "x = 1", "mine")
    alike = [
        make_run(model="resnet18"),
        make_run(blocks=("residual",), **DEPTH),
        first,
        mine("moved/mine.py", "x = 1", "mine", "residual"),
        mine("other.py", "x = 2", "other", "residual"),
    ]
    for runs in (alike, alike[::-1]):
        check_trained_alike(runs, NAMED_KEYS, "Table 0")
    edited = mine("mine.py", "x = 2", "mine", "dense")
    message = r"plugins of mine is '.*mine.py' \(whose SHA-256 begins with \w+\) in run .* and "
    with pytest.raises(IncomparableRunsError, match=message):
        check_trained_alike([first, edited], NAMED_KEYS, "Table 0")


def test_seeds_of_a_plugin_that_was_edited_in_between_are_no_number(tmp_path):
    first, same, edited = (
        with_plugin(tmp_path / folder / "mine.py", text, seed=seed, blocks=("mine",))
        for seed, (folder, text) in enumerate([("a", "x = 1"), ("b", "x = 1"), ("a", "x = 2")])
    )
    check_one_number([first, same])
    digests = [next(iter(run.config["contents"].values())) for run in (first, edited)]
    path = tmp_path / "a" / "mine.py"
    one, other = (f"'{path}' (whose SHA-256 begins with {digest})" for digest in digests)
    with pytest.raises(IncomparableRunsError) as error:
        check_one_number([first, edited])
    assert f"but plugins is {one} and {other}; choose" in str(error.value)


def test_moved_data_are_no_other_training_and_edited_data_are(tmp_path):
    def run(folder: str, digest: str) -> Record:
        data = f"{folder}/mine.npz"
        config = {**make_record().config, "data": data, "contents": {data: digest}}
        return replace(make_record(), config=config)

    check_trained_alike([run("here", "d1"), run("there", "d1")], NAMED_KEYS, "Table 0")
    message = "data is 'here/mine.npz' .*begins with d1.* and 'here/mine.npz' .*begins with d2"
    with pytest.raises(IncomparableRunsError, match=message):
        check_trained_alike([run("here", "d1"), run("here", "d2")], NAMED_KEYS, "Table 0")
