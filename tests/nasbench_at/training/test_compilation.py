from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nasbench_at import Architecture, build_network
from nasbench_at.attacks import LinfPGD, attack_mode
from nasbench_at.attacks.folding import folded_norms
from nasbench_at.training import compilation
from nasbench_at.training.compilation import compilable_parts, compile_blocks


@pytest.fixture
def net():
    """Each of four blocks once: compiling one at several widths would take minutes."""
    return build_network(
        Architecture(
            blocks=(("residual",), ("ada_rk",), ("mbconv", "dense")),
            block_options={"mbconv": {"drop_connect": 0.0}},  # compiled code draws other numbers
            num_modules=3,
            init_channels=4,
            widen_factor=1,
            input_shape=(1, 8, 8),
        )
    )


def test_parts_are_the_blocks_and_the_reductions(net):
    parts = compilable_parts(net)
    assert len(parts) == 4 + 2
    inside = {id(parameter) for part in parts for parameter in part.parameters()}
    outside = [name for name, p in net.named_parameters() if id(p) not in inside]
    assert all(name.startswith(("stem", "attention", "head", "norm")) for name in outside), outside


def test_other_network_is_compiled_as_a_whole():
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    assert compilable_parts(other) == [other]


def test_failing_compiler_falls_back_to_eager_mode_with_one_warning(net, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no compiler here\nmore of it")

    def compile_badly(module, *_, **__):
        module._compiled_call_impl = fail

    monkeypatch.setattr(nn.Module, "compile", compile_badly)
    x = torch.rand(4, 1, 8, 8)
    expected = copy.deepcopy(net)(x)
    with pytest.warns(UserWarning, match="compilation failed, going on in eager mode") as caught:
        assert compile_blocks(net, torch.rand(4, 1, 8, 8)) is False
    (warning,) = caught
    assert str(warning.message).endswith(": no compiler here")
    torch.testing.assert_close(net(x), expected)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.filterwarnings("ignore:compilation failed")
def test_trial_leaves_statistics_gradients_and_random_state_as_they_were(monkeypatch, fails):
    net = build_network(
        Architecture(
            blocks=("mbconv",),
            num_modules=3,
            init_channels=4,
            widen_factor=1,
            input_shape=(1, 8, 8),
        )
    )

    class FailsLate(nn.Linear):
        def forward(self, x):
            if fails:
                raise RuntimeError("no compiler here")
            return super().forward(x)

    net.head = FailsLate(net.head.in_features, net.head.out_features)
    monkeypatch.setattr(nn.Module, "compile", lambda module: None)
    before = copy.deepcopy(net.state_dict())
    random_state = torch.get_rng_state()
    assert compile_blocks(net, torch.rand(4, 1, 8, 8, generator=torch.Generator())) is not fails
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.slow
@pytest.mark.timeout(900)
# What torch says of itself while it compiles.
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:The .grad attribute"
)
def test_compiled_blocks_compute_what_eager_ones_do(net):
    x = torch.rand(4, 1, 8, 8)
    twin = copy.deepcopy(net)
    names = list(net.state_dict())
    assert compilation.compile_blocks(net, x) is True
    assert list(net.state_dict()) == names
    for mode in (True, False):
        outputs, gradients = [], []
        for model in (net, twin):
            model.train(mode).zero_grad()
            leaf = x.clone().requires_grad_()
            output = model(leaf)
            output.square().sum().backward()
            outputs.append(output.detach())
            gradients.append([leaf.grad, *(p.grad for p in model.parameters())])
        torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, twin.state_dict()[name], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
# What torch says of itself while it compiles.
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:The .grad attribute"
)
def test_code_compiled_for_one_attack_serves_the_next():
    net = build_network(
        Architecture(
            blocks=("residual",),
            num_modules=3,
            init_channels=4,
            widen_factor=1,
            input_shape=(1, 8, 8),
        )
    ).eval()  # attacks compile nothing for training mode
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    attack = LinfPGD(0.1, steps=2)
    assert compilation.compile_blocks(net, x) is True
    attack(net, x, y)
    with attack_mode(net), folded_norms(net, x):
        assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
        assert isinstance(net.stages[0].blocks[0].residual.norm2, nn.Identity)
    num_graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.01)
    attack(net, x, y)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == num_graphs > 0
