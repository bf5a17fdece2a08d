"""Which convolution's output goes into one norm and nowhere else, seen in a forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

# SyncBatchNorm and all BatchNorm*d; the base class has no public name.
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode


def find_conv_norm_pairs(
    model: nn.Module, x: Tensor, convs: Iterable[nn.Conv2d], norms: Iterable[_BatchNorm]
) -> dict[nn.Conv2d, _BatchNorm]:
    """Returns each convolution that could be computed as one with the norm behind it.

    The model runs once on `x`, every operation watched. A convolution is returned only if each of
    its calls was one convolution with its own weight and bias, whose result went into the same
    norm, once, and into no other operation of any module, and if that norm was given nothing else.

    Args:
        model: Computes `model(x)`; not compiled, or compilation is suspended.
        x: Images.
        convs: The convolutions to look at.
        norms: The norms to look at; each takes its input as the only argument.
    """
    watch = _Watch(convs, norms)
    with watch.hooks(), watch:
        model(x)
    return watch.pairs()


@dataclass
class _Output:
    """What a call of a convolution returned, and where that went."""

    tensor: Tensor
    norms: list[_BatchNorm] = field(default_factory=list)
    is_used_elsewhere: bool = False


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees all operations, those within autograd and behind `detach` too, and who calls them."""

    def __init__(self, convs: Iterable[nn.Conv2d], norms: Iterable[_BatchNorm]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.outputs: dict[nn.Conv2d, list[_Output]] = {conv: [] for conv in convs}
        self.inputs: dict[_BatchNorm, list[nn.Conv2d | None]] = {norm: [] for norm in norms}
        self.impure: set[nn.Conv2d] = set()
        self._by_id: dict[int, tuple[nn.Conv2d, _Output]] = {}  # the tensors are kept alive above
        self._running: nn.Module | None = None
        self._convolved: list[Tensor] = []

    def hooks(self) -> ExitStack:
        stack = ExitStack()
        for conv in self.outputs:
            stack.callback(conv.register_forward_pre_hook(self._enter_conv).remove)
            stack.callback(conv.register_forward_hook(self._leave_conv).remove)
        for norm in self.inputs:
            enter = norm.register_forward_pre_hook(self._enter_norm, with_kwargs=True)
            stack.callback(enter.remove)
            stack.callback(norm.register_forward_hook(self._leave_norm).remove)
        return stack

    def pairs(self) -> dict[nn.Conv2d, _BatchNorm]:
        found = {}
        for conv, outputs in self.outputs.items():
            fed = {tuple(output.norms) for output in outputs}
            if conv in self.impure or len(fed) != 1 or any(o.is_used_elsewhere for o in outputs):
                continue
            (targets,) = fed
            if len(targets) == 1 and set(self.inputs[targets[0]]) == {conv}:
                found[conv] = targets[0]
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        taken = list(_tensors((*args, *kwargs.values())))
        if not isinstance(self._running, _BatchNorm):  # what a norm does with its input is known
            for tensor in taken:
                if (known := self._by_id.get(id(tensor))) is not None:
                    known[1].is_used_elsewhere = True
        result = func(*args, **kwargs)
        if isinstance(conv := self._running, nn.Conv2d):
            own = [parameter for parameter in (conv.weight, conv.bias) if parameter is not None]
            if any(tensor is parameter for tensor in taken for parameter in own):
                is_convolution = func is torch.ops.aten.convolution.default
                if is_convolution and args[1] is conv.weight and args[2] is conv.bias:
                    self._convolved.append(result)
                else:
                    self.impure.add(conv)
        return result

    def _enter_conv(self, conv: nn.Module, args: object) -> None:
        self._running, self._convolved = conv, []

    def _leave_conv(self, conv: nn.Module, args: object, output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        if len(self._convolved) != 1 or self._convolved[0] is not output:
            self.impure.add(conv)
        else:
            kept = _Output(output)
            self.outputs[conv].append(kept)
            self._by_id[id(output)] = conv, kept
        self._running = None

    def _enter_norm(
        self, norm: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        assert isinstance(norm, _BatchNorm)
        self._running = norm
        (x,) = (*args, *kwargs.values())
        conv, output = self._by_id.get(id(x), (None, None))
        self.inputs[norm].append(conv)
        if output is not None:
            output.norms.append(norm)

    def _leave_norm(self, norm: nn.Module, args: object, output: object) -> None:
        self._running = None


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
