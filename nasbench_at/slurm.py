"""A SLURM batch script for a training command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

__all__ = ["sbatch_script"]

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


def sbatch_script(words: Sequence[str]) -> str:
    """Returns a script that runs ``nasbench-at`` with these words and requeues itself.

    It asks training to stop before the time is up, and goes on from the checkpoint in the next
    job; more nodes or GPUs are a matter of its first lines.

    Args:
        words: The command line behind ``nasbench-at``.
    """
    return _TEMPLATE.format(command=shlex.join(words))
