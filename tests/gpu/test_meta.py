"""Training steps and attacks on the meta device, which has shapes and no values.

Whatever would make the host wait for a GPU fails here: a look at a value, a size that depends on
values, an operation on tensors of two devices, a copy from one device to another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nasbench_at.attacks import FGSM, L2PGD, LinfPGD, MarginPGD, folding
from tests.gpu.networks import METHODS, WAITING, make_batch, make_network, make_step

META = torch.device("meta")


class _NoTransfers(TorchDispatchMode):
    """Refuses copies between devices, and tensors made of Python's numbers on a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        is_copy = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        if is_copy and len({tensor.device for tensor in tensors}) > 1:
            raise AssertionError(f"{func} copies from one device to another")
        return result


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A context in which the host may not wait for the meta device."""
    real_autocast, real_tensor = torch.autocast, torch.tensor

    def autocast(device_type: str, *args: Any, **options: Any) -> Any:
        """There is none for meta; where it is switched off it is not needed."""
        assert device_type != "meta" or not options["enabled"]
        return nullcontext() if device_type == "meta" else real_autocast(device_type, **options)

    monkeypatch.setattr(torch, "autocast", autocast)

    @contextmanager
    def guard() -> Iterator[None]:
        def tensor(*args: Any, **options: Any) -> Tensor:
            made = real_tensor(*args, **options)
            assert made.device != META, "a tensor of Python's numbers is a copy to the device"
            return made

        with pytest.MonkeyPatch.context() as patch, _NoTransfers():
            patch.setattr(torch, "tensor", tensor)
            yield

    return guard


def warm_up(function: Callable[[], object]) -> None:
    """Calls it once: what folding has to look at in a network, it looks at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "_is_close", lambda *_: True)
        function()


def meta_network() -> nn.Module:
    return make_network().to(META)


def meta_batch() -> tuple[Tensor, Tensor]:
    x, y = make_batch()
    return x.to(META), y.to(META)


def meta_step(method: str, **changes: Any) -> Callable[[], Tensor]:
    x, y = meta_batch()
    step = make_step(meta_network(), method, **changes)

    def take() -> Tensor:
        step.optimizers.set_rate(0.1)
        return step(x, y, torch.Generator(), num_images=len(x))

    return take


@pytest.mark.parametrize("method", [name for name in METHODS if name not in WAITING])
def test_host_does_not_wait_within_a_training_step(no_waits, method):
    take = meta_step(method)
    warm_up(take)
    with no_waits():
        totals = take()
    assert totals.device == META
    assert totals.shape == (3,)


@pytest.mark.parametrize(
    "changes",
    [
        {"awp_gamma": 0.01},
        {"ema_decay": 0.9},
        {"accumulation_steps": 3},
        {"attention": "fixed", "attention_keep": ((0,), (1,), (0,))},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_host_does_not_wait_within_a_step_of_other_settings(no_waits, changes):
    take = meta_step("at", **changes)
    warm_up(take)
    with no_waits():
        take()
        take()


@pytest.mark.parametrize("method", WAITING)
def test_friendly_training_waits_since_images_leave_its_batches(no_waits, method):
    take = meta_step(method)
    with pytest.raises(NotImplementedError, match="nonzero"):
        warm_up(take)


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(0.1),
        FGSM(0.1, random_start=True),
        LinfPGD(0.1, steps=2, noise=0.001),
        LinfPGD(0.1, steps=2, start="normal", mode="train"),
        L2PGD(0.5, steps=2),
        MarginPGD(0.1, steps=2),
    ],
    ids=lambda attack: f"{attack.name}-{attack.start}-{attack.mode}",
)
def test_host_does_not_wait_within_an_attack(no_waits, attack):
    (x, y), network = meta_batch(), meta_network()

    def run() -> Tensor:
        return attack(network, x, y, generator=torch.Generator())

    warm_up(run)
    with no_waits():
        x_adv = run()
    assert x_adv.device == META
    assert x_adv.shape == x.shape
    assert x_adv.is_contiguous(memory_format=torch.channels_last)


class _OneType(TorchDispatchMode):
    """Refuses sums of tensors of several types, which CUDA's autocast computes in the widest."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.aten.addcmul:
            assert len({tensor.dtype for tensor in args}) == 1, [tensor.dtype for tensor in args]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_half_precision_is_not_widened_by_a_weight(mode):
    x, _ = make_batch()
    network = make_network().train(mode)
    with torch.autocast("cpu", torch.bfloat16), _OneType():
        network(x)


WAITS: dict[str, Callable[[Tensor], object]] = {
    "value": lambda x: x.sum().item(),
    "branch": lambda x: bool(x.sum() > 0),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "two devices": lambda x: x + torch.ones(x.shape),
    "from the device": lambda x: x.cpu(),
    "to the device": lambda x: torch.ones(()).to(x.device),
    "copy_": lambda x: torch.empty_like(x).copy_(torch.ones(x.shape)),
    "number": lambda x: torch.tensor(1.0, device=x.device),
}


@pytest.mark.parametrize("name", WAITS)
def test_each_kind_of_wait_is_noticed(no_waits, name):
    x, _ = meta_batch()
    with (
        pytest.raises((RuntimeError, NotImplementedError, AssertionError)),
        no_waits(),
    ):
        WAITS[name](x)
