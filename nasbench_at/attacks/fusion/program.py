"""A program in three stages: what depends on weights alone, the forward and the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, fx, nn

__all__ = ["Program", "Stage"]

Function: TypeAlias = Callable[..., Any]


class Stage:
    """A part of a program, as an `fx` graph that takes what it needs of earlier parts.

    Args:
        is_pure: Whether no operation writes into its arguments, so that the same one is done once.
    """

    def __init__(self, *, is_pure: bool = False) -> None:
        self.graph = fx.Graph()
        self._results: dict[Any, fx.Node] | None = {} if is_pure else None
        self.imported: dict[fx.Node, fx.Node] = {}
        self._last_input: fx.Node | None = None

    def add_input(self, name: str) -> fx.Node:
        """Returns a new argument."""
        if self._last_input is None:
            node = self.graph.placeholder(name)
        else:
            with self.graph.inserting_after(self._last_input):
                node = self.graph.placeholder(name)
        self._last_input = node
        return node

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Returns the result of an operation; arguments may be of earlier stages."""
        args, kwargs = fx.node.map_arg((args, kwargs), self._use)
        if self._results is None:
            return self.graph.call_function(function, args, kwargs)
        key = (function, _hashable(args), _hashable(kwargs))
        if key not in self._results:
            self._results[key] = self.graph.call_function(function, args, kwargs)
        return self._results[key]

    def _use(self, node: fx.Node) -> fx.Node:
        if node.graph is self.graph:
            return node
        if node not in self.imported:
            self.imported[node] = self.add_input(node.name)
        return self.imported[node]

    def finish(self, outputs: Sequence[fx.Node]) -> Function:
        """Returns the stage as a function of its inputs that computes some of its nodes."""
        self.graph.output(tuple(outputs))
        self.graph.eliminate_dead_code()
        for source, node in list(self.imported.items()):
            if not node.users:
                self.graph.erase_node(node)
                del self.imported[source]
        function: Function = fx.GraphModule(nn.Module(), self.graph).forward
        return function


def _hashable(argument: Any) -> Any:
    """Returns a key of an argument; equal numbers of different types have different keys."""
    if isinstance(argument, list | tuple):
        return tuple(map(_hashable, argument))
    if isinstance(argument, dict):
        return tuple((name, _hashable(entry)) for name, entry in argument.items())
    return type(argument), argument


@dataclass
class Program:
    """A network's logits and the gradient of its input.

    Attributes:
        names: Names of the tensors that the network holds and the program reads.
    """

    names: list[str]
    run_weights: Function
    run_forward: Function
    run_backward: Function
    _forward_takes: list[int]
    _backward_takes: list[int]

    @classmethod
    def build(
        cls,
        names: list[str],
        stages: tuple[Stage, Stage, Stage],
        logits: fx.Node,
        gradient: fx.Node,
    ) -> Program:
        """Returns the program of three stages, of which each may take from those before.

        Args:
            names: Names of the first stage's inputs.
            stages: Of the number of images and weights; of images; of the logits' gradient.
            logits: Result of the second stage.
            gradient: Result of the third.
        """
        weights, forward, backward = stages
        run_backward = backward.finish([gradient])
        kept = [node for node in backward.imported if node.graph is forward.graph]
        run_forward = forward.finish([logits, *kept])
        prepared = list(
            dict.fromkeys(
                node
                for node in (*forward.imported, *backward.imported)
                if node.graph is weights.graph
            )
        )
        prepare = weights.finish(prepared)
        available = [*prepared, *kept]
        return cls(
            names,
            prepare,
            run_forward,
            run_backward,
            [available.index(node) for node in forward.imported],
            [available.index(node) for node in backward.imported],
        )

    def prepare(self, held: Mapping[str, Tensor], num_images: int) -> list[Tensor]:
        """Returns what depends on weights alone.

        Args:
            held: The tensors that the network holds, by their names.
            num_images: How many images there will be; other numbers may take longer.
        """
        tensors = (held[name] for name in self.names)
        prepared: list[Tensor] = list(self.run_weights(num_images, *tensors))
        return prepared

    def forward(self, prepared: list[Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns logits, and what the backward pass takes."""
        logits, *kept = self.run_forward(x, *(prepared[i] for i in self._forward_takes))
        available = [*prepared, *kept]
        return logits, [available[i] for i in self._backward_takes]

    def backward(self, taken: list[Tensor], seed: Tensor) -> Tensor:
        """Returns the gradient of the images.

        Args:
            taken: What the forward pass returned for it.
            seed: The gradient of the logits.
        """
        (gradient,) = self.run_backward(seed, *taken)
        result: Tensor = gradient
        return result
