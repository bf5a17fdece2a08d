from __future__ import annotations

import copy
import pickle
import sys

import pytest
import torch

import blocks.plugins
from blocks import create_block, list_blocks, load_entry_points, load_plugin, register_block
from blocks.testing import check_block

PLUGIN = """
from torch import nn
from blocks import register_block

@register_block("my_block", summary="one convolution", reference="ours", kind="handcrafted")
class MyBlock(nn.Conv2d):
    def __init__(self, channels, *, bias=True):
        super().__init__(channels, channels, 3, padding=1, bias=bias)
"""


@pytest.fixture(autouse=True)
def _forget_plugins(own_registry):
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("_block_plugin_"):
            del sys.modules[name]


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "my_blocks.py"
    path.write_text(PLUGIN)
    return path


@pytest.mark.parametrize("as_type", [str, lambda path: path], ids=["str", "Path"])
def test_plugin_file_registers_its_blocks(plugin, as_type):
    load_plugin(as_type(plugin))
    assert list_blocks()[-1] == "my_block"
    check_block("my_block", bias=False)


def test_plugin_is_run_once_however_it_is_named(plugin, monkeypatch):
    assert load_plugin(plugin)
    monkeypatch.chdir(plugin.parent)
    assert not load_plugin("my_blocks.py")
    assert list_blocks().count("my_block") == 1


def test_plugins_of_one_name_in_two_folders_are_both_run(plugin, tmp_path):
    other = tmp_path / "other" / plugin.name
    other.parent.mkdir()
    other.write_text(PLUGIN.replace("my_block", "other_block"))
    load_plugin(plugin)
    load_plugin(other)
    assert list_blocks()[-2:] == ("my_block", "other_block")


def test_plugin_block_can_be_pickled_and_copied(plugin):
    load_plugin(plugin)
    block = create_block("my_block", 3)
    x = torch.rand(1, 3, 4, 4)
    for twin in (pickle.loads(pickle.dumps(block)), copy.deepcopy(block)):
        assert torch.equal(twin(x), block(x))


@pytest.mark.parametrize("name", ["missing.py", "notes.txt", "folder.py"])
def test_plugin_must_be_an_existing_python_file(tmp_path, name):
    (tmp_path / "notes.txt").write_text(PLUGIN)
    (tmp_path / "folder.py").mkdir()
    message = f"a plugin must be an existing .py file, got '.*{name}'"
    with pytest.raises(ValueError, match=message):
        load_plugin(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise KeyError('gone')", "'gone'"),
        ("def (", "invalid syntax"),
        (PLUGIN.replace("my_block", "residual"), "block 'residual' is registered already"),
    ],
    ids=["error", "syntax", "taken-name"],
)
def test_failing_plugin_is_named_with_its_cause_and_forgotten(plugin, text, message):
    plugin.write_text(text)
    with pytest.raises(ValueError, match=f"plugin '.*my_blocks.py' failed: .*{message}") as caught:
        load_plugin(plugin)
    assert caught.value.__cause__ is not None
    plugin.write_text(PLUGIN + "\n# mended")
    load_plugin(plugin)
    assert "my_block" in list_blocks()


def test_entry_points_of_the_group_are_loaded(monkeypatch):
    class EntryPoint:
        def load(self):
            register_block("packaged", summary="a", reference="b", kind="ode")(
                lambda channels: torch.nn.Identity()
            )

    groups = []
    monkeypatch.setattr(
        blocks.plugins, "entry_points", lambda group: groups.append(group) or [EntryPoint()]
    )
    load_entry_points()
    assert groups == ["nasbench_at.blocks"]
    assert list_blocks()[-1] == "packaged"
