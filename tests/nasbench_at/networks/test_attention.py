from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from nasbench_at.config.architecture import Architecture, AttentionSpec
from nasbench_at.networks.attention import Attention, load_authors_logits
from nasbench_at.networks.graph import build_network

NUM_MODULES, NUM_COLUMNS = 4000, 4


def draw(spec: AttentionSpec) -> Tensor:
    """Sixteen thousand initial logits, enough to tell distributions apart."""
    columns = [range(NUM_COLUMNS)] * NUM_MODULES
    return Attention(spec, columns, NUM_COLUMNS).logits.detach().double()


def full(spec: AttentionSpec, num_modules: int = 3, num_columns: int = 4) -> Attention:
    return Attention(spec, [range(num_columns)] * num_modules, num_columns)


@pytest.mark.parametrize(("recipe", "scale"), [("paper", 1.0), ("authors", 1e-3)])
@pytest.mark.parametrize(
    ("init", "mean", "std"),
    [
        ("normal", 0.0, 1.0),
        ("uniform", 0.5, 12**-0.5),
        ("exponential", 1.0, 1.0),
        ("geometric", 2.0, 2**0.5),
    ],
)
def test_initial_logits_have_the_moments_of_their_distribution(init, mean, std, recipe, scale):
    logits = draw(AttentionSpec(init=init, recipe=recipe)) / scale
    assert abs(logits.mean() - mean) < 0.05
    assert abs(logits.std() - std) < 0.08


@pytest.mark.parametrize(
    ("recipe", "scale", "mean", "std"), [("paper", 1.0, 0.0, 1.0), ("authors", 1e-3, 1.0, 2.0)]
)
def test_log_normal_logits_are_the_exponential_of_a_normal(recipe, scale, mean, std):
    logs = (draw(AttentionSpec(init="log_normal", recipe=recipe)) / scale).log()
    assert abs(logs.mean() - mean) < 0.05
    assert abs(logs.std() - std) < 0.05


def test_initial_logits_lie_in_the_support_of_their_distribution():
    uniform, exponential, geometric = (
        draw(AttentionSpec(init=init)) for init in ("uniform", "exponential", "geometric")
    )
    assert 0 <= uniform.min() < 0.01
    assert 0.99 < uniform.max() <= 1
    assert 0 <= exponential.min() < 0.01
    assert set(geometric.flatten().tolist()) >= {1.0, 2.0, 3.0, 4.0}
    assert torch.equal(geometric, geometric.round())
    assert geometric.min() == 1


@pytest.mark.parametrize(
    ("init", "parameters", "mean"),
    [
        ("normal", {"mean": 3.0, "std": 0.1, "scale": 2.0}, 6.0),
        ("uniform", {"low": 4.0, "high": 6.0}, 5.0),
        ("exponential", {"rate": 4.0}, 0.25),
        ("geometric", {"p": 0.25}, 4.0),
    ],
)
def test_parameters_of_the_distribution_can_be_overridden(init, parameters, mean):
    logits = draw(AttentionSpec(init=init, init_options=parameters))
    assert logits.mean() == pytest.approx(mean, rel=0.05)


def test_same_seed_gives_same_logits():
    first = full(AttentionSpec()).logits
    assert not torch.equal(full(AttentionSpec()).logits, first)
    torch.manual_seed(0)
    assert torch.equal(full(AttentionSpec()).logits, first)


def test_trained_logits_are_the_authors_matrix():
    logits = load_authors_logits()
    assert logits.shape == (15, 4)
    torch.testing.assert_close(logits[0], torch.tensor([-0.038046, -0.040694, 0.18031, -0.059434]))
    torch.testing.assert_close(logits[7], torch.tensor([0.032483, -0.074212, 0.066345, 0.04034]))
    torch.testing.assert_close(logits[14], torch.tensor([1.1671, -1.2097, -0.27491, -0.29023]))
    last = torch.tensor([0.6401, 0.0594, 0.1514, 0.1491])
    torch.testing.assert_close(logits.softmax(dim=1)[14], last, rtol=0, atol=5e-5)
    # The blocks that the authors keep after pruning to one block a module.
    assert logits.argmax(dim=1).tolist() == [2, 0, 3, 2, 2, 3, 2, 2, 0, 0, 3, 0, 0, 0, 0]


def test_trained_init_starts_from_the_unscaled_matrix():
    attention = full(AttentionSpec(init="trained", recipe="authors"), num_modules=15)
    assert torch.equal(attention.logits, load_authors_logits())


def test_equal_init_weighs_all_blocks_alike():
    for mode in ("fixed", "learned"):
        attention = full(AttentionSpec(mode=mode, init="equal"))
        assert torch.equal(attention.weights(), torch.full((3, 4), 0.25))
        assert attention.logits.requires_grad == (mode == "learned")


def test_given_weights_are_what_the_blocks_get():
    weights = ((0.7, 0.1, 0.1, 0.1), (0.0, 0.5, 0.5, 0.0), (0.0, 0.0, 0.0, 1.0))
    attention = full(AttentionSpec(mode="fixed", init="given", weights=weights))
    torch.testing.assert_close(attention.weights(), torch.tensor(weights))
    assert torch.equal(attention.weights() == 0, torch.tensor(weights) == 0)
    assert attention.mask.tolist() == [[weight > 0 for weight in row] for row in weights]
    assert not attention.logits.requires_grad


def test_kept_columns_are_renormalised_and_the_others_weigh_exactly_nothing():
    keep = ((0, 2), (1,), (0, 1, 2, 3))
    free = full(AttentionSpec())
    torch.manual_seed(0)
    masked = full(AttentionSpec(keep=keep))
    for row, columns, everything in zip(masked.weights(), keep, free.weights(), strict=True):
        expected = torch.zeros(4)
        expected[list(columns)] = everything[list(columns)] / everything[list(columns)].sum()
        torch.testing.assert_close(row, expected)
        assert (row == 0).sum() == 4 - len(columns)


@pytest.mark.parametrize("init", ["normal", "uniform", "log_normal", "exponential", "geometric"])
@pytest.mark.parametrize("recipe", ["paper", "authors"])
def test_rows_sum_to_one_and_vanish_where_a_module_lacks_the_block(init, recipe):
    columns = [(0, 1, 2), (1,), (0, 2)]
    attention = Attention(AttentionSpec(init=init, recipe=recipe), columns, 3)
    weights = attention.weights()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    for row, present in zip(weights.tolist(), columns, strict=True):
        assert [column for column, weight in enumerate(row) if weight > 0] == list(present)


def test_masked_logits_get_no_gradient():
    attention = Attention(AttentionSpec(), [(0, 1), (1, 2)], 3)
    (attention.weights() * torch.rand(2, 3)).sum().backward()
    assert torch.equal(attention.logits.grad != 0, attention.mask)


def test_only_the_logits_are_part_of_the_state_dict():
    attention = Attention(AttentionSpec(), [(0, 1), (1, 2)], 3)
    assert set(attention.state_dict()) == {"logits"}
    assert [name for name, _ in attention.named_parameters()] == ["logits"]


def test_mask_moves_with_the_module():
    assert full(AttentionSpec()).to("meta").mask.device.type == "meta"


def test_gradient_of_the_logits_is_that_of_the_weighted_sum(tiny_architecture):
    # Smooth blocks: finite differences across the kink of a ReLU are not a gradient.
    arch = replace(
        tiny_architecture,
        block_options={
            name: {"activation": "silu"} for name in ("residual", "mbconv", "dense", "ada_rk")
        },
        attention=AttentionSpec(keep=((0, 1, 2, 3), (1, 2), (0, 2, 3))),
    )
    net = build_network(arch).double().eval()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)

    def logits_to_output(logits: Tensor) -> Tensor:
        return functional_call(net, {"attention.logits": logits}, (x,))

    assert torch.autograd.gradcheck(
        logits_to_output, net.attention.logits.detach().clone().requires_grad_()
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (AttentionSpec(init="trained"), "init 'trained' has 15 rows, the network 3 modules"),
        (
            AttentionSpec(init="given", weights=((1.0, 0.0, 0.0, 0.0),) * 2),
            "init 'given' has 2 rows, the network 3 modules",
        ),
        (
            AttentionSpec(init="given", weights=((0.5, 0.5),) * 3),
            "init 'given' has 2 columns in module 0, which needs 4 of at most 4",
        ),
        (AttentionSpec(keep=((0,),) * 4), "attention keep has 4 rows, the network 3 modules"),
        (AttentionSpec(keep=((0,), (4,), (0,))), r"module 1 has no block 4; .* lie in 0\.\.3"),
        (AttentionSpec(keep=((0,), (1,), ())), "no block of module 2 is left with a positive"),
    ],
)
def test_attention_that_does_not_fit_the_network_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        full(spec)


RAGGED = (("residual",), ("residual", "dense"), ("mbconv", "dense", "ada_rk"))


def test_given_weights_may_differ_in_length_as_the_block_sets_do():
    spec = AttentionSpec(
        mode="fixed", init="given", weights=((1.0,), (0.25, 0.75), (0.5, 0.0, 0.5))
    )
    net = build_network(Architecture(RAGGED, num_modules=3, init_channels=4, attention=spec))
    expected = torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0], [0.5, 0, 0.5]])
    torch.testing.assert_close(net.attention.weights(), expected)
    assert net.attention.active == [[True, False, False], [True, True, False], [True, False, True]]
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_kept_columns_may_differ_in_number_as_the_block_sets_do():
    spec = AttentionSpec(init="equal", keep=((0,), (1,), (0, 2)))
    net = build_network(Architecture(RAGGED, num_modules=3, init_channels=4, attention=spec))
    assert net.attention.weights().tolist() == [[1, 0, 0], [0, 1, 0], [0.5, 0, 0.5]]


def test_module_without_a_weighted_block_is_refused():
    spec = AttentionSpec(init="given", weights=((1.0, 0.0), (1.0, 0.0)))
    with pytest.raises(ValueError, match="no block of module 1 is left with a positive weight"):
        Attention(spec, [(0, 1), (1,)], 2)


def test_default_network_accepts_the_trained_logits():
    arch = Architecture(init_channels=2, widen_factor=1, attention=AttentionSpec(init="trained"))
    assert torch.equal(build_network(arch).attention.logits, load_authors_logits())
