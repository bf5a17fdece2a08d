from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from blocks.layers import SmoothReLU
from nasbench_at.attacks import attack_mode
from nasbench_at.attacks.folding import folded_norms
from nasbench_at.networks.zoo import create_model

ACTIVATIONS = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "smooth_relu": SmoothReLU,
}


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def activations_of(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, tuple(ACTIVATIONS.values()))]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet50", 23_520_842), ("sat_resnet50", 23_520_842), ("resnet18", 11_173_962)],
)
def test_parameters_are_the_published_ones(name, expected):
    with torch.device("meta"):
        assert count(create_model(name)) == expected


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_output_is_that_of_torchvisions_network_with_a_small_stem(name):
    ours = create_model(name)
    theirs = getattr(torchvision_resnet, name)(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


def resolutions(net: nn.Module, x: Tensor) -> list[int]:
    sizes = []
    for block in net.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[-1]))
    net(x)
    return sizes


def test_tiny_network_halves_resolution_twice():
    assert resolutions(create_model("tiny_resnet"), torch.rand(2, 3, 32, 32)) == [32, 16, 8]


@pytest.mark.parametrize(("name", "kind"), ACTIVATIONS.items())
def test_activation_takes_the_place_of_every_relu(name, kind):
    with torch.device("meta"):
        net = create_model("sat_resnet50", activation=name)
    assert [type(module) for module in activations_of(net)] == [kind] * 17


def test_smooth_activation_is_silu_unless_told_otherwise():
    with torch.device("meta"):
        assert {type(module) for module in activations_of(create_model("sat_resnet50"))} == {
            nn.SiLU
        }
        assert count(create_model("sat_resnet50", activation="smooth_relu")) == 23_520_842 + 17


def test_unknown_activation_lists_what_is_allowed():
    with pytest.raises(ValueError, match=r"activation must be one of relu, silu, .* got 'odd'"):
        create_model("sat_resnet50", activation="odd")


@pytest.mark.parametrize("name", ["tiny_resnet", "resnet18"])
def test_every_norm_folds_into_its_convolution(name):
    net = create_model(name).double()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2.0)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    with attack_mode(net), torch.no_grad():
        plain = net(x)
        with folded_norms(net, x):
            kinds = {type(module).__name__ for module in net.modules()}
            assert not {"BatchNorm2d", "AffineMap"} & kinds
            torch.testing.assert_close(net(x), plain)
