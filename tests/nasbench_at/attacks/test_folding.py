from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from blocks import create_block, list_blocks
from nasbench_at.attacks import LinfPGD, attack_mode, cross_entropy_objective
from nasbench_at.attacks.folding import AffineMap, folded_norms, folding_agrees, never_fold
from nasbench_at.attacks.gradient import input_gradient

from .folding_cases import Parts, assert_same_function, images, with_statistics


@pytest.mark.parametrize("name", list_blocks())
def test_folded_norms_compute_the_same_function_and_gradient(name):
    block = with_statistics(create_block(name, 8))
    x = torch.rand(2, 8, 6, 6, dtype=torch.float64)
    before = dict(block.named_modules())
    assert_same_function(block, x)
    assert dict(block.named_modules()) == before
    with attack_mode(block), folded_norms(block, x):
        assert not [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]


def test_shared_convolution_of_separate_norms_is_not_folded():
    block = create_block("ada_rk", 8, separate_norms=True).double()
    with torch.no_grad():
        block.second_norm2.running_mean.fill_(3.0)
    x = torch.rand(2, 8, 6, 6, dtype=torch.float64)
    with attack_mode(block), torch.no_grad():
        plain = block(x)
        with folded_norms(block, x):
            torch.testing.assert_close(block(x), plain)


def test_convolution_with_a_computed_weight_is_not_folded():
    block = create_block("residual", 8).double()
    spectral_norm(block.residual.conv1)
    x = torch.rand(2, 8, 6, 6, dtype=torch.float64)
    with attack_mode(block), torch.no_grad():
        plain = block(x)
        with folded_norms(block, x):
            assert isinstance(block.residual.norm2, AffineMap)
            torch.testing.assert_close(block(x), plain)


def test_norms_are_their_own_again_after_an_exception():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    norm = model[1]

    def fail():
        with attack_mode(model), folded_norms(model, torch.rand(2, 1, 4, 4)):
            assert isinstance(model[1], nn.Identity)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert model[1] is norm


def test_norm_in_training_mode_stays():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with attack_mode(model, "train"), folded_norms(model, torch.rand(2, 1, 4, 4)):
        assert isinstance(model[1], nn.BatchNorm2d)


class NormAndReLU(nn.BatchNorm2d):
    """Computes more than its base class, as timm's BatchNormAct2d does."""

    def forward(self, x):
        return super().forward(x).relu()


class NormWithHook(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        self.register_forward_hook(lambda module, args, output: output.relu())


class NormWithPreHook(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        self.register_forward_pre_hook(lambda module, args: (args[0].relu(),))


class NormWithOwnForward(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        self.forward = lambda x: F.relu(x)


class Softplus(nn.Module):
    def forward(self, x):
        return F.softplus(x)


def parametrized_norm(channels):
    norm = nn.BatchNorm2d(channels)
    parametrize.register_parametrization(norm, "weight", Softplus())
    return norm


def conv_and(norm):
    return nn.Sequential(conv := nn.Conv2d(3, 4, 3), norm(conv.out_channels), nn.ReLU())


@pytest.mark.parametrize(
    "norm", [NormAndReLU, NormWithHook, NormWithPreHook, NormWithOwnForward, parametrized_norm]
)
def test_norm_that_computes_more_than_its_class_is_left_alone(norm):
    model = with_statistics(conv_and(norm))
    before = model[1]
    with attack_mode(model), folded_norms(model, images()):
        assert model[1] is before
    assert_same_function(model, images())


def test_modules_that_stand_at_two_places_are_replaced_at_both():
    conv, norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
    model = with_statistics(nn.Sequential(conv, norm, nn.Sequential(conv, norm)))
    with attack_mode(model), folded_norms(model, images()):
        assert model[1] is model[2][1]
        assert isinstance(model[1], nn.Identity)
    assert_same_function(model, images())


def test_module_that_is_also_called_behind_the_models_back_is_not_folded():
    model = Parts(lambda net, x: net.norm(net.hidden[0](x)))
    model.hidden = [model.conv]  # a plain list, in which nothing can be replaced
    with_statistics(model)
    with attack_mode(model), folded_norms(model, images()):
        assert isinstance(model.norm, AffineMap)
    assert_same_function(model, images())


def test_what_was_found_is_found_anew_when_the_structure_changes():
    model = with_statistics(
        Parts(lambda net, x: net.norm(hidden := net.conv(x)) + (hidden if net.skips else 0))
    )
    model.skips = False
    with attack_mode(model), folded_norms(model, images()):
        assert isinstance(model.norm, nn.Identity)
    model.skips = True
    with attack_mode(model), folded_norms(model, images()):
        assert isinstance(model.norm, AffineMap)
    assert_same_function(model, images())


def test_an_operation_that_a_list_puts_before_a_norm_is_found():
    model = with_statistics(
        Parts(lambda net, x: net.norm(net.conv(x).tanh() if net.choice == [1] else net.conv(x)))
    )
    model.choice = [0]
    assert_same_function(model, images())
    model.choice[0] = 1
    assert_same_function(model, images())


def test_one_model_is_searched_once(monkeypatch):
    calls = []
    model = with_statistics(Parts(lambda net, x: calls.append(len(x)) or net.norm(net.conv(x))))
    with attack_mode(model), folded_norms(model, images()):
        assert calls == [2, 2, 2, 3, 3]
    with torch.no_grad():
        model.conv.weight.mul_(2.0)
    with attack_mode(model), folded_norms(model, images()):
        assert calls == [2, 2, 2, 3, 3]


@pytest.mark.parametrize("first", [2, 3])
def test_forward_that_depends_on_the_number_of_images_is_not_folded(first):
    model = with_statistics(
        Parts(lambda net, x: net.norm(h := net.conv(x)) + (h if len(x) > 2 else 0))
    )
    with attack_mode(model), folded_norms(model, images()[:first]):
        assert isinstance(model.norm, AffineMap if first > 2 else nn.Identity)
    with attack_mode(model), folded_norms(model, images()):
        assert isinstance(model.norm, AffineMap)
    assert_same_function(model, images())


def test_norm_whose_weights_some_numbers_of_images_need_stays():
    model = with_statistics(
        Parts(lambda net, x: net.norm(x) * (net.norm.weight.mean() if len(x) > 2 else 1))
    )
    with attack_mode(model), folded_norms(model, images()):
        assert isinstance(model.norm, nn.BatchNorm2d)
    assert_same_function(model, images())


def test_forward_that_depends_on_what_is_in_the_images_is_found_and_folded_no_more():
    model = with_statistics(
        Parts(lambda net, x: net.norm(h := net.conv(x)) + (h if x.max() > 2 else 0))
    )
    with attack_mode(model):
        assert folding_agrees(model, images())
        assert not folding_agrees(model, images() * 5)
        never_fold(model)
        assert folding_agrees(model, images() * 5)
        with folded_norms(model, images()):
            assert isinstance(model.norm, nn.BatchNorm2d)


def test_search_draws_no_random_numbers_from_the_model():
    model = with_statistics(Parts(lambda net, x: net.norm(net.conv(x + torch.rand_like(x)))))
    with attack_mode(model):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        with folded_norms(model, images()):
            assert isinstance(model.norm, nn.Identity)
            assert torch.equal(torch.rand(3), expected)


def test_attack_on_a_model_with_activated_norms_is_that_on_the_model_itself():
    torch.manual_seed(0)
    model = with_statistics(nn.Sequential(conv_and(NormAndReLU), nn.Flatten())).eval()
    x, y = images().float(), torch.tensor([0, 1, 2])
    model = model.float()
    attacked = LinfPGD(0.1, step_size=0.05, steps=1, start="none")(model, x, y)
    gradient = input_gradient(model, x, y, cross_entropy_objective)
    assert torch.equal(attacked, (x + 0.05 * gradient.sign()).clamp(0, 1))


def test_memory_that_runs_out_says_nothing_about_the_model() -> None:
    class Hungry(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = Hungry(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    with (
        pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"),
        folded_norms(model, torch.rand(2, 1, 8, 8)),
    ):
        pass
