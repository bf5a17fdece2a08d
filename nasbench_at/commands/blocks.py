"""``nasbench-at blocks``: what there is to build from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config.allowed_values import Name, Positional
from nasbench_at.config.catalogue import BlockEntry, catalogue, is_complete

if TYPE_CHECKING:
    from blocks import BlockInfo

__all__ = ["BlocksArguments", "run_blocks"]


@dataclass(frozen=True)
class BlocksArguments:
    """Arguments of ``nasbench-at blocks``.

    Attributes:
        names: Show these blocks with their options; all blocks if none is given.
        plugins: Python files that register blocks.
    """

    names: Positional[tuple[Name, ...]] = ()
    plugins: tuple[Name, ...] = ()


def run_blocks(words: Sequence[str]) -> int:
    """List the registered blocks, or show some with their options."""
    arguments = parse_flags(BlocksArguments, words, "blocks", run_blocks.__doc__)
    from rich.table import Table

    from nasbench_at.commands.console import stdout

    with bad_input(), one_line_warnings():
        infos = _find_blocks(arguments)
    table = Table("name", "kind", "summary", "options", "reference")
    for info in infos:
        options = ", ".join(f"{name}={default}" for name, default in info.options.items())
        table.add_row(info.name, info.kind, info.summary, options, info.reference)
    stdout.print(table)
    return 0


def _find_blocks(arguments: BlocksArguments) -> Sequence[BlockEntry | BlockInfo]:
    if is_complete(arguments.plugins):
        return catalogue().find_blocks(arguments.names)
    from blocks import block_info, list_blocks
    from nasbench_at.training.plugins import load_plugins

    load_plugins(arguments.plugins)
    return [block_info(name) for name in arguments.names or list_blocks()]
