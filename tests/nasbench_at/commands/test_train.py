"""``nasbench-at train``: seeds, dry runs, batch scripts, every method, the published formats."""

from __future__ import annotations

import errno
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nasbench_at.training.methods as methods
from nasbench_at.cli import main
from nasbench_at.config import load_config
from nasbench_at.records import read_record
from tests.nasbench_at.conftest import make_stripes, save_extra, tiny_flags
from tests.nasbench_at.data.published_formats import write_cifar10, write_svhn

ROOT = Path(__file__).resolve().parents[3]
METHODS = ("st", "at", "trades", "mart", "fat", "fat_trades", "fast_at")
NETWORK = {
    "blocks": ("residual", "mbconv"),
    "num_modules": 3,
    "init_channels": 4,
    "widen_factor": 1,
    "epochs": 1,
    "attack_steps": 1,
    "batch_size": 32,
}
PLUGIN = """
import torch.nn.functional as F
from nasbench_at.training.methods import LossAndLogits, register_method, training_attack

@register_method("cli_method")
class CliMethod:
    def __init__(self, config):
        self.attack = training_attack(config)
        self.beta = config.beta

    def start_epoch(self, epoch):
        return self

    def perturb(self, model, x, y, generator):
        return self.attack(model, x, y, generator=generator)

    def loss(self, model, x, x_adv, y):
        logits = model(x_adv)
        return LossAndLogits(self.beta * F.cross_entropy(logits, y), logits)
"""


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    """Runs land in ./runs, which must not be the checkout's."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def own_methods(monkeypatch):
    """Methods that a test registers end with it."""
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("_block_plugin_"):
            del sys.modules[name]


def words(*more, **changes):
    return ["train", "--device", "cpu", *tiny_flags(**changes), *more]


def published(data, root, *more):
    return ["train", *words(**NETWORK | {"data": data})[1:], "--data-root", str(root), *more]


def refused(arguments, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert not Path("runs").exists()
    return err


def history(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# --- seeds


def test_seeds_are_all_trained_and_their_mean_and_deviation_printed(capsys):
    assert main(words("--seeds", "3", "1", epochs=1, attack_steps=1)) == 0
    records = {int(path.name[-1]): path for path in Path("runs").iterdir()}
    assert set(records) == {1, 3}
    assert len({path.name[:-3] for path in records.values()}) == 1
    lines = capsys.readouterr().out.splitlines()
    for name, line in zip(("natural", "robust"), lines[-2:], strict=True):
        values = [
            read_record(path / "record.json").training["selected"][f"validation_{name}"]
            for path in records.values()
        ]
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        expected = f"validation {name} accuracy over 2 seeds: {mean:.2%} ± {deviation:.2%}"
        assert line == expected


# --- what is said before training


@pytest.mark.parametrize("data", ["own.npz", "striped_data:load"])
def test_radius_that_nobody_chose_is_told_of_ones_own_data(data, capsys, monkeypatch):
    parts = [tensor.numpy() for tensor in make_stripes()[:4]]
    np.savez("own.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), parts, strict=True)))
    Path("striped_data.py").write_text(
        "import numpy\n\ndef load():\n    return numpy.load('own.npz')\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    line = "nasbench-at: warning: eps is 0.031, the recipe's for CIFAR-10: --eps sets the radius "
    line += f"that suits {data!r}\n"
    few = {"epochs": 1, "attack_steps": 1}
    assert main(words(data=data, **few)) == 0
    assert capsys.readouterr().err.count(line) == 1
    assert main(words("--eps", "0.03", data=data, **few)) == 0
    assert main(words(**few)) == 0
    assert "eps is" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "is_told"),
    [
        ([], True),
        (["--select-on", "last"], False),
        (["--select-on", "test"], False),
        (["--validation-fraction", "0.63"], False),
        (["--validation-fraction", "0.61"], True),
    ],
)
def test_selection_on_few_images_is_told_before_training(more, is_told, capsys):
    few = {"epochs": 1, "attack_steps": 1, "batch_size": 32}
    assert main(words(*more, **few)) == 0
    number = "98" if more else "16"
    line = (
        f"nasbench-at: warning: the best epoch is selected on {number} held-out images, which is "
        "noisy: --validation-fraction holds out more, --select-on last takes the last epoch"
    )
    first = capsys.readouterr().err.splitlines()[0]
    assert (first == line) is is_told
    assert main(words(*more, **few)) == 0  # what is finished is not selected again
    assert capsys.readouterr().err == ""


# --- dry runs and batch scripts


def test_dry_run_writes_nothing_and_prints_what_the_run_would_cost(capsys, tmp_path):
    assert main(words("--dry-run")) == 0
    out = capsys.readouterr().out
    assert re.search(r"^[\d,]+ parameters, 144 training images, 3 steps an epoch$", out, re.M)
    assert re.search(r"^\d+\.\d{3} s a step, about \d+\.\d\d h of training", out, re.M)
    assert re.search(r"^peak memory [\d,]+ MiB$", out, re.M)
    fastest = r"^--precision (\w+) is the fastest here \(\d+\.\d{3} s a step; (\w+) takes "
    (names,) = re.findall(fastest + r"[1-9]\d*\.\d\d times as long\)$", out, re.M)
    assert set(names) == {"fp32", "bf16"}
    assert list(tmp_path.iterdir()) == []


def test_dry_run_finds_bad_input(capsys):
    err = refused(words("--dry-run", batch_size=145), capsys)
    assert "batch_size must be at most the number of training images, 144, got 145" in err


def test_batch_script_runs_the_command_it_was_asked_with(capsys, tmp_path):
    asked = words("--config", "my run.yaml")
    (tmp_path / "my run.yaml").write_text("lr: 0.05\n")
    assert main([*asked, "--print-sbatch"]) == 0
    script = capsys.readouterr().out
    assert "-m nasbench_at train --device cpu" in script
    assert "--config 'my run.yaml'" in script
    assert "--print-sbatch" not in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, timeout=60).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["my run.yaml"]


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (words("--beta", "6"), "beta goes with method fat_trades or mart or trades, got it with"),
        (words("--method", "st", "--tau-milestones", "3"), "tau_milestones goes with method fat"),
        (words(batch_size=145), "batch_size must be at most the number of training images, 144"),
        (words("--optimizer-impl", "apex"), "NVIDIA apex is not on PyPI: build it from"),
        (words("--awp-gamma", "0.01", "--accumulation-steps", "2"), "awp_gamma needs a batch in"),
        (words("--ema-decay", "1"), "ema_decay must be a number in [0, 1), got 1"),
        (published("cifar10", "nowhere"), "nowhere"),
        (published("svhn", "nowhere"), "nowhere"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, capsys):
    assert message in refused(arguments, capsys)


# --- methods


def test_method_of_a_plugin_is_trained_with_the_beta_it_reads(own_methods, capsys):
    Path("mine.py").write_text(PLUGIN)
    more = ["--plugins", "mine.py", "--method", "cli_method", "--beta", "0.5"]
    assert main(words(*more, epochs=1)) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert folder.name.startswith("stripes-cli_method-")
    assert load_config(folder / "config.yaml").beta == 0.5
    assert read_record(folder / "record.json").training["epochs"] == 1


@pytest.mark.parametrize("method", METHODS)
def test_method_trains_stripes_to_its_end(method, capsys):
    assert main(words("--method", method, epochs=1, attack_steps=1)) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert len(history(folder)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_method_learns_digits_in_three_epochs(method, capsys):
    network = ["--num-modules", "3", "--init-channels", "8", "--widen-factor", "2"]
    more = ["--data", "digits", "--method", method, "--epochs", "3", "--device", "cpu"]
    assert main(["train", *network, *more]) == 0
    folder = capsys.readouterr().out.splitlines()[-1]
    assert main(["evaluate", folder, "--attacks", "fgsm", "--device", "cpu"]) == 0
    assert read_record(Path(folder) / "record.json").accuracy("natural") > 0.6


# --- data in the formats they are published in


def test_cifar10_files_are_trained_on_end_to_end(tmp_path, capsys):
    write_cifar10(tmp_path / "data")
    assert main(published("cifar10", "data", "--method", "trades", "--recipe", "authors")) == 0
    out = capsys.readouterr().out
    folder = Path(out.splitlines()[-1])
    record = read_record(folder / "record.json")
    # As the authors' code does: all training images, selection on the test images.
    assert record.training["num_train"] == 100
    assert f"{record.training['selected']['num_samples']} test images" in out
    words = ["evaluate", str(folder), "--attacks", "fgsm", "--device", "cpu"]
    assert main([*words, "--data-root", "data"]) == 0
    assert "selected on the test images" in capsys.readouterr().out
    config = load_config(folder / "config.yaml")
    assert (config.augment, config.beta, config.attack_noise) == (True, 6.0, 0.001)


def test_run_with_extra_data_is_evaluated_when_their_file_is_gone(tmp_path, capsys):
    path = Path(save_extra(tmp_path / "extra.npz"))
    words = tiny_flags(**NETWORK, extra_data=path, extra_fraction=0.5)
    assert main(["train", *words, "--device", "cpu"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    config = load_config(folder / "config.yaml")
    assert (config.extra_data, config.extra_fraction) == (str(path), 0.5)
    path.unlink()
    assert main(["evaluate", str(folder), "--attacks", "fgsm", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["train", *words]) == 2
    assert capsys.readouterr().err == f"nasbench-at: data file {str(path)!r} does not exist\n"


def test_svhn_files_are_trained_on_end_to_end(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    write_svhn(tmp_path / "data")
    assert (
        main(
            published(
                "svhn",
                "data",
                "--batch-size",
                "16",
                "--select-on",
                "validation",
                "--recipe",
                "authors",
            )
        )
        == 0
    )
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    record = read_record(folder / "record.json")
    assert record.training["num_train"] + record.training["selected"]["num_samples"] == 40
    assert load_config(folder / "config.yaml").step_size == 0.0031


# --- a full disk


def test_full_disk_is_one_line_that_names_the_file(monkeypatch, capsys):
    real = os.fsync

    def fail_late(handle):
        if list(Path("runs").glob("*/metrics.jsonl")):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fail_late)
    assert main(["train", *tiny_flags(epochs=1), "--device", "cpu"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"No space left on device: 'runs/stripes-at-.*/best.safetensors'$", last)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_output_is_named():
    words = [sys.executable, "-m", "nasbench_at", "--version"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            words, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT
        )
    assert done.returncode == 1
    assert done.stderr == "nasbench-at: [Errno 28] No space left on device: standard output\n"
