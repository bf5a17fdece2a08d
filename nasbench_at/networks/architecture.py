"""What a DS-Net is, as plain data: no torch, canonical JSON, a hash that identifies it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

__all__ = [
    "INIT_PARAMETERS",
    "Architecture",
    "AttentionInit",
    "AttentionMode",
    "AttentionSpec",
    "Recipe",
]

AttentionMode = Literal["learned", "fixed"]
AttentionInit = Literal[
    "normal", "uniform", "log_normal", "exponential", "geometric", "equal", "trained", "given"
]
Recipe = Literal["paper", "authors"]
Matrix: TypeAlias = tuple[tuple[float, ...], ...]

INIT_PARAMETERS: Mapping[Recipe, Mapping[AttentionInit, Mapping[str, float]]] = {
    "paper": {
        "normal": {"scale": 1.0, "mean": 0.0, "std": 1.0},
        "uniform": {"scale": 1.0, "low": 0.0, "high": 1.0},
        "log_normal": {"scale": 1.0, "mean": 0.0, "std": 1.0},
        "exponential": {"scale": 1.0, "rate": 1.0},
        "geometric": {"scale": 1.0, "p": 0.5},
    },
    "authors": {
        "normal": {"scale": 1e-3, "mean": 0.0, "std": 1.0},
        "uniform": {"scale": 1e-3, "low": 0.0, "high": 1.0},
        "log_normal": {"scale": 1e-3, "mean": 1.0, "std": 2.0},
        "exponential": {"scale": 1e-3, "rate": 1.0},
        "geometric": {"scale": 1e-3, "p": 0.5},
    },
}
"""Distributions of the initial logits: as printed in Sec. 4.4, and as in the authors' code."""

_PARAMETER_RANGES: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "scale": ("be finite", lambda v: True),
    "mean": ("be finite", lambda v: True),
    "std": ("be at least 0", lambda v: v >= 0),
    "low": ("be finite", lambda v: True),
    "high": ("be finite", lambda v: True),
    "rate": ("be positive", lambda v: v > 0),
    "p": ("lie in (0, 1)", lambda v: 0 < v < 1),
}

TRAINED_BLOCKS = ("residual", "mbconv", "dense", "ada_rk")
"""The columns of the logits that the authors ship, for each of 15 modules."""


@dataclass(frozen=True)
class AttentionSpec:
    """How the blocks of a module are weighted.

    Args:
        mode: ``learned`` logits, or ``fixed`` weights.
        init: A distribution of the initial logits, or ``equal`` (all zero, so uniform weights),
            ``trained`` (the logits the authors ship for DS-Net-4, 15 modules of four blocks), or
            ``given`` (``weights``).
        recipe: Whose parameters the distribution has, the paper's or the authors' code's.
        parameters: Overrides of those parameters by name, ``scale`` among them.
        weights: For ``given``: a row a module, a column a block, each row summing to 1.
        keep: Per module, the columns that take part; the others have weight zero and are not
            computed. None keeps all.

    Raises:
        ValueError: If a name, a parameter or the shape or sum of ``weights`` is not allowed.
    """

    mode: AttentionMode = "learned"
    init: AttentionInit = "normal"
    recipe: Recipe = "paper"
    parameters: Mapping[str, float] = field(default_factory=dict)
    weights: Matrix | None = None
    keep: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        _require_choice("attention mode", self.mode, get_args(AttentionMode))
        _require_choice("attention init", self.init, get_args(AttentionInit))
        _require_choice("recipe", self.recipe, get_args(Recipe))
        known = INIT_PARAMETERS[self.recipe].get(self.init, {})
        for name in self.parameters:
            _require_choice(f"parameter of attention init {self.init!r}", name, tuple(known))
        if (self.init == "given") != (self.weights is not None):
            raise ValueError(
                "attention weights go with init 'given', and only with it; got init "
                f"{self.init!r} and weights {self.weights!r}"
            )
        # 1 and 1.0 are one specification, so they must be one text and one hash.
        numbers = {name: float(value) for name, value in self.parameters.items()}
        object.__setattr__(self, "parameters", numbers)
        self._check_parameters()
        if self.weights is not None:
            rows = tuple(tuple(float(weight) for weight in row) for row in self.weights)
            object.__setattr__(self, "weights", rows)
            self._check_weights()
        if self.keep is not None:
            object.__setattr__(self, "keep", tuple(tuple(sorted(set(row))) for row in self.keep))

    def _check_parameters(self) -> None:
        values = self.resolved_parameters()
        for name, value in values.items():
            allowed, holds = _PARAMETER_RANGES[name]
            if not (math.isfinite(value) and holds(value)):
                raise ValueError(
                    f"{name} of attention init {self.init!r} must {allowed}, got {value!r}"
                )
        if values.get("low", 0.0) > values.get("high", 0.0):
            raise ValueError(f"low must be at most high, got {values['low']} and {values['high']}")

    def _check_weights(self) -> None:
        assert self.weights is not None
        for i, row in enumerate(self.weights):
            # Written so that a nan is refused too.
            if not (min(row, default=-1.0) >= 0 and abs(sum(row) - 1) <= 1e-4):
                raise ValueError(
                    f"attention weights of module {i} must be at least 0 and sum to 1, got {row}"
                )

    def __hash__(self) -> int:
        return hash(json.dumps(asdict(self), sort_keys=True))

    def resolved_parameters(self) -> dict[str, float]:
        """Returns the parameters of the initial distribution, overrides applied."""
        return {**INIT_PARAMETERS[self.recipe].get(self.init, {}), **self.parameters}


@dataclass(frozen=True)
class Architecture:
    """A diverse-structured network (Sec. 3.2 of the paper); the defaults are DS-Net-4.

    A stem, ``num_modules`` robust modules with a reduction after one and after two thirds of them,
    a pool and a linear head. The three stages are C, kC and 2kC wide.

    Args:
        blocks: The block set of every module, or one block set per module. A name may occur more
            than once: each occurrence is a block of its own.
        num_modules: Number of robust modules, at least 3.
        init_channels: Width C of the first stage.
        widen_factor: k, by which the first reduction widens; the second always doubles.
        num_classes: Number of classes, at least 2.
        input_shape: Channels, height, width of an image.
        block_options: Options by block name, for every occurrence of that block.
        block_copies: How many copies of a block, by its name, are stacked in its place; 1 for
            those not named.
        attention: How the blocks of a module are weighted.

    Raises:
        ValueError: If a value is outside its range; the message names it.
    """

    blocks: tuple[str, ...] | tuple[tuple[str, ...], ...] = (
        "residual",
        "mbconv",
        "dense",
        "ada_rk",
    )
    num_modules: int = 15
    init_channels: int = 20
    widen_factor: int = 4
    num_classes: int = 10
    input_shape: tuple[int, int, int] = (3, 32, 32)
    block_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    block_copies: Mapping[str, int] = field(default_factory=dict)
    attention: AttentionSpec = field(default_factory=AttentionSpec)

    def __post_init__(self) -> None:
        for name, lowest in (
            ("num_modules", 3),
            ("init_channels", 1),
            ("widen_factor", 1),
            ("num_classes", 2),
        ):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {getattr(self, name)}")
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise ValueError(
                "input_shape must be three positive numbers (channels, height, width), got "
                f"{self.input_shape}"
            )
        self._normalise()
        self._check_blocks()

    def _normalise(self) -> None:
        """Gives equal networks equal fields, whatever sequence and mapping types came in."""
        if isinstance(self.blocks, str):
            raise ValueError(f"blocks must be a tuple of names, got the text {self.blocks!r}")
        blocks = tuple(row if isinstance(row, str) else tuple(row) for row in self.blocks)
        if blocks and all(row == blocks[0] and not isinstance(row, str) for row in blocks):
            # One set for all modules is written once, if there is one for each of them.
            blocks = blocks[0] if len(blocks) == self.num_modules else blocks  # type: ignore[assignment]
        options = {name: dict(values) for name, values in self.block_options.items() if values}
        copies = {name: count for name, count in self.block_copies.items() if count != 1}
        for name, value in (
            ("blocks", blocks),
            ("block_options", options),
            ("block_copies", copies),
            ("input_shape", tuple(self.input_shape)),
        ):
            object.__setattr__(self, name, value)

    def _check_blocks(self) -> None:
        if not self.blocks:
            raise ValueError("blocks must name at least one block, got an empty set")
        if len({isinstance(row, str) for row in self.blocks}) > 1:
            raise ValueError(
                f"blocks must be names, or one set of names per module, got {self.blocks}"
            )
        if not isinstance(self.blocks[0], str) and len(self.blocks) != self.num_modules:
            raise ValueError(
                f"blocks lists {len(self.blocks)} sets but num_modules is {self.num_modules}"
            )
        for i, row in enumerate(self.module_blocks):
            if not row:
                raise ValueError(f"module {i} has an empty block set; it needs at least one block")
        self._check_attention()
        used = {name for row in self.module_blocks for name in row}
        for what, names in (("options", self.block_options), ("copies", self.block_copies)):
            for name in names:
                _require_choice(f"block with {what}", name, tuple(sorted(used)))
        for name, count in self.block_copies.items():
            if count < 1:
                raise ValueError(f"block_copies of {name!r} must be at least 1, got {count}")

    def _check_attention(self) -> None:
        """Checks what fixed matrices must have in common with the blocks."""
        if self.attention.init == "trained":
            for i, row in enumerate(self.module_blocks):
                if row != TRAINED_BLOCKS or self.num_modules != 15:
                    raise ValueError(
                        "attention init 'trained' is for 15 modules of "
                        f"{', '.join(TRAINED_BLOCKS)}; got {self.num_modules} modules, module {i} "
                        f"of {', '.join(row)}"
                    )
        for i, (row, weights) in enumerate(
            zip(self.module_blocks, self.attention.weights or (), strict=False)
        ):
            if any(weight > 0 for weight in weights[len(row) :]):
                raise ValueError(
                    f"attention weights of module {i} weigh more than its {len(row)} blocks: "
                    f"{weights}"
                )

    @property
    def module_blocks(self) -> tuple[tuple[str, ...], ...]:
        """The block set of each module."""
        if isinstance(self.blocks[0], str):
            return (self.blocks,) * self.num_modules
        return self.blocks

    @property
    def max_blocks(self) -> int:
        """The number of blocks of the largest module."""
        return max(map(len, self.module_blocks))

    @property
    def reduction_points(self) -> tuple[int, int]:
        """How many modules come before each of the two reductions."""
        return self.num_modules // 3, 2 * self.num_modules // 3

    @property
    def stage_channels(self) -> tuple[int, int, int]:
        """The widths C, kC and 2kC."""
        wide = self.widen_factor * self.init_channels
        return self.init_channels, wide, 2 * wide

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready data from which :meth:`from_dict` restores the architecture."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Restores an architecture from :meth:`to_dict`.

        Raises:
            ValueError: If a key is unknown or a value not allowed.
        """
        _require_keys("an architecture", data, cls)
        values = dict(data)
        if "blocks" in values:
            values["blocks"] = tuple(
                row if isinstance(row, str) else tuple(row) for row in values["blocks"]
            )
        if "attention" in values:
            _require_keys("an attention", values["attention"], AttentionSpec)
            values["attention"] = AttentionSpec(**values["attention"])
        return cls(**values)

    def to_json(self) -> str:
        """Returns canonical JSON: equal architectures give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.to_json())


def _require_keys(what: str, data: Mapping[str, Any], kind: type) -> None:
    for key in data:
        _require_choice(f"key of {what}", key, tuple(f.name for f in fields(kind)))


def _require_choice(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(allowed) or 'none'}, got {value!r}")
