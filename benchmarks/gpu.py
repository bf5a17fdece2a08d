"""Training steps and evaluations of DS-Net-4 on a GPU, ours against the authors' loop.

python -m benchmarks.gpu --seconds 200 --out gpu-benchmark.md

The plain loop runs in the authors' precision (fp16 without loss scaling) and in fp32, ours in fp32
and bf16, and in bf16 compiled block by block. All variants of a part are timed in turn. fp32 is
without TF32. The share is that of the bf16 matrix-product peak measured here, of the operations
that the variant itself does. Memory is the peak above what lay there before the call.
"""

from __future__ import annotations

import argparse
import copy
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.pgd_evaluation import (
    PGD,
    half_robust_radius,
    our_survivors,
    plain_evaluation,
    predict,
    settle,
)
from benchmarks.plain import PlainTraining, plain_network
from nasbench_at import Architecture, RunConfig, build_network
from nasbench_at.attacks import AutoAttack
from nasbench_at.config import Precision, resolve
from nasbench_at.networks.ds_net import DSNet
from nasbench_at.networks.flops import FlopCounter
from nasbench_at.runtime.devices import select_device
from nasbench_at.runtime.seeding import make_generator
from nasbench_at.training.compilation import compile_blocks
from nasbench_at.training.step import TrainingStep

ARCHITECTURES = {
    "ds_net_4": Architecture(),
    "tiny": Architecture(num_modules=3, init_channels=4, widen_factor=2, input_shape=(3, 8, 8)),
}
PARTS = ("at", "trades", "pgd", "autoattack", "compiled")
BETA = 6.0
MAX_ROUNDS = 7
AA_EPS = 0.01
AA_ATTACKS, AA_QUERIES = ("apgd-ce", "square"), 100
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
NO_GPU = "this machine has no GPU that torch can use: nothing is timed"


@dataclass(frozen=True)
class Variant:
    """One way of doing a part.

    Attributes:
        run: Does it once.
        counted: What its operations are counted in, where a compiler hides them.
    """

    run: Callable[[], object]
    counted: Callable[[], object] | None = None


@dataclass
class Bench:
    """What all parts share: the card, the images, the network's weights, the rows so far."""

    arguments: argparse.Namespace
    device: torch.device
    peak: float = 0.0
    rows: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.architecture = ARCHITECTURES[self.arguments.network]
        template = plain_network(self.architecture).to(self.device)
        size = self.arguments.batch_size
        self.x = torch.rand(size, *self.architecture.input_shape).to(self.device)
        settle(template, self.x)
        self.state = copy.deepcopy(template.state_dict())
        self.x_last = self.x.contiguous(memory_format=torch.channels_last)
        self.y = torch.randint(self.architecture.num_classes, (size,)).to(self.device)

    def plain(self) -> DSNet:
        """Returns the plain network, channels first."""
        return self._loaded(plain_network(self.architecture))

    def ours(self) -> DSNet:
        """Returns our network, channels_last."""
        network = self._loaded(build_network(self.architecture))
        return network.to(memory_format=torch.channels_last)

    def _loaded(self, network: DSNet) -> DSNet:
        network.load_state_dict(self.state)
        return network.to(self.device)

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Returns the context of a precision by name."""
        dtype = DTYPES.get(precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def within(self, precision: str, run: Callable[[], object]) -> Callable[[], object]:
        """Returns what a function does, in a precision."""

        def wrapped() -> object:
            with self.autocast(precision):
                return run()

        return wrapped

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], object]) -> float:
        """Returns how long a call takes."""
        self.synchronize()
        start = time.perf_counter()
        run()
        self.synchronize()
        return time.perf_counter() - start

    def compare(self, part: str, variants: Mapping[str, Variant], seconds: float) -> None:
        """Times variants in turn for so many seconds and adds a row for each."""
        end = time.monotonic() + seconds
        costs = {name: self._warm_up(variant) for name, variant in variants.items()}
        taken: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(MAX_ROUNDS):
            if number and time.monotonic() > end:
                break
            for name, variant in variants.items():
                taken[name].append(self.seconds(variant.run))
        medians = {name: statistics.median(values) for name, values in taken.items()}
        first = next(iter(medians.values()))
        for name, median in medians.items():
            flops, memory = costs[name]
            share = f"{flops / median / self.peak:.1%}" if flops else "-"
            self.rows.append(
                f"| {part} | {name} | {1000 * median:,.1f} | {first / median:.2f} "
                f"| {flops / 1e12:.3g} | {share} | {memory} | {len(taken[name])} |"
            )

    def _warm_up(self, variant: Variant) -> tuple[int, str]:
        """Returns the operations of a call and its peak of memory."""
        counted = variant.counted or variant.run
        counted()  # the first time, norms are folded on trial
        with FlopCounter() as counter:
            counted()
        variant.run()
        if self.device.type != "cuda":
            return counter.total, "-"
        self.synchronize()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        variant.run()
        peak = torch.cuda.max_memory_allocated(self.device) - before
        return counter.total, f"{peak / 2**20:,.0f}"

    def measure_peak(self) -> None:
        """Measures the bf16 matrix product's speed in FLOP/s: the best of a few."""
        size = 8192 if self.device.type == "cuda" else 256
        a, b = torch.rand(2, size, size, device=self.device).bfloat16()
        a @ b
        best = min(self.seconds(lambda: a @ b) for _ in range(10))
        self.peak = 2 * size**3 / best

    def table(self) -> str:
        """Returns everything so far as Markdown."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        head = [
            f"{self.arguments.network}, batch {self.arguments.batch_size}, on {name}, torch "
            f"{torch.__version__}; bf16 matrix product {self.peak / 1e12:.4g} TFLOP/s",
            "",
            "| part | variant | ms | times the first | TFLOP | share of the product's peak "
            "| peak MiB | rounds |",
            "|---|---|---|---|---|---|---|---|",
        ]
        notes = ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join([*head, *self.rows, *notes]) + "\n"


def our_step(
    bench: Bench, network: nn.Module, method: str, precision: Precision
) -> Callable[[], object]:
    """Returns one training step of ours."""
    config = resolve(
        RunConfig(
            data="cifar10",
            method=method,
            recipe="authors",
            beta=BETA if method == "trades" else None,
            precision=precision,
        )
    )
    step = TrainingStep(network, config)

    def run() -> Tensor:
        noise = make_generator(0, "attack", device=bench.device)
        return step(bench.x_last, bench.y, noise, num_images=len(bench.y))

    return run


def computed_step(bench: Bench, method: str, precision: Precision) -> Callable[[], object]:
    """Returns one training step without CUDA graphs, whose operations can be counted."""
    network = bench.ours()
    network.is_replayable = False
    return our_step(bench, network, method, precision)


def plain_steps(bench: Bench, method: str) -> dict[str, Variant]:
    """Returns the authors' loop in their precision and in fp32."""
    beta = BETA if method == "trades" else None

    def variant(precision: str) -> Variant:
        training = PlainTraining(bench.plain(), beta=beta)
        return Variant(bench.within(precision, partial(training, bench.x, bench.y)))

    return {"plain, fp16 (the authors')": variant("fp16"), "plain, fp32": variant("fp32")}


def compare_steps(bench: Bench, method: str, seconds: float) -> None:
    """Times a training step of ten PGD steps and one update."""
    steps = {name: computed_step(bench, method, name) for name in ("fp32", "bf16")}
    bench.compare(
        f"{method} step",
        plain_steps(bench, method)
        | {
            "ours, fp32": Variant(our_step(bench, bench.ours(), method, "fp32"), steps["fp32"]),
            "ours, bf16": Variant(our_step(bench, bench.ours(), method, "bf16"), steps["bf16"]),
            "ours, bf16, no CUDA graph": Variant(steps["bf16"]),
        },
        seconds,
    )


def compare_pgd(bench: Bench, seconds: float) -> None:
    """Times PGD-20 at a radius that half of the images survive; ours drops fooled images."""
    plain, ours = bench.plain().eval(), bench.ours().eval()
    y = predict(ours, bench.x_last)
    y[::8] = (y[::8] + 1) % bench.architecture.num_classes
    eps = half_robust_radius(ours, bench.x_last, y, rounds=6)

    def plain_run() -> Tensor:
        return plain_evaluation(PGD, plain, bench.x, y, eps)

    def our_run() -> Tensor:
        return our_survivors(PGD, ours, bench.x_last, y, eps)

    bench.notes.append(
        f"PGD-20: {int(our_run().sum())} of {len(y)} images survive at eps {eps:.2g}; ours drops "
        "an image once it is fooled, and so does fewer operations"
    )
    bench.compare(
        "PGD-20",
        {
            "plain, fp16 (the authors')": Variant(bench.within("fp16", plain_run)),
            "plain, fp32": Variant(plain_run),
            "ours, fp32": Variant(our_run),
            "ours, bf16": Variant(bench.within("bf16", our_run)),
        },
        seconds,
    )


def compare_autoattack(bench: Bench, seconds: float) -> None:
    """Times two parts of AutoAttack on a few images, by its own loop and by ours."""
    if find_spec("pyautoattack") is None:
        bench.notes.append("AutoAttack: skipped, pyautoattack is not installed")
        return
    import pyautoattack

    plain, ours = bench.plain().eval(), bench.ours().eval()
    x, x_last = bench.x[:32], bench.x_last[:32]
    y = predict(ours, x_last)
    library = pyautoattack.AutoAttack(
        plain,
        device=bench.device,
        eps=AA_EPS,
        norm="Linf",
        seed=0,
        version="custom",
        attacks=list(AA_ATTACKS),
    )
    library.square.n_queries = AA_QUERIES
    attack = AutoAttack(AA_EPS, attacks=AA_ATTACKS, square_queries=AA_QUERIES)
    bench.notes.append(
        f"AutoAttack: {' and '.join(AA_ATTACKS)}, {AA_QUERIES} queries, {len(x)} images"
    )
    bench.compare(
        "AutoAttack",
        {
            "its own loop, fp32": Variant(
                lambda: library.run_standard_evaluation(x, y, batch_size=len(x))
            ),
            "ours, fp32": Variant(lambda: attack.run(ours, x_last, y)),
        },
        seconds,
    )


def compare_compiled(bench: Bench, seconds: float) -> None:
    """Times an AT step in bf16 as it is and compiled, if compiling ends in time."""
    network = bench.ours()
    compiled = our_step(bench, network, "at", "bf16")
    start = time.monotonic()
    try:
        with time_limit(bench.arguments.compile_seconds), bench.autocast("bf16"):
            if not compile_blocks(network, bench.x_last):
                raise TimeoutError
        with time_limit(bench.arguments.compile_seconds - (time.monotonic() - start)):
            compiled()
            compiled()
    except TimeoutError:
        bench.notes.append(
            f"compiled: not ready after {time.monotonic() - start:.0f} s, nothing is timed"
        )
        return
    bench.notes.append(f"compiled: ready after {time.monotonic() - start:.0f} s")
    eager = our_step(bench, bench.ours(), "at", "bf16")
    counted = computed_step(bench, "at", "bf16")
    bench.compare(
        "at step",
        {
            "ours, bf16, again": Variant(eager, counted=counted),
            "ours, bf16, compiled": Variant(compiled, counted=counted),
        },
        seconds,
    )


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises a TimeoutError in the block after so many seconds."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


RUN: dict[str, Callable[[Bench, float], None]] = {
    "at": lambda bench, seconds: compare_steps(bench, "at", seconds),
    "trades": lambda bench, seconds: compare_steps(bench, "trades", seconds),
    "pgd": compare_pgd,
    "autoattack": compare_autoattack,
    "compiled": compare_compiled,
}


def main() -> int:
    """Prints a table and writes it, also part by part; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", choices=tuple(ARCHITECTURES), default="ds_net_4")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=200.0, help="for all parts together")
    parser.add_argument("--compile-seconds", type=float, default=80.0, help="limit of compiling")
    parser.add_argument("--out", type=Path, help="file for the table")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print(NO_GPU)
        return 2
    deadline = time.monotonic() + arguments.seconds
    bench = Bench(arguments, select_device(arguments.device))
    bench.measure_peak()
    for number, part in enumerate(arguments.parts):
        left = deadline - time.monotonic()
        try:
            if left > 0:
                RUN[part](bench, left / (len(arguments.parts) - number))
            else:
                bench.notes.append(f"{part}: no time left of {arguments.seconds:.0f} s")
        except (RuntimeError, ValueError) as error:  # the other parts are worth having
            reason = (str(error).splitlines() or [""])[0]
            bench.notes.append(f"{part}: failed, {type(error).__name__}: {reason}")
        if arguments.out is not None:
            arguments.out.write_text(bench.table())
    print(bench.table(), end="")
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
