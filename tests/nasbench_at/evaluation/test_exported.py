from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch

from nasbench_at import evaluate_run, load_model, train
from nasbench_at.cli import main
from nasbench_at.evaluation.exported import EXPORT_SUFFIXES, export_run
from nasbench_at.evaluation.runs import Run
from nasbench_at.records import read_record
from tests.nasbench_at.conftest import tiny_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An evaluated run's folder, its network's norms far from what they are at first."""
    runs = tmp_path_factory.mktemp("exported")
    config = tiny_config(blocks=("residual", "ada_rk"))
    record = train(config, runs_dir=runs, device="cpu")
    evaluate_run(runs / record.run_id, ("fgsm",), device="cpu")
    return runs / record.run_id


def images(count):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 3])
def test_weights_make_the_same_network(run, tmp_path, count):
    own = Run.open(run, device="cpu").network
    written, card = export_run(run, tmp_path / "network.safetensors")
    again = load_model(written)
    assert not again.training
    assert torch.equal(again(images(count)), own(images(count)))
    assert torch.equal(load_model(run)(images(count)), own(images(count)))
    assert card == tmp_path / "network.md"


def test_program_needs_torch_alone(run, tmp_path):
    own = Run.open(run, device="cpu").network
    export_run(run, tmp_path / "network.pt2")
    x = {count: images(count) for count in (1, 3)}
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch\n"
        "model = torch.export.load('network.pt2').module()\n"
        "x = torch.load('x.pt')\n"
        "torch.save({n: model(part).detach() for n, part in x.items()}, 'y.pt')\n"
        "assert not any(name.startswith('nasbench_at') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True)
    for count, logits in torch.load(tmp_path / "y.pt").items():
        torch.testing.assert_close(logits, own(x[count]), rtol=0, atol=1e-5)


def test_card_says_what_the_record_says(run, tmp_path):
    record = Run.open(run, device="cpu").record
    text = export_run(run, tmp_path / "network.safetensors")[1].read_text()
    row = record.results["fgsm"]
    low, high = row.interval
    counts = (
        f"| {row.num_correct}/{row.num_samples} | {row.accuracy:.1%} | {low:.1%} to {high:.1%} |"
    )
    assert counts in text
    for line in (
        f"# {record.run_id}",
        f"| parameters | {record.num_params:,} |",
        f"| eps | {record.config['eps']} |",
        f"| torch | {record.provenance['torch']} |",
        'model = load_model("network.safetensors")',
    ):
        assert line in text.splitlines()
    program = export_run(run, tmp_path / "network.pt2")[1].read_text()
    assert 'model = torch.export.load("network.pt2").module()' in program.splitlines()


def edited(path, changes):
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata = {k: v for k, v in (metadata | changes).items() if v is not None}
    path.write_bytes(safetensors.torch.save(tensors, metadata))


def test_bad_input_is_one_line(run, tmp_path):
    with pytest.raises(ValueError, match=r"one of \.safetensors, \.pt2, got suffix '\.onnx'"):
        export_run(run, tmp_path / "network.onnx")
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    (bare / "best.safetensors").unlink()
    with pytest.raises(ValueError, match=r"cannot read weights '.*best\.safetensors'"):
        export_run(bare, tmp_path / "network.pt2")
    assert not list(tmp_path.glob("network*"))
    written, _ = export_run(run, tmp_path / "network.safetensors")
    whole = written.read_bytes()
    written.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"cannot read network '.*network\.safetensors'"):
        load_model(written)
    for changes, message in (
        ({"format": None}, "is no network that nasbench-at exported.* got None"),
        ({"format": "other"}, "must have format 'nasbench-at network 1', got 'other'"),
        ({"image_shape": "[1, 8]"}, "is damaged"),
        ({"record": None}, "is damaged: 'record'"),
        ({"num_classes": "11"}, "are of another architecture"),
    ):
        written.write_bytes(whole)
        edited(written, changes)
        with pytest.raises(ValueError, match=message) as caught:
            load_model(written)
        assert "\n" not in str(caught.value)
    shipped = r"cannot read network 'nowhere\.safetensors': .*; those of the package: digits/"
    with pytest.raises(ValueError, match=shipped):
        load_model("nowhere.safetensors")


def test_command_knows_the_suffixes_without_torch():
    from nasbench_at.commands.export import _SUFFIXES

    assert sorted(EXPORT_SUFFIXES) == sorted(_SUFFIXES)


def test_metadata_is_the_record(run, tmp_path):
    written, _ = export_run(run, tmp_path / "network.safetensors")
    with safetensors.safe_open(written, framework="pt") as file:
        content = json.loads(file.metadata()["record"])
    assert content == json.loads(Run.open(run, device="cpu").record.to_json())


def test_exported_file_is_evaluated_as_its_run_is(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    export_run(run, "network.safetensors")
    evaluate_run(run, ("pgd",), device="cpu")
    expected = read_record(run / "record.json")
    capsys.readouterr()
    assert main(["evaluate", "network.safetensors", "--attacks", "pgd", "--device", "cpu"]) == 0
    file = Path(capsys.readouterr().out.splitlines()[-1])
    assert re.fullmatch(r"evaluations/network-\w{8}/record\.json", str(file))
    found = read_record(file)
    assert (found.run_id, found.config) == (expected.run_id, expected.config)
    assert found.result("pgd").num_correct == expected.result("pgd").num_correct
    assert list(found.results) == ["natural", "pgd", "worst_case"]  # not what came with the file
    assert main(["evaluate", "network.safetensors", "--attacks", "fgsm", "--device", "cpu"]) == 0
    assert "no trust check was made: pgd and cw are the attacks" in capsys.readouterr().out
    assert "fgsm" in read_record(file).results


def test_shipped_network_is_evaluated_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", "digits/dense", "--attacks", "fgsm", "--device", "cpu"]
    assert main([*words, "--num-images", "40"]) == 0
    file = Path(capsys.readouterr().out.splitlines()[-1])
    assert re.fullmatch(r"evaluations/digits-dense-\w{8}/record\.json", str(file))
    record = read_record(file)
    assert (record.result("fgsm").eps, record.result("fgsm").num_samples) == (0.15, 40)
    assert main(["evaluate", "digits/dens"]) == 2
    assert "'digits/dens' is no run folder" in capsys.readouterr().err
    assert main(["evaluate", "none.safetensors"]) == 2
    assert "cannot read network 'none.safetensors': " in capsys.readouterr().err
