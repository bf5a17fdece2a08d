"""``train --log tensorboard``: event files that hold what metrics.jsonl holds, and no more."""

from __future__ import annotations

import itertools
import json
import sys
import types
from pathlib import Path
from typing import ClassVar

import pytest

from nasbench_at import train
from nasbench_at.cli import main
from nasbench_at.config import resolve
from nasbench_at.records import read_metrics
from nasbench_at.records.run_folders import create_run_folder, open_run_folder
from nasbench_at.training.tensorboard import TensorBoardReporter
from nasbench_at.training.trainer import NoReport
from tests.nasbench_at.conftest import tiny_config, tiny_flags
from tests.nasbench_at.training.test_trainer import InterruptedRunError, Watcher, results

MISSING = "log tensorboard needs the package tensorboard: pip install 'nasbench-at[tensorboard]'"
WORDS = ["train", *tiny_flags(), "--device", "cpu"]


class LineWriter:
    """Stands for SummaryWriter: a JSON line a scalar, which are in the file once flushed.

    From step 1 on, what is in earlier files is forgotten.
    """

    numbers = itertools.count()
    closed: ClassVar[list[Path]] = []

    def __init__(self, log_dir, *, purge_step, filename_suffix):
        assert purge_step == 1
        self.path = Path(log_dir) / f"events.out.tfevents.{next(self.numbers):04d}{filename_suffix}"
        self.path.touch()
        self.lines = []

    def add_scalar(self, tag, scalar_value, global_step):
        self.lines.append(json.dumps([tag, global_step, scalar_value]) + "\n")

    def flush(self):
        with self.path.open("a") as file:
            file.writelines(self.lines)
        self.lines.clear()

    def close(self):
        self.flush()
        self.closed.append(self.path)


@pytest.fixture
def lines(monkeypatch):
    """TensorBoard's package, of lines."""
    module = types.SimpleNamespace(SummaryWriter=LineWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def event_files(folder):
    return sorted(folder.glob("events.out.tfevents.*"))


def scalars(folder):
    """What TensorBoard keeps: the last event file, by tag and epoch; nothing in it is doubled."""
    rows = [json.loads(line) for line in event_files(folder)[-1].read_text().splitlines()]
    found = {(tag, epoch): value for tag, epoch, value in rows}
    assert len(found) == len(rows)
    return found


def expected(folder):
    """The same of its metrics."""
    names = {
        "train_loss": "loss/train",
        "train_accuracy": "accuracy/train",
        "validation_natural": "accuracy/natural",
        "validation_robust": "accuracy/pgd",
        "lr": "lr",
        "gradients_lost": "gradients/lost",
        "gradients_flipped": "gradients/flipped",
    }
    found = {}
    for row in read_metrics(folder / "metrics.jsonl"):
        epoch = row["epoch"]
        found |= {(tag, epoch): row[name] for name, tag in names.items() if name in row}
        for i, weights in enumerate(row["attention"], start=1):
            for block, weight in zip(("residual", "mbconv"), weights, strict=True):
                found[f"attention/module{i:02d}/{block}", epoch] = weight
    return found


def run_with_log(folder, watcher=None, **changes):
    config = tiny_config(epochs=3, **changes)
    path = create_run_folder("runs", resolve(config))
    with TensorBoardReporter(watcher or NoReport(), path) as reporter:
        train(config, device="cpu", reporter=reporter)


# --- what is written


def test_scalars_are_the_metrics(lines):
    assert main([*WORDS, "--log", "tensorboard"]) == 0
    (folder,) = Path("runs").iterdir()
    found = scalars(folder)
    assert found == expected(folder)
    assert LineWriter.closed[-1:] == event_files(folder)
    assert {epoch for _, epoch in found} == {1, 2}
    assert {tag for tag, _ in found if tag.startswith("attention/")} == {
        f"attention/module0{i}/{block}" for i in (1, 2, 3) for block in ("residual", "mbconv")
    }


def test_gradients_that_low_precision_loses_are_among_them(lines):
    assert main([*WORDS, "--precision", "bf16", "--log", "tensorboard"]) == 0
    (folder,) = Path("runs").iterdir()
    found = scalars(folder)
    assert found == expected(folder)
    assert {("gradients/lost", 2), ("gradients/flipped", 2)} <= found.keys()


def test_blocks_that_differ_from_module_to_module_are_named_by_module(lines):
    blocks = ["--blocks", "mbconv,residual", "mbconv,", "residual,mbconv,"]
    words = tiny_flags(epochs=1)
    place = words.index("--blocks")
    words[place : place + 3] = blocks
    assert main(["train", *words, "--device", "cpu", "--log", "tensorboard"]) == 0
    (folder,) = Path("runs").iterdir()
    (row,) = read_metrics(folder / "metrics.jsonl")
    found = {tag: value for (tag, _), value in scalars(folder).items() if "attention" in tag}
    first, second, third = row["attention"]
    assert second == [1, 0]
    assert found == {
        "attention/module01/residual": first[0],
        "attention/module01/mbconv": first[1],
        "attention/module02/mbconv": 1,
        "attention/module03/residual": third[0],
        "attention/module03/mbconv": third[1],
    }


def test_network_without_attention_weights_has_none_in_the_log(lines):
    words = ["--data", "stripes", "--model", "tiny_wrn", "--epochs", "1", "--attack-steps", "1"]
    assert main(["train", *words, "--device", "cpu", "--log", "tensorboard"]) == 0
    (folder,) = Path("runs").iterdir()
    tags = {tag for tag, _ in scalars(folder)}
    assert tags == {"loss/train", "accuracy/train", "accuracy/natural", "accuracy/pgd", "lr"}


def test_each_of_several_seeds_has_its_log(lines):
    assert main([*WORDS, "--seeds", "0", "1", "--log", "tensorboard"]) == 0
    for folder in Path("runs").iterdir():
        assert scalars(folder) == expected(folder)


def test_log_changes_nothing_else(lines):
    assert main([*WORDS, "--runs-dir", "plain"]) == 0
    assert main([*WORDS, "--runs-dir", "logged", "--log", "tensorboard"]) == 0
    (plain,), (logged,) = Path("plain").iterdir(), Path("logged").iterdir()
    assert plain.name == logged.name
    assert (plain / "config.yaml").read_bytes() == (logged / "config.yaml").read_bytes()
    assert results(plain) == results(logged)
    assert len(list(logged.iterdir())) == len(list(plain.iterdir())) + 1


def test_without_the_flag_nothing_is_logged(lines):
    assert main(WORDS) == 0
    (folder,) = Path("runs").iterdir()
    assert event_files(folder) == []


# --- interruptions


@pytest.mark.parametrize(
    "interruption", [{"after_epoch": 1}, {"after_steps": 5}, {"after_epoch": 3}], ids=str
)
def test_resumed_run_has_each_epoch_once(interruption, lines, tmp_path):
    with pytest.raises(InterruptedRunError):
        run_with_log(tmp_path, Watcher(**interruption))
    run_with_log(tmp_path)
    (folder,) = Path("runs").iterdir()
    assert scalars(folder) == expected(folder)
    assert {epoch for _, epoch in scalars(folder)} == {1, 2, 3}


def test_epochs_are_seen_as_soon_as_they_are_over(lines, tmp_path):
    seen = []

    class Looking(NoReport):
        def epoch(self, row):
            (folder,) = Path("runs").iterdir()
            seen.append(max(epoch for _, epoch in scalars(folder)))

    run_with_log(tmp_path, Looking())
    assert seen == [1, 2, 3]


def test_epoch_that_is_trained_again_is_forgotten_until_then(lines, tmp_path):
    with pytest.raises(InterruptedRunError):
        run_with_log(tmp_path, Watcher(after_epoch=2))
    (folder,) = Path("runs").iterdir()
    (folder / "last.pt").unlink()  # the one before it is of epoch 1
    seen = set()

    class Looking(NoReport):
        def start(self, *_):
            seen.update(epoch for _, epoch in scalars(folder))

    run_with_log(tmp_path, Looking())
    assert seen == {1}
    assert scalars(folder) == expected(folder)


def test_run_that_was_finished_before_gets_its_log(lines):
    assert main(WORDS) == 0
    assert main([*WORDS, "--log", "tensorboard"]) == 0
    (folder,) = Path("runs").iterdir()
    assert scalars(folder) == expected(folder)
    assert main([*WORDS, "--log", "tensorboard"]) == 0
    assert len(event_files(folder)) == 1


def test_folder_that_another_process_holds_gets_none(lines, capsys):
    config = resolve(tiny_config())
    folder = create_run_folder("runs", config)
    with folder.locked():
        assert main([*WORDS, "--log", "tensorboard"]) == 2
    assert "is in use by another process" in capsys.readouterr().err
    assert event_files(folder.path) == []


# --- bad input


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_missing_package_is_one_line_before_any_work(more, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main([*WORDS, "--log", "tensorboard", *more]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"nasbench-at: {MISSING}\n")
    assert not Path("runs").exists()


def test_script_for_another_machine_needs_no_package_here(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main([*WORDS, "--log", "tensorboard", "--print-sbatch"]) == 0
    assert "--log tensorboard" in capsys.readouterr().out


def test_other_logs_are_refused(capsys):
    assert main([*WORDS, "--log", "wandb"]) == 2
    assert capsys.readouterr().err == "nasbench-at: log must be one of tensorboard, got 'wandb'\n"


# --- the real package


def test_tensorboard_reads_each_epoch_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(InterruptedRunError):
        run_with_log(tmp_path, Watcher(after_epoch=2))
    (folder,) = Path("runs").iterdir()
    opened = EventAccumulator(str(folder))  # as of a TensorBoard that is open meanwhile
    opened.Reload()
    run_with_log(tmp_path)
    for events in (EventAccumulator(str(folder)), opened):
        events.Reload()
        found = {
            (tag, event.step): event.value
            for tag in events.Tags()["scalars"]
            for event in events.Scalars(tag)
        }
        assert found == pytest.approx(expected(folder))
        assert [event.step for event in events.Scalars("loss/train")] == [1, 2, 3]
    assert open_run_folder(folder).config == resolve(tiny_config(epochs=3))
