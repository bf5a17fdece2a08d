"""The ``nasbench-at`` command.

Every command imports what it needs when it runs, so that ``nasbench-at --help`` answers at once.
Exit codes: 0 done, 2 bad input, 75 interrupted but resumable, 1 anything else.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path

import tyro

from nasbench_at.config import BlockOptions, Blocks, Counts, RunConfig

__all__ = ["main"]

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: schedulers requeue on it


class BadInputError(Exception):
    """What the user gave cannot be worked with; the message is one line."""


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
            write_graph(graph, arguments.out)
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
        runs_dir: The run's folder is created in here.
        device: auto, cpu, cuda or cuda:N.
    """

    runs_dir: Path = Path("runs")
    device: str = "auto"

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
    from nasbench_at.console import ConsoleReporter, stdout
    from nasbench_at.jobs import prepare_training

    with bad_input():
        trainer = prepare_training(
            arguments.config(), runs_dir=arguments.runs_dir, device=arguments.device
        )
    reporter = ConsoleReporter()
    try:
        record = trainer.run(reporter)
    finally:
        reporter.stop()
    selected = record.training["selected"]
    stdout.print(
        f"{record.num_params:,} parameters, {record.training['epochs']} epochs; selected epoch "
        f"{selected['epoch']}: natural {selected['validation_natural']:.1%}, robust "
        f"{selected['validation_robust']:.1%} on {selected['num_samples']} validation images",
        highlight=False,
        soft_wrap=True,
    )
    stdout.print(str(trainer.folder.path), highlight=False, soft_wrap=True)
    return 0


@dataclass(frozen=True)
class EvaluateArguments:
    """Arguments of ``nasbench-at evaluate``.

    Attributes:
        run: The run's folder.
        attacks: Some of fgsm, pgd (20 steps), cw (margin loss, 30 steps) and aa (AutoAttack).
        eps: L-infinity radius in pixel scale [0, 1]; the run's own by default.
        step_size: Step of pgd and cw; eps / 4 by default.
        aa_samples: Let AutoAttack see only the first so many test images.
        seed: Seed of random starts.
        device: auto, cpu, cuda or cuda:N.
    """

    run: tyro.conf.Positional[Path]
    attacks: tuple[str, ...] = ("fgsm", "pgd", "cw", "aa")
    eps: float | None = None
    step_size: float | None = None
    aa_samples: int | None = None
    seed: int = 0
    device: str = "auto"


def run_evaluate(words: Sequence[str]) -> int:
    """Attack a trained run on the test images and write the results to its record."""
    from nasbench_at.flags import parse_flags

    with bad_input():
        arguments = parse_flags(
            EvaluateArguments, words, command="evaluate", description=_summary(run_evaluate)
        )
    from nasbench_at.console import evaluation_table, stderr, stdout
    from nasbench_at.jobs import prepare_evaluation

    with bad_input():
        evaluation = prepare_evaluation(
            arguments.run,
            arguments.attacks,
            eps=arguments.eps,
            step_size=arguments.step_size,
            aa_samples=arguments.aa_samples,
            seed=arguments.seed,
            device=arguments.device,
        )
    record = evaluation.run(
        on_result=lambda name, result: stderr.print(
            f"{name}: {result.num_correct}/{result.num_samples} correct after "
            f"{result.seconds:.1f} s",
            highlight=False,
        )
    )
    stdout.print(evaluation_table(record))
    for check in record.evaluation["checks"]:  # type: ignore[index]
        mark = "passed" if check["passed"] else "[bold red]WARNING[/bold red]"
        stdout.print(
            f"trust check {check['name']}: {mark}: {check['detail']}",
            highlight=False,
            soft_wrap=True,
        )
    stdout.print(str(arguments.run), highlight=False, soft_wrap=True)
    return 0


Command = Callable[[Sequence[str]], int]

COMMANDS: dict[str, Command] = {
    "blocks": run_blocks,
    "graph": run_graph,
    "train": run_train,
    "evaluate": run_evaluate,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if words else EXIT_BAD_INPUT
    if words[0] == "--version":
        sys.stdout.write(f"nasbench-at {version('nasbench-at')}\n")
        return 0
    name, *rest = words
    try:
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise BadInputError(f"unknown command {name!r}; {hint}known: {', '.join(COMMANDS)}")
        return COMMANDS[name](rest)
    except BadInputError as error:
        sys.stderr.write(f"nasbench-at: {error}\n")
        return EXIT_BAD_INPUT
    except SystemExit as stop:  # from the flags' parser: 0 after --help, else 2
        return stop.code if isinstance(stop.code, int) else EXIT_BAD_INPUT
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        sys.stderr.write(
            "nasbench-at: interrupted; the same command goes on from the last finished epoch\n"
        )
        return EXIT_INTERRUPTED


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
