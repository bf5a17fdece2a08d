from __future__ import annotations

import hashlib
import os
import shutil
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

import nasbench_at.config.contents
import nasbench_at.data.registry
from nasbench_at import RunConfig, train
from nasbench_at.cli import main
from nasbench_at.config import dump_config, resolve
from nasbench_at.config.contents import check_contents, hash_contents, import_function
from nasbench_at.data import load_data
from nasbench_at.evaluation.run_evaluation import evaluate_run
from nasbench_at.records import read_record
from nasbench_at.records.run_folders import create_run_folder, open_run_folder
from nasbench_at.training.launch import prepare_training
from tests.conftest import forget_plugins
from tests.nasbench_at.conftest import make_stripes, one_line, save_extra, tiny_config, tiny_flags

PLUGIN = """
from torch import nn
from blocks import register_block

@register_block("contents_block", summary="a", reference="b", kind="handcrafted")
class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(x.relu() + x)
"""
DATA = "def load():\n    return {}\n"


@pytest.fixture
def plugin(tmp_path, own_registry):
    """A plugin's file; it is forgotten in the end."""
    path = tmp_path / "contents_plugin.py"
    path.write_text(PLUGIN)
    yield path
    forget_plugins()


@pytest.fixture
def archive(tmp_path):
    """A data set's file."""
    path = tmp_path / "mine.npz"
    save_stripes(path)
    return path


def save_stripes(path, brightness=0):
    raw = make_stripes()
    names = ("x_train", "y_train", "x_test", "y_test")
    content = {name: tensor.numpy() for name, tensor in zip(names, raw[:4], strict=True)}
    content["x_train"] = content["x_train"] + np.uint8(brightness)
    np.savez(path, **content)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module of the user's in the current folder, new to each test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"contents_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(DATA)
    yield name
    sys.modules.pop(name, None)


def plugin_config(plugin, **changes):
    return tiny_config(blocks=("contents_block",), plugins=(str(plugin),), epochs=1, **changes)


def edit(path):
    """Another forward with as many letters."""
    path.write_text(path.read_text().replace("+ x", "- x"))


# --- hashes


def test_files_and_modules_are_hashed_and_other_names_left_out(plugin, archive, module):
    names = [str(plugin), str(archive), f"{module}:load", "digits", "none.npz", "no_module:load"]
    found = hash_contents(names)
    assert list(found) == names[:3]
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in found.values())
    assert len(set(found.values())) == 3


def test_hash_is_that_of_the_content(plugin, tmp_path):
    twin = tmp_path / "twin.py"
    twin.write_text(PLUGIN)
    first, second = hash_contents([str(plugin), str(twin)]).values()
    assert first == second == hashlib.sha256(PLUGIN.encode()).hexdigest()[:16]
    edit(twin)
    assert hash_contents([str(twin)]) != {str(twin): first}


def test_large_file_is_read_once_until_it_changes(archive, monkeypatch):
    monkeypatch.setattr(nasbench_at.config.contents, "_LARGE", 1)
    real, calls = nasbench_at.config.contents._hash_file, []
    monkeypatch.setattr(
        nasbench_at.config.contents, "_hash_file", lambda path: calls.append(path) or real(path)
    )
    before = hash_contents([str(archive)])
    assert hash_contents([str(archive)]) == before
    assert len(calls) == 1
    save_stripes(archive, brightness=1)
    os.utime(archive, ns=(1, 1))
    assert hash_contents([str(archive)]) != before


def test_changed_file_is_named(plugin):
    contents = hash_contents([str(plugin)])
    check_contents(contents)
    edit(plugin)
    message = "has changed since the run was made: its SHA-256 began with .*, now with "
    with pytest.raises(ValueError, match=message) as error:
        check_contents(contents)
    line = one_line(error)
    assert str(plugin) in line
    assert contents[str(plugin)] in line
    plugin.unlink()
    check_contents(contents)  # whoever loads it says that it is gone


def test_module_that_changed_since_it_was_imported_is_refused(module, tmp_path):
    assert import_function(f"{module}:load")() == {}
    (tmp_path / f"{module}.py").write_text(DATA.replace("{}", "[]"))
    with pytest.raises(ValueError, match=r"has changed since this process imported it"):
        import_function(f"{module}:load")


def test_function_of_a_file_is_imported_from_anywhere_and_is_no_other_module(tmp_path, module):
    folder = tmp_path / "else where"
    folder.mkdir()
    # Its own name is that of a module of the standard library.
    (folder / "code.py").write_text(
        f"from {module}_beside import found\ndef load():\n    return found"
    )
    (folder / f"{module}_beside.py").write_text("found = {}")
    for spec in (f"{folder}/code.py:load", "else where/code.py:load"):
        assert import_function(spec)() == {}
        assert hash_contents([spec])[spec] == hash_contents([str(folder / "code.py")]).popitem()[1]
    assert import_function(spec) is import_function(f"{folder}/code.py:load")
    (folder / "code.py").write_text(DATA)
    with pytest.raises(ValueError, match=r"has changed since this process imported it"):
        import_function(spec)


def test_function_of_a_file_is_the_same_run_as_the_module_s(module):
    one, other = (tiny_config(data=spec) for spec in (f"{module}:load", f"{module}.py:load"))
    assert resolve(one).identity() == resolve(other).identity()


def test_file_that_fails_is_run_again_once_mended(tmp_path, module):
    path = tmp_path / "mended.py"
    for text, message in (("1 / 0", "failed: ZeroDivisionError"), (DATA, "x_train")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_data(f"{path}:load")
    with pytest.raises(ValueError, match=r"failed: FileNotFoundError: .*none\.py"):
        load_data(f"{tmp_path}/none.py:load")


def test_damaged_package_is_left_to_the_import(tmp_path, module):
    package = tmp_path / f"{module}_package"
    package.mkdir()
    (package / "__init__.py").write_text("1 / 0")
    assert hash_contents([f"{package.name}.part:load"]) == {}
    with pytest.raises(ValueError, match="failed: ZeroDivisionError"):
        load_data(f"{package.name}.part:load")


# --- identity of a run


def test_contents_are_filled_in_and_kept_in_the_file(plugin, archive, tmp_path):
    config = resolve(plugin_config(plugin, data=str(archive)))
    assert set(config.contents) == {str(plugin), str(archive)}
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert open_run_folder(tmp_path).config == config


@pytest.mark.parametrize("what", ["plugin", "archive", "module"])
def test_run_with_another_file_is_another_run(what, plugin, archive, module, tmp_path):
    def config():
        data = f"{module}:load" if what == "module" else str(archive)
        return resolve(plugin_config(plugin, data=data))

    before = config()
    assert config() == before
    match what:
        case "plugin":
            edit(plugin)
        case "archive":
            save_stripes(archive, brightness=1)
        case "module":
            (tmp_path / f"{module}.py").write_text(DATA.replace("{}", "[]"))
    assert config().run_id != before.run_id


def test_run_with_other_extra_data_is_another_run_and_moved_ones_are_the_same(tmp_path):
    paths = [
        save_extra(tmp_path / f"{i}.npz", brightness=brightness)
        for i, brightness in enumerate((5, 5, 6))
    ]
    one, moved, other = (resolve(tiny_config(extra_data=path)) for path in paths)
    assert list(one.contents) == [paths[0]]
    assert one.run_id == moved.run_id != other.run_id


def test_functions_of_one_module_are_two_runs(module):
    first, second = (
        resolve(RunConfig(data=f"{module}:{function}")).run_id.split("-")[-2]
        for function in ("load", "other")
    )
    assert first != second


def test_moved_files_are_the_same_run_which_is_told_where_they_are(plugin, archive, tmp_path):
    before = resolve(plugin_config(plugin, data=str(archive)))
    folder = create_run_folder(tmp_path / "runs", before)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    paths = [path.rename(elsewhere / path.name) for path in (plugin, archive)]
    after = resolve(plugin_config(paths[0], data=str(paths[1])))
    assert after.run_id == before.run_id
    assert after != before
    assert create_run_folder(tmp_path / "runs", after).path == folder.path
    assert open_run_folder(folder.path).config == after


def test_stored_configuration_whose_file_changed_is_another_run_and_says_so(plugin):
    stored = resolve(plugin_config(plugin))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve(stored) == stored
    edit(plugin)
    with pytest.warns(UserWarning, match=r"changed since the configuration was written") as told:
        again = resolve(stored)
    (warning,) = told
    assert str(plugin) in str(warning.message)
    assert again.run_id != stored.run_id
    assert again == resolve(plugin_config(plugin))


def test_contents_of_files_that_a_flag_replaced_are_forgotten(plugin, tmp_path):
    stored = resolve(plugin_config(plugin))
    other = tmp_path / "other_plugin.py"
    other.write_text(PLUGIN)
    edit(plugin)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replaced = resolve(replace(stored, plugins=(str(other),)))
    assert set(replaced.contents) == {str(other)}


# --- runs


def test_edited_plugin_is_trained_anew(plugin, own_registry, tmp_path):
    words = ["train", *tiny_flags(blocks=("contents_block",), epochs=1), "--device", "cpu"]
    words += ["--plugins", str(plugin), "--runs-dir", str(tmp_path / "runs")]
    assert main(words) == 0
    edit(plugin)
    forget_plugins()
    del own_registry["contents_block"]
    assert main(words) == 0
    losses = {path.read_text() for path in (tmp_path / "runs").glob("*/metrics.jsonl")}
    assert len(losses) == 2


def test_edited_plugin_is_refused_by_the_process_that_loaded_it(plugin, tmp_path):
    prepare_training(plugin_config(plugin), runs_dir=tmp_path / "runs", device="cpu")
    edit(plugin)
    message = r"plugin '.*' has changed since this process loaded it; start a new process"
    with pytest.raises(ValueError, match=message):
        prepare_training(plugin_config(plugin), runs_dir=tmp_path / "other", device="cpu")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("what", ["plugin", "archive"])
def test_run_is_not_evaluated_with_another_file(what, plugin, archive, tmp_path):
    config = resolve(plugin_config(plugin, data=str(archive)))
    train(config, runs_dir=tmp_path / "runs", device="cpu")
    folder = tmp_path / "runs" / config.run_id
    before = (folder / "record.json").read_bytes()
    if what == "plugin":
        edit(plugin)
    else:
        save_stripes(archive, brightness=1)
    with pytest.raises(ValueError, match="has changed since the run was made") as error:
        evaluate_run(folder, ("fgsm",), device="cpu")
    assert str({"plugin": plugin, "archive": archive}[what]) in one_line(error)
    assert (folder / "record.json").read_bytes() == before


def test_run_is_not_resumed_or_evaluated_on_other_data_of_the_same_name(run, monkeypatch):
    raw = make_stripes()
    other = raw._replace(train_images=raw.train_images + 1)
    monkeypatch.setitem(nasbench_at.data.registry._LOADERS, "stripes", lambda: other)
    message = r"was trained on other data than 'stripes' holds now: fingerprint \w+ there, \w+ here"
    with pytest.raises(ValueError, match=message) as error:
        evaluate_run(run, ("fgsm",), device="cpu")
    one_line(error)
    message = r"checkpoint '.*last.pt' is of a run on other data than 'stripes' holds now"
    with pytest.raises(ValueError, match=message) as error:
        train(tiny_config(), runs_dir=run.parent, device="cpu")
    one_line(error)


def test_contents_are_no_flag(capsys):
    assert main(["train", "--help"]) == 0
    assert "--contents" not in capsys.readouterr().out
    assert main(["train", "--contents", "a=b"]) == 2
    assert "--contents" in capsys.readouterr().err


def test_file_of_flags_that_stands_for_another_run_says_so(plugin, tmp_path, capsys):
    config = resolve(plugin_config(plugin))
    folder = create_run_folder(tmp_path / "runs", config)
    edit(plugin)
    words = ["--config", str(folder.path / "config.yaml"), "--runs-dir", str(tmp_path / "runs")]
    assert main(["train", *words, "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    warning = f"warning: {str(plugin)!r} changed since the configuration was written"
    assert captured.err.count(warning) == 1
    assert captured.out.splitlines()[-1] != str(folder.path)


def test_record_holds_what_the_run_was_made_with(plugin, tmp_path):
    config = resolve(plugin_config(plugin))
    train(config, runs_dir=tmp_path / "runs", device="cpu")
    record = read_record(tmp_path / "runs" / config.run_id / "record.json")
    assert record.config["contents"] == hash_contents([str(plugin)])


# --- models of the user's


MODEL = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 4)
        nn.init.constant_(self.linear.weight, 0.1)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x):
        return self.linear(x.flatten(1)) + 1
"""


def test_model_with_another_forward_has_another_record(module, tmp_path, capsys):
    path = tmp_path / f"{module}.py"
    words = ["evaluate", "--model", f"{module}:Net", "--data", "stripes", "--attacks", "fgsm"]
    folders = []
    for text in (MODEL, MODEL.replace("+ 1", "- 1")):
        path.write_text(text)
        nasbench_at.config.contents._IMPORTED.pop(module, None)
        sys.modules.pop(module, None)  # stands for another process
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        assert main([*words, "--eps", "0.1", "--device", "cpu"]) == 0
        record = read_record(capsys.readouterr().out.splitlines()[-1])
        assert record.config["contents"] == hash_contents([f"{module}:Net"])
        folders.append(record.run_id)
    assert len(set(folders)) == 2
