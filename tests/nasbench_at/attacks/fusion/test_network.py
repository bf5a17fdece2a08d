from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nasbench_at import Architecture, build_network
from nasbench_at.attacks import (
    AutoAttack,
    LinfPGD,
    attack_mode,
    cross_entropy_objective,
    input_gradient,
)
from nasbench_at.attacks.folding import folded_norms, never_fold
from nasbench_at.attacks.fusion import fused, network

from .conftest import (
    Replayable,
    assert_same_function,
    draw_statistics,
    images,
    is_fused,
    logits_and_gradient,
)

needs_bf16 = pytest.mark.skipif(
    not network._has_convolutions(torch.bfloat16),
    reason="this processor has no convolutions in bf16",
)

ARCHITECTURE = Architecture(num_modules=3, init_channels=4, widen_factor=2, input_shape=(3, 8, 8))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return draw_statistics(build_network(ARCHITECTURE))


def test_ds_net_is_fused_with_the_same_logits_and_gradient(net):
    assert_same_function(net, images(5), images(2))


def test_fused_attack_ends_near_that_on_the_model_itself(net, monkeypatch):
    x, y = images(8), torch.arange(8)
    attack = LinfPGD(8 / 255, steps=5)
    found = attack(net, x, y)
    monkeypatch.setattr(network, "_MIN_SIZE", 10**9)
    assert not is_fused(net, x)
    differs = (found - attack(net, x, y)).abs() > 1e-6
    assert differs.float().mean() < 0.01


@pytest.mark.slow
def test_autoattack_gives_the_verdicts_that_it_gives_on_the_model_itself(net, monkeypatch):
    x = images(8)
    with torch.no_grad():
        net.head.bias -= net(x).mean(dim=0)  # so that its answers depend on the image
        y = net(x).argmax(dim=1)
    attack = AutoAttack(0.007, square_queries=5)
    called = []
    apply = network._Fused.__call__
    monkeypatch.setattr(network._Fused, "__call__", lambda *of: called.append(1) or apply(*of))
    found = attack.run(net, x, y)
    assert called
    monkeypatch.setattr(network, "_MIN_SIZE", 10**9)
    expected = attack.run(net, x, y)
    assert found.robust.tolist() == expected.robust.tolist()
    assert 0 < found.robust.sum() < len(x)


@needs_bf16
def test_low_precision_is_as_close_to_full_precision_as_the_model_itself(net):
    x = images(8)
    exact = logits_and_gradient(net, x)
    with attack_mode(net), folded_norms(net, x), torch.autocast("cpu", torch.bfloat16):
        own = logits_and_gradient(net, x)
        replacement = fused(net, x)
        assert replacement is not net
        found = logits_and_gradient(replacement, x)
    for ours, plain, best in zip(found, own, exact, strict=True):
        assert ours.dtype == plain.dtype
        error, usual = (ours - best).norm(), (plain - best).norm()
        assert 0 < error < 1.5 * usual


def test_weights_are_those_of_the_time_of_the_attack(net):
    assert_same_function(net, images())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)
        draw_statistics(net)
    assert_same_function(net, images())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision_that_the_processor_lacks_is_computed_by_the_model_itself(
    dtype, net, monkeypatch
):
    x = images()
    has = network._has_convolutions
    monkeypatch.setattr(network, "_has_convolutions", lambda low: low != dtype and has(low))
    monkeypatch.setattr(network, "attempt", lambda compute: compute())  # nothing fails unseen
    with torch.autocast("cpu", dtype):
        assert not is_fused(net, x)
    assert is_fused(net, x)


def test_equal_networks_have_equal_bits_so_that_a_resumed_run_ends_as_it_would_have(net):
    x = images(8, channels_last=True)
    results = []
    for model in (net, copy.deepcopy(net)):
        with attack_mode(model), folded_norms(model, x), torch.autocast("cpu", torch.bfloat16):
            # What is recorded first, and from which images, must not matter.
            fused(model, x[: 3 + len(results)])
            results.append(logits_and_gradient(fused(model, x), x))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


def test_gradient_may_be_asked_for_more_than_once(net):
    x = images().requires_grad_()
    with attack_mode(net), folded_norms(net, x):
        logits = fused(net, x)(x)
    first, again = (
        torch.autograd.grad(logits[:, 0].sum(), x, retain_graph=True)[0] for _ in range(2)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    (other,) = torch.autograd.grad(logits[:, 1].sum(), x)
    assert not torch.equal(first, other)


def test_program_is_made_once(net, monkeypatch):
    made = []
    make = network._make_program
    monkeypatch.setattr(network, "_make_program", lambda *of: made.append(1) or make(*of))
    for num_images in (4, 4, 7):
        assert is_fused(net, images(num_images))
    assert len(made) == 1
    assert is_fused(net, images(channels_last=True))
    assert len(made) == 2
    net.stages[0].blocks[0] = nn.Identity()
    assert is_fused(net, images())
    assert len(made) == 3


@needs_bf16
def test_low_precision_has_a_program_of_its_own(net, monkeypatch):
    made = []
    make = network._make_program
    monkeypatch.setattr(network, "_make_program", lambda *of: made.append(1) or make(*of))
    assert is_fused(net, images())
    with torch.autocast("cpu", torch.bfloat16):
        assert is_fused(net, images())
    assert len(made) == 2


def test_program_that_differs_from_its_model_is_not_used(net, monkeypatch):
    make = network._make_program

    def make_another(model, x):
        with torch.no_grad():
            net.head.weight.neg_()
        program = make(model, x)
        program.names[program.names.index("head.weight")] = "negated"
        return program

    monkeypatch.setattr(network, "_make_program", make_another)
    net.negated = nn.Parameter(-net.head.weight.detach())
    held = network.held_tensors
    monkeypatch.setattr(
        network, "held_tensors", lambda model: held(model) | {"negated": net.negated * 2}
    )
    assert not is_fused(net, images())


def test_what_cannot_or_should_not_be_fused_stays_itself(net, monkeypatch):
    x = images()
    assert is_fused(net, x)
    assert not is_fused(copy.deepcopy(net).double(), x.double())
    with attack_mode(net, "train"):
        assert fused(net, x) is net
    handle = net.stages[0].register_forward_hook(lambda *_: None)
    assert not is_fused(net, x)
    handle.remove()
    monkeypatch.setattr(net, "is_replayable", False)
    assert not is_fused(net, x)
    monkeypatch.undo()
    never_fold(net)
    assert not is_fused(net, x)


def test_small_network_is_not_fused(net, monkeypatch):
    with attack_mode(net), folded_norms(net, images()):
        size = sum(tensor.numel() for tensor in network.held_tensors(net).values())
    monkeypatch.setattr(network, "_MIN_SIZE", size + 1)
    assert not is_fused(net, images())
    monkeypatch.setattr(network, "_MIN_SIZE", size)
    assert is_fused(net, images())


def test_model_that_cannot_be_recorded_is_attacked_as_it_is():
    model = Replayable(
        lambda self, x: self.head(nn.functional.dropout(x, 0.5).flatten(1)),
        head=nn.Linear(192, 3),
    ).eval()
    assert not is_fused(model, images())


def test_model_in_a_type_that_convolutions_lack_is_attacked_as_it_is(net, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("mkldnn_convolution_pointwise: only for tensors of another type")

    monkeypatch.setattr(network.Program, "forward", refuse)
    assert not is_fused(net, images())


def test_lack_of_memory_says_nothing_about_the_model(net, monkeypatch):
    def refuse(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(network, "record", refuse)
        with pytest.raises(MemoryError):
            is_fused(net, images())
    assert is_fused(net, images())


def test_images_of_one_may_be_attacked(net):
    assert is_fused(net, images(1))
    x, y = images(1), torch.zeros(1, dtype=torch.int64)
    with attack_mode(net), folded_norms(net, x):
        gradient = input_gradient(fused(net, x), x, y, cross_entropy_objective)
        torch.testing.assert_close(
            gradient, input_gradient(net, x, y, cross_entropy_objective), rtol=1e-4, atol=1e-6
        )


CHANGES = {
    "another function": lambda net: setattr(net, "function", lambda n, x: mean(n.c(n.b(n.a(x))))),
    "another entry of a list": lambda net: net.factors.__setitem__(0, 3.0),
    "a bias where there was none": lambda net: setattr(net.a, "bias", nn.Parameter(torch.ones(4))),
    "no bias where there was one": lambda net: setattr(net.b, "bias", None),
    "a module of its own": lambda net: setattr(net, "c", nn.Conv2d(4, 4, 3, padding=1)),
    "a weight of its own": lambda net: setattr(
        net.c, "weight", nn.Parameter(torch.rand(4, 4, 3, 3))
    ),
}


def mean(x):
    return x.mean(dim=(2, 3))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_program_is_made_anew_when_the_model_is_another_one(change):
    torch.manual_seed(0)
    net = Replayable(
        lambda net, x: mean(net.c(net.b(net.factors[0] * net.a(x)))),
        a=nn.Conv2d(3, 4, 3, bias=False),
        b=nn.Conv2d(4, 4, 3, padding=1),
        c=nn.Conv2d(4, 4, 3, padding=1),
    ).eval()
    net.c.weight = net.b.weight
    net.factors = [2.0]
    assert_same_function(net, images())
    change(net)
    assert_same_function(net, images())


def test_model_with_a_forward_of_its_own_or_hooks_of_all_is_not_fused(net):
    x = images()
    assert is_fused(net, x)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not is_fused(net, x)
    handle.remove()
    assert is_fused(net, x)
    forward = net.forward
    net.forward = lambda x: forward(1 - x)
    assert not is_fused(net, x)
