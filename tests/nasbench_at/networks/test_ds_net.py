from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import ReductionBlock, create_block
from nasbench_at.config.architecture import Architecture, AttentionSpec
from nasbench_at.networks.ds_net import DSNet, RobustModule
from nasbench_at.networks.graph import build_graph, build_network

NAMES = ("residual", "mbconv", "dense", "ada_rk")


def with_attention(arch: Architecture, **spec) -> Architecture:
    return replace(arch, attention=AttentionSpec(**spec))


def robust_modules(net: DSNet) -> list[RobustModule]:
    return [stage for stage in net.stages if isinstance(stage, RobustModule)]


def count_calls(net: DSNet) -> dict[str, int]:
    """Counts, from now on, the calls of every block by ``module.block``."""
    calls: dict[str, int] = {}
    for i, module in enumerate(robust_modules(net)):
        for j, block in enumerate(module.blocks):
            key = f"{i}.{j}"
            calls[key] = 0
            block.register_forward_hook(lambda *_, key=key: calls.__setitem__(key, calls[key] + 1))
    return calls


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 8, 8)


@pytest.fixture
def module() -> RobustModule:
    blocks = [create_block(name, 4) for name in NAMES]
    return RobustModule(blocks, (0, 1, 2, 3), (True,) * 4).eval()


@pytest.mark.parametrize("chosen", range(4))
def test_one_hot_weights_give_the_block_alone(module, chosen):
    x = torch.randn(2, 4, 5, 5)
    weights = F.one_hot(torch.tensor(chosen), 4).float()
    torch.testing.assert_close(module(x, weights), module.blocks[chosen](x))


def test_uniform_weights_give_the_mean_of_the_blocks(module):
    x = torch.randn(2, 4, 5, 5)
    mean = torch.stack([block(x) for block in module.blocks]).mean(dim=0)
    torch.testing.assert_close(module(x, torch.full((4,), 0.25)), mean)


def test_weights_are_looked_up_by_column(module):
    x = torch.randn(2, 4, 5, 5)
    moved = RobustModule(list(module.blocks), (3, 0, 2, 1), (True,) * 4)
    torch.testing.assert_close(
        moved(x, torch.tensor([0.2, 0.4, 0.3, 0.1])), module(x, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    )


def test_network_is_stem_stages_mean_and_head(tiny_architecture, images):
    net = build_network(tiny_architecture).eval()
    weights = net.attention.weights()
    expected = net.stem(images)
    for stage, row in ((0, 0), (1, None), (2, 1), (3, None), (4, 2)):
        part = net.stages[stage]
        if row is None:
            assert isinstance(part, ReductionBlock)
            expected = part(expected)
        else:
            outputs = [
                w * block(expected) for w, block in zip(weights[row], part.blocks, strict=True)
            ]
            expected = sum(outputs)
    expected = net.head(F.adaptive_avg_pool2d(expected, 1).flatten(1))
    torch.testing.assert_close(net(images), expected)
    assert net(images).shape == (3, 10)


def test_default_network_is_as_wide_and_deep_as_the_paper_says():
    net = build_network(Architecture())
    assert len(robust_modules(net)) == 15
    assert [i for i, s in enumerate(net.stages) if isinstance(s, ReductionBlock)] == [5, 11]
    assert net.stem.weight.shape == (20, 3, 3, 3)
    assert net.stem.bias is not None
    assert net.head.weight.shape == (10, 160)


def test_one_hot_network_equals_the_network_of_that_block(tiny_architecture, images):
    one_hot = ((0.0, 0.0, 1.0, 0.0),) * 3
    net = build_network(
        with_attention(tiny_architecture, mode="fixed", init="given", weights=one_hot)
    ).eval()
    alone = build_network(replace(tiny_architecture, blocks=("dense",))).eval()
    state = net.state_dict()
    own = {key: state[key.replace(".blocks.0.", ".blocks.2.")] for key in alone.state_dict()}
    alone.load_state_dict({**own, "attention.logits": torch.zeros(3, 1)})
    torch.testing.assert_close(net(images), alone(images))


def test_permuting_blocks_with_their_weights_changes_nothing(tiny_architecture, images):
    order = [2, 0, 3, 1]
    row = (0.1, 0.2, 0.3, 0.4)
    fixed = {"mode": "fixed", "init": "given"}
    net = build_network(with_attention(tiny_architecture, **fixed, weights=(row,) * 3)).eval()
    spec = AttentionSpec(**fixed, weights=(tuple(row[j] for j in order),) * 3)
    names = tuple(NAMES[j] for j in order)
    permuted = build_network(replace(tiny_architecture, blocks=names, attention=spec)).eval()
    permuted.load_state_dict(
        {**net.state_dict(), "attention.logits": permuted.attention.logits.detach()}
    )
    torch.testing.assert_close(permuted(images), net(images), rtol=1e-5, atol=1e-6)


def test_every_block_is_computed_once(tiny_architecture, images):
    net = build_network(tiny_architecture)
    calls = count_calls(net)
    net(images)
    assert len(calls) == 12
    assert set(calls.values()) == {1}


@pytest.mark.parametrize(
    "spec",
    [
        {"keep": ((0, 2), (1,), (3,))},
        {
            "mode": "fixed",
            "init": "given",
            "weights": ((0.5, 0, 0.5, 0), (0, 1.0, 0, 0), (0, 0, 0, 1.0)),
        },
    ],
    ids=["keep", "given"],
)
def test_blocks_of_weight_zero_are_not_computed(tiny_architecture, images, spec):
    net = build_network(with_attention(tiny_architecture, **spec))
    calls = count_calls(net)
    net(images).sum().backward()
    assert [key for key, number in calls.items() if number] == ["0.0", "0.2", "1.1", "2.3"]
    assert all(p.grad is None for p in robust_modules(net)[1].blocks[2].parameters())


def test_fixed_weights_get_no_gradient_and_learned_ones_do(tiny_architecture, images):
    for mode in ("fixed", "learned"):
        net = build_network(with_attention(tiny_architecture, mode=mode, init="equal"))
        net(images).square().sum().backward()
        assert (net.attention.logits.grad is None) == (mode == "fixed")
        assert all(p.grad is not None for p in net.block_parameters())


def test_blocks_that_take_no_part_need_no_gradient(tiny_architecture):
    keep = ((0, 2), (1,), (0, 1, 2, 3))
    for mode in ("fixed", "learned"):
        net = build_network(with_attention(tiny_architecture, mode=mode, keep=keep))
        for module, row in zip(robust_modules(net), keep, strict=True):
            for i, block in enumerate(module.blocks):
                assert {p.requires_grad for p in block.parameters()} == {i in row}
        rest = (*net.stem.parameters(), *net.head.parameters())
        assert all(p.requires_grad for p in rest)


def test_parameter_groups_are_disjoint_and_together_all(tiny_architecture):
    net = build_network(tiny_architecture)
    attention = {id(p) for p in net.attention_parameters()}
    blocks = {id(p) for p in net.block_parameters()}
    assert attention == {id(net.attention.logits)}
    assert not attention & blocks
    assert attention | blocks == {id(p) for p in net.parameters()}
    assert len(list(net.block_parameters())) == len(blocks)


def test_logits_are_in_the_state_dict_and_in_one_optimizer_only(tiny_architecture, images):
    net = build_network(tiny_architecture)
    sgd = torch.optim.SGD(net.block_parameters(), lr=0.1)
    adam = torch.optim.Adam(net.attention_parameters(), lr=0.1)
    before = net.state_dict()["attention.logits"].clone()
    net(images).square().sum().backward()
    sgd.step()
    assert torch.equal(net.state_dict()["attention.logits"], before)
    adam.step()
    assert (net.state_dict()["attention.logits"] != before).all()


def test_state_dict_carries_the_function_to_another_network(tiny_architecture, images):
    torch.manual_seed(1)
    net = build_network(tiny_architecture)
    net(images)
    torch.manual_seed(2)
    other = build_network(tiny_architecture)
    assert not torch.equal(other.eval()(images), net.eval()(images))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.eval()(images), net.eval()(images))


def test_same_seed_gives_the_same_network(tiny_architecture):
    nets = []
    for source in (tiny_architecture, build_graph(tiny_architecture)):
        torch.manual_seed(5)
        nets.append(build_network(source).state_dict())
    assert nets[0].keys() == nets[1].keys()
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])


def test_deep_copy_is_equal_and_independent(tiny_architecture, images):
    net = build_network(tiny_architecture).eval()
    twin = copy.deepcopy(net)
    expected = net(images)
    assert torch.equal(twin(images), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(net(images), expected)
    twin.graph.nodes["stem"]["channels"] = 99
    assert net.graph.nodes["stem"]["channels"] == 4


def test_network_starts_in_training_mode_and_images_do_not_mix_in_eval(tiny_architecture, images):
    net = build_network(tiny_architecture)
    assert net.training
    net.eval()
    torch.testing.assert_close(net(images[:1]), net(images)[:1], rtol=1e-5, atol=1e-6)


def test_options_and_copies_reach_the_blocks(tiny_architecture, images):
    arch = replace(
        tiny_architecture,
        block_options={"ada_rk": {"separate_norms": True}, "dense": {"activation": "elu"}},
        block_copies={"dense": 2},
    )
    net = build_network(arch)
    residual, _, dense, ada_rk = robust_modules(net)[2].blocks
    assert isinstance(ada_rk.second_norm1, nn.BatchNorm2d)
    assert len(dense) == 2
    assert isinstance(dense[1].layers[0].activation, nn.ELU)
    assert isinstance(residual.residual.activation, nn.ReLU)
    assert net(images).shape == (3, 10)


def test_channels_last_computes_the_same_and_trains(tiny_architecture, images):
    net = build_network(tiny_architecture).eval()
    expected = net(images)
    net.to(memory_format=torch.channels_last)
    fast = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(fast), expected, rtol=1e-4, atol=1e-5)
    net.train()(fast).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_gradients_of_an_attack_stay_in_channels_last(tiny_architecture, images):
    network = build_network(tiny_architecture).to(memory_format=torch.channels_last).eval()
    outputs = []
    for module in network.modules():
        if type(module).__name__ in ("SqueezeExcite", "RobustModule", "ReductionBlock"):
            module.register_forward_hook(lambda _, __, output: outputs.append(output))
    logits = network(images.contiguous(memory_format=torch.channels_last).requires_grad_())
    gradients = torch.autograd.grad(logits.square().sum(), outputs)
    assert any(gradient[0, 0].numel() > 1 for gradient in gradients)
    for gradient in gradients:
        assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_gradient_reaches_the_images(tiny_architecture, images):
    net = build_network(tiny_architecture).eval()
    (gradient,) = torch.autograd.grad(net(images.requires_grad_()).square().sum(), images)
    assert gradient.abs().sum() > 0
    assert all(p.grad is None for p in net.parameters())
