"""``nasbench-at evaluate``: attack a run or a model of the user's."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config.allowed_values import (
    DataRoot,
    Device,
    ExistingFile,
    Name,
    Place,
    Positional,
)
from nasbench_at.config.catalogue import check_data_name, check_network_names
from nasbench_at.evaluation.options import EvaluationOptions
from nasbench_at.records.places import find_network
from nasbench_at.records.run_folders import open_run_folder

if TYPE_CHECKING:
    from nasbench_at.evaluation.run_evaluation import PreparedEvaluation

__all__ = ["EvaluateArguments", "run_evaluate"]


@dataclass(frozen=True)
class EvaluateArguments:
    """Arguments of ``nasbench-at evaluate``.

    Attributes:
        run: The run's folder, an exported .safetensors file, or a network that comes with the
            package by name, such as digits/dense; none with --model.
        options: Attacks and their settings.
        model: One of the networks by name, or a model of your own, my_model.py:factory or
            module:factory; factory() returns a torch.nn.Module that takes images in [0, 1].
        weights: Its weights: a safetensors file, or a state_dict written by torch.save.
        data: Data set to evaluate it on.
        out: Where to write its record; by default evaluations/NAME-HASH/record.json.
        data_root: Where the data set's files lie.
        device: auto, cpu, cuda or cuda:N.
    """

    run: Positional[Place | None] = None
    options: EvaluationOptions = field(default_factory=EvaluationOptions)
    model: Name | None = None
    weights: Annotated[Path, ExistingFile()] | None = None
    data: Name | None = None
    out: Path | None = None
    data_root: DataRoot = None
    device: Device = "auto"

    def __post_init__(self) -> None:
        if (self.run is None) == (self.model is None):
            both = f"both {str(self.run)!r} and {self.model!r}"
            given = "neither" if self.run is None else both
            raise ValueError(f"evaluate needs a run's folder or --model, got {given}")
        if self.model is not None and self.data is None:
            raise ValueError("--model needs --data, got none")
        for name in ("weights", "data", "out"):
            value = getattr(self, name)
            if self.run is not None and value is not None:
                raise ValueError(f"--{name} goes with --model, got {str(value)!r} with a run")
        if len(self.options.eps) > 1 and not self.options.attack_names:
            raise ValueError(
                f"several --eps need one of --attacks at least, got none with {self.options.eps}"
            )


def run_evaluate(words: Sequence[str]) -> int:
    """Attack a trained run, or a model of your own, on the test images."""
    arguments = parse_flags(EvaluateArguments, words, "evaluate", run_evaluate.__doc__)
    folder = arguments.run if arguments.run and find_network(arguments.run) is None else None
    with bad_input():
        if folder is not None:
            open_run_folder(folder)
        elif arguments.model is not None:
            check_network_names(arguments.model)
            check_data_name(str(arguments.data))
    from nasbench_at.commands.console import show_evaluation, show_result, stdout
    from nasbench_at.runtime.devices import select_device
    from nasbench_at.runtime.ranks import distributed

    with ExitStack() as stack, one_line_warnings():
        with bad_input():
            device = select_device(arguments.device)
            ranks = stack.enter_context(distributed(device))
            arguments = replace(arguments, device=str(ranks.place(device)))
            evaluation = _prepare_evaluation(arguments)
        record = evaluation.run(show_result, ranks)
        if not ranks.is_main:
            return 0
    show_evaluation(record)
    if len(evaluation.attacks) > 1:
        sys.stderr.write(
            "accuracy by radius is drawn by: nasbench-at figure robustness-curve "
            f"{shlex.quote(str(evaluation.path.parent))}\n"
        )
    # The last line is what scripts go on with: the run's folder, or the record of another network.
    stdout.say(str(folder or evaluation.path))
    return 0


def _prepare_evaluation(arguments: EvaluateArguments) -> PreparedEvaluation:
    from nasbench_at.evaluation.run_evaluation import prepare_evaluation, prepare_model_evaluation

    if arguments.run is not None:
        return prepare_evaluation(
            arguments.run,
            arguments.options,
            device=arguments.device,
            data_root=arguments.data_root,
        )
    assert arguments.model is not None  # checked with the other arguments
    assert arguments.data is not None
    return prepare_model_evaluation(
        arguments.model,
        arguments.options,
        data=arguments.data,
        weights=arguments.weights,
        data_root=arguments.data_root,
        out=arguments.out,
        device=arguments.device,
    )
