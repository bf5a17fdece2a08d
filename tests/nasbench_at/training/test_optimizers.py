from __future__ import annotations

import copy
import math
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from nasbench_at import Architecture, AttentionSpec, RunConfig, build_network
from nasbench_at.config import resolve
from nasbench_at.networks.ds_net import RobustModule
from nasbench_at.training.optimizers import Optimizers, check_optimizer_impl, find_apex


def build(mode="learned", keep=None):
    init = "normal" if mode == "learned" else "equal"
    return build_network(
        Architecture(
            blocks=("residual", "ada_rk"),
            num_modules=3,
            init_channels=4,
            widen_factor=1,
            input_shape=(1, 8, 8),
            attention=AttentionSpec(mode=mode, init=init, keep=keep),
        )
    )


def values(recipe="paper", **changes):
    return replace(resolve(RunConfig(data="cifar10", recipe=recipe)), **changes)


def held(optimizer):
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def descend(optimizers, loss):
    optimizers.zero_grad()
    loss.backward()
    optimizers.step(torch.amp.GradScaler("cpu", enabled=False))


def take_step(net, optimizers):
    descend(optimizers, net(torch.rand(4, 1, 8, 8)).square().mean())


def test_sgd_holds_all_block_parameters_and_adam_the_logits():
    net = build()
    optimizers = Optimizers.create(net, values())
    assert held(optimizers.blocks) == {id(p) for p in net.block_parameters()}
    assert held(optimizers.attention) == {id(net.attention.logits)}
    both = held(optimizers.blocks) | held(optimizers.attention)
    assert both == {id(p) for p in net.parameters()}
    assert not held(optimizers.blocks) & held(optimizers.attention)


@pytest.mark.parametrize(("recipe", "betas"), [("paper", (0.9, 0.999)), ("authors", (0.5, 0.999))])
def test_settings_are_the_recipe_s(recipe, betas):
    optimizers = Optimizers.create(build(), values(recipe))
    (sgd,), (adam,) = optimizers.blocks.param_groups, optimizers.attention.param_groups
    assert isinstance(optimizers.blocks, torch.optim.SGD)
    assert isinstance(optimizers.attention, torch.optim.Adam)
    assert (sgd["lr"], sgd["momentum"], sgd["weight_decay"]) == (0.1, 0.9, 5e-4)
    assert not sgd["nesterov"]
    assert (adam["lr"], adam["betas"], adam["weight_decay"]) == (1e-3, betas, 1e-3)


def test_fixed_attention_has_no_optimizer():
    net = build("fixed")
    optimizers = Optimizers.create(net, values())
    assert optimizers.attention is None
    assert list(optimizers) == [optimizers.blocks]
    assert held(optimizers.blocks) == {id(p) for p in net.block_parameters()}
    before = net.attention.weights().clone()
    take_step(net, optimizers)
    assert torch.equal(net.attention.weights(), before)


def test_blocks_that_take_no_part_are_in_no_optimizer():
    net = build(keep=((0,), (1,), (0, 1)))
    optimizers = Optimizers.create(net, values())
    assert held(optimizers.blocks) == {id(p) for p in net.block_parameters() if p.requires_grad}
    modules = [stage for stage in net.stages if isinstance(stage, RobustModule)]
    for module, i in zip(modules, (1, 0), strict=False):
        assert not held(optimizers.blocks) & {id(p) for p in module.blocks[i].parameters()}


def test_network_without_attention_is_trained_whole_by_sgd():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    optimizers = Optimizers.create(net, values())
    assert optimizers.attention is None
    assert held(optimizers.blocks) == {id(p) for p in net.parameters()}


def test_schedule_moves_the_blocks_rate_alone():
    optimizers = Optimizers.create(build(), values())
    optimizers.set_rate(0.025)
    assert optimizers.blocks.param_groups[0]["lr"] == 0.025
    assert optimizers.attention.param_groups[0]["lr"] == 1e-3


def test_step_moves_blocks_and_logits_down_the_same_loss():
    net = build()
    optimizers = Optimizers.create(net, values(lr=1e-3))
    x = torch.rand(8, 1, 8, 8)

    def loss():
        return net(x).square().mean()

    before, logits = loss(), net.attention.logits.detach().clone()
    for _ in range(5):
        descend(optimizers, loss())
    assert loss() < before
    assert not torch.equal(net.attention.logits, logits)


def test_step_forgets_the_gradients_of_earlier_steps():
    weight = nn.Parameter(torch.tensor([1.0]))
    net = nn.Module()
    net.register_parameter("weight", weight)
    optimizers = Optimizers.create(net, values(lr=0.1, momentum=0.0, weight_decay=0.0))
    weight.grad = torch.tensor([100.0])
    descend(optimizers, (2 * weight).sum())
    torch.testing.assert_close(weight.detach(), torch.tensor([0.8]))


@pytest.mark.parametrize("mode", ["learned", "fixed"])
def test_restored_optimizers_go_on_as_if_nothing_had_happened(mode):
    torch.manual_seed(1)
    net, twin = build(mode), build(mode)
    optimizers, restored = (Optimizers.create(model, values()) for model in (net, twin))
    take_step(net, optimizers)
    twin.load_state_dict(net.state_dict())
    restored.load_state_dict(copy.deepcopy(optimizers.state_dict()))
    x = torch.rand(4, 1, 8, 8)
    for model, optimizer in ((net, optimizers), (twin, restored)):
        descend(optimizer, model(x).square().mean())
    assert all(torch.equal(*pair) for pair in zip(net.parameters(), twin.parameters(), strict=True))


def test_states_of_other_optimizers_are_refused():
    states = Optimizers.create(build("fixed"), values()).state_dict()
    with pytest.raises(ValueError, match="shorter"):
        Optimizers.create(build(), values()).load_state_dict(states)


# --- NVIDIA apex

FUSED = """
import torch

class FusedSGD(torch.optim.SGD):
    pass

class FusedAdam(torch.optim.Adam):
    def __init__(self, *arguments, adam_w_mode=True, **options):
        super().__init__(*arguments, **options)
        self.adam_w_mode = adam_w_mode
"""
HINT = r"NVIDIA apex is not on PyPI: build it from its repository \(github.com/NVIDIA/apex\)"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Returns a function that puts a package named apex on the path."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "apex" not in path])
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        monkeypatch.delitem(sys.modules, name)

    def put(files, version=None):
        for name, text in files.items():
            path = tmp_path / "apex" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if version is not None:
            metadata = tmp_path / f"apex-{version}.dist-info" / "METADATA"
            metadata.parent.mkdir()
            metadata.write_text(f"Metadata-Version: 2.1\nName: apex\nVersion: {version}\n")
        monkeypatch.syspath_prepend(tmp_path)

    yield put
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        del sys.modules[name]


def test_absent_apex_is_refused_with_what_to_install():
    with pytest.raises(ValueError, match=rf"apex is not installed. {HINT}.* --optimizer-impl fus"):
        find_apex()


@pytest.mark.parametrize(
    ("files", "version", "found"),
    [
        ({"__init__.py": ""}, "0.9.10.dev0", r"apex 0\.9\.10\.dev0"),
        ({"__init__.py": "import pyramid_that_is_not_there"}, "0.9.10.dev0", "apex 0"),
        ({"__init__.py": "", "optimizers.py": ""}, None, "a module named apex"),
    ],
)
def test_other_package_of_that_name_is_refused(files, version, found, install):
    install(files, version)
    message = rf"{found}.* is installed, which is not NVIDIA's .* {HINT}"
    with pytest.raises(ValueError, match=message):
        find_apex()
    with pytest.raises(ValueError, match="not NVIDIA's"):
        Optimizers.create(build(), values(optimizer_impl="apex"))


def test_nvidia_s_apex_is_used_with_the_decay_of_plain_adam(install):
    install({"__init__.py": "", "optimizers.py": FUSED})
    net = build()
    optimizers = Optimizers.create(net, values("authors", optimizer_impl="apex"))
    apex = find_apex()
    assert type(optimizers.blocks) is apex.FusedSGD
    assert type(optimizers.attention) is apex.FusedAdam
    assert optimizers.attention.adam_w_mode is False
    (group,) = optimizers.attention.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.5, 0.999), 1e-3)
    take_step(net, optimizers)


def test_apex_without_a_gpu_is_refused(install):
    install({"__init__.py": "", "optimizers.py": FUSED})
    with pytest.raises(ValueError, match="optimizer_impl 'apex' needs a GPU, got device 'cpu'"):
        check_optimizer_impl("apex", torch.device("cpu"))
    check_optimizer_impl("apex", torch.device("cuda"))


@pytest.mark.parametrize("impl", ["torch", "fused"])
def test_torch_s_own_kernels_are_always_there(impl):
    check_optimizer_impl(impl, torch.device("cpu"))


def test_fused_kernels_take_the_same_step():
    nets = [build()]
    nets.append(copy.deepcopy(nets[0]))
    x = torch.rand(4, 1, 8, 8)
    for net, impl in zip(nets, ("torch", "fused"), strict=True):
        optimizers = Optimizers.create(net, values(lr=0.01, optimizer_impl=impl))
        assert bool(optimizers.blocks.param_groups[0].get("fused")) == (impl == "fused")
        for _ in range(3):
            descend(optimizers, net(x).square().mean())
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_fused_sgd_survives_a_first_step_that_overflows():
    """torch would take what lay in memory for the momentum."""
    net = nn.Linear(64, 64, bias=False)
    junk = [torch.full((64, 64), 7e3) for _ in range(50)]
    del junk
    config = values(lr=1.0, momentum=0.9, weight_decay=0.0, optimizer_impl="fused")
    optimizers = Optimizers.create(net, config)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = net.weight.detach().clone()
    for factor in (math.inf, 1.0):
        optimizers.zero_grad()
        scaler.scale(net.weight.sum() * factor).backward()
        optimizers.step(scaler)
    torch.testing.assert_close(net.weight.detach(), before - 1)
