from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from blocks.mbconv import SqueezeExcite
from nasbench_at import train
from nasbench_at.attacks import LinfPGD
from nasbench_at.training import precision
from nasbench_at.training.checkpoints import load_checkpoint
from nasbench_at.training.precision import MixedPrecision, check_precision
from tests.nasbench_at.conftest import one_line, tiny_config

CPU = torch.device("cpu")
NAMES = ("fp32", "bf16", "fp16", "fp16_unscaled")


@pytest.mark.parametrize("name", NAMES)
def test_run_ends_with_finite_losses_and_float32_weights(name, tmp_path):
    train(tiny_config(epochs=1, precision=name), runs_dir=tmp_path, device="cpu")
    (folder,) = tmp_path.iterdir()
    (row,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert math.isfinite(row["train_loss"])
    network = load_checkpoint(folder / "last.pt")["training_step"]["network"]
    for tensor in network.values():
        assert tensor.dtype in (torch.float32, torch.int64)
        assert tensor.isfinite().all()
    record = json.loads((folder / "record.json").read_text())
    assert record["provenance"]["precision"] == name


@pytest.mark.parametrize(
    ("name", "dtype", "scaled"),
    [
        ("fp32", torch.float32, False),
        ("bf16", torch.bfloat16, False),
        ("fp16", torch.float16, True),
        ("fp16_unscaled", torch.float16, False),
    ],
)
def test_precision_is_a_dtype_and_a_loss_scale(name, dtype, scaled):
    mixed = MixedPrecision.create(name, CPU)
    with mixed.autocast():
        assert nn.Linear(2, 2)(torch.rand(3, 2)).dtype == dtype
    assert mixed.scaler.is_enabled() == scaled
    loss = torch.ones(())
    assert (float(mixed.scaler.scale(loss)) > 1) == scaled


@pytest.mark.parametrize("name", ["fp16", "fp16_unscaled"])
def test_attack_in_half_precision_keeps_the_signs_of_float32(name):
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    ).eval()
    with torch.no_grad():
        net[-1].weight.mul_(0.01)  # gradients that a mean over the batch would lose
    x, y = 0.25 + torch.rand(128, 1, 8, 8) / 2, torch.arange(128) % 4
    attack = LinfPGD(0.1, step_size=0.05, steps=1, start="none")
    signs = []
    for setting in ("fp32", name):
        with MixedPrecision.create(setting, CPU).autocast():
            signs.append((attack(net, x, y) - x).sign())
    assert (signs[0] == signs[1]).float().mean() >= 0.99


@pytest.mark.parametrize("name", ["bf16", "fp16", "fp16_unscaled"])
def test_gate_of_the_squeeze_excite_is_float32(name, monkeypatch):
    seen, sigmoid = [], torch.sigmoid

    def watched(x):
        seen.append(x.dtype)
        return sigmoid(x)

    monkeypatch.setattr(torch, "sigmoid", watched)
    monkeypatch.setattr(torch.Tensor, "sigmoid", watched)
    monkeypatch.setattr(torch.nn.functional, "sigmoid", watched)
    with MixedPrecision.create(name, CPU).autocast():
        SqueezeExcite(8, 2)(torch.rand(2, 8, 4, 4))
    assert seen == [torch.float32]


@pytest.mark.parametrize("name", NAMES)
def test_precision_that_works_here_is_accepted(name):
    check_precision(name, CPU)


@pytest.mark.parametrize("name", ["fp16", "fp16_unscaled"])
def test_precision_that_the_device_cannot_compute_is_refused(name, monkeypatch):
    def convolve(*_, **__):
        raise RuntimeError('"slow_conv2d_cpu" not implemented for Half\nmore')

    monkeypatch.setattr(precision.torch.nn.Conv2d, "forward", convolve)
    message = f"precision '{name}' does not work on this cpu: .*not implemented for 'Half'".replace(
        "'Half'", "Half"
    )
    with pytest.raises(ValueError, match=message + "; use bf16 or fp32") as error:
        check_precision(name, CPU)
    one_line(error)
    check_precision("fp32", CPU)
