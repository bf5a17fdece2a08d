"""What a trial does, in a process of its own: train a run, then evaluate it.

A crash here, or a GPU out of memory, costs one trial. Workers fork these processes from a server
that has imported torch once and has never touched a GPU.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

import torch

from nasbench_at.config import RunConfig
from nasbench_at.contents import check_contents
from nasbench_at.evaluation_options import EvaluationOptions
from nasbench_at.jobs import prepare_training
from nasbench_at.records import Record, read_record
from nasbench_at.run_evaluation import prepare_evaluation
from nasbench_at.runs import FolderInUseError, create_run_folder
from nasbench_at.training.interruption import InterruptedTraining
from studies.forkserver import trial_context

__all__ = ["Outcome", "TrialJob", "TrialProcess", "is_evaluated"]

OutcomeKind = Literal["done", "interrupted", "out_of_memory", "disk_full", "failed"]


@dataclass(frozen=True)
class TrialJob:
    """What a trial's process needs to know.

    Attributes:
        config: The run, all filled in.
        runs_dir: Where runs lie.
        data_root: Where the data set's files lie.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        ranks: Processes that train the run together, by torchrun.
        attacks: Attacks on the test images after training; none leaves them alone.
        aa_samples: Test images that AutoAttack sees.
        log: Everything the process prints goes there.
    """

    config: RunConfig
    runs_dir: Path
    data_root: Path | None
    device: str
    ranks: int
    attacks: tuple[str, ...]
    aa_samples: int | str | None
    log: Path

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.runs_dir / self.config.run_id


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        kind: In a word.
        message: In a line, where it failed.
    """

    kind: OutcomeKind
    message: str = ""


class TrialProcess:
    """A running trial, as its worker sees it."""

    def __init__(self, job: TrialJob) -> None:
        context = trial_context()
        self._messages, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(job, sender))
        self._process.start()
        sender.close()
        self._received: dict[str, Any] = {}
        self._is_stopped = False

    def wait(self, seconds: float) -> bool:
        """Waits for the process to end, for so long at most; returns whether it has."""
        wait([self._process.sentinel], timeout=seconds)
        self._receive()
        return not self._process.is_alive()

    @property
    def resumed_from(self) -> str | None:
        """Where the run's checkpoint let it go on, once that is known."""
        found: str | None = self._received.get("resumed_from")
        return found

    def stop(self) -> None:
        """Asks the process to save its state and end; it is killed if it does not."""
        self._is_stopped = True
        self._process.terminate()
        if not self.wait(60):
            self._process.kill()
            self._process.join()

    @property
    def outcome(self) -> Outcome:
        """How the process ended."""
        self._process.join()
        self._receive()
        code = self._process.exitcode
        if "outcome" in self._received:
            outcome: Outcome = self._received["outcome"]
            return outcome
        if self._is_stopped:  # not in training, which answers a signal itself
            return Outcome("interrupted", "it was stopped")
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            # The kernel kills the largest process when memory runs out.
            kind: OutcomeKind = "out_of_memory" if name == "SIGKILL" else "failed"
            return Outcome(kind, f"its process was ended by {name}")
        return Outcome("failed", f"its process ended with code {code}")

    def _receive(self) -> None:
        try:
            while self._messages.poll():
                name, value = self._messages.recv()
                self._received[name] = value
        except EOFError:
            pass


def is_evaluated(record: Record, attacks: Sequence[str]) -> bool:
    """Whether a record has an accuracy under each of these attacks."""
    return not attacks or (
        record.evaluation is not None and all(map(record.was_evaluated_by, attacks))
    )


def _run(job: TrialJob, messages: Connection) -> None:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    _end_with_worker()
    try:
        _train_and_evaluate(job, messages)
        outcome = Outcome("done")
    except InterruptedTraining as stopped:
        outcome = Outcome("interrupted", str(stopped))
    except Exception as error:  # noqa: BLE001 - whatever it is, it costs this trial alone
        with suppress(OSError):  # the log may lie on a full disk
            traceback.print_exc()
        outcome = Outcome(_kind_of(error), _one_line(error))
    messages.send(("outcome", outcome))


def _kind_of(error: Exception) -> OutcomeKind:
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in str(error)
    ):
        return "out_of_memory"
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "disk_full" if is_full else "failed"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _end_with_worker() -> None:
    """Lets this process save its state and end when its worker is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _train_and_evaluate(job: TrialJob, messages: Connection) -> None:
    check_contents(job.config.contents)  # it would be resolved to another run
    if job.ranks == 1:
        _train(job, messages)
    else:
        _train_on_ranks(job)
    record = read_record(job.folder / "record.json")
    if is_evaluated(record, job.attacks):
        return
    options = EvaluationOptions(attacks=job.attacks, aa_samples=job.aa_samples)
    evaluation = prepare_evaluation(job.folder, options, device=job.device, data_root=job.data_root)
    _while_folder_is_free(evaluation.run)


def _train(job: TrialJob, messages: Connection) -> None:
    def train() -> None:
        trainer = prepare_training(
            job.config, runs_dir=job.runs_dir, data_root=job.data_root, device=job.device
        )
        if trainer.progress.epoch or trainer.progress.step:
            place = f"epoch {trainer.progress.epoch + 1}, step {trainer.progress.step + 1}"
            messages.send(("resumed_from", place))
        trainer.run()

    _while_folder_is_free(train)


def _while_folder_is_free(work: Any) -> None:
    """Waits while another process has the run: that of a killed worker, or of another study."""
    while True:
        try:
            work()
        except FolderInUseError:
            time.sleep(0.2)
        else:
            return


def _train_on_ranks(job: TrialJob) -> None:
    """Trains by one torchrun child, whose ranks know nothing of the study."""
    folder = create_run_folder(job.runs_dir, job.config)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(job.ranks), "-m", "nasbench_at", "train"),
        *("--config", str(folder.path / "config.yaml"), "--runs-dir", str(job.runs_dir)),
        *("--device", job.device),
        *([] if job.data_root is None else ["--data-root", str(job.data_root)]),
    ]
    with subprocess.Popen(command) as child:
        # A signal to this process is passed on, so that the ranks save and stop.
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        code = child.wait()
    if code == 0 and folder.record.exists():
        return
    if code in (75, -signal.SIGTERM) or (not folder.record.exists() and code in (0, 143)):
        raise InterruptedTraining(f"the ranks stopped with code {code}")
    raise RuntimeError(f"training on {job.ranks} ranks ended with code {code}; see {job.log}")


def screening_config(config: RunConfig, epochs: int, attack_steps: int) -> RunConfig:
    """Returns the cheap run that stands for another one on a search's first rung."""
    return replace(
        config,
        epochs=epochs,
        attack_steps=attack_steps,
        milestones=None,
        milestone_factors=None,
        tau_milestones=None,
        step_size=None,
    )
