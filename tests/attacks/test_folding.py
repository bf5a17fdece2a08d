from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from blocks import create_block, list_blocks
from nasbench_at.attacks import attack_mode
from nasbench_at.attacks.folding import AffineMap, folded_norms


@pytest.mark.parametrize("name", list_blocks())
def test_folded_norms_compute_the_same_function_and_gradient(name):
    block = create_block(name, 8).double()
    with torch.no_grad():
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
                module.weight.normal_()
                module.bias.normal_()
    x = torch.rand(2, 8, 6, 6, dtype=torch.float64)

    def output_and_gradient():
        leaf = x.clone().requires_grad_()
        output = block(leaf)
        (gradient,) = torch.autograd.grad(output.square().sum(), leaf)
        return output.detach(), gradient

    before = dict(block.named_modules())
    with attack_mode(block):
        plain = output_and_gradient()
        with folded_norms(block):
            assert not [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
            folded = output_and_gradient()
    torch.testing.assert_close(folded, plain, rtol=1e-9, atol=1e-9)
    assert dict(block.named_modules()) == before


def test_shared_convolution_of_separate_norms_is_not_folded():
    block = create_block("ada_rk", 8, separate_norms=True).double()
    with torch.no_grad():
        block.second_norm2.running_mean.fill_(3.0)
    x = torch.rand(2, 8, 6, 6, dtype=torch.float64)
    with attack_mode(block), torch.no_grad():
        plain = block(x)
        with folded_norms(block):
            torch.testing.assert_close(block(x), plain)


def test_convolution_with_a_computed_weight_is_not_folded():
    block = create_block("residual", 8).double()
    spectral_norm(block.residual.conv1)
    x = torch.rand(2, 8, 6, 6, dtype=torch.float64)
    with attack_mode(block), torch.no_grad():
        plain = block(x)
        with folded_norms(block):
            assert isinstance(block.residual.norm2, AffineMap)
            torch.testing.assert_close(block(x), plain)


def test_norms_are_their_own_again_after_an_exception():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    norm = model[1]

    def fail():
        with attack_mode(model), folded_norms(model):
            assert isinstance(model[1], AffineMap)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert model[1] is norm


def test_norm_in_training_mode_stays():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with attack_mode(model, "train"), folded_norms(model):
        assert isinstance(model[1], nn.BatchNorm2d)
