"""Verdicts on one trained network, image by image, against other people's attacks."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pyautoattack
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from nasbench_at.attacks import AutoAttack, LinfPGD, MarginPGD

from .conftest import Batch, build_net, predict

pytestmark = pytest.mark.slow

EPS, STEP, STEPS = 0.1, 0.025, 20
NUM_IMAGES = 100


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """Trained on digits by PGD-AT, so that some images survive."""
    x, y = _digits()
    net = build_net().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(200):
        rows = torch.arange(step * 64, (step + 1) * 64) % 1500
        x_adv = LinfPGD(EPS, steps=3)(net, x[rows], y[rows])
        optimizer.zero_grad()
        F.cross_entropy(net(x_adv), y[rows]).backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def batch() -> Batch:
    x, y = _digits()
    return Batch(x[1500 : 1500 + NUM_IMAGES], y[1500 : 1500 + NUM_IMAGES])


def _digits() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    return images, torch.tensor(digits.target)


@pytest.fixture(scope="module")
def foolbox() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        import foolbox

    return foolbox


@pytest.fixture(scope="module")
def torchattacks() -> ModuleType:
    """In no extra: it pins an old requests and installs a package named robustbench."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: ModuleType = pytest.importorskip("torchattacks")
    return module


def assert_at_least_as_strong(
    model: nn.Module, batch: Batch, *, ours: Tensor, theirs: Tensor
) -> None:
    """At most 1 % of the images survive our attack and not theirs; some do survive."""
    survives, theirs_survives = (predict(model, x_adv) == batch.y for x_adv in (ours, theirs))
    for x_adv in (ours, theirs):
        assert (x_adv - batch.x).abs().max() <= EPS + 1e-6
    assert 0 < theirs_survives.sum() < (predict(model, batch.x) == batch.y).sum()
    assert (survives & ~theirs_survives).sum() <= 0.01 * len(batch.y)


def run_foolbox(foolbox: ModuleType, model: nn.Module, batch: Batch, *, margin: bool) -> Tensor:
    import eagerpy

    class MarginAttack(foolbox.attacks.LinfPGD):  # type: ignore[misc, name-defined]
        def get_loss_fn(self, model: Any, labels: Any) -> Callable[[Any], Any]:
            def loss(inputs: Any) -> Any:
                logits = model(inputs).raw
                one_hot = F.one_hot(labels.raw, logits.shape[1])
                true = (one_hot * logits).sum(dim=1)
                other = ((1 - one_hot) * logits - one_hot * 10_000).amax(dim=1)
                return eagerpy.astensor(-(true - other + 50).clamp(min=0).sum())

            return loss

    kind = MarginAttack if margin else foolbox.attacks.LinfPGD
    attack = kind(abs_stepsize=STEP, steps=STEPS, random_start=False)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    clipped: Tensor = attack(wrapped, *batch, epsilons=EPS)[1]
    return clipped


@pytest.mark.parametrize("margin", [False, True], ids=["pgd", "cw"])
def test_pgd_is_as_strong_as_foolbox_s(
    margin: bool, foolbox: ModuleType, trained: nn.Module, batch: Batch
) -> None:
    theirs = run_foolbox(foolbox, trained, batch, margin=margin)
    kind = MarginPGD if margin else LinfPGD
    for counts in ("last", "any"):
        attack = kind(EPS, step_size=STEP, steps=STEPS, start="none", counts=counts)
        assert_at_least_as_strong(trained, batch, ours=attack(trained, *batch), theirs=theirs)


def test_pgd_is_as_strong_as_torchattacks(
    torchattacks: ModuleType, trained: nn.Module, batch: Batch
) -> None:
    attack = torchattacks.PGD(trained, eps=EPS, alpha=STEP, steps=STEPS, random_start=False)
    ours = LinfPGD(EPS, step_size=STEP, steps=STEPS, start="none")(trained, *batch)
    assert_at_least_as_strong(trained, batch, ours=ours, theirs=attack(*batch))


@pytest.fixture(scope="module")
def our_autoattack(trained: nn.Module, batch: Batch) -> Tensor:
    return AutoAttack(EPS, batch_size=NUM_IMAGES)(trained, *batch)


def test_autoattack_is_as_strong_as_pyautoattack_s(
    our_autoattack: Tensor, trained: nn.Module, batch: Batch
) -> None:
    library = pyautoattack.AutoAttack(trained, eps=EPS, norm="Linf", seed=0, version="standard")
    trace = sys.gettrace()
    try:
        with torch.random.fork_rng(devices=[]):
            theirs, _ = library.run_standard_evaluation(*batch, batch_size=NUM_IMAGES)
    finally:
        sys.settrace(trace)  # it clears the tracer of coverage
        trained.zero_grad()
    assert_at_least_as_strong(trained, batch, ours=our_autoattack, theirs=theirs)
    # The same draws in the same order: the same images are fooled, if not at the same iterate.
    fooled, theirs_fooled = (
        predict(trained, x_adv) != batch.y for x_adv in (our_autoattack, theirs)
    )
    assert torch.equal(fooled, theirs_fooled)


def test_autoattack_is_as_strong_as_torchattacks(
    torchattacks: ModuleType, our_autoattack: Tensor, trained: nn.Module, batch: Batch
) -> None:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack = torchattacks.AutoAttack(trained, norm="Linf", eps=EPS, n_classes=10, seed=0)
        theirs = attack(*batch)
    trained.zero_grad()
    assert_at_least_as_strong(trained, batch, ours=our_autoattack, theirs=theirs)
