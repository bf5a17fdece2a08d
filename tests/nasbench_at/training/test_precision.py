from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from blocks.mbconv import SqueezeExcite
from nasbench_at import RunConfig, evaluate_run, train
from nasbench_at.attacks import LinfPGD
from nasbench_at.records import mean_interval
from nasbench_at.training import precision
from nasbench_at.training.checkpoints import load_checkpoint
from nasbench_at.training.precision import MixedPrecision, check_precision, compare_gradients
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


class Scaled(nn.Module):
    """Logits that grow with the pixels, by slopes of its own for some of them."""

    def __init__(self, slopes: list[float]) -> None:
        super().__init__()
        self.slopes = torch.tensor(slopes)

    def forward(self, x):
        logit = (x.flatten(1) * self.slopes.to(x.dtype)).sum(dim=1, keepdim=True)
        return torch.cat((logit, -logit), dim=1)


def test_gradients_that_low_precision_loses_or_turns_are_counted():
    class Half(Scaled):
        """In low precision the first slope is too small, the second has the other sign."""

        def forward(self, x):
            if not torch.is_autocast_enabled("cpu"):
                return super().forward(x)
            return Scaled([0.0, -1.0, 1.0, 1.0])(x)

    model, x, y = Half([1e-3, 1.0, 1.0, 0.0]), torch.rand(3, 1, 2, 2), torch.zeros(3).long()
    found = compare_gradients(model, x, y, MixedPrecision.create("bf16", CPU))
    # Where float32's gradient is 0 itself, nothing is lost and nothing turned.
    assert (found.lost, found.flipped, found.misled) == (0.25, 0.25, 0.5)
    exact = compare_gradients(model, x, y, MixedPrecision.create("fp32", CPU))
    assert exact.misled == 0


def test_epochs_in_low_precision_report_their_gradients(tmp_path):
    for name in ("fp32", "bf16"):
        train(tiny_config(precision=name), runs_dir=tmp_path / name, device="cpu")
        (folder,) = (tmp_path / name).iterdir()
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            assert ("gradients_lost" in row) == ("gradients_flipped" in row) == (name == "bf16")
            assert 0 <= row.get("gradients_flipped", 0.0) < 0.1


def test_low_precision_that_misleads_the_attack_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr("nasbench_at.training.trainer.MISLED_LIMIT", -1.0)
    message = r"precision 'bf16' misleads the attack in epoch 1: of the images' gradients .*% are "
    with pytest.warns(UserWarning, match=message) as caught:
        train(tiny_config(precision="bf16"), runs_dir=tmp_path, device="cpu")
    assert sum("misleads" in str(warning.message) for warning in caught) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", ["residual", "mbconv", "dense"])
def test_training_in_bf16_is_as_robust_as_in_float32(block, tmp_path):
    """Over four seeds on digits, the difference is within what seeds alone make of it."""
    accuracies: dict[str, list[float]] = {}
    for name in ("fp32", "bf16"):
        for seed in range(4):
            config = RunConfig(
                data="digits",
                blocks=(block,),
                num_modules=3,
                init_channels=4,
                widen_factor=2,
                epochs=3,
                attack_steps=3,
                precision=name,
                seed=seed,
            )
            record = train(config, runs_dir=tmp_path, device="cpu")
            record = evaluate_run(tmp_path / record.run_id, ("pgd",), device="cpu")
            accuracies.setdefault(name, []).append(record.accuracy("pgd"))
    exact, low = np.array(accuracies["fp32"]), np.array(accuracies["bf16"])
    assert min(exact) > 0.3, "nothing was learned, so there is nothing to lose"
    below, above = mean_interval(low - exact)
    assert below <= 0 <= above, accuracies
    assert abs(low.mean() - exact.mean()) < 0.06, accuracies
