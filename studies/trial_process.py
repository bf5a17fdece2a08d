"""What a trial does, in processes of its own: train a run, then evaluate it.

A crash here, or a GPU out of memory, costs one trial. Workers fork these processes from a server
that has imported torch once and has never touched a GPU. A trial of several ranks is so many of
them, each of which tells its worker by itself how it ended.
"""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from nasbench_at.config import ResolvedConfig, RunConfig
from nasbench_at.config.contents import check_contents
from nasbench_at.evaluation.options import EvaluationOptions
from nasbench_at.evaluation.run_evaluation import prepare_evaluation
from nasbench_at.records import Record, read_record
from nasbench_at.records.run_folders import FolderInUseError, create_run_folder
from nasbench_at.runtime.devices import select_device
from nasbench_at.runtime.ranks import Ranks, distributed
from nasbench_at.training.interruption import InterruptedTraining
from nasbench_at.training.launch import prepare_training
from studies.forkserver import trial_context

__all__ = ["Outcome", "TrialJob", "TrialProcess", "is_evaluated"]

OutcomeKind = Literal["done", "interrupted", "failed", "out_of_memory", "disk_full"]

STOP_SECONDS = 60.0
"""How long a trial may take to save its state."""
GRACE_SECONDS = 10.0
"""How long ranks may outlive one that failed."""

_KINDS: tuple[OutcomeKind, ...] = get_args(OutcomeKind)  # from good to bad


@dataclass(frozen=True)
class TrialJob:
    """What a trial's process needs to know.

    Attributes:
        config: The run.
        runs_dir: Where runs lie.
        data_root: Where the data set's files lie.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        ranks: Processes that train the run together.
        attacks: Attacks on the test images after training; none leaves them alone.
        aa_samples: Test images that AutoAttack sees.
        log: Everything the process prints goes there.
    """

    config: ResolvedConfig
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
    """How a trial, or one of its ranks, ended.

    Attributes:
        kind: In a word.
        message: In a line, where it failed.
    """

    kind: OutcomeKind
    message: str = ""


class TrialProcess:
    """A running trial, as its worker sees it."""

    def __init__(self, job: TrialJob) -> None:
        # The worker keeps the store by which ranks find each other, so that no port is lost to
        # another process between its choice and its use.
        self._store = None
        if job.ranks > 1:
            self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        port = None if self._store is None else self._store.port
        self._ranks = [_RankProcess(job, rank, port) for rank in range(job.ranks)]
        self._is_stopped = False
        self._deadline = math.inf

    def wait(self, seconds: float) -> bool:
        """Waits for the trial to end, for so long at most; returns whether it has."""
        alive = [rank for rank in self._ranks if rank.is_alive]
        if alive:
            wait([rank.process.sentinel for rank in alive], timeout=seconds)
        for rank in self._ranks:
            rank.look()
        if any(rank.has_failed for rank in self._ranks):
            # The others wait for it in vain, but may still say what has happened.
            self._deadline = min(self._deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > self._deadline:
            for rank in self._ranks:
                rank.kill()
        return not any(rank.is_alive for rank in self._ranks)

    @property
    def resumed_from(self) -> str | None:
        """Where the run's checkpoint let it go on, once that is known."""
        found: str | None = self._ranks[0].received.get("resumed_from")
        return found

    def stop(self) -> None:
        """Asks the trial to save its state and end; it is killed if it does not."""
        self._is_stopped = True
        self._deadline = time.monotonic() + STOP_SECONDS
        for rank in self._ranks:
            rank.process.terminate()
        self._join()

    @property
    def outcome(self) -> Outcome:
        """How the trial ended: the worst that came to one of its ranks, and of equals the first."""
        self._join()
        ends = sorted((rank.end for rank in self._ranks), key=lambda end: end[0])
        outcomes = [outcome for _, outcome in ends]
        worst = max(outcomes, key=lambda outcome: _KINDS.index(outcome.kind))
        if self._is_stopped and worst.kind in ("interrupted", "failed", "out_of_memory"):
            # What is not in training does not answer the signal, and ranks miss each other.
            stopped = Outcome("interrupted", "it was stopped")
            return next((outcome for outcome in outcomes if outcome.kind == "interrupted"), stopped)
        return worst

    def _join(self) -> None:
        while not self.wait(1.0):
            pass


class _RankProcess:
    """A process of a trial, and what it has said."""

    def __init__(self, job: TrialJob, rank: int, port: int | None) -> None:
        context = trial_context()
        self._messages, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_run, args=(job, rank, port, sender))
        self.process.start()
        sender.close()
        self.received: dict[str, Any] = {}
        self.is_alive = True
        self.is_killed = False

    @property
    def has_failed(self) -> bool:
        return not self.is_alive and self.end[1].kind not in ("done", "interrupted")

    @property
    def end(self) -> tuple[float, Outcome]:
        """When and how it ended; one that could not say it was the first.

        One that was killed here waited for others, or did not hear: it was the last.
        """
        if "end" in self.received:
            end: tuple[float, Outcome] = self.received["end"]
            return end
        if self.is_killed:
            return math.inf, Outcome("interrupted", "it did not end in time and was killed")
        code = self.process.exitcode
        if code is None or code >= 0:
            return 0.0, Outcome("failed", f"its process ended with code {code}")
        name = signal.Signals(-code).name
        # The kernel kills the largest process when memory runs out.
        kind: OutcomeKind = "out_of_memory" if name == "SIGKILL" else "failed"
        return 0.0, Outcome(kind, f"its process was ended by {name}")

    def look(self) -> None:
        """Takes note of whether it lives and of what it has said: of one that ended, all of it."""
        self.is_alive = self.process.is_alive()  # first, or its last words might be missed
        try:
            while self._messages.poll():
                name, value = self._messages.recv()
                self.received[name] = value
        except EOFError:
            pass

    def kill(self) -> None:
        if self.is_alive:
            self.is_killed = True
            self.process.kill()
            self.process.join()
            self.look()


def is_evaluated(
    record: Record, attacks: Sequence[str], aa_samples: int | str | None = None
) -> bool:
    """Whether a record has the accuracies that a trial would measure: at the run's own radius.

    Args:
        record: A run.
        attacks: The trial's.
        aa_samples: The part of the images that AutoAttack would see; None for all.
    """
    radii = (None, record.config.get("eps"))
    norms = (None, record.config.get("norm", "Linf"))  # left out where it is this
    for attack in attacks:
        row = record.results.get(attack)
        if row is None or row.eps not in radii or row.norm not in norms:
            return False
        sees_all = attack in _SEE_ALL or aa_samples is None
        if attack != "smooth" and sees_all and row.subset is not None:
            return False
    return True


_SEE_ALL = ("fgsm", "pgd", "cw")  # unlike AutoAttack, which may be lent a part of the images


def _run(job: TrialJob, rank: int, port: int | None, messages: Connection) -> None:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    _end_with_worker()
    try:
        if port is None:
            _while_folder_is_free(lambda: _train(job, Ranks(), messages))
        else:
            _train_as_rank(job, rank, port, messages)
        if rank == 0:
            _evaluate(job)
        outcome = Outcome("done")
    except InterruptedTraining as stopped:
        outcome = Outcome("interrupted", str(stopped))
    except Exception as error:  # noqa: BLE001 - whatever it is, it costs this trial alone
        with suppress(OSError):  # the log may lie on a full disk
            traceback.print_exc()
        outcome = Outcome(_kind_of(error), _one_line(error))
    messages.send(("end", (time.monotonic(), outcome)))


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
        time.sleep(STOP_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _train(job: TrialJob, ranks: Ranks, messages: Connection) -> None:
    check_contents(job.config.contents)  # it would be resolved to another run
    trainer = prepare_training(
        job.config,
        runs_dir=job.runs_dir,
        data_root=job.data_root,
        device=job.device,
        ranks=ranks,
    )
    if trainer.progress.epoch or trainer.progress.step:
        place = f"epoch {trainer.progress.epoch + 1}, step {trainer.progress.step + 1}"
        messages.send(("resumed_from", place))
    trainer.run()


def _train_as_rank(job: TrialJob, rank: int, port: int, messages: Connection) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(job.ranks),
        # As under torchrun, no rank but the process that started them keeps the store.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    if rank == 0:
        # The lock is rank 0's, and must not be missed while the others already wait for it.
        _while_folder_is_free(lambda: _try_folder(job))
    with distributed(select_device(job.device)) as ranks:
        _train(job, ranks, messages)


def _try_folder(job: TrialJob) -> None:
    with create_run_folder(job.runs_dir, job.config).locked():
        pass


def _evaluate(job: TrialJob) -> None:
    record = read_record(job.folder / "record.json")
    if is_evaluated(record, job.attacks, job.aa_samples):
        return
    options = EvaluationOptions(attacks=job.attacks, aa_samples=job.aa_samples)
    evaluation = prepare_evaluation(job.folder, options, device=job.device, data_root=job.data_root)
    _while_folder_is_free(evaluation.run)


def _while_folder_is_free(work: Callable[[], object]) -> None:
    """Waits while another process has the run: that of a killed worker, or of another study."""
    while True:
        try:
            work()
        except FolderInUseError:
            time.sleep(0.2)
        else:
            return


def screening_config(config: ResolvedConfig, epochs: int, attack_steps: int) -> RunConfig:
    """Returns the cheap run that stands for another one on a search's first rung."""
    left_to_recipe = ("milestones", "milestone_factors", "tau_milestones", "step_size")
    changes = {**dict.fromkeys(left_to_recipe), "epochs": epochs, "attack_steps": attack_steps}
    return RunConfig(**{**vars(config), **changes})
