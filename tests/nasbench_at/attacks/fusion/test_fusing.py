from __future__ import annotations

import collections

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blocks import ReductionBlock, create_block, list_blocks
from nasbench_at.attacks import attack_mode
from nasbench_at.attacks.folding import folded_norms
from nasbench_at.attacks.fusion.fusing import fuse
from nasbench_at.attacks.fusion.recording import record

from .conftest import Replayable, assert_same_function, draw_statistics, images


def with_stem(block: nn.Module, channels: int = 8, *, out_channels: int = 8) -> Replayable:
    return draw_statistics(
        Replayable(
            lambda self, x: self.head(self.block(self.stem(x)).mean(dim=(2, 3))),
            stem=nn.Conv2d(3, channels, 3, padding=1),
            block=block,
            head=nn.Linear(out_channels, 5),
        )
    )


def count_operations(model: nn.Module) -> collections.Counter[str]:
    """Returns how often each operation is done for a batch, forward and backward."""
    x = images(3, channels_last=True)
    with attack_mode(model), folded_norms(model, x):
        program = fuse(record(model, x))
    stages = program.run_forward.__self__, program.run_backward.__self__
    return collections.Counter(
        str(node.target).removeprefix("aten.").removeprefix("mkldnn.")
        for stage in stages
        for node in stage.graph.nodes
        if node.op == "call_function"
    )


# Mean and linear layer, and their gradients.
NUM_OPERATIONS_OF_THE_HEAD = 8


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", list_blocks())
def test_fused_block_computes_the_same_function_and_gradient(name, channels_last):
    x = images(channels_last=channels_last)
    assert_same_function(with_stem(create_block(name, 8)), x, x[:1], x.repeat(3, 1, 1, 1))


@pytest.mark.parametrize("size", [8, 7])
def test_gradient_of_a_strided_convolution_has_the_size_of_its_input(size):
    model = with_stem(ReductionBlock(8, 12), out_channels=12)
    assert_same_function(model, images()[:, :, :size, :size].contiguous())


def convolution(**options):
    return nn.Conv2d(8, 8, 3, **options)


@pytest.mark.parametrize(
    "options",
    [{"dilation": 2}, {"padding": 2}, {"groups": 4}, {"stride": (1, 2)}, {"bias": False}],
    ids=str,
)
def test_convolution_of_any_geometry(options):
    block = Replayable(
        lambda self, x: self.a(x * self.scale) + self.b(self.norm(x).relu()) * self.scale,
        a=convolution(**options),
        b=convolution(**options),
        norm=nn.BatchNorm2d(8),
    )
    block.scale = nn.Parameter(torch.randn(1, 8, 1, 1))
    assert_same_function(with_stem(block), images())


FUNCTIONS = {
    "sums of all signs": lambda self, x: 2 * x - self.a(x) / 3 + 0.5 - x.sub(self.b(x), alpha=2),
    "a factor a channel": lambda self, x: self.a(x) * self.scale + self.b(x * self.scale),
    "a divisor of its own": lambda self, x: self.a(x) / self.scale.abs().sum() + x,
    "a convolution used twice": lambda self, x: (y := self.a(x)) + self.b(y) + 2 * y,
    "a sum used twice": lambda self, x: (y := x + self.a(x)) * 3 + self.b(y).relu() + y,
    "a ReLU of a sum": lambda self, x: (x * self.scale + self.a(x) + self.b(x)).relu(),
    "a ReLU used beside its input": lambda self, x: (y := self.a(x)) - self.b(y.relu()) + y.relu(),
    "a ReLU in place": lambda self, x: self.b(F.relu(self.a(x), inplace=True)),
    "two ReLUs": lambda self, x: self.scale * (self.a(x).relu() - 3 * self.b(x).relu()).relu(),
    "a threshold that is not zero": lambda self, x: F.threshold(self.a(x), 0.2, 0.0),
    "products": lambda self, x: x * self.a(x) + 2 * self.b(x) * x + x * x - x * self.scale,
    "a product alone": lambda self, x: self.a(x) * self.b(x) * 3,
    "gates": lambda self, x: x + self.a(x) * self.b(x).mean((2, 3), keepdim=True).sigmoid(),
    "a constant alone": lambda self, x: self.a(x) + self.scale * 2 - (self.b(x) - self.scale),
    "addcmul": lambda self, x: torch.addcmul(self.a(x), self.scale, x, value=3),
    "addcmul of two": lambda self, x: torch.addcmul(self.a(x), x, self.b(x), value=3),
    "broadcast images": lambda self, x: x + self.a(x).mean(dim=1, keepdim=True),
    "parts of the channels": lambda self, x: torch.cat([x[:, 4:] * 2, self.a(x)[:, :4] / 2], 1),
    "moves of a scaled tensor": lambda self, x: self.a((x * 2).transpose(2, 3)) + x.mean(0),
    "several outputs": lambda self, x: torch.cat(torch.chunk(self.a(x), 2, dim=1)[::-1], 1),
    "an only part": lambda self, x: torch.chunk(self.a(x), 1, dim=1)[0] + self.scale.unbind()[0],
    "another type": lambda self, x: self.a(x) + self.b(x).double().sigmoid().float(),
    "an operation unknown here": lambda self, x: F.softplus(self.a(x)) + F.max_pool2d(x, 3, 1, 1),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_fused_function_computes_the_same_function_and_gradient(name, channels_last):
    block = Replayable(FUNCTIONS[name], a=convolution(padding=1), b=convolution(padding=1))
    block.scale = nn.Parameter(torch.randn(1, 8, 1, 1))
    if name == "moves of a scaled tensor":
        block.function = lambda self, x: self.a((x * 2).transpose(2, 3)) + x
    x = images(channels_last=channels_last)
    assert_same_function(with_stem(block), x, x.flip(0)[:2])


def test_residual_block_is_convolutions_with_few_passes_between_them():
    done = count_operations(with_stem(create_block("residual", 8)))
    # The first norm and its ReLU; the last norm's factor of the block's input. Into the rest of
    # the block, norms and ReLU and the sum, convolutions put them.
    assert done["addcmul.default"] == done["relu_.default"] == done["mul.Tensor"] == 1
    # The gradients of both ReLUs; the sum of both paths' gradients.
    assert done["threshold_backward.grad_input"] == 2
    assert done["addcmul_.default"] == 1
    # With those of the stem.
    assert done["_convolution_pointwise.default"] + done["_convolution_pointwise_.binary"] == 6
    assert done.total() == 6 + 6 + NUM_OPERATIONS_OF_THE_HEAD


def test_constant_is_added_in_the_pass_that_applies_a_factor():
    block = Replayable(lambda self, x: F.avg_pool2d(x, 1) + x * self.scale + self.shift)
    block.scale, block.shift = (nn.Parameter(torch.randn(1, 8, 1, 1)) for _ in range(2))
    done = count_operations(with_stem(block))
    # One pass forward for factor and constant, one backward for both gradients.
    assert done["addcmul.default"] == 2
    assert done["add_.Tensor"] == 1
    assert done["add.Tensor"] == done["addcmul_.default"] == 0


def test_what_depends_on_weights_alone_is_not_computed_each_time():
    done = count_operations(with_stem(create_block("ada_rk", 8)))
    assert not {"sigmoid.default", "reciprocal.default", "rsub.Scalar"} & set(done)


def test_low_precision_rounds_a_weight_once_after_it_was_scaled():
    model = with_stem(create_block("ada_rk", 8))
    x = images(3)
    with attack_mode(model), folded_norms(model, x), torch.autocast("cpu", torch.bfloat16):
        program = fuse(record(model, x))
    casts = [
        node
        for node in program.run_weights.__self__.graph.nodes
        if node.target is torch.ops.aten._to_copy.default
    ]
    assert len(casts) == 2  # weight and bias of the head, which stays as it is


def test_convolution_of_a_shared_weight_is_prepared_once():
    model = with_stem(create_block("ada_rk", 8))
    x = images(3)
    with attack_mode(model), folded_norms(model, x):
        program = fuse(record(model, x))
    prepared = program.run_weights.__self__.graph.nodes
    # The stem; the first convolution, the same for both inputs; the second, with another factor
    # for each; and as many for the gradients.
    assert sum(node.name.startswith("pack") for node in prepared) == 4 + 4
