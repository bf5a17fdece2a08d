"""A conformance kit: run any block through :func:`check_block`, in any test runner or none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from blocks.registry import create_block

__all__ = ["BlockCheckError", "check_block"]


class BlockCheckError(AssertionError):
    """A block does not behave as a network can rely on."""


def check_block(name: str, *, channels: int = 8, resolution: int = 6, **options: Any) -> str:
    """Checks that a registered block can be part of any network.

    Shape and dtype are kept; the input, which has negative values, too, is not modified; the
    output is finite; the input and every parameter receive a finite gradient; a batch of one works;
    in eval mode an image's output repeats and does not depend on the rest of the batch; the
    state_dict round-trips; float64 and ``copy.deepcopy`` work. The global random state is left as
    it was.

    Args:
        name: The block's registered name.
        channels: Width to test with.
        resolution: Height and width of the test images.
        **options: Options of the block.

    Returns:
        A line that begins with ``ok`` and says what was checked.

    Raises:
        BlockCheckError: At the first property that does not hold; the message names it.
        ValueError: If the block cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = create_block(name, channels, **options)
        x = torch.randn(4, channels, resolution, resolution)

        def _check_state_dict(block: nn.Module, x: Tensor) -> None:
            rebuilt = create_block(name, channels, **options)
            rebuilt.load_state_dict(block.state_dict())
            _require(
                torch.equal(_evaluate(rebuilt, x), _evaluate(block, x)),
                "a state_dict loaded into a new block changes its output",
            )

        checks = (*_CHECKS, _check_state_dict)
        for check in checks:
            try:
                check(block, x)
            except BlockCheckError as error:
                raise BlockCheckError(f"block {name!r} ({channels} channels): {error}") from None
            except Exception as error:
                raise BlockCheckError(
                    f"block {name!r} ({channels} channels): fails in the check of its "
                    f"{_what(check)}: {error}"
                ) from error
    return f"ok: block {name!r} ({channels} channels): {', '.join(map(_what, checks))}"


def _what(check: Callable[[nn.Module, Tensor], None]) -> str:
    return check.__name__.removeprefix("_check_")


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise BlockCheckError(complaint)


def _evaluate(block: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = block.eval()(x)
    return output


def _check_shape(block: nn.Module, x: Tensor) -> None:
    before = x.clone()
    for mode in (True, False):
        output = block.train(mode)(x)
        _require(
            output.shape == x.shape,
            f"maps {tuple(x.shape)} to {tuple(output.shape)}; the shape must be kept",
        )
        _require(output.dtype == x.dtype, f"turns {x.dtype} into {output.dtype}")
        _require(bool(output.isfinite().all()), "gives values that are not finite")
        _require(torch.equal(x, before), "modifies its input, which other blocks share")


def _check_gradients(block: nn.Module, x: Tensor) -> None:
    block.train().zero_grad()
    x = x.clone().requires_grad_()
    # Weighted at random: BatchNorm makes the gradient of a plain sum vanish.
    output = block(x)
    (output * torch.rand_like(output)).sum().backward()
    for name, tensor in (("its input", x), *block.named_parameters()):
        if not tensor.requires_grad:
            continue
        _require(tensor.grad is not None, f"no gradient reaches {name}")
        assert tensor.grad is not None
        _require(bool(tensor.grad.isfinite().all()), f"the gradient of {name} is not finite")


def _check_eval(block: nn.Module, x: Tensor) -> None:
    whole = _evaluate(block, x)
    _require(torch.equal(whole, _evaluate(block, x)), "eval mode is not deterministic")
    one = _evaluate(block, x[:1])
    _require(
        torch.allclose(one, whole[:1], rtol=1e-4, atol=1e-5),
        "in eval mode an image's output depends on the rest of its batch",
    )


def _check_float64(block: nn.Module, x: Tensor) -> None:
    expected = _evaluate(block, x)
    doubled = _evaluate(copy.deepcopy(block).double(), x.double())
    _require(doubled.dtype == torch.float64, f"float64 input gives {doubled.dtype}")
    _require(
        torch.allclose(doubled.float(), expected, rtol=1e-3, atol=1e-4),
        "float64 and float32 give different outputs",
    )


def _check_deepcopy(block: nn.Module, x: Tensor) -> None:
    expected = _evaluate(block, x)
    twin = copy.deepcopy(block)
    _require(torch.equal(_evaluate(twin, x), expected), "a deep copy gives another output")
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    _require(
        torch.equal(_evaluate(block, x), expected), "a deep copy shares parameters with the block"
    )


_CHECKS = (_check_shape, _check_gradients, _check_eval, _check_deepcopy, _check_float64)
