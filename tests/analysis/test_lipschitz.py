from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from analysis.block_bounds import compute_block_bound, compute_chain_bound, layer_bound
from analysis.lipschitz import compute_lipschitz, compute_run_lipschitz, draw_lipschitz
from analysis.lipschitz_claims import (
    ModuleConstants,
    compute_products,
    judge_lemma,
    judge_proposition,
)
from analysis.local_lipschitz import ascend_local_constants, compute_local_constants
from blocks import ReductionBlock, create_block
from blocks.convnext import ConvNeXt
from blocks.layers import ACTIVATIONS, make_activation, make_norm
from blocks.mbconv import SqueezeExcite
from nasbench_at import Architecture, build_network
from nasbench_at.config.architecture import AttentionSpec
from tests.analysis.runs import left_as_it_was, make_run

SHAPE = (4, 6, 6)
HOLDS, FAILS = "holds here", "does not hold here"
WITHOUT_SE = (
    "residual",
    "dense",
    "ada_rk",
    "resnext",
    "ssp2",
    "ssp3",
    "mid_rk2",
    "bottleneck",
    "separable_conv",
    "plain_conv",
    "dla_tree",
    "convnext",
)
SCALE = 0.7


def randomised(block):
    """The block in eval mode, with statistics and scales that are far from the initial ones."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
        if isinstance(module, ConvNeXt):
            nn.init.normal_(module.layer_scale)
    return block.eval().requires_grad_(False)


def simple(block, scale=SCALE):
    """The block with convolutions that multiply positive inputs by a number."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
            module.weight.data.mul_(scale)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return block.eval().requires_grad_(False)


@pytest.mark.parametrize("name", [*ACTIVATIONS, "sigmoid", "gelu_tanh", "relu6", "leaky"])
def test_activation_bound_is_its_largest_slope_and_no_more(name):
    others = {
        "sigmoid": nn.Sigmoid(),
        "gelu_tanh": nn.GELU(approximate="tanh"),
        "relu6": nn.ReLU6(),
        "leaky": nn.LeakyReLU(0.1),
    }
    layer = others[name] if name in others else make_activation(name)
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(layer.double()(x).sum(), x)[0].abs().max().item()
    assert slope <= layer_bound(layer) + 1e-9
    # SmoothReLU's and the softplus' slopes reach 1 at infinity only.
    assert layer_bound(layer) == pytest.approx(slope, rel=1e-4)


def test_softmax_bound_is_met_where_two_classes_have_a_half():
    logits = torch.tensor([[0.0, 0.0, -50.0]]).double()
    local = compute_local_constants(nn.Softmax(dim=1), logits)
    assert local.item() == pytest.approx(layer_bound(nn.Softmax(dim=1)))


@pytest.mark.parametrize("name", ["layer", "channel_layer"])
def test_layer_norm_bound_holds_where_the_input_hardly_varies(name):
    norm = make_norm(name, 4)
    x = 1e-6 * torch.randn(8, *SHAPE).double()
    local = compute_local_constants(norm.double(), x).max().item()
    assert 0.9 * layer_bound(norm) < local <= layer_bound(norm)


def test_linear_chain_has_its_exact_constant():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Identity(), nn.Linear(8, 3)).double()
    expected = torch.linalg.matrix_norm(model[3].weight @ model[1].weight, 2).item()
    assert compute_block_bound(model, (3, 2, 2)) == pytest.approx(expected, rel=1e-7)
    local = compute_local_constants(model, torch.rand(5, 3, 2, 2).double(), num_steps=200)
    assert local.tolist() == pytest.approx([expected] * 5, rel=1e-6)


def test_activation_between_linear_layers_makes_the_bound_a_product():
    first, second = nn.Linear(5, 4), nn.Linear(4, 3)
    norms = [torch.linalg.matrix_norm(layer.weight, 2).item() for layer in (first, second)]
    bound = compute_chain_bound([first, nn.Sigmoid(), second], (5,))
    assert bound == pytest.approx(norms[0] * norms[1] / 4, rel=1e-6)


f = SCALE**2
beta = 1 / (1 + math.exp(-1))
b21 = 0.5 / beta


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("residual", 1 + f),
        ("ada_rk", 1 + (1 - b21) * f + b21 * f * (1 + beta * f)),
        ("ssp2", (1 + (1 + f) ** 2) / 2),
        ("ssp3", (1 + 2 * (1 + f) * (3 + (1 + f) ** 2) / 4) / 3),
        ("mid_rk2", (1 + f / 2) * (1 + f)),
        ("plain_conv", SCALE),
        ("separable_conv", SCALE**4),
    ],
)
def test_bound_is_exact_where_a_block_multiplies_by_a_number(name, expected):
    block = simple(create_block(name, 4, norm="none"))
    assert compute_block_bound(block, SHAPE) == pytest.approx(expected, rel=1e-6)
    local = compute_local_constants(block, 1 + torch.rand(2, *SHAPE), num_steps=5)
    assert local.max().item() == pytest.approx(expected, rel=1e-4)


def test_reduction_bound_is_exact_where_it_multiplies_by_a_number():
    block = simple(ReductionBlock(4, 4, norm="none"))
    assert compute_block_bound(block, SHAPE) == pytest.approx(f + SCALE, rel=1e-6)
    local = compute_local_constants(block, 1 + torch.rand(2, *SHAPE), num_steps=5)
    assert local.max().item() == pytest.approx(f + SCALE, rel=1e-4)


def test_dense_bound_counts_every_path():
    block = simple(create_block("dense", 4, norm="none"))
    # The 1×1 convolution to 4C channels and the 3×3 one back multiply by 0.7 each.
    expected = (1 + f + f * math.hypot(1, f)) / 3
    assert compute_block_bound(block, SHAPE) == pytest.approx(expected, rel=1e-6)
    merged = simple(create_block("dense", 4, norm="none", growth=4))
    expected = SCALE * math.hypot(1, f, f * math.hypot(1, f))
    assert compute_block_bound(merged, SHAPE) == pytest.approx(expected, rel=1e-6)


def test_dla_tree_bound_counts_every_path():
    block = simple(create_block("dla_tree", 4, norm="none"))
    basic = 1 + f
    tree = SCALE * math.hypot(basic, basic**2)
    expected = SCALE * math.hypot(basic, tree, basic * tree, basic**2 * tree)
    assert compute_block_bound(block, SHAPE) == pytest.approx(expected, rel=1e-6)


def test_convnext_bound_is_exact_where_it_multiplies_by_a_number():
    options = {"norm": "none", "activation": "relu", "layer_scale": -0.5}
    block = simple(create_block("convnext", 4, **options))
    assert compute_block_bound(block, SHAPE) == pytest.approx(1 + 0.5 * SCALE**3, rel=1e-6)
    block.layer_scale.data.neg_()
    local = compute_local_constants(block, 1 + torch.rand(2, *SHAPE), num_steps=50)
    assert local.max().item() == pytest.approx(1 + 0.5 * SCALE**3, rel=1e-4)


@pytest.mark.parametrize("name", WITHOUT_SE)
def test_bound_is_above_every_local_constant(name):
    block = randomised(create_block(name, 4))
    local = compute_local_constants(block, 3 * torch.randn(16, *SHAPE), num_steps=10).max().item()
    assert 0 < local <= compute_block_bound(block, SHAPE)


def test_second_norms_of_ada_rk_are_the_ones_that_count():
    block = randomised(create_block("ada_rk", 4, separate_norms=True))
    before = compute_block_bound(block, SHAPE)
    block.second_norm2.weight.mul_(10)
    assert compute_block_bound(block, SHAPE) > before


def test_stacked_blocks_multiply():
    blocks = [randomised(create_block("residual", 4)) for _ in range(2)]
    product = math.prod(compute_block_bound(block, SHAPE) for block in blocks)
    assert compute_block_bound(nn.Sequential(*blocks), SHAPE) == pytest.approx(product)


def test_squeeze_excite_is_bounded_on_inputs_of_bounded_channels_only():
    gate = SqueezeExcite(4, 2).requires_grad_(False)
    gate.reduce.weight.mul_(20)
    x = 2 * torch.randn(32, *SHAPE)
    radius = x.flatten(2).norm(dim=2).max().item()
    bound = compute_block_bound(gate, SHAPE, {gate: radius})
    assert 0 < compute_local_constants(gate, x, num_steps=20).max().item() <= bound
    assert compute_block_bound(gate, SHAPE, {gate: 0.0}) == 1
    with pytest.raises(ValueError, match="no finite Lipschitz constant; give the largest norm"):
        compute_block_bound(create_block("mbconv", 4), SHAPE)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (create_block("implicit_euler", 4), "no Lipschitz bound is known of implicit Euler's"),
        (nn.Sequential(nn.MultiheadAttention(4, 1)), "no Lipschitz bound is known of block Multi"),
        (nn.Hardswish(), r"no Lipschitz constant is known of layer Hardswish\(\)"),
    ],
)
def test_block_without_a_rule_is_named(block, message):
    with pytest.raises(ValueError, match=message):
        compute_block_bound(block, SHAPE)


def test_ascent_finds_the_steepest_corner_of_the_ball():
    local = ascend_local_constants(torch.square, torch.full((2, 5), 0.5), eps=0.1, num_ascents=4)
    assert local.tolist() == pytest.approx([1.2, 1.2], rel=1e-5)
    still = ascend_local_constants(torch.square, torch.full((2, 5), 0.5), eps=0.0)
    assert still.tolist() == pytest.approx([1.0, 1.0], rel=1e-5)


def test_ascent_stays_among_valid_images():
    local = ascend_local_constants(torch.square, torch.full((1, 3), 0.95), eps=0.2)
    assert local.item() == pytest.approx(2.0)


def test_ascent_searches_where_the_function_is_piecewise_linear():
    def hinge(x):
        return 3 * (x - 0.5).relu()

    flat = torch.full((1, 6), 0.45)
    assert compute_local_constants(hinge, flat).item() == 0
    assert ascend_local_constants(hinge, flat, eps=0.1).item() == pytest.approx(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -0.1}, "eps"),
        ({"eps": 0.1, "num_ascents": -1}, "num_ascents must be at least 0, got -1"),
        ({"eps": 0.1, "num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"eps": 0.1, "batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_impossible_search_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ascend_local_constants(torch.square, torch.rand(2, 3), **options)


def constants(weights, bounds, local=None):
    values = np.array(bounds)
    names = tuple("abcd"[: len(bounds)])
    return ModuleConstants(names, np.array(weights), values, np.array(local or bounds))


MODULES = (constants([0.5, 0.5], [2, 4]), constants([0.9, 0.1], [10, 100], [0.1, 0.5]))


def test_products_are_those_of_the_paper():
    bounds = compute_products(MODULES, "bound")
    assert 10**bounds.ds_net == pytest.approx(3 * 19)
    assert 10**bounds.sequence == pytest.approx(2 * 4 * 10 * 100)
    assert 10**bounds.uniform == pytest.approx(3 * 55)
    assert 10**bounds.smallest == pytest.approx(2 * 10)
    local = compute_products(MODULES, "local")
    assert 10**local.ds_net == pytest.approx(3 * 0.14)


def test_products_of_a_deep_network_do_not_overflow():
    deep = [constants([1], [1e200])] * 3
    assert compute_products(deep, "bound").sequence == pytest.approx(600)
    with pytest.raises(ValueError, match="at least one module, got none"):
        compute_products([], "bound")


def test_constants_above_1_meet_the_assumption_and_the_claim():
    sequence, uniform, smallest = judge_proposition(MODULES, "bound")
    assert [each.verdict for each in (sequence, uniform, smallest)] == [HOLDS, HOLDS, FAILS]
    assert "all 4 constants are at least 1" in sequence.explanation
    assert sequence.explanation.startswith("10^1.76 against 10^3.90 from upper bounds")


def test_constants_below_1_are_counted_and_break_the_claim():
    sequence, uniform, _ = judge_proposition(MODULES, "local")
    assert 10 ** compute_products(MODULES, "local").sequence == pytest.approx(0.4)
    assert sequence.verdict == FAILS
    assert uniform.verdict == HOLDS
    assert "2 of 4 constants are below 1, where the proof does not apply" in sequence.explanation


def test_all_weight_on_the_smallest_constant_is_not_undercut():
    assert judge_proposition([constants([1, 0], [2, 4])], "bound")[2].verdict == HOLDS


def test_lemma_holds_as_long_as_the_bound_is_above_what_was_measured():
    claim = judge_lemma(2.0, 10.0, 64)
    assert claim.verdict == HOLDS
    assert "10^2.00, which is 10^1.00 times as much" in claim.explanation
    assert judge_lemma(2.0, 101.0, 64).verdict == FAILS


@pytest.fixture(scope="module")
def analysed():
    torch.manual_seed(0)
    network = build_network(
        Architecture(num_modules=3, init_channels=4, widen_factor=1, input_shape=(1, 6, 6))
    )
    x = torch.rand(8, 1, 6, 6)
    network(x)
    with left_as_it_was(network):
        analysis = compute_lipschitz(network, x, eps=0.1, num_ascents=1, num_steps=8)
    return network, x, analysis


def test_network_is_bounded_block_by_block(analysed):
    network, _, analysis = analysed
    assert [module.blocks for module in analysis.modules] == [
        ("residual", "mbconv", "dense", "ada_rk")
    ] * 3
    weights = network.attention.weights().detach().numpy()
    for module, row in zip(analysis.modules, weights, strict=True):
        np.testing.assert_allclose(module.weights, row, rtol=1e-6)
        assert (module.local > 0).all()
        assert (module.local <= module.bounds).all()
    block = network.eval().stages[0].blocks[0]
    assert analysis.modules[0].bounds[0] == compute_block_bound(block, (4, 6, 6))
    assert not analysis.is_global


def test_bound_of_the_whole_is_the_product_of_its_parts(analysed):
    network, _, analysis = analysed
    assert list(analysis.outside) == ["stem", "reduction1", "reduction2", "head"]
    # The mean over 2×2 pixels has the norm ½.
    head = torch.linalg.matrix_norm(network.head.weight, 2).item() / 2
    assert analysis.outside["head"] == pytest.approx(head, rel=1e-6)
    product = math.prod(analysis.outside.values())
    for module in analysis.modules:
        product *= float(module.weights @ module.bounds)
    assert 10**analysis.bound_log10 == pytest.approx(product)
    assert analysis.local <= product


def test_claims_name_their_source_and_the_numbers(analysed):
    claims = analysed[2].claims()
    assert [claim.source for claim in claims] == ["Lemma 3.2", *["Prop. 3.3"] * 6]
    assert claims[0].verdict == HOLDS
    assert all("10^" in claim.explanation for claim in claims)


def test_figure_shows_bounds_above_local_constants(analysed):
    analysis = analysed[2]
    (axes,) = draw_lipschitz(analysis).axes
    local, bounds = axes.lines[0], axes.lines[1]
    assert local.get_label() == "residual"
    assert list(local.get_ydata()) == [module.local[0] for module in analysis.modules]
    assert list(bounds.get_ydata()) == [module.bounds[0] for module in analysis.modules]
    assert axes.get_yscale() == "log"


def test_network_of_global_bounds_says_so_and_pruned_blocks_are_left_out():
    network = build_network(
        Architecture(
            num_modules=3,
            init_channels=4,
            widen_factor=1,
            input_shape=(1, 6, 6),
            blocks=("residual", "mbconv"),
            attention=AttentionSpec(keep=((0,),) * 3),
        )
    )
    analysis = compute_lipschitz(network, torch.rand(2, 1, 6, 6), num_steps=2)
    assert analysis.is_global
    assert [module.blocks for module in analysis.modules] == [("residual",)] * 3
    assert [module.weights.tolist() for module in analysis.modules] == [[1.0]] * 3


def test_block_without_a_rule_is_named_with_its_node():
    network = build_network(
        Architecture(
            num_modules=3, init_channels=4, blocks=("implicit_euler",), input_shape=(1, 6, 6)
        )
    )
    with pytest.raises(ValueError, match=r"block module01\.implicit_euler: no Lipschitz bound"):
        compute_lipschitz(network, torch.rand(1, 1, 6, 6), num_steps=1)


def test_what_is_no_ds_net_or_no_image_of_it_is_refused(analysed):
    with pytest.raises(ValueError, match="model must be a DS-Net, got a Linear"):
        compute_lipschitz(nn.Linear(1, 1), torch.rand(1, 1))
    with pytest.raises(ValueError, match=r"images must be of shape \(1, 6, 6\), got \(1, 8, 8\)"):
        compute_lipschitz(analysed[0], torch.rand(1, 1, 8, 8))


def test_run_is_analysed_at_its_own_radius(tmp_path):
    run = make_run(tmp_path, blocks=("plain_conv",), eps=0.25)
    analysis = compute_run_lipschitz(run, num_images=3, num_ascents=1)
    assert (analysis.num_images, analysis.eps) == (3, 0.25)
    with pytest.raises(ValueError, match=r"num_images must lie in 1\.\.24, got 99"):
        compute_run_lipschitz(run, num_images=99)


def test_run_of_l2_is_analysed_in_the_largest_box_within_its_ball(tmp_path):
    run = make_run(tmp_path, blocks=("plain_conv",), norm="L2", eps=2.0)
    analysis = compute_run_lipschitz(run, num_images=3, num_ascents=1)
    assert analysis.eps == pytest.approx(2.0 / 8)  # 64 pixels
    assert compute_run_lipschitz(run, num_images=3, num_ascents=1, eps=0.5).eps == 0.5
