from __future__ import annotations

import os
import shlex
import subprocess

import pytest

from nasbench_at.runtime.slurm import sbatch_script, words_without, worker_script

WORDS = ["train", "--data", "cifar10", "--runs-dir", "my runs/$HOME", "--blocks", "it's", "{x}"]


def bash(script, *options, path=None):
    return subprocess.run(
        ["bash", *options],
        input=script,
        text=True,
        capture_output=True,
        timeout=60,
        env=os.environ | ({} if path is None else {"PATH": f"{path}:{os.environ['PATH']}"}),
    )


@pytest.fixture
def cluster(tmp_path):
    """Commands of SLURM that note their words; srun ends with the code in CODE."""
    for name, code in (("srun", 'exit "${CODE:-0}"'), ("scontrol", "echo node1")):
        command = tmp_path / name
        command.write_text(f'#!/bin/bash\nprintf "%s\\n" {name} "$@" >> {tmp_path}/calls\n{code}\n')
        command.chmod(0o755)
    return tmp_path


def run(cluster, code):
    variables = "SLURM_JOB_NODELIST=n SLURM_NNODES=2 SLURM_GPUS_ON_NODE=4 SLURM_JOB_ID=17"
    script = f"export {variables} CODE={code}\n" + sbatch_script(WORDS)
    done = bash(script, path=cluster)
    return done.returncode, (cluster / "calls").read_text().splitlines()


def test_script_is_valid_bash():
    script = sbatch_script(WORDS)
    assert script.startswith("#!/usr/bin/env bash\n")
    done = bash(script, "-n")
    assert (done.returncode, done.stderr) == (0, "")


def test_words_are_quoted():
    assert f"-m nasbench_at {shlex.join(WORDS)} &" in sbatch_script(WORDS)


def test_job_asks_to_be_told_before_the_time_is_up_and_to_be_requeued():
    lines = sbatch_script(WORDS).splitlines()
    assert "#SBATCH --requeue" in lines
    assert "#SBATCH --signal=B:TERM@120" in lines
    assert "#SBATCH --open-mode=append" in lines
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    commands = [i for i, line in enumerate(lines) if line and not line.startswith("#")]
    assert max(directives) < min(commands)  # SLURM reads none after the first command


def test_finished_run_is_not_requeued_and_got_its_words(cluster):
    code, calls = run(cluster, 0)
    assert code == 0
    assert "requeue" not in calls
    assert calls[-len(WORDS) :] == WORDS
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-id=17"} <= set(calls)
    assert "--rdzv-endpoint=node1:29500" in calls


def test_interrupted_run_is_requeued(cluster):
    code, calls = run(cluster, 75)
    assert code == 0
    assert calls[-3:] == ["scontrol", "requeue", "17"]


@pytest.mark.parametrize("failure", [1, 2])
def test_failed_run_is_not_requeued_and_keeps_its_code(failure, cluster):
    code, calls = run(cluster, failure)
    assert code == failure
    assert "requeue" not in calls


def test_job_that_is_told_to_stop_passes_it_on_and_is_requeued(cluster):
    srun = cluster / "srun"
    srun.write_text(
        f"#!/bin/bash\ntrap 'echo stopped >> {cluster}/calls; exit 1' TERM\n"
        "kill -TERM $PPID\nwhile true; do sleep 0.05; done\n"
    )
    code, calls = run(cluster, 0)
    assert code == 0
    assert calls[-4:] == ["stopped", "scontrol", "requeue", "17"]


def test_name_of_a_job_is_one_word():
    script = worker_script("a\n#SBATCH --wrap=x\ntouch ran", ["study"], [])
    assert "#SBATCH --job-name=a--SBATCH---wrap-x-touch-ran\n" in script
    directives = script.partition("set -uo pipefail")[0]
    assert "--wrap=" not in directives


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["a", "--flag", "1", "b"], ["a", "b"]),
        (["--flag=1", "b"], ["b"]),
        (["--flag", "1", "--flag", "2"], []),
        (["--other", "--flag-not"], ["--other", "--flag-not"]),
    ],
)
def test_flag_is_taken_out_of_words(words, kept):
    assert words_without(words, "--flag") == kept


def test_switch_is_taken_out_of_words_however_it_is_written():
    assert words_without(["a", "--my_flag", "b"], "--my-flag", has_value=False) == ["a", "b"]
