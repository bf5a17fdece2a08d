"""DS-Nets as studies vary them, read from a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import groupby
from typing import Any

from nasbench_at.config import RunConfig

__all__ = ["DSNetShape", "describe_blocks", "describe_ds_net", "is_ds_net", "read_ds_net"]

_DEFAULTS = {field.name: field.default for field in fields(RunConfig)}
_V1 = ("residual", "mbconv", "dense", "ada_rk")
_V2 = ("residual", "mbconv", "resnext", "dla_tree")


@dataclass(frozen=True)
class DSNetShape:
    """What tells the DS-Nets of a study apart.

    Attributes:
        module_blocks: The block set of each module.
        num_modules: Number of modules.
        init_channels: Width of the first stage.
        widen_factor: k, by which the first reduction widens.
        attention: ``learned`` or ``fixed``.
        attention_init: Where the weights start, or stay.
        num_kept: How many blocks every module keeps; None if that differs between modules.
        is_whole: Whether every module keeps all of its blocks.
        is_plain: Whether it has neither options nor stacked copies of blocks.
    """

    module_blocks: tuple[tuple[str, ...], ...]
    num_modules: int
    init_channels: int
    widen_factor: int
    attention: str = "learned"
    attention_init: str = "normal"
    num_kept: int | None = None
    is_whole: bool = True
    is_plain: bool = True

    @property
    def blocks(self) -> tuple[str, ...] | None:
        """The block set, if all modules have the same; else None."""
        return self.module_blocks[0] if len(set(self.module_blocks)) == 1 else None

    @property
    def all_blocks(self) -> frozenset[str]:
        """The names of the blocks of all modules."""
        return frozenset(name for blocks in self.module_blocks for name in blocks)

    @property
    def is_searched(self) -> bool:
        """Whether it is the paper's own form: a softmax of learned logits from N(0, 1)."""
        return self.attention == "learned" and self.attention_init == "normal"

    @property
    def is_same_block(self) -> bool:
        """Whether each module is several of one block, at fixed and equal weights."""
        blocks = self.blocks
        return (
            blocks is not None
            and len(blocks) > 1
            and len(set(blocks)) == 1
            and (self.attention, self.attention_init) == ("fixed", "equal")
        )

    @property
    def registered_name(self) -> str | None:
        """The name under which this network is registered, if it is."""
        if not self.is_plain or not self.is_whole:
            return None
        bare = replace(self, num_kept=None)
        return next((name for name, shape in _REGISTERED.items() if shape == bare), None)


def _paper_net(blocks: tuple[str, ...], widen_factor: int, **more: str) -> DSNetShape:
    return DSNetShape((blocks,) * 15, 15, 20, widen_factor, **more)  # type: ignore[arg-type]


_REGISTERED: Mapping[str, DSNetShape] = {
    "ds_net_4": _paper_net(_V1, 4),
    "ds_net_6": _paper_net(_V1, 6),
    "ds_net_4_v2": _paper_net(_V2, 4),
    "ds_net_6_v2": _paper_net(_V2, 6),
    "ds_net_4_fixed": _paper_net(_V1, 4, attention="fixed", attention_init="equal"),
    **{
        f"ds_net_4_same_{block}": _paper_net(
            (block,) * 4, 4, attention="fixed", attention_init="equal"
        )
        for block in _V1
    },
    "tiny_ds_net": DSNetShape((_V1,) * 3, 3, 8, 2),
}
"""The shapes behind the names of ``nasbench_at.networks.zoo.ds_net``."""


def is_ds_net(config: Mapping[str, Any]) -> bool:
    """Whether a configuration's network is a DS-Net, described by fields or by name."""
    return config.get("model") == "ds_net" or config.get("model") in _REGISTERED


def read_ds_net(config: Mapping[str, Any]) -> DSNetShape | None:
    """Reads a DS-Net's shape; None of any other network."""
    if config.get("model") in _REGISTERED:
        return _read_registered(config)
    if config.get("model") != "ds_net":
        return None
    attention = str(_value(config, "attention"))
    modules = _module_blocks(config)
    counts = _count_kept(config, modules)
    return DSNetShape(
        module_blocks=modules,
        num_modules=len(modules),
        init_channels=int(_value(config, "init_channels")),
        widen_factor=int(_value(config, "widen_factor")),
        attention=attention,
        attention_init=config.get("attention_init")
        or ("normal" if attention == "learned" else "equal"),
        num_kept=counts[0] if len(set(counts)) == 1 else None,
        is_whole=counts == [len(blocks) for blocks in modules],
        is_plain=not any(
            config.get(key) for key in ("block_options", "block_copies", "attention_parameters")
        ),
    )


def _read_registered(config: Mapping[str, Any]) -> DSNetShape:
    shape = _REGISTERED[config["model"]]
    options = config.get("model_options") or {}
    known = {key: options[key] for key in ("init_channels", "attention_init") if key in options}
    return replace(shape, num_kept=len(shape.module_blocks[0]), **known)


def _module_blocks(config: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    blocks = _value(config, "blocks")
    if isinstance(blocks[0], str):
        return (tuple(blocks),) * int(_value(config, "num_modules"))
    return tuple(tuple(row) for row in blocks)


def _value(config: Mapping[str, Any], name: str) -> Any:
    """A field's value, or its default where a record was made before there was the field."""
    return config.get(name, _DEFAULTS[name])


def _count_kept(config: Mapping[str, Any], modules: tuple[tuple[str, ...], ...]) -> list[int]:
    """How many blocks each module keeps: not masked, and of a positive weight."""
    keep = config.get("attention_keep") or [range(len(blocks)) for blocks in modules]
    weights = config.get("attention_weights") or [[1.0] * len(blocks) for blocks in modules]
    return [
        sum(row[column] > 0 for column in columns if column < len(row))
        for columns, row in zip(keep, weights, strict=False)
    ]


def describe_blocks(shape: DSNetShape) -> str:
    """Says which blocks a DS-Net's modules hold, such as ``4 × mbconv``."""
    blocks = shape.blocks
    if blocks is None:
        return " / ".join(
            " + ".join(row) + (f" ({count} times)" if (count := len(list(group))) > 1 else "")
            for row, group in groupby(shape.module_blocks)
        )
    if len(set(blocks)) == 1 and len(blocks) > 1:
        return f"{len(blocks)} \N{MULTIPLICATION SIGN} {blocks[0]}"
    return " + ".join(blocks)


def describe_ds_net(shape: DSNetShape) -> str:
    """Describes a DS-Net in one line."""
    parts = [f"DS-Net of {describe_blocks(shape)}"]
    if not shape.is_searched:
        parts.append(f"{shape.attention} {shape.attention_init} weights")
    parts.append(f"{shape.num_modules} modules of {shape.init_channels} channels")
    parts.append(f"k = {shape.widen_factor}")
    return ", ".join(parts)
