"""``nasbench-at export``: a run's network for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input
from nasbench_at.config.allowed_values import NewFile, Positional

__all__ = ["ExportArguments", "run_export"]

_SUFFIXES = (".pt2", ".safetensors")


@dataclass(frozen=True)
class ExportArguments:
    """Arguments of ``nasbench-at export``.

    Attributes:
        run: The run's folder.
        out: File to write: .safetensors, the weights with the configuration and the record, which
            nasbench_at.load_model reads; or .pt2, a program of torch.export that needs no
            nasbench-at. A model card is written beside it as .md.
    """

    run: Positional[Path]
    out: Annotated[Path, NewFile(_SUFFIXES)]


def run_export(words: Sequence[str]) -> int:
    """Write a run's network to one file that others can load, with a model card."""
    arguments = parse_flags(ExportArguments, words, "export", run_export.__doc__)
    from nasbench_at.commands.console import stdout
    from nasbench_at.evaluation.exported import export_run

    with bad_input():
        network, card = export_run(arguments.run, arguments.out)
    stdout.say(f"network written to {network}, model card to {card}")
    return 0
