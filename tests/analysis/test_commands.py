"""What figure, table and report say of bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasbench_at.cli import main
from nasbench_at.records.run_folders import StudyRuns


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["figure", "landskape"], "unknown figure 'landskape'; did you mean 'landscape'?"),
        (["figure", "--out", "a.pdf"], "figure needs a name before its flags, got '--out'"),
        (
            ["figure", "landscape", "--out", "a.doc"],
            "out must be a file ending in .pdf, .png or .svg",
        ),
        (["figure", "attention", "none"], "'none' is no folder of runs"),
        (["figure", "attention", "empty"], "there is no run in empty"),
        (["figure", "block-space", "empty"], "block"),
        (["table", "7"], "number must be a whole number from 1 to 6, got 7"),
        (["table", "2", "empty"], "Table 2 needs evaluated runs of"),
        (["table", "2", "--out", "a.doc"], "out must be a file ending in .md, .tex or .csv, in"),
        (["report", "empty"], "there is no run in 'empty'"),
        (["report", "empty", "--points", "4"], "points must be odd, got 4"),
        (["report", "--out", "a.pdf"], "out must be a file ending in .html, in"),
        (["table", "2", "--out", "a.MD"], "in an existing folder, got 'a.MD'"),
        (["report", "--out", "no/a.html"], "in an existing folder, got 'no/a.html'"),
        (["table", "2", "--out", "no/a.csv"], "in an existing folder, got 'no/a.csv'"),
        (["figure", "landscape", "--out", "no/a.pdf"], "in an existing folder, got 'no/a.pdf'"),
        (
            ["report", "--landscapes", "-1"],
            "landscapes must be a whole number from 0",
        ),
    ],
)
def test_bad_input_is_a_line(words, message, capsys):
    Path("empty").mkdir()
    Path("runs").mkdir()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_run_that_a_study_lists_and_that_is_gone_is_named(capsys):
    folder = Path("runs/studies/s")
    folder.mkdir(parents=True)
    StudyRuns(("gone",), is_finished=True).write(folder)
    assert main(["figure", "attention", str(folder)]) == 2
    assert "run 'gone' of study 's' is missing" in capsys.readouterr().err


def test_list_of_a_study_that_cannot_be_read_is_named(capsys):
    folder = Path("runs/studies/s")
    folder.mkdir(parents=True)
    (folder / "runs.json").write_text("{")
    assert main(["report", str(folder)]) == 2
    assert "cannot read 'runs/studies/s/runs.json'" in capsys.readouterr().err


def test_figures_are_listed_with_their_place_in_the_paper(capsys):
    assert main(["figure", "--help"]) == 0
    text = capsys.readouterr().out
    for place in ("Fig. 4", "Fig. 5", "Fig. 6", "Fig. 7a", "Fig. 7b", "Fig. 8"):
        assert place in text


def test_fault_of_a_computation_is_no_bad_input(capsys, monkeypatch, tmp_path):
    from analysis import gallery

    def fail(request):
        raise ValueError("a library's own")

    kind = gallery.FigureKind("", fail)
    monkeypatch.setattr(gallery, "FIGURES", {"broken": kind})
    assert main(["figure", "broken", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "ValueError: a library's own; traceback in " in error
    assert error.count("\n") == 1


def test_runs_that_do_not_suit_a_figure_are_bad_input(capsys, monkeypatch, tmp_path):
    from analysis import gallery
    from analysis.errors import MissingRunsError

    def fail(request):
        raise MissingRunsError("it needs two runs")

    monkeypatch.setattr(gallery, "FIGURES", {"picky": gallery.FigureKind("", fail)})
    assert main(["figure", "picky", str(tmp_path)]) == 2
    assert "it needs two runs" in capsys.readouterr().err
