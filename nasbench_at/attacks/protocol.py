"""What every attack looks like from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from torch import Generator, Tensor, nn

JsonValue: TypeAlias = str | int | float | bool | list[str] | None
Network: TypeAlias = Callable[[Tensor], Tensor]  # images to logits: a model, or what stands for it


class Attack(Protocol):
    """A search for images near `x` that the model gets wrong.

    An attack leaves the model and the global random state as it found them, so that it may be
    called between any two lines of a training loop.
    """

    @property
    def name(self) -> str:
        """A short stable name, such as `pgd`; the key of its row in a record."""

    def settings(self) -> dict[str, JsonValue]:
        """Returns all that decides the result besides the model and the data, ready for JSON."""

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator | None = None
    ) -> Tensor:
        """Returns adversarial images.

        Args:
            model: Maps images to logits.
            x: Images in [0, 1].
            y: True classes.
            generator: The source of all randomness, on the device of `x`.

        Shapes:
            x: (N, ...). y: (N,), int64.

        Returns:
            Detached images in [0, 1] within the budget of `x`; shape, dtype and layout of `x`.
        """
