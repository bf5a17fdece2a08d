from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from nasbench_at.training.checkpoints import (
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from tests.nasbench_at.conftest import one_line

STATE = {
    "network": {"weight": torch.arange(300.0), "step": torch.tensor(3)},
    "optimizers": [{"lr": 0.1, "betas": (0.9, 0.999)}],
    "progress": {"epoch": 2, "history": [{"epoch": 1}], "best": {}, "seconds": 1.5},
}


def build(width=6):
    return nn.Sequential(nn.Conv2d(2, width, 3), nn.BatchNorm2d(width), nn.ReLU())


class Bomb:
    """What a pickle of a stranger might hold."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_checkpoint_round_trip_is_exact(tmp_path):
    save_checkpoint(tmp_path / "last.pt", STATE)
    state = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(state["network"].pop("weight"), STATE["network"]["weight"])
    assert state["network"]["step"].item() == 3
    assert state["optimizers"] == STATE["optimizers"]
    assert state["progress"] == STATE["progress"]
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.99])
def test_truncated_checkpoint_is_named_in_one_line(share, tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    with pytest.raises(ValueError, match=r"checkpoint '.*last.pt' is damaged") as error:
        load_checkpoint(path)
    one_line(error)


@pytest.mark.parametrize(
    "content", [b"junk", b"PK\x03\x04", b"\x80\x02.", b"{}", b"\x00" * 5000], ids=repr
)
def test_file_that_is_no_checkpoint_is_named_in_one_line(content, tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint '.*last.pt' is damaged") as error:
        load_checkpoint(path)
    one_line(error)


def test_empty_checkpoint_is_named_in_one_line(tmp_path):
    path = tmp_path / "last.pt"
    path.touch()
    with pytest.raises(ValueError, match=r"checkpoint '.*last.pt' is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("write", [torch.save, lambda bomb, path: path.write_bytes(bomb)])
def test_nothing_but_data_is_unpickled(write, tmp_path):
    path, proof = tmp_path / "last.pt", tmp_path / "exploded"
    bomb = Bomb(proof)
    write(bomb if write is torch.save else pickle.dumps(bomb), path)
    with pytest.raises(ValueError, match="is damaged"):
        load_checkpoint(path)
    assert not proof.exists()


FOREIGN = {
    "code": lambda folder: {"network": Bomb(folder / "exploded")},
    "list": lambda folder: [torch.zeros(3)],
    "tensor": lambda folder: torch.zeros(3),
    "text": lambda folder: "state",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_content_with_a_right_checksum_is_named_in_one_line_and_not_run(content, tmp_path):
    path = tmp_path / "last.pt"
    write_signed(path, content(tmp_path))
    with pytest.raises(ValueError, match=r"^checkpoint '.*last.pt' holds no state of a run") as e:
        load_checkpoint(path)
    assert "weights_only" not in one_line(e)
    assert not (tmp_path / "exploded").exists()


def test_right_checksum_of_junk_is_no_state(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(b"junk" + hashlib.sha256(b"junk").digest())
    with pytest.raises(ValueError, match=r"^checkpoint '.*last.pt' holds no state of a run") as e:
        load_checkpoint(path)
    one_line(e)


def write_signed(path, content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weights_round_trip_is_exact_for_any_layout(layout, tmp_path):
    model, twin = build().to(memory_format=layout), build()
    model(torch.rand(4, 2, 5, 5))
    save_weights(tmp_path / "best.safetensors", model, {})
    load_weights(tmp_path / "best.safetensors", twin)
    state = twin.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_metadata_lie_in_the_header_as_json(tmp_path):
    metadata = {"epoch": 3, "config": {"blocks": ["residual"], "eps": 0.1}}
    save_weights(tmp_path / "best.safetensors", build(), metadata)
    with safe_open(tmp_path / "best.safetensors", framework="pt") as file:
        header = file.metadata()
    assert list(header) == ["nasbench_at"]
    assert json.loads(header["nasbench_at"]) == metadata


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_weights_are_named_in_one_line(share, tmp_path):
    path = tmp_path / "best.safetensors"
    save_weights(path, build(), {"epoch": 1})
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    with pytest.raises(ValueError, match=r"cannot read weights '.*best.safetensors'") as error:
        load_weights(path, build())
    one_line(error)


def test_missing_weights_are_named_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read weights '.*none.safetensors'") as error:
        load_weights(tmp_path / "none.safetensors", build())
    one_line(error)


@pytest.mark.parametrize(
    "other", [build(7), build()[:1], nn.Sequential(*build(), nn.Conv2d(6, 6, 1))]
)
def test_weights_of_another_architecture_are_named_in_one_line(other, tmp_path):
    path = tmp_path / "best.safetensors"
    save_weights(path, other, {})
    with pytest.raises(
        ValueError, match=r"weights '.*best.safetensors' are of another architecture"
    ) as error:
        load_weights(path, build())
    assert len(one_line(error)) < 600
