"""SLURM batch scripts: for a training command, and for the workers of a study."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

__all__ = ["sbatch_script", "words_without", "worker_script"]

_TEMPLATE = """\
#!/usr/bin/env bash
# Submit with: sbatch THIS_FILE. Adjust partition, account and time to your cluster.
#SBATCH --job-name=nasbench-at
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Two minutes before the time is up, training is asked to save and stop.
#SBATCH --signal=B:TERM@120
set -uo pipefail

export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
srun torchrun \\
  --nnodes="$SLURM_NNODES" --nproc-per-node="${{SLURM_GPUS_ON_NODE:-1}}" \\
  --rdzv-backend=c10d --rdzv-endpoint="$MASTER_ADDR:29500" --rdzv-id="$SLURM_JOB_ID" \\
  -m nasbench_at {command} &
child=$!
stopped=0
trap 'stopped=1; kill -TERM "$child"' TERM
wait "$child"
code=$?
# The trap ends the first wait; the second one lets training save.
if [ "$stopped" = 1 ]; then wait "$child"; code=$?; fi
# 75: interrupted but resumable. torchrun reports its own code, so a stop counts too.
if [ "$code" = 75 ] || {{ [ "$stopped" = 1 ] && [ "$code" != 0 ]; }}; then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""

_WORKER_TEMPLATE = """\
#!/usr/bin/env bash
# From where the runs are to lie, create the study once: bash THIS_FILE
# then start its workers: sbatch --array=1-8 THIS_FILE
# Workers on several nodes need a database, whose URL is --storage or, with a password in it,
# the variable NASBENCH_AT_STORAGE, which sbatch hands on.
#SBATCH --job-name={name}
#SBATCH --array=1-8
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-task={ranks}
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.log
# Two minutes before the time is up, the worker is asked to save its trial and stop.
#SBATCH --signal=B:TERM@120
set -uo pipefail
{storage}
if [ -z "${{SLURM_ARRAY_JOB_ID:-}}" ]; then
  exec nasbench-at {create}
fi
srun nasbench-at study worker {worker} &
child=$!
stopped=0
trap 'stopped=1; kill -TERM "$child"' TERM
wait "$child"
code=$?
# The trap ends the first wait; the second one lets the worker save.
if [ "$stopped" = 1 ]; then wait "$child"; code=$?; fi
if [ "$code" = 75 ]; then
  exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


def sbatch_script(words: Sequence[str]) -> str:
    """Returns a script that runs ``nasbench-at`` with these words and requeues itself.

    It asks training to stop before the time is up, and goes on from the checkpoint in the next
    job; more nodes or GPUs are a matter of its first lines.

    Args:
        words: The command line behind ``nasbench-at``.
    """
    return _TEMPLATE.format(command=shlex.join(words))


def worker_script(
    name: str,
    create: Sequence[str],
    words: Sequence[str],
    *,
    ranks: int = 1,
    variable: str | None = None,
) -> str:
    """Returns an array script whose jobs are workers of a study, requeued until it is done.

    Run by hand it creates the study. Words of a user stand quoted in its commands, never in a
    comment, whose line a newline in them would end.

    Args:
        name: The study.
        create: The words behind ``nasbench-at`` that create it.
        words: The words behind ``nasbench-at study worker NAME``.
        ranks: Processes of a trial, each with a GPU.
        variable: Environment variable without which the script refuses to run: it holds what must
            not stand here.
    """
    storage = f': "${{{variable}:?must hold the URL of the storage}}"\n' if variable else ""
    return _WORKER_TEMPLATE.format(
        name=re.sub(r"[^A-Za-z0-9._-]", "-", name),
        ranks=ranks,
        storage=storage,
        create=shlex.join(create),
        worker=shlex.join([name, *words]),
    )


def words_without(words: Sequence[str], flag: str, *, has_value: bool = True) -> list[str]:
    """Returns the words of a command line without a flag, however often and however written."""
    kept: list[str] = []
    is_value = False
    for word in words:
        name, equals, _ = word.partition("=")
        is_flag = not is_value and name.replace("_", "-") == flag
        if not is_flag and not is_value:
            kept.append(word)
        is_value = is_flag and has_value and not equals
    return kept
