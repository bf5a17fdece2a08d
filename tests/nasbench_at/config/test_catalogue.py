from __future__ import annotations

import subprocess
import sys

import pytest

import blocks.plugins
from nasbench_at.config import RunConfig
from nasbench_at.config import catalogue as module
from nasbench_at.config.catalogue import (
    ENTRY_POINT_GROUP,
    catalogue,
    check_data_name,
    check_names,
    check_network_names,
    is_complete,
)
from nasbench_at.evaluation.model_costs import measure_model
from nasbench_at.evaluation.registries import catalogue_json, describe_registries

ANSWERS = """
import sys
from nasbench_at.cli import main
codes = [main(words.split()) for words in sys.argv[1:]]
print(codes, "torch" in sys.modules)
"""


@pytest.fixture
def alone(monkeypatch):
    """As in a process that has not loaded torch."""
    monkeypatch.setattr(module, "is_complete", lambda plugins=(): not plugins)


def test_catalogue_is_what_the_registries_hold():
    written = "python -m nasbench_at.evaluation.registries writes the file anew"
    found, stored = describe_registries(catalogue()), catalogue()
    assert found == stored, written
    for part in ("blocks", "models", "families"):
        assert list(getattr(found, part)) == list(getattr(stored, part)), written
    assert module.CATALOGUE_FILE.read_text("utf-8") == catalogue_json(found)


@pytest.mark.parametrize("name", [name for name in catalogue().models if "tiny" in name])
def test_costs_are_those_measured(name):
    assert catalogue().models[name] == measure_model(name)


@pytest.mark.slow
def test_all_costs_are_those_measured():
    assert describe_registries() == catalogue()


def test_entry_points_are_those_that_are_loaded():
    assert blocks.plugins.ENTRY_POINT_GROUP == ENTRY_POINT_GROUP


def test_names_are_left_to_the_registries_once_torch_is_loaded_or_with_plugins(monkeypatch):
    assert not is_complete()
    monkeypatch.delitem(sys.modules, "torch")
    assert is_complete()
    assert not is_complete(("mine.py",))
    monkeypatch.setattr(module, "entry_points", lambda group: [group])
    assert not is_complete()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"blocks": ("residul",)},
            r"unknown block 'residul'; did you mean 'residual'\? known: res.*--plugins FILE$",
        ),
        ({"blocks": (("dense",), ("dens",), ("dense",)), "num_modules": 3}, "unknown block 'dens'"),
        (
            {"model": "resne18"},
            r"unknown model 'resne18'; did you mean .*known: ds_net_4, .*wrn_D_W",
        ),
        (
            {"data": "digts"},
            r"unknown data set 'digts'; did you mean 'digits'\? .*'module:function'",
        ),
        ({"data": "no/such.npz"}, "data file 'no/such.npz' does not exist"),
    ],
)
def test_unknown_names_are_refused_as_the_registries_would(alone, changes, message):
    with pytest.raises(ValueError, match=message):
        check_names(RunConfig(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"blocks": ("mine",), "plugins": ("mine.py",)},
        {"model": "wrn_16_4"},
        {"model": "resnet18", "data": "module:function"},
    ],
)
def test_names_that_can_be_known_pass(alone, changes):
    check_names(RunConfig(**changes))


def test_models_and_data_of_the_user_are_not_looked_at(alone):
    check_network_names("module:factory")
    check_network_names("my_model.py:factory")
    with pytest.raises(
        ValueError, match=r"must be written my_model\.py:factory, got 'my_model\.py'"
    ):
        check_network_names("my_model.py")
    check_data_name("module:function")


def test_patterns_stand_for_networks_in_order():
    find = catalogue().find_models
    assert find(["tiny_w*", "wrn_16_4", "tiny_wrn"]) == ["tiny_wrn", "wrn_16_4"]
    assert find(["*"]) == list(catalogue().models)
    with pytest.raises(ValueError, match=r"unknown model 'wrn_16_\*'; did you mean"):
        find(["wrn_16_*"])


def test_commands_answer_without_torch(tmp_path):
    words = [
        "blocks",
        "blocks dense",
        "models",
        "models wrn_*",
        "blocks residul",
        "models resne18",
        "graph --blocks residul",
        "train --blocks residul",
        "train --data digts --dry-run",
        "train --model resne18",
        "evaluate runs/nope",
        "evaluate --model resne18 --data digits --eps 0.1",
        "evaluate --model resnet18 --data digts --eps 0.1",
    ]
    done = subprocess.run(
        [sys.executable, "-c", ANSWERS, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == f"{[0] * 4 + [2] * 9} False", done.stderr
    assert "unknown block 'residul'; did you mean 'residual'?" in done.stderr
    assert "'runs/nope' is no run folder" in done.stderr
    assert len(done.stderr.splitlines()) == 9


def test_file_of_extra_data_must_be_there(tmp_path):
    (tmp_path / "extra.npz").touch()
    check_names(RunConfig(extra_data=str(tmp_path / "extra.npz")))
    with pytest.raises(ValueError, match=r"^data file 'none\.npz' does not exist$"):
        check_names(RunConfig(extra_data="none.npz"))
