"""What each block computes: counts, the authors' outputs, training-mode statistics, options."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import ReductionBlock, create_block, list_blocks
from blocks.mbconv import drop_connect
from nasbench_at.networks.authors import rename_block

WIDTHS = (16, 20, 24, 80, 120, 160, 240)
COUNTS = {
    "residual": (4736, 7360, 10560, 115840, 260160, 462080, 1038720),
    "mbconv": (1796, 2645, 3654, 34580, 75870, 133160, 295740),
    "dense": (21888, 34080, 48960, 539520, 1212480, 2154240, 4844160),
    "ada_rk": (4738, 7362, 10562, 115842, 260162, 462082, 1038722),
    "resnext": (6976, 10800, 15456, 168000, 376800, 668800, 1502400),
    "dla_tree": (24960, 38880, 55872, 616320, 1385280, 2461440, 5535360),
}
FORMULAS = {
    "residual": lambda c: 18 * c**2 + 8 * c,
    "mbconv": lambda c: 4 * c**2 + 32 * c + (4 * c + 1) * max(1, c // 4),
    "dense": lambda c: 84 * c**2 + 24 * c,
    "ada_rk": lambda c: 18 * c**2 + 8 * c + 2,
    "resnext": lambda c: _resnext_count(c, 8 * (c // 2)),
    "dla_tree": lambda c: 96 * c**2 + 24 * c,
    "implicit_euler": lambda c: 18 * c**2 + 6 * c,
    "ssp2": lambda c: 18 * c**2 + 8 * c,
    "ssp3": lambda c: 18 * c**2 + 8 * c,
    "mid_rk2": lambda c: 18 * c**2 + 6 * c,
    "bottleneck": lambda c: _bottleneck_count(c, max(1, c // 4)),
    "separable_conv": lambda c: 2 * c**2 + 22 * c,
    "plain_conv": lambda c: 9 * c**2 + 2 * c,
    "convnext": lambda c: 8 * c**2 + 58 * c,
}


def _resnext_count(channels: int, hidden: int) -> int:
    return 2 * channels * hidden + 9 * hidden**2 // 8 + 4 * hidden + 4 * channels


def _bottleneck_count(channels: int, hidden: int) -> int:
    return 2 * channels * hidden + 9 * hidden**2 + 4 * hidden + 4 * channels


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_those_of_the_authors_code(name):
    with torch.device("meta"):
        assert tuple(count(create_block(name, width)) for width in WIDTHS) == COUNTS[name]


@pytest.mark.parametrize("name", FORMULAS)
def test_parameters_follow_the_formula_at_odd_widths(name):
    with torch.device("meta"):
        for width in (2, 3, 5, 17, 81):
            assert count(create_block(name, width)) == FORMULAS[name](width)


@pytest.mark.parametrize(
    ("narrow", "wide", "expected"),
    [(20, 80, 74280), (80, 160, 359840), (20, 120, 154600), (120, 240, 808560)],
)
def test_parameters_of_the_reduction(narrow, wide, expected):
    with torch.device("meta"):
        assert count(ReductionBlock(narrow, wide)) == expected


@pytest.mark.parametrize("name", COUNTS)
def test_output_is_that_of_the_authors_block(name, authors_blocks):
    theirs = "ark" if name == "ada_rk" else name
    prefix = f"{theirs}/state_dict/"
    state = {k.removeprefix(prefix): v for k, v in authors_blocks.items() if k.startswith(prefix)}
    x = authors_blocks[f"{theirs}/input"]
    block = create_block(name, x.shape[1]).eval()
    block.load_state_dict(rename_block(name, state))
    torch.testing.assert_close(block(x), authors_blocks[f"{theirs}/output"], rtol=0, atol=1e-5)
    assert count(block) == authors_blocks[f"{theirs}/parameters"]


def authors_ada_rk(block: nn.Module, x: Tensor) -> Tensor:
    """The authors' scheme as they write it: f is called three times, on x, x and x1."""
    part = block.residual

    def f(z: Tensor) -> Tensor:
        return part.conv2(F.relu(part.norm2(part.conv1(F.relu(part.norm1(z))))))

    alpha, beta = block.a21.sigmoid(), block.b10.sigmoid()
    a20, b20, b21 = 1 - alpha, 1 - 1 / (2 * beta) - alpha * beta, 1 / (2 * beta)
    x1 = x + beta * f(x)
    return block.norm(a20 * x + b20 * f(x) + alpha * x1 + b21 * f(x1))


@pytest.fixture
def ada_rk_pair():
    """A float64 Ada-RK with random norms, and a copy of it for the reference."""
    block = create_block("ada_rk", 5).double()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    with torch.no_grad():
        block.a21.fill_(-0.7)
        block.b10.fill_(0.4)
    return block, copy.deepcopy(block)


@pytest.mark.parametrize("training", [True, False])
def test_ada_rk_equals_three_evaluations_in_output_gradients_and_statistics(ada_rk_pair, training):
    ours, theirs = (block.train(training) for block in ada_rk_pair)
    x = torch.randn(4, 5, 6, 6, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [ours(inputs[0]), authors_ada_rk(theirs, inputs[1])]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    for output in outputs:
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-9, atol=1e-11)
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-9, atol=1e-11)
    for mine, reference in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)
    assert ours.residual.norm1.num_batches_tracked == 3 * training


def test_ada_rk_evaluates_its_residual_once_per_distinct_input():
    block = create_block("ada_rk", 4)
    calls = []
    block.residual.conv1.register_forward_hook(lambda *_: calls.append(1))
    block(torch.rand(2, 4, 5, 5))
    assert len(calls) == 2


def test_ada_rk_without_authors_updates_moves_statistics_once_per_evaluation():
    block = create_block("ada_rk", 4, authors_updates=False)
    block(torch.rand(2, 4, 5, 5))
    assert block.residual.norm1.num_batches_tracked == 2
    assert block.residual.norm2.num_batches_tracked == 2
    assert block.norm.num_batches_tracked == 1


@pytest.mark.parametrize("options", [{}, {"separate_norms": True}], ids=["shared", "separate"])
def test_ada_rk_gradient_of_a21_is_exactly_zero(options):
    for seed in range(5):
        torch.manual_seed(seed)
        block = create_block("ada_rk", 4, **options)
        output = block(torch.randn(3, 4, 5, 5))
        (output * torch.randn_like(output)).sum().backward()
        assert block.a21.grad == 0
        assert block.b10.grad != 0


def test_ada_rk_starts_from_the_coefficients_of_the_authors_training():
    block = create_block("ada_rk", 4)
    assert block.a21.sigmoid().item() == pytest.approx(0.562177, abs=1e-6)
    assert block.b10.sigmoid().item() == pytest.approx(0.731059, abs=1e-6)


def settle(block: nn.Module) -> tuple[Tensor, Tensor]:
    """Trains the norms' statistics on one toy batch; returns it, x, and x1 = x + beta f(x).

    The residual's last bias of 5 moves x1 far from x.
    """
    x = torch.randn(16, 4, 8, 8)
    nn.init.constant_(block.residual.conv2.bias, 5.0)
    block.train()
    with torch.no_grad():
        for _ in range(100):
            block(x)
        x1 = x + block.b10.sigmoid() * copy.deepcopy(block).residual(x)
    return x, x1


@pytest.mark.parametrize("authors_updates", [True, False])
def test_shared_running_statistics_fit_neither_input_of_ada_rk(authors_updates):
    block = create_block("ada_rk", 4, authors_updates=authors_updates)
    x, x1 = settle(block)
    shared = block.residual.norm1
    for seen in (x, x1):
        distance = (shared.running_mean - seen.mean(dim=(0, 2, 3))).abs()
        assert (distance > seen.std(dim=(0, 2, 3))).all()
    with torch.no_grad():
        in_training, in_evaluation = block.train()(x), block.eval()(x)
    assert (in_training - in_evaluation).abs().mean() > 0.1


def test_separate_norms_hold_the_statistics_of_their_own_input():
    block = create_block("ada_rk", 4, separate_norms=True)
    x, x1 = settle(block)
    for norm, seen in ((block.residual.norm1, x), (block.second_norm1, x1)):
        torch.testing.assert_close(
            norm.running_mean, seen.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-3
        )
        torch.testing.assert_close(norm.running_var, seen.var(dim=(0, 2, 3)), rtol=1e-3, atol=1e-3)
        assert norm.num_batches_tracked == 100
    with torch.no_grad():
        in_training, in_evaluation = block.train()(x), block.eval()(x)
    torch.testing.assert_close(in_training, in_evaluation, rtol=1e-2, atol=1e-2)


def test_separate_norms_start_as_the_shared_function_and_cost_four_numbers_a_channel():
    torch.manual_seed(1)
    shared = create_block("ada_rk", 6).eval()
    torch.manual_seed(1)
    separate = create_block("ada_rk", 6, separate_norms=True).eval()
    x = torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(separate(x), shared(x))
    assert count(separate) == count(shared) + 4 * 6


def test_reduction_equals_the_authors_two_branches_and_double_update():
    ours = ReductionBlock(4, 6)
    theirs = copy.deepcopy(ours)
    x = torch.randn(3, 4, 7, 8)
    part = theirs.residual
    hidden = part.conv1(F.relu(part.norm1(x)))
    branch = part.conv2(F.relu(part.norm2(hidden)))
    expected = theirs.norm(branch + theirs.shortcut(F.relu(part.norm1(x))))
    torch.testing.assert_close(ours(x), expected)
    assert expected.shape == (3, 6, 4, 4)
    for mine, reference in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, reference)
    assert ours.residual.norm1.num_batches_tracked == 2
    assert ours.residual.norm2.num_batches_tracked == 1


def test_reduction_at_another_stride():
    assert ReductionBlock(4, 6, stride=3)(torch.rand(2, 4, 7, 9)).shape == (2, 6, 3, 3)


def test_drop_connect_drops_a_fifth_of_the_samples_and_keeps_the_mean():
    dropped = drop_connect(torch.ones(20_000, 1, 1, 1), 0.2).flatten()
    assert set(dropped.tolist()) == {0.0, 1.25}
    assert abs(dropped.mean() - 1) < 0.015


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drop_connect_is_floor_of_keep_plus_uniform_per_sample(dtype):
    x = torch.randn(64, 3, 4, 4, dtype=dtype)
    torch.manual_seed(7)
    output = drop_connect(x, 0.2)
    torch.manual_seed(7)
    mask = torch.floor(0.8 + torch.rand(64, 1, 1, 1, dtype=dtype))
    assert torch.equal(output, x / 0.8 * mask)


def test_mbconv_draws_one_number_per_sample_and_drops_only_its_branch():
    block = create_block("mbconv", 4)
    branches = []
    block.norm3.register_forward_hook(lambda _module, _inputs, output: branches.append(output))
    norm, x = copy.deepcopy(block.norm), torch.randn(9, 4, 5, 5)
    torch.manual_seed(7)
    output = block(x)
    state = torch.get_rng_state()
    torch.manual_seed(7)
    mask = torch.floor(0.8 + torch.rand(9, 1, 1, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 < mask.sum() < 9
    torch.testing.assert_close(output, norm(x + branches[0] / 0.8 * mask))


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.2, False)])
def test_mbconv_draws_nothing_without_drop_connect_or_in_eval(rate, training):
    block = create_block("mbconv", 4, drop_connect=rate).train(training)
    state = torch.get_rng_state()
    block(torch.ones(2, 4, 5, 5))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("se_ratio", "squeezed"), [(0.25, 2), (0.5, 5), (0.01, 1)])
def test_mbconv_squeezes_relative_to_the_input_width(se_ratio, squeezed):
    block = create_block("mbconv", 10, se_ratio=se_ratio, expansion=3)
    assert block.squeeze_excite.reduce.weight.shape == (squeezed, 30, 1, 1)


def test_dense_averages_input_and_features_and_joins_the_input_first():
    block = create_block("dense", 4).eval()
    x = torch.randn(2, 4, 5, 5)
    first = block.layers[0](x)
    second = block.layers[1](torch.cat([x, first], dim=1))
    torch.testing.assert_close(block(x), block.norm((x + first + second) / 3))


def test_dense_with_growth_concatenates_and_projects_back():
    block = create_block("dense", 8, num_layers=3, growth=2, bottleneck=5).eval()
    assert [layer.conv1.weight.shape[:2] for layer in block.layers] == [(10, 8), (10, 10), (10, 12)]
    assert [layer.conv2.weight.shape[:2] for layer in block.layers] == [(2, 10)] * 3
    assert block.project.weight.shape == (8, 14, 1, 1)
    x = torch.randn(2, 8, 5, 5)
    features = [x]
    for layer in block.layers:
        features.append(layer(torch.cat(features, dim=1)))
    torch.testing.assert_close(block(x), block.norm(block.project(torch.cat(features, dim=1))))


@pytest.mark.parametrize(
    ("name", "channels", "options", "message"),
    [
        ("mbconv", 4, {"expansion": 0}, "expansion must be at least 1, got 0"),
        ("mbconv", 4, {"kernel_size": 4}, "kernel_size must be odd and positive, got 4"),
        ("mbconv", 4, {"kernel_size": -1}, "kernel_size must be odd and positive, got -1"),
        ("mbconv", 4, {"drop_connect": 1.0}, r"drop_connect must lie in \[0, 1\), got 1\.0"),
        ("mbconv", 4, {"drop_connect": -0.1}, r"drop_connect must lie in \[0, 1\), got -0\.1"),
        ("dense", 4, {"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ("dense", 4, {"bottleneck": 0}, "bottleneck must be at least 1, got 0"),
        ("dense", 4, {"growth": 0}, "growth must be at least 1, got 0"),
        ("resnext", 1, {}, "resnext needs .* base_width 64, channels 1"),
        ("resnext", 4, {"cardinality": 0}, "resnext needs cardinality >= 1 .* got cardinality 0"),
        ("resnext", 4, {"base_width": 31}, r"base_width \* channels >= 128, got .* base_width 31"),
        ("implicit_euler", 4, {"iterations": 0}, "iterations must be at least 1, got 0"),
        ("implicit_euler", 4, {"step": 0.0}, r"step must be positive and finite, got 0\.0"),
        ("implicit_euler", 4, {"step": float("nan")}, "step must be positive and finite, got nan"),
        ("bottleneck", 4, {"reduction": 0}, "reduction must be at least 1, got 0"),
        ("separable_conv", 4, {"kernel_size": 2}, "kernel_size must be odd and positive, got 2"),
        ("plain_conv", 4, {"kernel_size": 0}, "kernel_size must be odd and positive, got 0"),
        ("convnext", 4, {"expansion": 0}, "expansion must be at least 1, got 0"),
    ],
)
def test_option_outside_its_range_is_refused(name, channels, options, message):
    with pytest.raises(ValueError, match=message):
        create_block(name, channels, **options)


@pytest.mark.parametrize("name", list_blocks())
@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("activation", "relu, silu, softplus, elu, gelu, smooth_relu"),
        ("norm", "batch, layer, channel_layer, none"),
    ],
)
def test_unknown_activation_or_norm_lists_what_is_allowed(name, option, allowed):
    with pytest.raises(ValueError, match=f"{option} must be one of {allowed}, got 'odd'"):
        create_block(name, 4, **{option: "odd"})


@pytest.mark.parametrize("name", list_blocks())
def test_activation_and_norm_reach_every_part(name):
    block = create_block(name, 4, activation="elu", norm="layer")
    kinds = {type(module) for module in block.modules()}
    assert {nn.ELU, nn.GroupNorm} <= kinds
    assert not {nn.ReLU, nn.SiLU, nn.BatchNorm2d} & kinds
