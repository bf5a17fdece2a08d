"""``nasbench-at graph``: what is drawn, exported, edited and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nasbench_at.cli import main


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
@pytest.mark.parametrize(
    ("model", "description"),
    [
        ("robnet_large_v2", "7 nodes; 33,326,666 parameters in the whole network"),
        ("tiny_ds_net", "21 nodes"),
    ],
)
def test_networks_are_drawn_in_the_format_of_the_suffix(model, description, suffix, start, capsys):
    out = Path(f"graph.{suffix}")
    assert main(["graph", "--model", model, "--out", str(out)]) == 0
    assert description in capsys.readouterr().out
    assert out.read_bytes().startswith(start)


def test_cell_is_exported_with_its_operations():
    genotype = "genotype=['01 00','10 01 00','00 00 01 00','00 00 00 00 10']"
    words = ["graph", "--model", "robnet", "--model-options", genotype]
    assert main([*words, "--out", "cell.dot"]) == 0
    assert '"input0" -> "node0" [label="sep_conv"];' in Path("cell.dot").read_text()
    assert main([*words, "--out", "cell.json"]) == 0
    edges = json.loads(Path("cell.json").read_text())["edges"]
    assert {"source": "node3", "target": "output", "operation": "concat"} in edges


def test_ds_net_by_name_is_edited(capsys):
    words = ["graph", "--model", "ds_net_4"]
    assert main(words) == 0
    assert "20,780,245 parameters" in capsys.readouterr().out
    assert main([*words, "--remove", "module01.dense"]) == 0
    assert "80 nodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "resnet18"], "model 'resnet18' has no graph; DS-Nets and RobNets have one"),
        (
            ["--model", "robnet", "--blocks", "dense"],
            "--blocks goes with model ds_net, got it with 'robnet'",
        ),
        (["--model", "robnet", "--remove", "node0"], "--remove goes with DS-Nets"),
        (["--model-options", "a=1"], "--model-options go with a --model by name"),
        (["--model", "robnet", "--model-options", "a=1"], "model 'robnet' has no option 'a'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_graph_refuses_what_does_not_go_together(words, message, capsys):
    assert main(["graph", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
