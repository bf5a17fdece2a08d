"""The command line in processes of its own, forked from one that has imported everything."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from nasbench_at.cli import main
from nasbench_at.training.checkpoints import load_checkpoint

# Registers the data set in the child too: a server that another test started has not preloaded it.
from tests.nasbench_at import conftest  # noqa: F401


def _run(words: list[str], log: str) -> None:
    torch.set_num_threads(1)
    # By the descriptors, so that what is printed at exit lands there too.
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.exit(main(words))


def start(words: list[str], log: Path | str = os.devnull) -> ForkServerProcess:
    """Starts ``nasbench-at`` with these words; its output is appended to ``log``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "nasbench_at.training.launch"])
    process = context.Process(target=_run, args=(words, str(log)))
    process.start()
    return process


def finish(process: ForkServerProcess) -> int | None:
    """Waits for a process and returns its exit code, -N after signal N."""
    process.join(timeout=240)
    if process.is_alive():
        process.kill()
        raise AssertionError("the process did not end")
    return process.exitcode


def wait_until(condition: Callable[[], bool], process: ForkServerProcess) -> None:
    """Looks at a condition every few milliseconds; the process must live meanwhile."""
    while not condition():
        assert process.is_alive(), f"ended with {process.exitcode}"
        time.sleep(0.003)


def results(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on how it came about."""
    state = load_checkpoint(folder / "last.pt")["training_step"]
    record = json.loads((folder / "record.json").read_text())
    for name in ("train_seconds", "commit"):  # a checkout may be edited meanwhile
        del record["provenance"][name]
    return {
        "network": _numbers(state["network"]),
        "average": _numbers(state["average"] or {}),
        "best": _numbers(load_file(folder / "best.safetensors")),
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "record": record,
    }


def _numbers(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in tensors.items()}
