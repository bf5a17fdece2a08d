"""Networks by name through the command line: models, train, evaluate."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasbench_at.cli import main
from nasbench_at.config import RunConfig, load_config
from nasbench_at.networks.zoo import list_models
from nasbench_at.records import Benchmark, read_record
from tests.nasbench_at.conftest import one_line

WORDS = [
    *("--data", "stripes", "--epochs", "1", "--attack-steps", "1", "--batch-size", "64"),
    *("--device", "cpu"),
]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def complaint(words, capsys):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


# --- models


def test_table_tells_parameters_and_references(capsys):
    assert main(["models", "resnet50", "wrn_16_*"]) == 2  # no such family member is registered
    assert main(["models", "resnet50", "wrn_16_2"]) == 0
    out = capsys.readouterr().out
    assert "23,520,842" in out
    assert "He et al., CVPR 2016" in out
    assert "wrn_16_2" in out
    assert "attack step" not in out


def test_attack_steps_are_timed_on_request(capsys):
    words = ["--time", "--device", "cpu", "--input-shape", "1", "8", "8"]
    assert main(["models", "tiny_resnet", *words]) == 0
    assert "attack step" in capsys.readouterr().out


def test_unknown_network_is_bad_input(capsys):
    assert "unknown model 'resne50'; did you mean 'resnet50'" in complaint(
        ["models", "resne50"], capsys
    )


# --- train and evaluate


def test_network_by_name_is_trained_resumed_and_evaluated(capsys):
    words = ["train", "--model", "tiny_densenet", *WORDS]
    assert main(words) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert load_config(folder / "config.yaml").model == "tiny_densenet"
    assert main(words) == 0  # finished: reports
    assert main(["evaluate", str(folder), "--attacks", "fgsm", "--device", "cpu"]) == 0
    record = read_record(folder / "record.json")
    assert record.architecture == "tiny_densenet(4,1x8x8)"
    assert record.num_params < 300_000
    assert record.results["fgsm"].num_samples == 24
    frame = Benchmark.load("runs").query(model="tiny_densenet").to_frame()
    assert len(frame) == 1


def test_options_reach_the_network_and_the_record(capsys):
    words = ["train", "--model", "robnet", *WORDS, "--model-options", "channels=4", "num_cells=3"]
    assert main(words) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    record = read_record(folder / "record.json")
    assert record.architecture == "robnet(4,1x8x8,channels=4,num_cells=3)"
    assert record.config["model_options"] == {"channels": 4, "num_cells": 3}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "tiny_resne"], "unknown model 'tiny_resne'; did you mean 'tiny_resnet'"),
        (
            ["--model", "tiny_resnet", "--blocks", "dense"],
            "blocks goes with model ds_net, got it with 'tiny_resnet'",
        ),
        (["--model-options", "depth=3"], "model_options go with a network by name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_train_refuses_what_does_not_go_together(words, message, capsys):
    assert message in complaint(["train", *words, *WORDS], capsys)
    assert not Path("runs").exists()


def test_default_fields_of_ds_net_may_be_given_with_any_model():
    RunConfig(model="tiny_resnet", num_modules=15)
    with pytest.raises(ValueError, match="num_modules goes with model ds_net") as error:
        RunConfig(model="tiny_resnet", num_modules=3)
    one_line(error)


# --- training


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("model", list_models("tiny_*"))
def test_tiny_network_learns_digits_in_three_epochs_of_adversarial_training(model, capsys):
    words = ["--model", model, "--data", "digits", "--epochs", "3", "--device", "cpu"]
    # 37 steps an epoch; half as many do not get networks without BatchNorm far enough.
    assert main(["train", *words, "--batch-size", "32"]) == 0
    folder = capsys.readouterr().out.splitlines()[-1]
    assert main(["evaluate", folder, "--attacks", "fgsm", "--device", "cpu"]) == 0
    assert read_record(Path(folder) / "record.json").accuracy("natural") > 0.6
