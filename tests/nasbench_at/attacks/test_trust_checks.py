from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nasbench_at.attacks import CheckResult, LinfPGD, run_checks
from nasbench_at.attacks.trust_checks import check_unbounded

from .conftest import Batch, predict

NAMES = ["input_gradients", "deterministic", "logits", "more_steps", "unbounded"]


class Quantise(nn.Module):
    """Rounds pixels: the classic of gradient masking."""

    def forward(self, x: Tensor) -> Tensor:
        return (10 * x).round() / 10


class Jitter(nn.Module):
    """Adds noise in eval mode too."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits + 0.01 * torch.randn_like(logits)


def outcomes(model: nn.Module, batch: Batch, attack: LinfPGD) -> dict[str, CheckResult]:
    results = run_checks(model, *batch, attack=attack)
    assert [result.name for result in results] == NAMES
    return {result.name: result for result in results}


def failures(model: nn.Module, batch: Batch, attack: LinfPGD) -> set[str]:
    return {name for name, result in outcomes(model, batch, attack).items() if not result.passed}


def test_sound_model_passes_all(net: nn.Module, batch: Batch) -> None:
    results = outcomes(net, batch, LinfPGD(0.1, steps=10))
    assert all(result.passed for result in results.values()), results


def test_samples_leave_the_checks_once_they_are_fooled(net: nn.Module, batch: Batch) -> None:
    seen = []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    result = check_unbounded(net, *batch, attack=LinfPGD(0.1), generator=torch.Generator())
    assert result.detail == "robust accuracy 0.0% at eps 1, 20 steps, on 16 samples"
    assert sum(seen) < 10 * len(batch.x)  # 21 times with all samples in all steps
    training = LinfPGD(0.1, mode="train")
    assert check_unbounded(net, *batch, attack=training, generator=torch.Generator()).passed


def test_masked_gradients_fail(net: nn.Module, batch: Batch) -> None:
    model = nn.Sequential(Quantise(), net)
    masked = Batch(batch.x, predict(model, batch.x))
    results = outcomes(model, masked, LinfPGD(0.1))
    assert {name for name in NAMES if not results[name].passed} == {"input_gradients", "unbounded"}
    assert results["input_gradients"].detail == (
        "16 of 16 samples have a zero gradient, 0 one that is not finite; "
        "100.0% of all pixels have gradient zero"
    )


def test_gradients_that_are_not_finite_fail(batch: Batch) -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x.detach()).abs().sqrt().flatten(1)

    assert "input_gradients" in failures(Root(), batch, LinfPGD(0.1))


def test_random_output_fails(net: nn.Module, batch: Batch) -> None:
    assert failures(nn.Sequential(net, Jitter()), batch, LinfPGD(0.1)) == {"deterministic"}


def test_probabilities_fail(net: nn.Module, batch: Batch) -> None:
    assert failures(nn.Sequential(net, nn.Softmax(dim=1)), batch, LinfPGD(0.1)) == {"logits"}


def test_attack_that_is_too_short_fails(net: nn.Module, batch: Batch) -> None:
    short = LinfPGD(0.1, step_size=0.005, steps=1, start="none")
    results = outcomes(net, batch, short)
    assert not results["more_steps"].passed
    assert "with 1 steps" in results["more_steps"].detail
    assert "with 10, on 16 samples" in results["more_steps"].detail


def test_generator_is_left_untouched(net: nn.Module, batch: Batch) -> None:
    generator = torch.Generator().manual_seed(4)
    before = generator.get_state()
    run_checks(net, *batch, attack=LinfPGD(0.1, steps=1), generator=generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_more_steps_tolerates_one_sample_in_twenty(
    share: float, monkeypatch: pytest.MonkeyPatch, net: nn.Module, batch: Batch
) -> None:
    accuracies = iter([0.5, 0.5 - share, 0.0])
    monkeypatch.setattr(
        "nasbench_at.attacks.trust_checks._robust_accuracy",
        lambda *args, **options: next(accuracies),
    )
    assert ("more_steps" in failures(net, batch, LinfPGD(0.1, steps=1))) == (share > 0.05)
