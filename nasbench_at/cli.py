"""The ``nasbench-at`` command.

Every command imports what it needs when it runs, so that ``nasbench-at --help`` answers at once.
Exit codes: 0 done, 2 bad input, 75 interrupted but resumable, 1 anything else.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from nasbench_at.config import BlockOptions, Blocks, Counts, RunConfig
from nasbench_at.evaluation_options import EvaluationOptions
from nasbench_at.runs import FolderInUseError
from nasbench_at.training.interruption import InterruptedTraining

if TYPE_CHECKING:
    from nasbench_at.records import Record
    from nasbench_at.run_evaluation import PreparedEvaluation
    from nasbench_at.training.distribution import Distribution

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
FIGURE_SUFFIXES = (".pdf", ".png", ".svg")
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: schedulers requeue on it


class BadInputError(Exception):
    """What the user gave cannot be worked with; the message is one line."""


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Shows warnings as lines on stderr, without the source that raised them."""
    import warnings

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, UserWarning):
            sys.stderr.write(f"nasbench-at: warning: {message}\n")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


@contextmanager
def bad_input() -> Iterator[None]:
    """Turns a ValueError raised while input is checked into :class:`BadInputError`."""
    try:
        yield
    except ValueError as error:
        raise BadInputError(" ".join(str(error).split())) from error


@dataclass(frozen=True)
class BlocksArguments:
    """Arguments of ``nasbench-at blocks``.

    Attributes:
        names: Show these blocks with their options; all blocks if none is given.
        plugins: Python files that register blocks.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    plugins: tuple[str, ...] = ()


def run_blocks(words: Sequence[str]) -> int:
    """List the registered blocks, or show some with their options."""
    from nasbench_at.flags import parse_flags

    with bad_input():
        arguments = parse_flags(
            BlocksArguments, words, command="blocks", description=_summary(run_blocks)
        )
    from rich.table import Table

    from blocks import block_info, list_blocks, load_entry_points, load_plugin
    from nasbench_at.console import stdout

    with bad_input():
        load_entry_points()
        for plugin in arguments.plugins:
            load_plugin(plugin)
        infos = [block_info(name) for name in arguments.names or list_blocks()]
    table = Table("name", "kind", "summary", "options", "reference")
    for info in infos:
        options = ", ".join(f"{name}={default}" for name, default in info.options.items())
        table.add_row(info.name, info.kind, info.summary, options, info.reference)
    stdout.print(table)
    return 0


@dataclass(frozen=True)
class GraphArguments:
    """Arguments of ``nasbench-at graph``.

    Attributes:
        blocks: The block set of every module, or comma-separated sets, one a module.
        num_modules: Number of robust modules.
        init_channels: Width of the first stage.
        widen_factor: By how much the first reduction widens.
        block_options: Options by block name.
        block_copies: Stacked copies by block name.
        num_classes: Number of classes.
        input_shape: Channels, height and width of an image.
        match_parameters: Choose init_channels closest to this number of parameters.
        remove: Nodes to leave out, such as module01.dense.
        plugins: Python files that register blocks.
        out: Write the graph; the suffix decides: png, pdf, svg, graphml, json or dot.
    """

    blocks: Blocks = ("residual", "mbconv", "dense", "ada_rk")
    num_modules: int = 15
    init_channels: int = 20
    widen_factor: int = 4
    block_options: BlockOptions = field(default_factory=dict)
    block_copies: Counts = field(default_factory=dict)
    num_classes: int = 10
    input_shape: tuple[int, int, int] = (3, 32, 32)
    match_parameters: int | None = None
    remove: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    out: Path | None = None


def run_graph(words: Sequence[str]) -> int:
    """Lay out a network as a graph: count, edit, draw and export it."""
    from nasbench_at.flags import parse_flags

    with bad_input():
        arguments = parse_flags(
            GraphArguments, words, command="graph", description=_summary(run_graph)
        )
    from blocks import load_entry_points, load_plugin
    from nasbench_at.console import stdout
    from nasbench_at.networks.architecture import Architecture
    from nasbench_at.networks.export import write_graph
    from nasbench_at.networks.graph import (
        annotate_graph,
        build_graph,
        match_parameters,
        validate_graph,
    )

    with bad_input():
        load_entry_points()
        for plugin in arguments.plugins:
            load_plugin(plugin)
        architecture = Architecture(
            blocks=arguments.blocks,
            num_modules=arguments.num_modules,
            init_channels=arguments.init_channels,
            widen_factor=arguments.widen_factor,
            num_classes=arguments.num_classes,
            input_shape=arguments.input_shape,
            block_options=arguments.block_options,
            block_copies=arguments.block_copies,
        )
        if arguments.match_parameters is not None:
            architecture = match_parameters(architecture, arguments.match_parameters)
        graph = build_graph(architecture)
        for node in arguments.remove:
            if node not in graph:
                near = difflib.get_close_matches(node, graph, n=3) or list(graph)[:5]
                raise ValueError(f"the graph has no node {node!r}; there are {', '.join(near)}")
            graph.remove_node(node)
        validate_graph(graph)
        annotate_graph(graph)
        if arguments.out is not None:
            try:
                write_graph(graph, arguments.out)
            except OSError as error:
                raise ValueError(f"cannot write {str(arguments.out)!r}: {error.strerror}") from None
    flops = sum(attributes["flops"] for _, attributes in graph.nodes(data=True))
    stdout.print(
        f"{len(graph)} nodes, {graph.graph['num_params']:,} parameters, {flops:,} FLOPs "
        f"(2 x multiply-adds, one image), init_channels {architecture.init_channels}, "
        f"architecture {architecture.hash}",
        highlight=False,
        soft_wrap=True,
    )
    if arguments.out is not None:
        stdout.print(f"written to {arguments.out}", highlight=False, soft_wrap=True)
    return 0


@dataclass(frozen=True)
class TrainArguments(RunConfig):
    """Arguments of ``nasbench-at train``: the configuration, where to write, where to compute.

    Attributes:
        seeds: Train once with each of these seeds, instead of ``seed``.
        runs_dir: The runs' folders are created in here.
        data_root: Where the data set's files lie.
        device: auto, cpu, cuda or cuda:N.
        checkpoint_minutes: Time between checkpoints within an epoch.
        dry_run: Train nothing: show the model, its memory and how long it would take.
        print_sbatch: Train nothing: print a SLURM script that runs this command.
    """

    seeds: tuple[int, ...] = ()
    runs_dir: Path = Path("runs")
    data_root: Path | None = None
    device: str = "auto"
    checkpoint_minutes: float = 5.0
    dry_run: bool = False
    print_sbatch: bool = False

    def config(self) -> RunConfig:
        """Returns the configuration alone."""
        return RunConfig(**{f.name: getattr(self, f.name) for f in fields(RunConfig)})


def run_train(words: Sequence[str]) -> int:
    """Train a network; --config FILE reads a configuration, over which flags win."""
    from nasbench_at.flags import parse_flags, split_config_flag

    with bad_input():
        config, rest = split_config_flag(words)
        arguments = parse_flags(
            TrainArguments,
            rest,
            command="train",
            description=_summary(run_train),
            default=config,
        )
    if arguments.print_sbatch:
        from nasbench_at.slurm import sbatch_script

        kept = [word for word in words if word != "--print-sbatch"]
        sys.stdout.write(sbatch_script(["train", *kept]))
        return 0
    if arguments.dry_run:
        return _show_estimate(arguments)
    from nasbench_at.console import show_seeds
    from nasbench_at.devices import select_device
    from nasbench_at.training.distribution import distributed

    with ExitStack() as ranks:
        with bad_input():
            device = select_device(arguments.device)
            distribution = ranks.enter_context(distributed(device))
        records = [
            _train_one(arguments, replace(arguments.config(), seed=seed), distribution)
            for seed in arguments.seeds or (arguments.seed,)
        ]
        if len(records) > 1 and distribution.is_main:
            show_seeds(records)
    return 0


def _train_one(arguments: TrainArguments, config: RunConfig, distribution: Distribution) -> Record:
    from nasbench_at.console import ConsoleReporter, show_training
    from nasbench_at.jobs import prepare_training

    with bad_input(), one_line_warnings():
        trainer = prepare_training(
            config,
            runs_dir=arguments.runs_dir,
            data_root=arguments.data_root,
            device=arguments.device,
            checkpoint_minutes=arguments.checkpoint_minutes,
            distribution=distribution,
        )
    reporter = ConsoleReporter(silent=not distribution.is_main)
    try:
        record = trainer.run(reporter)
    finally:
        reporter.stop()
    if distribution.is_main:
        show_training(record, trainer.folder.path)
    return record


def _show_estimate(arguments: TrainArguments) -> int:
    from nasbench_at.console import show_estimate
    from nasbench_at.jobs import estimate

    with bad_input():
        show_estimate(
            estimate(arguments.config(), data_root=arguments.data_root, device=arguments.device)
        )
    return 0


@dataclass(frozen=True)
class EvaluateArguments(EvaluationOptions):
    """Arguments of ``nasbench-at evaluate``.

    Attributes:
        run: The run's folder; none with --model.
        model: A model of your own, module:factory; factory() returns a torch.nn.Module that takes
            images in [0, 1].
        weights: Its weights: a safetensors file, or a state_dict written by torch.save.
        data: Data set to evaluate it on.
        out: Where to write its record; by default evaluations/FACTORY-HASH/record.json.
        figure: Where to draw the curve of several --eps (pdf, png or svg); by default
            robustness_curve.pdf beside the record.
        data_root: Where the data set's files lie.
        device: auto, cpu, cuda or cuda:N.
    """

    run: tyro.conf.Positional[Path | None] = None
    model: str | None = None
    weights: Path | None = None
    data: str | None = None
    out: Path | None = None
    figure: Path | None = None
    data_root: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.run is None) == (self.model is None):
            given = "neither" if self.run is None else "both"
            raise ValueError(f"evaluate needs a run's folder or --model, got {given}")
        if self.model is not None and self.data is None:
            raise ValueError("--model needs --data, got none")
        for name in ("weights", "data", "out"):
            value = getattr(self, name)
            if self.run is not None and value is not None:
                raise ValueError(f"--{name} goes with --model, got {str(value)!r} with a run")
        if self.figure is not None and len(self.eps) < 2:
            raise ValueError(f"--figure goes with several --eps, got {len(self.eps)}")
        if self.figure is not None and self.figure.suffix not in FIGURE_SUFFIXES:
            allowed = ", ".join(FIGURE_SUFFIXES)
            raise ValueError(f"--figure must end in {allowed}, got {str(self.figure)!r}")

    def options(self) -> EvaluationOptions:
        """Returns attacks and settings alone."""
        return EvaluationOptions(
            **{f.name: getattr(self, f.name) for f in fields(EvaluationOptions)}
        )


def run_evaluate(words: Sequence[str]) -> int:
    """Attack a trained run, or a model of your own, on the test images."""
    from nasbench_at.flags import parse_flags

    with bad_input():
        arguments = parse_flags(
            EvaluateArguments, words, command="evaluate", description=_summary(run_evaluate)
        )
    from nasbench_at.console import show_evaluation, show_result, stdout
    from nasbench_at.devices import select_device
    from nasbench_at.training.distribution import distributed

    with ExitStack() as ranks, one_line_warnings():
        with bad_input():
            device = select_device(arguments.device)
            distribution = ranks.enter_context(distributed(device))
            arguments = replace(arguments, device=str(distribution.place(device)))
            evaluation = _prepare_evaluation(arguments)
        record = evaluation.run(show_result, distribution)
        if not distribution.is_main:
            return 0
    show_evaluation(record)
    if len(evaluation.attacks) > 1:
        from analysis.robustness_curve import compute_robustness_curve, write_robustness_curve

        figure = arguments.figure or evaluation.path.with_name("robustness_curve.pdf")
        with bad_input():
            write_robustness_curve(compute_robustness_curve(record), figure)
        stdout.print(f"curve drawn to {figure}", highlight=False, soft_wrap=True)
    # The last line is what scripts go on with: the run's folder, or a model's record.
    stdout.print(str(arguments.run or evaluation.path), highlight=False, soft_wrap=True)
    return 0


def _prepare_evaluation(arguments: EvaluateArguments) -> PreparedEvaluation:
    from nasbench_at.run_evaluation import prepare_evaluation, prepare_model_evaluation

    if arguments.run is not None:
        return prepare_evaluation(
            arguments.run,
            arguments.options(),
            device=arguments.device,
            data_root=arguments.data_root,
        )
    assert arguments.model is not None  # checked with the other arguments
    assert arguments.data is not None
    return prepare_model_evaluation(
        arguments.model,
        arguments.options(),
        data=arguments.data,
        weights=arguments.weights,
        data_root=arguments.data_root,
        out=arguments.out,
        device=arguments.device,
    )


@dataclass(frozen=True)
class CompareArguments:
    """Arguments of ``nasbench-at compare``.

    Attributes:
        first: An evaluated run's folder, or the record of a model of your own.
        second: The other one.
        attack: The row to compare: natural, fgsm, pgd, cw, aa, worst_case, ...
    """

    first: tyro.conf.Positional[Path]
    second: tyro.conf.Positional[Path]
    attack: str = "pgd"


def run_compare(words: Sequence[str]) -> int:
    """Compare two evaluated runs image by image: McNemar's exact test."""
    from nasbench_at.flags import parse_flags

    with bad_input():
        arguments = parse_flags(
            CompareArguments, words, command="compare", description=_summary(run_compare)
        )
    from nasbench_at.comparison import compare_runs
    from nasbench_at.console import show_comparison

    with bad_input():
        comparison = compare_runs(arguments.first, arguments.second, attack=arguments.attack)
    show_comparison(comparison, str(arguments.first), str(arguments.second), arguments.attack)
    return 0


Command = Callable[[Sequence[str]], int]

COMMANDS: dict[str, Command] = {
    "blocks": run_blocks,
    "graph": run_graph,
    "train": run_train,
    "evaluate": run_evaluate,
    "compare": run_compare,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except (BadInputError, FolderInUseError) as error:
        code = _complain(error, EXIT_BAD_INPUT)
    except SystemExit as stop:  # from the flags' parser: 0 after --help, else 2
        code = stop.code if isinstance(stop.code, int) else EXIT_BAD_INPUT
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except InterruptedTraining as stopped:
        code = _complain(f"{stopped}; the same command goes on", EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        code = _complain("interrupted; the same command goes on", EXIT_INTERRUPTED)
    except (FloatingPointError, OSError) as error:
        code = _complain(error, EXIT_FAILED)
    return code


def _dispatch(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if words else EXIT_BAD_INPUT
    if words[0] == "--version":
        sys.stdout.write(f"nasbench-at {version('nasbench-at')}\n")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise BadInputError(f"unknown command {name!r}; {hint}known: {', '.join(COMMANDS)}")
    return COMMANDS[name](rest)


def _complain(message: object, code: int) -> int:
    sys.stderr.write(f"nasbench-at: {message}\n")
    return code


def _usage() -> str:
    lines = [f"  {name:<10} {_summary(command)}" for name, command in COMMANDS.items()]
    return (
        "usage: nasbench-at COMMAND [flags]   (nasbench-at COMMAND --help for each)\n\n"
        "Diverse-structured networks for adversarial robustness, from any set of blocks.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _summary(command: Command) -> str:
    return (command.__doc__ or "").splitlines()[0]
