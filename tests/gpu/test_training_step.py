"""Training steps on a GPU: against the CPU's, in other precisions, compiled, without waits."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import Tensor, nn

from nasbench_at import Architecture
from nasbench_at.runtime.seeding import make_generator
from nasbench_at.training import compilation
from tests.gpu.networks import (
    ARCHITECTURE,
    METHODS,
    WAITING,
    make_batch,
    make_network,
    make_step,
)

pytestmark = pytest.mark.gpu

PRECISIONS = ("bf16", "fp16", "fp16_unscaled")
# Shares of a step's length. In float32 a pixel whose gradient is nearly zero may turn its sign.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 0.05}


def parameters(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().cpu().flatten() for p in network.parameters()])


def distance(found: Tensor, expected: Tensor) -> float:
    """Length of the difference as a share of the expected length."""
    return float((found - expected).norm() / expected.norm())


def take_steps(network, batch, method, *, generator, num_steps=1, **changes):
    """Returns the mean loss of each step, and how far all of them moved the parameters."""
    before = parameters(network)
    step = make_step(network, method, **changes)
    losses = []
    for number in range(num_steps):
        torch.manual_seed(number)
        step.optimizers.set_rate(0.05)
        totals = step(*batch, generator, num_images=len(batch[1]))
        losses.append(float(totals[0] / totals[2]))
    return losses, parameters(network) - before


def on(device, dtype, *modules_or_tensors):
    return [thing.to(device=device, dtype=dtype) for thing in modules_or_tensors]


def compare_with_cpu(device, dtype, method, **changes):
    (x, y), network = make_batch(), make_network()
    found = []
    for place in (torch.device("cpu"), device):
        twin, images = on(place, dtype, copy.deepcopy(network), x)
        generator = torch.Generator().manual_seed(3)
        found.append(
            take_steps(twin, (images, y.to(place)), method, generator=generator, **changes)
        )
    (expected_losses, expected), (losses, moved) = found
    tolerance = TOLERANCES[dtype]
    assert losses == pytest.approx(expected_losses, rel=tolerance)
    assert distance(moved, expected) < tolerance


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_step_is_the_cpu_s(device, exact, same_draws, method, dtype):
    compare_with_cpu(device, dtype, method)


@pytest.mark.parametrize(
    "changes",
    [
        {"awp_gamma": 0.01},
        {"ema_decay": 0.9},
        {"accumulation_steps": 2},
        {"optimizer_impl": "fused"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_step_of_other_settings_is_the_cpu_s(device, exact, same_draws, changes):
    compare_with_cpu(device, torch.float64, "at", num_steps=2, **changes)


@pytest.mark.parametrize("method", ["at", "trades"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_is_near_float32(device, exact, same_draws, precision, method):
    found = []
    for name in ("fp32", precision):
        network = make_network().to(device)
        x, y = make_batch(32)
        losses, _ = take_steps(
            network,
            (x.to(device), y.to(device)),
            method,
            generator=torch.Generator().manual_seed(3),
            num_steps=4,
            precision=name,
        )
        assert parameters(network).isfinite().all()
        assert all(p.dtype == torch.float32 for p in network.parameters())
        found.append(losses)
    assert found[1] == pytest.approx(found[0], rel=0.1)


@pytest.mark.parametrize("precision", ["bf16", "fp16_unscaled"])
def test_half_precision_is_that_of_every_block_and_sum(device, precision):
    network = make_network().to(device)
    seen = {}
    for name, module in network.named_modules():
        if name.startswith("stages.") and name.count(".") in (1, 3):
            module.register_forward_hook(
                lambda _, args, out, name=name: seen.update({name: out.dtype})
            )
    step = make_step(network, "st", precision=precision)
    x, _ = make_batch()
    with step.precision.autocast():
        network(x.to(device))
    half = torch.bfloat16 if precision == "bf16" else torch.float16
    assert set(seen.values()) == {half}, {n: d for n, d in seen.items() if d != half}


# --- compilation


@pytest.mark.timeout(200)
# What torch says of itself while it compiles.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_step_is_the_eager_one(device, exact, same_draws, precision):
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        pytest.skip("no C compiler is installed")
    if device.type == "cuda":
        pytest.importorskip("triton")
    architecture = Architecture(
        blocks=("residual",),
        num_modules=3,
        init_channels=8,
        widen_factor=1,
        num_classes=4,
        input_shape=(3, 8, 8),
    )
    x, y = (tensor.to(device) for tensor in make_batch())
    found = []
    for is_compiled in (False, True):
        network = make_network(architecture).to(device)
        if is_compiled:
            assert compilation.compile_blocks(network, x)
        found.append(
            take_steps(
                network,
                (x, y),
                "at",
                generator=torch.Generator().manual_seed(3),
                precision=precision,
            )
        )
    (expected_losses, expected), (losses, moved) = found
    assert losses == pytest.approx(expected_losses, rel=0.05)
    if precision == "fp32":  # in bf16, pixels whose gradient is small turn their sign
        assert distance(moved, expected) < 0.05


# --- waits


def make_taker(device, method, **changes):
    x, y = (tensor.to(device) for tensor in make_batch())
    step = make_step(make_network().to(device), method, **changes)

    def take(number: int) -> Tensor:
        step.optimizers.set_rate(0.05)
        torch.manual_seed(number)
        noise = make_generator(0, "attack", number, device=device)
        return step(x, y, noise, num_images=len(y))

    return take


@pytest.mark.parametrize("method", [name for name in METHODS if name not in WAITING])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16_unscaled"])
def test_host_does_not_wait_within_a_step(device, no_waits, method, precision):
    take = make_taker(device, method, precision=precision)
    take(0)
    take(1)
    with no_waits():
        totals = take(2)
    assert totals.isfinite().all()


@pytest.mark.parametrize(
    "changes",
    [
        {"awp_gamma": 0.01},
        {"ema_decay": 0.9},
        {"accumulation_steps": 3},
        {"optimizer_impl": "fused"},
        {"optimizer_impl": "fused", "precision": "fp16"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_host_does_not_wait_within_a_step_of_other_settings(device, no_waits, changes):
    take = make_taker(device, "at", **changes)
    take(0)
    take(1)
    with no_waits():
        take(2)


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("fat", {}),
        ("fat_trades", {}),
        # torch's scaler looks at its flag before a step of an optimizer that is not fused.
        ("at", {"precision": "fp16"}),
    ],
    ids=["fat", "fat_trades", "scaler"],
)
def test_host_is_known_to_wait(device, no_waits, method, changes):
    take = make_taker(device, method, **changes)
    take(0)
    with pytest.raises(RuntimeError, match="synchronizing CUDA operation"), no_waits():
        take(1)


# --- memory and layout


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("method", METHODS)
def test_steps_do_not_add_to_memory(device, allocated, method):
    take = make_taker(device, method)
    for number in range(2):
        take(number)
    before = allocated()
    for number in range(2, 7):
        take(number)
    assert allocated() <= before


def test_layout_is_kept_from_image_to_gradient(device):
    network = make_network(ARCHITECTURE).to(device)
    lost = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _, args, out, name=name: (
                    None
                    if out.is_contiguous(memory_format=torch.channels_last)
                    else lost.append(name)
                )
            )
    x, _ = make_batch()
    leaf = x.to(device).requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf).sum(), leaf)
    assert not lost
    assert gradient.is_contiguous(memory_format=torch.channels_last)
