from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from nasbench_at import Benchmark, evaluate_run, train
from nasbench_at.config import load_config, resolve
from nasbench_at.evaluation.run_evaluation import prepare_evaluation
from nasbench_at.evaluation.runs import Run
from nasbench_at.records import read_record
from nasbench_at.records.outcomes import read_outcomes
from nasbench_at.records.run_folders import open_run_folder
from nasbench_at.runtime.devices import select_device
from nasbench_at.runtime.provenance import collect_provenance
from nasbench_at.training.launch import prepare_training
from tests.nasbench_at.conftest import one_line, tiny_config

PLUGIN = """
from torch import nn
from blocks import register_block

@register_block("jobs_block", summary="one convolution", reference="ours", kind="handcrafted")
class JobsBlock(nn.Conv2d):
    def __init__(self, channels):
        super().__init__(channels, channels, 3, padding=1)
"""


@pytest.fixture
def plugin(tmp_path, own_registry):
    path = tmp_path / "jobs_blocks.py"
    path.write_text(PLUGIN)
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        if name.startswith("_block_plugin_"):
            del sys.modules[name]


def test_folder_of_a_run_is_complete(trained):
    names = {path.name for path in trained.iterdir() if not path.name.startswith(".")}
    assert {
        "config.yaml",
        "metrics.jsonl",
        "record.json",
        "best.safetensors",
        "last.pt",
    } <= names
    assert not list(trained.glob(".*.*"))  # no temporary file stays behind


def test_folder_holds_the_configuration_filled_in(trained):
    assert open_run_folder(trained).config == resolve(tiny_config())


def test_record_says_what_was_run_where_and_how_it_was_selected(trained):
    record = read_record(trained / "record.json")
    config = resolve(tiny_config())
    architecture = config.architecture((1, 8, 8), 4)
    assert record.run_id == trained.name == config.run_id
    assert record.config == config.to_dict()
    assert record.architecture == architecture.hash
    assert not record.is_evaluated
    assert {"torch", "python", "commit", "device", "precision", "data_fingerprint"} <= set(
        record.provenance
    )
    assert record.provenance["train_seconds"] > 0
    assert (record.training["epochs"], record.training["num_train"]) == (2, 144)
    selected = record.training["selected"]
    assert selected["num_samples"] == 16
    assert selected["attack"]["eps"] == config.eps
    assert config.attack_steps == 2
    assert selected["attack"]["steps"] == 10


def test_number_of_parameters_leaves_the_logits_out(trained):
    model = Run.open(trained, device="cpu").network
    logits = sum(p.numel() for p in model.attention_parameters())
    assert logits == 6
    total = sum(p.numel() for p in model.parameters())
    assert read_record(trained / "record.json").num_params == total - logits


def test_loaded_run_is_its_selected_network_in_eval_mode(trained):
    run = Run.open(trained, device="cpu")
    model, images = run.network, run.data.test
    weights = load_file(trained / "best.safetensors")
    assert not model.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert len(images) == 24


def test_runs_are_found_again_as_a_benchmark(trained):
    runs = Benchmark.load(trained.parent)
    assert [record.run_id for record in runs.query(blocks=("residual", "mbconv"))] == [trained.name]
    assert len(runs.query(blocks=("residual",))) == 0


@pytest.mark.parametrize(
    ("changes", "device", "message"),
    [
        ({"blocks": ("residul",)}, "cpu", "unknown block 'residul'; did you mean 'residual'"),
        ({"data": "digit"}, "cpu", "unknown data set 'digit'; did you mean 'digits'"),
        ({"method": "atx"}, "cpu", "method 'atx'"),
        ({"block_options": {"residual": {"nrm": 1}}}, "cpu", "'residual' has no option 'nrm'"),
        ({"block_options": {"residual": {"norm": "x"}}}, "cpu", "norm must be one of"),
        ({"block_options": {"mbconv": {"expansion": "x"}}}, "cpu", "expansion must be a whole"),
        ({"attention_keep": ((0, 2), (0,), (0,))}, "cpu", "2"),
        ({"plugins": ("nope.py",)}, "cpu", "existing .py file, got 'nope.py'"),
        ({"validation_fraction": 0.001}, "cpu", "validation_fraction 0.001 of 160"),
        ({}, "tpu", "device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
    ],
    ids=str,
)
def test_bad_configuration_is_refused_before_a_file_is_written(changes, device, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        train(tiny_config(**changes), runs_dir=tmp_path / "runs", device=device)
    one_line(error)
    assert not (tmp_path / "runs").exists()


def test_batch_of_the_recipe_fits_a_small_data_set_and_says_so(tmp_path):
    config = tiny_config(batch_size=None, validation_fraction=0.5)
    message = "batch_size is 64 instead of the recipe's 128: there are 80 training images"
    with pytest.warns(UserWarning, match=message):
        trainer = prepare_training(config, runs_dir=tmp_path, device="cpu")
    assert trainer.folder.config.batch_size == 64
    assert load_config(trainer.folder.path / "config.yaml").batch_size == 64


def test_batch_that_was_asked_for_is_not_changed(tmp_path):
    config = tiny_config(batch_size=81, validation_fraction=0.5)
    message = "batch_size must be at most the number of training images, 80, got 81"
    with pytest.raises(ValueError, match=message):
        prepare_training(config, runs_dir=tmp_path, device="cpu")


def test_batch_has_two_images_for_each_rank(tmp_path):
    message = "batch_size must be at least two images for each of 2 ranks, got 3"
    with pytest.raises(ValueError, match=message):
        prepare_training(
            tiny_config(batch_size=3),
            runs_dir=tmp_path / "runs",
            device="cpu",
            ranks=SimpleNamespace(is_main=True, world_size=2, place=lambda device: device),
        )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("minutes", [-1, float("nan"), "5"])
def test_time_between_checkpoints_is_a_number_of_minutes(minutes, tmp_path):
    with pytest.raises(ValueError, match="checkpoint_minutes must be a number of at least 0, got"):
        train(tiny_config(), runs_dir=tmp_path / "runs", checkpoint_minutes=minutes)
    assert not (tmp_path / "runs").exists()


def test_preparing_takes_no_step(tmp_path):
    trainer = prepare_training(tiny_config(), runs_dir=tmp_path, device="cpu")
    assert not trainer.folder.metrics.exists()
    assert not trainer.folder.checkpoint.exists()


def test_provenance_is_that_of_the_start(tmp_path, monkeypatch):
    commit = "nasbench_at.runtime.provenance._commit"
    monkeypatch.setattr(commit, lambda: "start")
    trainer = prepare_training(tiny_config(), runs_dir=tmp_path, device="cpu")
    monkeypatch.setattr(commit, lambda: "end")
    provenance = trainer.run().provenance
    assert provenance["commit"] == "start"
    assert provenance["train_seconds"] > 0


def test_initial_weights_depend_on_the_seed_alone(tmp_path):
    def weights(seed, name):
        config = tiny_config(seed=seed)
        return prepare_training(config, runs_dir=tmp_path / name, device="cpu").network.stem.weight

    one = weights(3, "one")
    torch.manual_seed(99)
    assert torch.equal(one, weights(3, "two"))
    assert not torch.equal(one, weights(4, "two"))


def test_block_of_a_plugin_is_trained(plugin, tmp_path):
    config = tiny_config(blocks=("jobs_block",), plugins=(str(plugin),), epochs=1)
    record = train(config, runs_dir=tmp_path / "runs", device="cpu")
    assert record.config["plugins"] == [str(plugin)]


def test_evaluation_is_written_to_the_record_and_the_outcomes(run):
    told = []
    before = read_record(run / "record.json")
    record = evaluate_run(
        run, ("fgsm",), device="cpu", on_result=lambda name, result: told.append(name)
    )
    assert told == list(record.results) == ["natural", "fgsm", "worst_case"]
    assert read_record(run / "record.json") == record
    assert replace(record, evaluations=()) == before
    (evaluation,) = record.evaluations
    assert evaluation.data == "stripes/test"
    assert evaluation.provenance["precision"] == "float32"
    outcomes = read_outcomes(run / "record.json")
    for result in record.all_results:
        assert int(outcomes[result.key].sum()) == result.num_correct
        assert result.num_samples == len(outcomes[result.key]) == 24
    assert record.accuracy("fgsm") <= record.accuracy("natural")


def test_radius_is_the_run_s_own_unless_given(run):
    radii = [
        evaluate_run(run, ("fgsm",), eps=eps, device="cpu").evaluations[-1].results[1].eps
        for eps in (None, 0.2, 0.0)
    ]
    assert radii == [resolve(tiny_config()).eps, 0.2, 0.0]


def test_evaluation_stands_beside_an_earlier_one(run):
    """Hours of AutoAttack are not lost to a look at FGSM."""
    first = evaluate_run(run, ("apgd-ce",), device="cpu", aa_samples=8)
    evaluate_run(run, ("fgsm",), device="cpu")
    evaluate_run(run, ("fgsm",), eps=0.2, device="cpu")
    record = read_record(run / "record.json")
    assert record.results["apgd-ce"] == first.results["apgd-ce"]
    assert record.results["apgd-ce"].subset is not None
    assert [row.eps for row in record.curves["fgsm"]] == [0.031, 0.2]
    assert record.results["fgsm"].eps == 0.031
    outcomes = read_outcomes(run / "record.json")
    names = {row.key for row in record.all_results}
    assert outcomes.keys() == names | {f"subset-{record.results['apgd-ce'].subset}"}
    for row in record.all_results:
        assert int(outcomes[row.key].sum()) == row.num_correct


def test_evaluation_of_the_same_conditions_takes_the_place_of_an_earlier_one(run):
    evaluate_run(run, ("fgsm",), device="cpu")
    evaluate_run(run, ("fgsm",), device="cpu")
    record = read_record(run / "record.json")
    assert [row.attack for row in record.all_results] == ["natural", "fgsm", "worst_case"]
    assert len(record.evaluations) == 1
    assert len(read_outcomes(run / "record.json")) == 3


@pytest.mark.parametrize("content", [None, b"short"])
def test_outcomes_that_are_lost_do_not_stop_an_evaluation(run, content):
    evaluate_run(run, ("fgsm",), eps=0.2, device="cpu")
    path = run / "outcomes.safetensors"
    path.unlink()
    if content is None:
        record = evaluate_run(run, ("fgsm",), device="cpu")
    else:
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="cannot read outcomes .* earlier evaluations are lo"):
            record = evaluate_run(run, ("fgsm",), device="cpu")
    assert len(record.all_results) == 5
    assert read_outcomes(run / "record.json").keys() == {
        row.key for row in record.evaluations[-1].results
    }


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (("pdg",), {}, "attacks must be a list of names among fgsm, pgd, cw"),
        (("fgsm",), {"eps": 8.0}, "eps must"),
        (("pgd",), {"step_size": -1.0}, "step_size must be a number above 0, got -1.0"),
        (("aa",), {"aa_samples": 25}, "aa_samples must lie in 1..24, got 25"),
        (("aa",), {"aa_samples": 0}, "aa_samples must be a whole number of at least 1"),
        (("fgsm",), {"device": "tpu"}, "device must be"),
    ],
    ids=str,
)
def test_bad_evaluation_is_refused_and_the_record_left_as_it_is(names, settings, message, run):
    before = (run / "record.json").read_bytes()
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        evaluate_run(run, names, **{"device": "cpu", **settings})
    one_line(error)
    assert (run / "record.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.yaml", "is no run folder: it holds no config.yaml"),
        ("record.json", "cannot read record"),
        ("best.safetensors", "cannot read weights"),
    ],
)
def test_incomplete_run_is_named_in_one_line(name, message, run):
    (run / name).unlink()
    with pytest.raises(ValueError, match=message) as error:
        prepare_evaluation(run, device="cpu")
    assert str(run) in one_line(error)


def test_record_of_a_newer_version_is_not_overwritten(run):
    path = run / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"schema_version must be 2, got 99"):
        evaluate_run(run, ("fgsm",), device="cpu")
    assert path.read_bytes() == before


def test_automatic_device_is_one_that_is_there():
    assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert select_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu", "meta", "cpu:x", ""])
def test_unknown_device_is_named_with_the_known_ones(name):
    message = f"device must be auto, cpu, cuda or cuda:N, got '{name}'"
    with pytest.raises(ValueError, match=message):
        select_device(name)


def test_gpu_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device 'cuda:99' is not available: this machine has"):
        select_device("cuda:99")


def test_gpu_that_is_there_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    assert select_device("auto").type == "cuda"
    assert select_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="this machine has 2 GPUs"):
        select_device("cuda:2")


def test_provenance_is_json_ready():
    provenance = collect_provenance(torch.device("cpu"))
    assert json.loads(json.dumps(provenance)) == provenance
    assert provenance["torch"] == torch.__version__
    assert provenance["device"] == "cpu"


@pytest.mark.parametrize("path", ["", "/nowhere"])
def test_provenance_without_git_has_no_commit(path, monkeypatch):
    monkeypatch.setenv("PATH", path)
    assert collect_provenance(torch.device("cpu"))["commit"] is None
