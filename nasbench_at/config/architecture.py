"""What a DS-Net is, as plain data: no torch, canonical JSON, a hash that identifies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal, TypeAlias

from nasbench_at.config.allowed_values import Name, Range, check_fields, check_value

__all__ = [
    "INIT_PARAMETERS",
    "NAMED_DS_NETS",
    "Architecture",
    "AttentionInit",
    "AttentionMode",
    "AttentionSpec",
    "BlockCopies",
    "BlockOptions",
    "Blocks",
    "InitChannels",
    "InputShape",
    "Keep",
    "NumClasses",
    "NumModules",
    "NumParameters",
    "Parameters",
    "Recipe",
    "Weights",
    "WidenFactor",
]

AttentionMode = Literal["learned", "fixed"]
AttentionInit = Literal[
    "normal", "uniform", "log_normal", "exponential", "geometric", "equal", "trained", "given"
]
Recipe = Literal["paper", "authors"]
Blocks = tuple[Name, ...] | tuple[tuple[Name, ...], ...]
BlockOptions = Mapping[str, Mapping[str, Any]]
BlockCopies = Mapping[str, Annotated[int, Range("[1, 100]")]]
Parameters = Mapping[str, float]
Weights: TypeAlias = tuple[tuple[float, ...], ...] | None
Keep: TypeAlias = tuple[tuple[Annotated[int, Range("[0, inf)")], ...], ...] | None
NumModules = Annotated[int, Range("[3, 1000]")]
InitChannels = Annotated[int, Range("[1, 100000]")]
WidenFactor = Annotated[int, Range("[1, 100]")]
NumParameters = Annotated[int, Range("[1, 1000000000000]")]
NumClasses = Annotated[int, Range("[2, 1000000]")]
_Size = Annotated[int, Range("[1, 100000]")]
InputShape = tuple[_Size, _Size, _Size]

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

_PARAMETER_TYPES: Mapping[str, Any] = {
    "scale": Annotated[float, Range("[0, inf)")],
    "mean": float,
    "std": Annotated[float, Range("[0, inf)")],
    "low": float,
    "high": float,
    "rate": Annotated[float, Range("(0, inf)")],
    "p": Annotated[float, Range("(0, 1)")],
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
        weights: For ``given``: a row a module, a weight a block, each row summing to 1. Rows of
            modules with different block sets differ in length.
        keep: Per module, the columns that take part; the others have weight zero and are not
            computed. None keeps all.

    Raises:
        ValueError: If a name, a parameter or the shape or sum of ``weights`` is not allowed.
    """

    mode: AttentionMode = "learned"
    init: AttentionInit = "normal"
    recipe: Recipe = "paper"
    parameters: Parameters = field(default_factory=dict)
    weights: Weights = None
    keep: Keep = None

    def __post_init__(self) -> None:
        check_fields(self)
        known = INIT_PARAMETERS[self.recipe].get(self.init, {})
        for name in self.parameters:
            _require_choice(f"parameter of attention init {self.init!r}", name, tuple(known))
        if (self.init == "given") != (self.weights is not None):
            raise ValueError(
                "attention weights go with init 'given', and only with it; got init "
                f"{self.init!r} and weights {self.weights!r}"
            )
        self._check_parameters()
        self._check_weights()
        if self.keep is not None:
            object.__setattr__(self, "keep", tuple(tuple(sorted(set(row))) for row in self.keep))

    def _check_parameters(self) -> None:
        values = self.resolved_parameters()
        for name, value in values.items():
            what = f"{name} of attention init {self.init!r}"
            check_value(what, _PARAMETER_TYPES[name], value)
        if values.get("low", 0.0) > values.get("high", 0.0):
            raise ValueError(f"low must be at most high, got {values['low']} and {values['high']}")

    def _check_weights(self) -> None:
        for i, row in enumerate(self.weights or ()):
            if min(row, default=-1.0) < 0 or abs(sum(row) - 1) > 1e-4:
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

    blocks: Blocks = ("residual", "mbconv", "dense", "ada_rk")
    num_modules: NumModules = 15
    init_channels: InitChannels = 20
    widen_factor: WidenFactor = 4
    num_classes: NumClasses = 10
    input_shape: InputShape = (3, 32, 32)
    block_options: BlockOptions = field(default_factory=dict)
    block_copies: BlockCopies = field(default_factory=dict)
    attention: AttentionSpec = field(default_factory=AttentionSpec, metadata={"is_flag": False})

    def __post_init__(self) -> None:
        check_fields(self)
        self._normalise()
        self._check_blocks()

    def _normalise(self) -> None:
        """Gives equal networks equal fields, whatever sequence and mapping types came in."""
        blocks = self.blocks
        if blocks and all(row == blocks[0] and not isinstance(row, str) for row in blocks):
            # One set for all modules is written once, if there is one for each of them.
            blocks = blocks[0] if len(blocks) == self.num_modules else blocks  # type: ignore[assignment]
        options = {name: dict(values) for name, values in self.block_options.items() if values}
        copies = {name: count for name, count in self.block_copies.items() if count != 1}
        for name, value in (
            ("blocks", blocks),
            ("block_options", options),
            ("block_copies", copies),
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
                f"blocks must be a set for each of {self.num_modules} modules, got "
                f"{len(self.blocks)}: {self.blocks}"
            )
        for i, row in enumerate(self.module_blocks):
            if not row:
                raise ValueError(f"module {i} has an empty block set; it needs at least one block")
        self._check_attention()
        used = {name for row in self.module_blocks for name in row}
        for what, names in (("options", self.block_options), ("copies", self.block_copies)):
            for name in names:
                _require_choice(f"block with {what}", name, tuple(sorted(used)))

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
        for what, rows in (("weights", self.attention.weights), ("keep", self.attention.keep)):
            if rows is not None and len(rows) != self.num_modules:
                raise ValueError(
                    f"attention {what} must have a row for each of {self.num_modules} modules, got "
                    f"{len(rows)}: {rows}"
                )
        self._fit_weights()
        self._check_kept()

    def _fit_weights(self) -> None:
        """Leaves a weight a block, so that equal networks have equal rows."""
        if self.attention.weights is None:
            return
        rows = []
        for i, (blocks, row) in enumerate(
            zip(self.module_blocks, self.attention.weights, strict=True)
        ):
            if len(row) < len(blocks) or any(row[len(blocks) :]):
                raise ValueError(
                    f"attention weights of module {i} must be one for each of its {len(blocks)} "
                    f"blocks, got {row}"
                )
            rows.append(row[: len(blocks)])
        object.__setattr__(self, "attention", replace(self.attention, weights=tuple(rows)))

    def _check_kept(self) -> None:
        weights = self.attention.weights
        for i, (blocks, kept) in enumerate(
            zip(self.module_blocks, self.attention.keep or (), strict=False)
        ):
            if not kept or kept[-1] >= len(blocks):
                raise ValueError(
                    f"attention keep of module {i} must be some of its columns "
                    f"0..{len(blocks) - 1}, got {kept}"
                )
            if weights is not None and not any(weights[i][column] for column in kept):
                raise ValueError(f"no block of module {i} is left with a positive weight")

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


_V1 = TRAINED_BLOCKS
_V2 = ("residual", "mbconv", "resnext", "dla_tree")
_EQUAL = AttentionSpec(mode="fixed", init="equal")

NAMED_DS_NETS: Mapping[str, Architecture] = {
    "ds_net_4": Architecture(_V1),
    "ds_net_6": Architecture(_V1, widen_factor=6),
    "ds_net_4_v2": Architecture(_V2),
    "ds_net_6_v2": Architecture(_V2, widen_factor=6),
    "ds_net_4_fixed": Architecture(_V1, attention=_EQUAL),
    **{f"ds_net_4_same_{name}": Architecture((name,) * 4, attention=_EQUAL) for name in _V1},
    "tiny_ds_net": Architecture(_V1, num_modules=3, init_channels=8, widen_factor=2),
}
"""The paper's own networks by name, and a tiny one; a run of one is a run of its fields."""
