"""``nasbench-at models``: the networks by name and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input
from nasbench_at.config.allowed_values import Device, Name, Positional
from nasbench_at.config.architecture import InputShape, NumClasses
from nasbench_at.config.catalogue import ModelCosts, catalogue, is_complete

__all__ = ["ModelsArguments", "run_models"]


@dataclass(frozen=True)
class ModelsArguments:
    """Arguments of ``nasbench-at models``.

    Attributes:
        patterns: Names, or shell patterns such as 'wrn_*'; all registered names if none is given.
        num_classes: Number of classes.
        input_shape: Channels, height and width of an image.
        time: Measure an attack step, on a batch of 8 images.
        device: Where to measure it: auto, cpu, cuda or cuda:N.
    """

    patterns: Positional[tuple[Name, ...]] = ()
    num_classes: NumClasses = 10
    input_shape: InputShape = (3, 32, 32)
    time: bool = False
    device: Device = "auto"


def run_models(words: Sequence[str]) -> int:
    """List the networks by name, with parameters, operations and references."""
    arguments = parse_flags(ModelsArguments, words, "models", run_models.__doc__)
    from rich.table import Table

    from nasbench_at.commands.console import stdout

    with bad_input():
        costs = _known_costs(arguments) or _measure(arguments)
    table = Table("name", "what")
    for column in ("parameters", "FLOPs"):
        table.add_column(column, justify="right")
    if arguments.time:
        table.add_column("attack step", justify="right")
    table.add_column("reference")
    for row in costs:
        seconds = [] if row.seconds_per_step is None else [f"{row.seconds_per_step:.3f} s"]
        table.add_row(
            row.name,
            row.summary,
            f"{row.num_params:,}",
            f"{row.flops:,}",
            *seconds,
            row.reference,
        )
    stdout.print(table)
    return 0


def _known_costs(arguments: ModelsArguments) -> list[ModelCosts]:
    """The rows that need no counting; none if one does."""
    if not is_complete():
        return []
    known = catalogue().models
    names = catalogue().find_models(arguments.patterns or ("*",))
    usual = replace(arguments, patterns=()) == ModelsArguments(device=arguments.device)
    return [known[name] for name in names] if usual and known.keys() >= set(names) else []


def _measure(arguments: ModelsArguments) -> list[ModelCosts]:
    from rich.progress import track

    from nasbench_at.commands.console import stderr
    from nasbench_at.evaluation.model_costs import measure_model
    from nasbench_at.networks.zoo import find_models
    from nasbench_at.runtime.devices import select_device

    names = find_models(arguments.patterns or ("*",))
    device = select_device(arguments.device) if arguments.time else None
    return [
        measure_model(
            name,
            num_classes=arguments.num_classes,
            input_shape=arguments.input_shape,
            time_on=device,
        )
        for name in track(
            names, "counting", console=stderr, transient=True, disable=not stderr.is_terminal
        )
    ]
