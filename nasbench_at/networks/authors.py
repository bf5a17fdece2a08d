"""Reads the checkpoints of the DS-Net authors' code (d12306/dsnet).

Their network is a flat list of blocks and reductions; the kind of each entry, the number of
modules, widths and classes are read from the keys and shapes. Many entries are stored twice under
alias names, which are dropped. The attention logits are not part of their state_dict.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nasbench_at.config.architecture import Architecture, block_rank
from nasbench_at.networks.ds_net import DSNet, RobustModule
from nasbench_at.networks.graph import build_network
from nasbench_at.runtime.plain_data import read_plain_data

__all__ = ["load_authors_checkpoint", "rename_block"]


class _Layout(NamedTuple):
    """How the authors store one kind of block."""

    signature: str  # a key that only this kind has, tried in the order of _LAYOUTS
    renames: Mapping[str, str]  # their prefix -> ours
    aliases: tuple[str, ...] = ()  # prefixes under which entries are stored a second time


_PRE_ACTIVATION = {
    "n1": "residual.norm1",
    "conv1": "residual.conv1",
    "n2": "residual.norm2",
    "conv2": "residual.conv2",
    "n3": "norm",
}
_TREE_NODE = {"conv1": "conv1", "bn1": "norm1", "conv2": "conv2", "bn2": "norm2"}
_TREE = {
    "prev_root": "previous",
    "left_node": "left",
    "right_node": "right",
    "level_1.left_node": "level1_left",
    "level_1.right_node": "level1_right",
}

_LAYOUTS: Mapping[str, _Layout] = {
    "ada_rk": _Layout("a21", {"a21": "a21", "b10": "b10", **_PRE_ACTIVATION}, ("block",)),
    "mbconv": _Layout(
        "pre_layer.conv1.weight",
        {
            "pre_layer.conv1": "expand",
            "pre_layer.bn1": "norm1",
            "dw.conv1": "depthwise",
            "dw.bn1": "norm2",
            "se.conv1": "squeeze_excite.reduce",
            "se.conv2": "squeeze_excite.expand",
            "linear": "project",
            "bn1": "norm3",
            "bn_final": "norm",
        },
        ("conv", "se.se"),
    ),
    "dense": _Layout(
        "denselayer1.norm1.weight",
        {
            **{
                f"denselayer{i}.{part}": f"layers.{i - 1}.{part}"
                for i in (1, 2)
                for part in ("norm1", "conv1", "norm2", "conv2")
            },
            "bn_final": "norm",
        },
    ),
    "resnext": _Layout(
        "conv_reduce.weight",
        {
            "conv_reduce": "reduce",
            "bn_reduce": "norm1",
            "conv_conv": "grouped",
            "bn": "norm2",
            "conv_expand": "expand",
            "bn_expand": "norm3",
            "bn_final": "norm",
        },
    ),
    "dla_tree": _Layout(
        "prev_root.conv1.weight",
        {
            **{
                f"{theirs}.{part}": f"{ours}.{renamed}"
                for theirs, ours in _TREE.items()
                for part, renamed in _TREE_NODE.items()
            },
            "root.conv": "root.conv",
            "root.bn": "root.norm",
            "level_1.root.conv": "level1_root.conv",
            "level_1.root.bn": "level1_root.norm",
        },
    ),
    "reduction": _Layout(
        "downsample.0.weight",
        {**_PRE_ACTIVATION, "downsample.0": "shortcut.0", "downsample.1": "shortcut.1"},
        ("residual",),
    ),
    "residual": _Layout("n3.weight", _PRE_ACTIVATION, ("residual",)),
}

_OUTSIDE_BLOCKS = ("conv.weight", "conv.bias", "fc.weight", "fc.bias")

StateDict = dict[str, Tensor]


class _Entry(NamedTuple):
    """One entry of the authors' flat list."""

    kind: str
    copies: tuple[StateDict, ...]  # more than one where the block is a stack


def load_authors_checkpoint(
    path_or_mapping: str | Path | Mapping[str, Any],
    logits: Tensor | None = None,
    *,
    resolution: tuple[int, int] = (32, 32),
) -> DSNet:
    """Builds a DS-Net from a checkpoint of the authors' code.

    Args:
        path_or_mapping: A checkpoint file, its content, or the bare state_dict.
        logits: Attention logits, shape ``(num_modules, max blocks)``. Their checkpoints lack them;
            None weighs all blocks equally, and warns.
        resolution: Height and width of the images; it is not in the checkpoint, and only the
            graph's annotations depend on it.

    Returns:
        The network in evaluation mode, exactly their function.

    Raises:
        ValueError: If the file cannot be read, or a key or shape is not that of such a network.
    """
    state = _read_state(path_or_mapping)
    flat = _split_entries(state)
    architecture = _read_architecture(state, flat, logits, resolution)
    network = build_network(architecture)
    try:
        fit = network.load_state_dict(_convert(state, flat, network, logits), strict=False)
    except RuntimeError as error:  # shapes
        reason = " ".join(str(error).split())
        raise ValueError(f"the checkpoint does not fit a DS-Net: {reason}") from None
    if fit.missing_keys:
        raise ValueError(f"the checkpoint is missing what becomes {fit.missing_keys[0]!r}")
    return network.eval()


def rename_block(kind: str, state: Mapping[str, Tensor]) -> StateDict:
    """Renames the state_dict of one of the authors' blocks to ours, alias entries dropped.

    Args:
        kind: ``reduction`` or the registered name of one of the six blocks.
        state: Their state_dict.

    Raises:
        ValueError: If a key is neither known nor an alias.
    """
    layout = _LAYOUTS[kind]
    renamed: StateDict = {}
    for key, value in state.items():
        prefix = next((p for p in (key, key.rpartition(".")[0]) if p in layout.renames), None)
        if prefix is not None:
            renamed[layout.renames[prefix] + key.removeprefix(prefix)] = value
        elif not key.startswith(tuple(f"{alias}." for alias in layout.aliases)):
            raise ValueError(f"a {kind} block of the authors' code has no entry {key!r}")
    return renamed


def _read_state(source: str | Path | Mapping[str, Any]) -> StateDict:
    if isinstance(source, Mapping):
        content: Mapping[str, Any] = source
    else:
        try:
            content = read_plain_data(Path(source))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"cannot read {str(source)!r} as a checkpoint: {reason}") from None
        if not isinstance(content, Mapping):
            raise ValueError(f"{str(source)!r} holds a {type(content).__name__}, no checkpoint")
    state = dict(content.get("state_dict", content))
    for key in _OUTSIDE_BLOCKS:
        if key not in state:
            raise ValueError(f"no checkpoint of the authors' code: {key!r} is missing")
    return state


def _split_entries(state: StateDict) -> list[_Entry]:
    by_index: dict[int, StateDict] = defaultdict(dict)
    for key, value in state.items():
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", key)
        if match:
            by_index[int(match[1])][match[2]] = value
        elif key not in _OUTSIDE_BLOCKS:
            raise ValueError(f"no entry of the authors' code: {key!r}")
    return [_read_entry(index, by_index[index]) for index in sorted(by_index)]


def _read_entry(index: int, state: StateDict) -> _Entry:
    stacked: dict[str, StateDict] = defaultdict(dict)
    for key, value in state.items():
        position, _, rest = key.partition(".")
        stacked[position if position.isdigit() else ""][rest if position.isdigit() else key] = value
    copies = tuple(stacked[position] for position in sorted(stacked, key=lambda p: int(p or 0)))
    for kind, layout in _LAYOUTS.items():
        if layout.signature in copies[0]:
            return _Entry(kind, copies)
    raise ValueError(f"entry blocks.{index} is of no known kind; it has {sorted(copies[0])[:4]}")


def _read_architecture(
    state: StateDict, flat: Sequence[_Entry], logits: Tensor | None, resolution: tuple[int, int]
) -> Architecture:
    names = [entry.kind for entry in flat if entry.kind != "reduction"]
    if logits is None and len(set(names)) == 1:
        raise ValueError(
            f"all blocks are {names[0]!r}: how many make a module is not in the checkpoint; pass "
            "the logits"
        )
    num_blocks = _smallest_period(names) if logits is None else logits.shape[1]
    if not names or len(names) % num_blocks:
        raise ValueError(f"{len(names)} blocks do not make modules of {num_blocks} blocks")
    widths = [state["conv.weight"].shape[0]]
    widths += [len(e.copies[0]["downsample.0.weight"]) for e in flat if e.kind == "reduction"]
    if len(widths) != 3 or widths[1] % widths[0] or widths[2] != 2 * widths[1]:
        raise ValueError(f"the stages of a DS-Net are C, kC and 2kC wide, got {widths}")
    return Architecture(
        blocks=tuple(names[:num_blocks]),
        num_modules=len(names) // num_blocks,
        init_channels=widths[0],
        widen_factor=widths[1] // widths[0],
        num_classes=state["fc.weight"].shape[0],
        input_shape=(state["conv.weight"].shape[1], *resolution),
        block_copies={entry.kind: len(entry.copies) for entry in flat if entry.kind in names},
    )


def _smallest_period(names: Sequence[str]) -> int:
    for period in range(1, len(names)):
        if all(name == names[i % period] for i, name in enumerate(names)):
            return period
    return len(names)


def _convert(
    state: StateDict, flat: Sequence[_Entry], network: DSNet, logits: Tensor | None
) -> StateDict:
    if logits is None:
        warnings.warn(
            "the checkpoint holds no attention logits: all blocks are weighted equally",
            stacklevel=3,
        )
        logits = torch.zeros_like(network.attention.logits)
    # Ours are in canonical order, theirs in any.
    first = flat[: logits.shape[1]]
    columns = sorted(range(len(first)), key=lambda column: block_rank(first[column].kind))
    converted = {
        "stem.weight": state["conv.weight"],
        "stem.bias": state["conv.bias"],
        "head.weight": state["fc.weight"],
        "head.bias": state["fc.bias"],
        "attention.logits": logits[:, columns],
    }
    entries = iter(flat)
    for i, stage in enumerate(network.stages):
        num_entries = len(stage.blocks) if isinstance(stage, RobustModule) else 1
        of_stage = islice(entries, num_entries)
        for j, entry in enumerate(sorted(of_stage, key=lambda entry: block_rank(entry.kind))):
            if (entry.kind == "reduction") == isinstance(stage, RobustModule):
                raise ValueError(f"stage {i} of the network holds a {entry.kind} out of place")
            prefix = f"stages.{i}" if entry.kind == "reduction" else f"stages.{i}.blocks.{j}"
            for k, copy in enumerate(entry.copies):
                position = f".{k}" if len(entry.copies) > 1 else ""
                for key, value in rename_block(entry.kind, copy).items():
                    converted[f"{prefix}{position}.{key}"] = value
    return converted
