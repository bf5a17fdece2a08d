"""What networks of all families have in common."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from nasbench_at.config import RunConfig, resolve
from nasbench_at.networks.zoo import create_model, list_models, model_info
from nasbench_at.training.compilation import compile_blocks
from nasbench_at.training.methods import list_methods
from nasbench_at.training.step import TrainingStep
from tests.nasbench_at.networks.zoo.conformance import check_network

TINY = ("tiny_ds_net", "tiny_resnet", "tiny_wrn", "tiny_ie_resnet", "tiny_ada_rk_net")
SMOOTH = ("sat_resnet50", "sat_wrn_34_10")


@pytest.mark.parametrize("name", TINY)
def test_tiny_network_has_fewer_than_300_000_parameters(name):
    net = create_model(name, 10, (1, 8, 8))
    assert sum(parameter.numel() for parameter in net.parameters()) < 300_000


@pytest.mark.parametrize("name", [name for name in TINY if name != "tiny_ds_net"])
def test_network_conforms(name):
    check_network(name)


# Drop-connect, which draws anew at every pass, keeps this one out of the check above.
@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 9, 13), (3, 32, 32)])
def test_ds_net_trains_every_parameter_on_images_of_any_shape(shape):
    net = create_model("tiny_ds_net", 7, shape)
    logits = net(torch.rand(3, *shape))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", TINY)
def test_evaluation_treats_each_image_alone_and_repeats(name):
    net = create_model(name).eval()
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        whole = net(x)
        assert torch.equal(net(x), whole)
        torch.testing.assert_close(net(x[1:2]), whole[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_same_seed_gives_same_network(name):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create_model(name).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_networks_name_their_activation(name):
    assert dict(model_info(name).options) == {"activation": "silu"}


# --- all of them, under training


ALL_TINY = list_models("tiny_*")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16_unscaled"])
@pytest.mark.parametrize("method", list_methods())
@pytest.mark.parametrize("name", ALL_TINY)
def test_every_network_takes_a_step_by_every_method_in_every_precision(name, method, precision):
    torch.manual_seed(0)
    net = create_model(name, 4, (1, 8, 8)).to(memory_format=torch.channels_last)
    config = RunConfig(model=name, method=method, precision=precision, attack_steps=1)
    step = TrainingStep(net, resolve(config))
    step.optimizers.set_rate(0.01)
    before = {key: value.clone() for key, value in net.named_parameters()}
    x = torch.rand(8, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    totals = step(x, torch.arange(8) % 4, torch.Generator().manual_seed(0), num_images=8)
    assert totals.isfinite().all()
    moved = {key for key, value in net.named_parameters() if not torch.equal(value, before[key])}
    assert moved == before.keys()


@pytest.mark.parametrize("name", ALL_TINY)
def test_state_dict_round_trip_gives_the_same_network(name, tmp_path):
    net = create_model(name, 4, (1, 8, 8)).eval()
    save_file({key: value.clone() for key, value in net.state_dict().items()}, tmp_path / "w")
    other = create_model(name, 4, (1, 8, 8)).eval()
    other.load_state_dict(load_file(tmp_path / "w"))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(net(x), other(x))


@pytest.mark.slow
@pytest.mark.timeout(900)
# What torch says of itself while it compiles.
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:The .grad attribute"
)
# DS-Nets are compiled block by block: see `tests/nasbench_at/training/test_compilation.py`.
@pytest.mark.parametrize("name", [name for name in ALL_TINY if name != "tiny_ds_net"])
def test_compiled_network_computes_what_the_eager_one_does(name):
    torch.manual_seed(0)
    x = torch.rand(4, 1, 8, 8)
    # In eval mode only: each mode is compiled by itself, which takes most of a minute.
    net = create_model(name, 4, (1, 8, 8)).eval()
    twin = copy.deepcopy(net)
    assert compile_blocks(net, x) is True
    outputs, gradients = [], []
    for model in (net, twin):
        leaf = x.clone().requires_grad_()
        output = model(leaf)
        (gradient,) = torch.autograd.grad(output.square().sum(), leaf)
        outputs.append(output.detach())
        gradients.append(gradient)
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)
