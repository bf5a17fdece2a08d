"""One network, written in several ways: the order of a module's blocks is only a numbering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["agrees", "canonical_form"]

_COLUMN_FIELDS = ("blocks", "attention_weights", "attention_keep")
"""What changes when the columns of a module, one a block, are numbered in another way."""


def canonical_form(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with the blocks of every module in canonical order.

    A module is a weighted sum, Eq. (5) of the paper, so the order of its blocks is no part of what
    it is. Configurations that differ in nothing else have the same canonical form: one block set
    becomes one set a module, blocks are sorted, and the columns of ``attention_weights`` and the
    numbers of ``attention_keep`` go with them. To keep every block is to keep None in particular.

    Args:
        config: A configuration as plain data, or a part of one. The set of all modules stays one
            set where ``num_modules`` is not among it.

    Returns:
        A copy, lists turned into tuples. Rows that do not fit the modules are left in their order.
    """
    form = {key: _as_tuples(value) for key, value in config.items()}
    blocks = form.get("blocks")
    if not isinstance(blocks, tuple) or not blocks:
        return form
    if is_flat := all(isinstance(name, str) for name in blocks):
        blocks = (blocks,) * (form.get("num_modules") or 1)
    weights, keep = form.get("attention_weights"), form.get("attention_keep")
    if not _fit(blocks, weights, keep):
        return form
    orders = [_sorted_columns(i, row, weights, keep) for i, row in enumerate(blocks)]
    rows = tuple(
        tuple(row[column] for column in order) for row, order in zip(blocks, orders, strict=True)
    )
    form["blocks"] = rows[0] if is_flat and not form.get("num_modules") else rows
    if weights is not None:
        form["attention_weights"] = tuple(
            tuple(row[column] for column in order) + row[len(order) :]
            for row, order in zip(weights, orders, strict=True)
        )
    if keep is not None:
        form["attention_keep"] = _renumber(keep, orders)
    return form


def agrees(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a configuration has the values that are wanted.

    Wanted blocks are found in any order, and written once or once a module. Wanted attention
    weights and kept blocks are columns of the wanted blocks; without those, of the configuration's.
    """
    columns = {key: wanted[key] for key in _COLUMN_FIELDS if "blocks" in wanted and key in wanted}
    if any(
        _as_tuples(config.get(key)) != _as_tuples(value)
        for key, value in wanted.items()
        if key not in columns
    ):
        return False
    if not columns:
        return True
    count = {"num_modules": _count_modules(config)}
    own = {key: config.get(key) for key in columns}
    return canonical_form(own | count) == canonical_form(columns | count)


def _count_modules(config: Mapping[str, Any]) -> int | None:
    blocks = config.get("blocks") or ("",)
    default = None if isinstance(blocks[0], str) else len(blocks)
    count: int | None = config.get("num_modules", default)
    return count


def _fit(blocks: Any, weights: Any, keep: Any) -> bool:
    """Whether there is a row for every module, and a weight for every block."""
    if not all(isinstance(row, tuple) for row in blocks):
        return False
    if weights is not None and (
        len(weights) != len(blocks)
        or any(len(row) < len(names) for row, names in zip(weights, blocks, strict=True))
    ):
        return False
    return keep is None or len(keep) == len(blocks)


def _sorted_columns(module: int, names: Sequence[str], weights: Any, keep: Any) -> list[int]:
    """Returns the old columns in their new order: by name, and equal names by what is theirs."""

    def properties(column: int) -> tuple[str, float, bool]:
        weight = 0.0 if weights is None else weights[module][column]
        return names[column], weight, keep is not None and column in keep[module]

    return sorted(range(len(names)), key=properties)


def _renumber(
    keep: Sequence[Sequence[int]], orders: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...] | None:
    rows = tuple(
        tuple(new for new, old in enumerate(order) if old in row)
        for row, order in zip(keep, orders, strict=True)
    )
    keeps_all = all(len(row) == len(order) for row, order in zip(rows, orders, strict=True))
    return None if keeps_all else rows


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value
