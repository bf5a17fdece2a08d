"""The conformance kit finds a block that breaks any one of its properties."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from blocks import register_block
from blocks.testing import BlockCheckError, check_block


class Scale(nn.Module):
    """A sound block, which the broken ones below change in one point."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class LosesAChannel(Scale):
    def forward(self, x):
        return super().forward(x)[:, 1:]


class LosesResolutionInTraining(Scale):
    def forward(self, x):
        return super().forward(x)[..., 1:] if self.training else super().forward(x)


class ChangesDtype(Scale):
    def forward(self, x):
        return super().forward(x).double()


class ChangesItsInput(Scale):
    def forward(self, x):
        return super().forward(x.add_(1.0))


class CutsOffNegativeInputs(Scale):
    def forward(self, x):
        return super().forward(x.relu_())


class HasNoValueForNegativeInputs(Scale):
    def forward(self, x):
        return super().forward(x) + x.detach().sqrt()


class IsSteepWhereNegative(Scale):
    def forward(self, x):
        return super().forward(x) + (x * (x > 0)).sqrt()


class HidesItsInput(Scale):
    def forward(self, x):
        return super().forward(x.detach())


class HasAnUnusedParameter(Scale):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.unused = nn.Parameter(torch.ones(channels))


class HasAnInfiniteGradient(Scale):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.root = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return super().forward(x) + self.root.sqrt()


class IsRandomInEval(Scale):
    def forward(self, x):
        return super().forward(x) + torch.rand_like(x)


class MixesTheBatch(Scale):
    def forward(self, x):
        return super().forward(x) - x.mean(dim=0)


class StaysInFloat32(Scale):
    def forward(self, x):
        return super().forward(x).float()


class DiffersInFloat64(Scale):
    def forward(self, x):
        return super().forward(x) + float(x.dtype == torch.float64)


class CopiesInexactly(Scale):
    def __deepcopy__(self, memo):
        twin = type(self)(1)
        twin.load_state_dict({"scale": self.scale.detach() + 1e-5})
        return twin


class SharesItsParameters(Scale):
    def __deepcopy__(self, memo):
        twin = type(self)(1)
        twin.scale = self.scale
        return twin


class HidesItsState(Scale):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.hidden = float(torch.rand(()))

    def forward(self, x):
        return super().forward(x) + self.hidden


class FailsInFloat64(Scale):
    def forward(self, x):
        return super().forward(x) @ torch.eye(x.shape[-1])


class FailsOnBatchOfOne(Scale):
    def forward(self, x):
        if len(x) == 1:
            raise RuntimeError("more than one image, please")
        return super().forward(x)


BROKEN = [
    (LosesAChannel, r"maps \(4, 8, 6, 6\) to \(4, 7, 6, 6\); the shape must be kept"),
    (LosesResolutionInTraining, r"maps \(4, 8, 6, 6\) to \(4, 8, 6, 5\); the shape must be kept"),
    (ChangesDtype, r"turns torch\.float32 into torch\.float64"),
    (ChangesItsInput, "modifies its input, which other blocks share"),
    (CutsOffNegativeInputs, "modifies its input, which other blocks share"),
    (HasNoValueForNegativeInputs, "gives values that are not finite"),
    (IsSteepWhereNegative, "the gradient of its input is not finite"),
    (HidesItsInput, "no gradient reaches its input"),
    (HasAnUnusedParameter, "no gradient reaches unused"),
    (HasAnInfiniteGradient, "the gradient of root is not finite"),
    (IsRandomInEval, "eval mode is not deterministic"),
    (MixesTheBatch, "in eval mode an image's output depends on the rest of its batch"),
    (StaysInFloat32, r"float64 input gives torch\.float32"),
    (DiffersInFloat64, "float64 and float32 give different outputs"),
    (CopiesInexactly, "a deep copy gives another output"),
    (SharesItsParameters, "a deep copy shares parameters with the block"),
    (HidesItsState, "a state_dict loaded into a new block changes its output"),
]


@pytest.fixture
def check(own_registry):
    """Registers a builder as block ``toy`` and checks it."""

    def register_and_check(build, **arguments) -> None:
        register_block("toy", summary="a test", reference="none", kind="handcrafted")(build)
        check_block("toy", **arguments)

    return register_and_check


def test_sound_block_passes(check):
    check(Scale)


def test_block_needs_no_parameters(check):
    check(lambda channels: nn.ReLU())


@pytest.mark.parametrize(("build", "message"), BROKEN, ids=[cls.__name__ for cls, _ in BROKEN])
def test_broken_block_is_found_and_its_fault_named(check, build, message):
    with pytest.raises(BlockCheckError, match=message):
        check(build)


def test_fault_names_the_block_and_its_width(check):
    with pytest.raises(BlockCheckError, match=r"^block 'toy' \(5 channels\): turns"):
        check(ChangesDtype, channels=5)


@pytest.mark.parametrize("build", [FailsInFloat64, FailsOnBatchOfOne])
def test_block_that_raises_is_reported_as_broken(check, build):
    with pytest.raises(BlockCheckError, match="toy"):
        check(build)


def test_width_resolution_and_options_reach_the_block(check):
    shapes = set()

    class Recorder(Scale):
        def __init__(self, channels: int, *, note: str = "") -> None:
            super().__init__(channels)
            self.note = note

        def forward(self, x):
            shapes.add((self.note, *x.shape[1:]))
            return super().forward(x)

    check(Recorder, channels=3, resolution=5, note="here")
    assert shapes == {("here", 3, 5, 5)}


def test_what_was_checked_is_said():
    checks = "shape, gradients, eval, deepcopy, float64, state_dict"
    assert check_block("mbconv", channels=4) == f"ok: block 'mbconv' (4 channels): {checks}"


def test_global_random_state_is_left_as_it_was():
    before = torch.get_rng_state()
    check_block("mbconv")
    assert torch.equal(torch.get_rng_state(), before)


def test_frozen_parameters_need_no_gradient(check):
    class Frozen(Scale):
        def __init__(self, channels: int) -> None:
            super().__init__(channels)
            self.constant = nn.Parameter(torch.ones(channels), requires_grad=False)

    check(Frozen)


def test_block_that_cannot_be_built_is_a_value_error():
    with pytest.raises(ValueError, match="kernel_size must be odd and positive, got 2"):
        check_block("mbconv", kernel_size=2)


def test_broken_copies_are_what_they_claim():
    """Guards the two copy faults above, which only differ in what the copy holds."""
    inexact, sharing = CopiesInexactly(1), SharesItsParameters(1)
    assert copy.deepcopy(inexact).scale != inexact.scale
    assert copy.deepcopy(sharing).scale is sharing.scale
