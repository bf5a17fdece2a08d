from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from rich.table import Table

from nasbench_at import train
from nasbench_at.cli import main
from nasbench_at.commands.console import PointProgress, show_frame, stderr, stdout
from nasbench_at.config import resolve
from studies.commands.progress import StudyReporter
from tests.nasbench_at.conftest import tiny_config, tiny_flags

WORDS = ["runs[v2]", "[bold]", "runs[/v2]", ":smiley:", "[link=x]"]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("out", [stdout, stderr], ids=["stdout", "stderr"])
def test_words_of_a_user_are_printed_as_they_are(word, out, capsys):
    out.print(word, highlight=False, soft_wrap=True)
    table = Table(word, title=word)
    table.add_row(word)
    out.print(table)
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count(word) == 4


@pytest.mark.parametrize("word", WORDS)
def test_words_in_a_frame_are_printed_as_they_are(word, capsys):
    show_frame(pd.DataFrame({word: [word]}))
    assert capsys.readouterr().out.count(word) == 2


def test_frame_shows_large_numbers_in_full_and_a_dash_for_what_is_missing(capsys):
    frame = pd.DataFrame(
        {
            "num_params": [127748, None],
            "parameters": [150000.0, 12.0],
            "count": [12345, 7],
            "share": [0.123456, float("nan")],
            "weight_decay": [0.0005, 1e-6],
            "residual": [True, None],
            "error": [None, "gone"],
        }
    )
    show_frame(frame)
    _, first, second = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert first == ["127,748", "150,000", "12,345", "0.1235", "0.0005", "True", "-"]
    assert second == ["-", "12", "7", "-", "1e-06", "-", "gone"]


@pytest.mark.parametrize("word", WORDS)
def test_titles_of_bars_are_drawn_as_they_are(word):
    for bar in (PointProgress(word), StudyReporter(word)):
        bar._progress.add_task("")
        title = bar._progress.columns[0]
        assert word in title.render(bar._progress.tasks[-1]).plain


@pytest.mark.parametrize("name", ["runs[v2]", "runs[/v2]"])
def test_last_line_of_train_is_the_folder_whatever_its_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = resolve(tiny_config(epochs=1))
    train(config, runs_dir=name, device="cpu")
    capsys.readouterr()
    assert main(["train", *tiny_flags(epochs=1), "--runs-dir", name, "--device", "cpu"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert Path(last) == Path(name) / config.run_id
