"""What a DS-Net is, as plain data: no torch, canonical JSON, a hash that identifies it.

:class:`Architecture` is the one description: graphs and modules are built from it, and
:func:`architecture_of` finds it in a run's configuration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from nasbench_at.config.allowed_values import Name, Range, check_fields, check_value
from nasbench_at.config.catalogue import catalogue

__all__ = [
    "DS_NET_FIELDS",
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
    "InitOptions",
    "InputShape",
    "Keep",
    "NumClasses",
    "NumModules",
    "NumParameters",
    "Recipe",
    "Weights",
    "WidenFactor",
    "architecture_of",
    "block_rank",
    "block_sets",
    "spell_out",
]

AttentionMode = Literal["learned", "fixed"]
AttentionInit = Literal[
    "normal", "uniform", "log_normal", "exponential", "geometric", "equal", "trained", "given"
]
Recipe = Literal["paper", "authors"]
ModuleBlocks = tuple[tuple[Name, ...], ...]
Blocks = tuple[Name, ...] | ModuleBlocks
BlockOptions = Mapping[str, Mapping[str, Any]]
BlockCopies = Mapping[str, Annotated[int, Range("[1, 100]")]]
InitOptions = Mapping[str, float]
Weights: TypeAlias = tuple[tuple[float, ...], ...] | None
Keep: TypeAlias = tuple[tuple[Annotated[int, Range("[0, inf)")], ...], ...] | None
NumModules = Annotated[int, Range("[3, 1000]")]
InitChannels = Annotated[int, Range("[1, 100000]")]
WidenFactor = Annotated[float, Range("[1, 100]")]
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


def repr_of_changes(value: object, default: object, shown: Mapping[str, object] = {}) -> str:
    """Returns a dataclass's ``repr`` with the fields alone that differ from a default's.

    Args:
        value: The dataclass; what is returned makes an equal one.
        default: One of the same type.
        shown: What to show of some fields in place of their values.
    """
    changed = [
        f"{entry.name}={shown.get(entry.name, getattr(value, entry.name))!r}"
        for entry in fields(value)  # type: ignore[arg-type]
        if getattr(value, entry.name) != getattr(default, entry.name)
    ]
    return f"{type(value).__name__}({', '.join(changed)})"


@dataclass(frozen=True)
class AttentionSpec:
    """How the blocks of a module are weighted.

    Args:
        mode: ``learned`` logits, or ``fixed`` weights.
        init: A distribution of the initial logits, or ``equal`` (all zero, so uniform weights),
            ``trained`` (the logits the authors ship for DS-Net-4, 15 modules of four blocks), or
            ``given`` (``weights``).
        recipe: Whose parameters the distribution has, the paper's or the authors' code's.
        init_options: Overrides of those parameters by name, ``scale`` among them.
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
    init_options: InitOptions = field(default_factory=dict)
    weights: Weights = None
    keep: Keep = None

    def __post_init__(self) -> None:
        check_fields(self)
        known = INIT_PARAMETERS[self.recipe].get(self.init, {})
        for name in self.init_options:
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
        return {**INIT_PARAMETERS[self.recipe].get(self.init, {}), **self.init_options}

    def changed_parameters(self) -> dict[str, float]:
        """Returns those parameters of the initial distribution that are not the recipe's."""
        usual = INIT_PARAMETERS[self.recipe].get(self.init, {})
        return {name: value for name, value in self.init_options.items() if value != usual[name]}


def block_sets(blocks: Blocks, num_modules: int) -> ModuleBlocks:
    """Returns the block set of each module, whether one is given for all or one for each.

    Raises:
        ValueError: If there is none, or not one for each of the modules.
    """
    blocks = check_value("blocks", Blocks, blocks)
    num_modules = check_value("num_modules", NumModules, num_modules)
    if not blocks:
        raise ValueError("blocks must name at least one block, got an empty set")
    if isinstance(blocks[0], str):
        return (blocks,) * num_modules
    if len(blocks) != num_modules:
        raise ValueError(
            f"blocks must be a set for each of {num_modules} modules, got {len(blocks)}: {blocks}"
        )
    return blocks


def block_rank(name: str) -> tuple[int, str]:
    """Returns a block's place in a module: the catalogue's, behind it others by the alphabet."""
    known = catalogue().block_places
    return known.get(name, len(known)), name


@lru_cache(maxsize=4096)  # modules share rows
def _sort_columns(
    names: tuple[str, ...], weights: tuple[float, ...] | None, keep: tuple[int, ...] | None
) -> tuple[tuple[str, ...], tuple[float, ...], tuple[int, ...]]:
    """Puts a module's blocks in canonical order, each with its weight, equal ones by that."""
    columns = sorted(
        (block_rank(name), 1.0 if weights is None else weights[j], keep is None or j in keep)
        for j, name in enumerate(names)
    )
    return (
        tuple(name for (_, name), _, _ in columns),
        tuple(weight for _, weight, _ in columns),
        tuple(j for j, (_, _, is_kept) in enumerate(columns) if is_kept),
    )


@dataclass(frozen=True)
class Architecture:
    """A diverse-structured network (Sec. 3.2 of the paper); the defaults are DS-Net-4.

    A stem, ``num_modules`` robust modules with a reduction after one and after two thirds of them,
    a pool and a linear head. The three stages are C, kC and 2kC wide, rounded to whole channels.

    A module is a weighted sum, Eq. (5) of the paper, so the order of its blocks is no part of what
    it is: they are put in that of :func:`block_rank`, equal ones by their given weights, and the
    columns of the attention go with them. Architectures that differ in nothing else are equal.

    Args:
        blocks: The block set of every module, or one block set per module; the attribute is always
            the latter. A name may occur more than once: each occurrence is a block of its own.
        num_modules: Number of robust modules, at least 3.
        init_channels: Width C of the first stage.
        widen_factor: k, by which the first reduction widens; the second always doubles.
        num_classes: Number of classes, at least 2.
        input_shape: Channels, height, width of an image.
        block_options: Options by block name, for every occurrence of that block.
        block_copies: How many copies of a block, by its name, are stacked in its place; 1 for
            those not named.
        attention: How the blocks of a module are weighted; to keep all blocks is to keep None in
            particular.

    Raises:
        ValueError: If a value is outside its range; the message names it.
    """

    if TYPE_CHECKING:  # given as one set for all modules, too
        blocks: ModuleBlocks

        def __init__(
            self,
            blocks: Blocks = ...,
            num_modules: int = ...,
            init_channels: int = ...,
            widen_factor: float = ...,
            num_classes: int = ...,
            input_shape: tuple[int, int, int] = ...,
            block_options: BlockOptions = ...,
            block_copies: BlockCopies = ...,
            attention: AttentionSpec = ...,
        ) -> None: ...
    else:
        blocks: Blocks = TRAINED_BLOCKS
    num_modules: NumModules = 15
    init_channels: InitChannels = 20
    widen_factor: WidenFactor = 4
    num_classes: NumClasses = 10
    input_shape: InputShape = (3, 32, 32)
    block_options: BlockOptions = field(default_factory=dict)
    block_copies: BlockCopies = field(default_factory=dict)
    attention: AttentionSpec = field(default_factory=AttentionSpec, metadata={"is_flag": False})

    def __repr__(self) -> str:
        shown = {"blocks": self.blocks[0]} if len(set(self.blocks)) == 1 else {}
        return repr_of_changes(self, Architecture(), shown)

    def __post_init__(self) -> None:
        sets = block_sets(self.blocks, self.num_modules)
        self._set(blocks=())  # which need not be checked again
        check_fields(self)
        factor = self.widen_factor
        self._set(
            blocks=sets,
            widen_factor=int(factor) if factor.is_integer() else factor,  # 4 is written as 4
            block_options={
                name: dict(given) for name, given in self.block_options.items() if given
            },
            block_copies={name: count for name, count in self.block_copies.items() if count != 1},
        )
        for i, row in enumerate(self.blocks):
            if not row:
                raise ValueError(f"module {i} has an empty block set; it needs at least one block")
        self._check_attention()
        self._sort_columns()
        self._check_trained()
        for what, names in (("options", self.block_options), ("copies", self.block_copies)):
            for name in names:
                _require_choice(f"block with {what}", name, tuple(sorted(self.all_blocks)))

    def _set(self, **values: Any) -> None:
        """Gives equal networks equal fields, whatever came in."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_attention(self) -> None:
        """Checks what given weights and kept columns must have in common with the blocks."""
        weights, keep = self.attention.weights, self.attention.keep
        for what, rows in (("weights", weights), ("keep", keep)):
            if rows is not None and len(rows) != self.num_modules:
                raise ValueError(
                    f"attention {what} must have a row for each of {self.num_modules} modules, got "
                    f"{len(rows)}: {rows}"
                )
        for i, names in enumerate(self.blocks):
            row, kept = weights and weights[i], keep[i] if keep is not None else range(len(names))
            if row is not None and (len(row) < len(names) or any(row[len(names) :])):
                raise ValueError(
                    f"attention weights of module {i} must be one for each of its {len(names)} "
                    f"blocks, got {row}"
                )
            if not kept or kept[-1] >= len(names):
                raise ValueError(
                    f"attention keep of module {i} must be some of its columns "
                    f"0..{len(names) - 1}, got {kept}"
                )
            if row is not None and not any(row[column] for column in kept):
                raise ValueError(f"no block of module {i} is left with a positive weight")

    def _sort_columns(self) -> None:
        spec, nothing = self.attention, (None,) * self.num_modules
        rows = zip(self.blocks, spec.weights or nothing, spec.keep or nothing, strict=True)
        blocks, weights, keep = zip(*(_sort_columns(*row) for row in rows), strict=True)
        keeps_all = [*map(len, keep)] == [*map(len, blocks)]
        attention = replace(
            spec,
            weights=None if spec.weights is None else weights,
            keep=None if keeps_all else keep,
        )
        self._set(blocks=blocks, attention=attention)

    def _check_trained(self) -> None:
        if self.attention.init == "trained" and self.blocks != (TRAINED_BLOCKS,) * 15:
            wrong = next((row for row in self.blocks if row != TRAINED_BLOCKS), TRAINED_BLOCKS)
            raise ValueError(
                f"attention init 'trained' is for 15 modules of {', '.join(TRAINED_BLOCKS)}; got "
                f"{self.num_modules} modules, one of {', '.join(wrong)}"
            )

    @property
    def block_set(self) -> tuple[str, ...] | None:
        """The block set, if all modules have the same; else None."""
        return self.blocks[0] if len(set(self.blocks)) == 1 else None

    @property
    def all_blocks(self) -> frozenset[str]:
        """The names of the blocks of all modules."""
        return frozenset(name for names in self.blocks for name in names)

    @property
    def max_blocks(self) -> int:
        """The number of blocks of the largest module."""
        return max(map(len, self.blocks))

    @property
    def num_kept(self) -> tuple[int, ...]:
        """How many blocks each module keeps: not masked, and of a positive weight."""
        weights = self.attention.weights or [(1.0,) * len(names) for names in self.blocks]
        keep = self.attention.keep or [range(len(row)) for row in weights]
        return tuple(
            sum(row[column] > 0 for column in columns)
            for row, columns in zip(weights, keep, strict=True)
        )

    @property
    def is_whole(self) -> bool:
        """Whether every module keeps all of its blocks."""
        return self.num_kept == tuple(map(len, self.blocks))

    @property
    def is_searched(self) -> bool:
        """Whether it is the paper's own form: a softmax of learned logits from N(0, 1)."""
        is_normal = (self.attention.mode, self.attention.init) == ("learned", "normal")
        return is_normal and not self.attention.changed_parameters()

    @property
    def is_same_block(self) -> bool:
        """Whether each module is several of one block, at fixed and equal weights."""
        has_uniform_weights = (self.attention.mode, self.attention.init) == ("fixed", "equal")
        is_ensemble = len(self.all_blocks) == 1 and self.block_set not in (None, self.blocks[0][:1])
        return has_uniform_weights and is_ensemble

    @cached_property
    def registered_name(self) -> str | None:
        """The name of :data:`NAMED_DS_NETS` under which it is registered, whatever the images."""
        attention = replace(self.attention, recipe="paper")
        bare = replace(self, num_classes=10, input_shape=(3, 32, 32), attention=attention)
        return next((name for name, network in NAMED_DS_NETS.items() if network == bare), None)

    @property
    def reduction_points(self) -> tuple[int, int]:
        """How many modules come before each of the two reductions."""
        return self.num_modules // 3, 2 * self.num_modules // 3

    @property
    def stage_channels(self) -> tuple[int, int, int]:
        """The widths C, kC and 2kC, the latter two rounded, halves up."""
        wide = self.widen_factor * self.init_channels
        return self.init_channels, int(wide + 0.5), int(2 * wide + 0.5)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready data; one block set for all modules is written once."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain if self.block_set is None else {**plain, "blocks": [*self.block_set]}

    def to_json(self) -> str:
        """Returns canonical JSON: equal architectures give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.to_json())


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

_ATTENTION_FIELDS = ("init", "init_options", "weights", "keep")
DS_NET_FIELDS = frozenset(
    {item.name for item in fields(Architecture)} - {"num_classes", "input_shape"}
    | {f"attention_{name}" for name in _ATTENTION_FIELDS}
)
"""What describes a DS-Net in a run's configuration, and does not go with a network by name."""


def spell_out(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a run's configuration with a named DS-Net's fields in the place of its name."""
    network = NAMED_DS_NETS.get(config.get("model", ""))
    if network is None:
        return config
    return {
        **config,
        "model": "ds_net",
        "model_options": {},
        "blocks": network.block_set,
        "num_modules": network.num_modules,
        "init_channels": network.init_channels,
        "widen_factor": network.widen_factor,
        "attention": network.attention.mode,
        **(config.get("model_options") or {}),
    }


def architecture_of(
    config: Mapping[str, Any],
    input_shape: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
) -> Architecture | None:
    """Returns the DS-Net of a run's configuration, described by fields or by name.

    Args:
        config: The configuration as plain data; a field that it lacks has its default.
        input_shape: Channels, height and width of the data's images.
        num_classes: The data's number of classes.

    Returns:
        The architecture; None if the network is no DS-Net.

    Raises:
        ValueError: If the fields do not make an architecture.
    """
    config = spell_out(config)
    if config.get("model") != "ds_net":
        return None
    values = {name: config[name] for name in (*DS_NET_FIELDS, "recipe") if name in config}
    return _make(json.dumps(values, sort_keys=True), input_shape, num_classes)


@lru_cache(maxsize=4096)  # thousands of records are of few networks, and asked for them often
def _make(fields_of_run: str, input_shape: tuple[int, int, int], num_classes: int) -> Architecture:
    values = json.loads(fields_of_run)
    given = {name: values.pop(f"attention_{name}", None) for name in _ATTENTION_FIELDS}
    mode = values.pop("attention", "learned")
    given["init"] = given["init"] or ("normal" if mode == "learned" else "equal")
    given["init_options"] = given["init_options"] or {}
    spec = AttentionSpec(mode=mode, recipe=values.pop("recipe", "paper"), **given)
    return Architecture(**values, input_shape=input_shape, num_classes=num_classes, attention=spec)
