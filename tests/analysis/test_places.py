"""Figures, tables, the report, queries, comparisons and replays of a table that has no folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.attention import TableRun, compute_attention
from analysis.report.attention import find_graph
from analysis.run_entries import collect_entries
from nasbench_at.cli import main
from nasbench_at.records import Benchmark, places
from tests.nasbench_at.records.tables import ship, write_runs


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    """A table ``tiny`` that comes with the package, seen from an empty working directory."""
    monkeypatch.setattr(places, "SHIPPED", tmp_path / "tables")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write_runs(tmp_path / "runs")
    return ship(tmp_path / "tables", tmp_path / "runs")


@pytest.fixture(params=["name", "file"])
def place(request, table) -> str:
    return "tiny" if request.param == "name" else str(table)


def failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    _, err = capsys.readouterr()
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("name", ["learning-curves", "pareto"])
def test_figure_of_records_and_curves(name, place):
    assert main(["figure", name, place, "--out", "figure.svg"]) == 0
    assert Path("figure.svg").stat().st_size > 5000


def test_figure_of_part_of_a_table(place):
    assert main(["query", place, "--where", "method=at", "--out", "at.parquet"]) == 0
    assert main(["figure", "block-space", "at.parquet", "--out", "figure.svg"]) == 0
    assert Path("figure.svg").stat().st_size > 5000


@pytest.mark.parametrize("name", ["attention", "attention-entropy"])
def test_figure_of_attention_weights(name, place):
    assert main(["query", place, "--where", "method=at", "--out", "at.parquet"]) == 0
    assert main(["figure", name, "at.parquet", "--out", "figure.svg"]) == 0
    assert Path("figure.svg").stat().st_size > 5000


def test_figure_of_the_attention_weights_of_one_run(place):
    run = Benchmark.load(place)[0].run_id
    assert main(["figure", "attention-history", f"{place}:{run}", "--out", "figure.svg"]) == 0
    assert Path("figure.svg").stat().st_size > 5000


def test_attention_weights_are_those_of_the_selected_epoch(table):
    runs = Benchmark.load("tiny").query(blocks=("residual", "dense"))
    lines = [dict(line) for line in runs.metrics_of(runs[0])]
    lines[0]["attention"] = [[0.25, 0.75]] * 3  # which was selected
    found = compute_attention([TableRun(runs[0], lines)])
    assert found.blocks == ("residual", "dense")
    assert found.weights.tolist() == [[[0.25, 0.75]] * 3]


@pytest.mark.parametrize("name", ["landscape", "gradient-variance", "lipschitz", "confusion"])
def test_figure_of_weights_says_that_there_are_none(name, place, capsys):
    err = failure(["figure", name, place], capsys)
    assert f"this figure is drawn from weights, and the table {place!r} holds none" in err


@pytest.mark.parametrize("command", ["evaluate", "theory"])
def test_what_needs_weights_says_so(command, place, capsys):
    err = failure([command, place], capsys)
    assert f"a run's folder is needed, with its weights; {place!r} is a table" in err


def test_table_of_the_paper(place, capsys):
    assert main(["table", "2", place]) == 0
    out = capsys.readouterr().out
    assert (
        "| DS-Net of residual + dense, 3 modules of 20 channels, k = 4 | 0.0012 | **100.00" in out
    )
    assert " 55.00 ± 5.00 " in out


def test_report_has_curves_attention_and_graphs(place):
    assert main(["report", place, "--out", "report.html"]) == 0
    page = Path("report.html").read_text("utf-8")
    for run in Benchmark.load(place):
        assert run.run_id in page
    entries = collect_entries([place])
    curves = [entry.curve for entry in entries]
    assert all(curve is not None and curve.epochs.tolist() == [1, 2] for curve in curves)
    assert {entry.attention for entry in entries} == {(1, ((1 / 3, 2 / 3),) * 3)}
    graphs = [find_graph(entry) for entry in entries]
    assert all(graph is not None and "module01.dense" in graph for graph in graphs)


def test_run_whose_curve_cannot_be_read_is_left_out_of_the_report(table):
    good, bad = Benchmark.load("tiny")[:2]
    Benchmark.load("tiny")[:2].save("two.jsonl")
    first, second = Path("two.jsonl").read_text().splitlines()
    Path("two.jsonl").write_text(f"{first}\n{second.replace('validation_natural', 'nope')}\n")
    with pytest.warns(UserWarning, match=f"cannot read metrics of run '{bad.run_id}': line 1"):
        entries = collect_entries(["two.jsonl"])
    assert [entry.run_id for entry in entries] == [good.run_id]


def test_query_and_summary(place, capsys):
    assert main(["query", place, "--summary", "--columns", "seeds", "pgd"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split("\t") == ["seeds", "pgd"]
    rows = [line.split("\t") for line in out[1:4]]
    assert [seeds for seeds, _ in rows] == ["2", "3", "3"]
    assert [pgd for _, pgd in rows] == sorted((pgd for _, pgd in rows), reverse=True)


def test_compare_image_by_image(place, capsys):
    first, second, *_ = Benchmark.load(place).query(method="trades")
    assert main(["compare", f"{place}:{first.run_id}", f"{place}:{second.run_id}"]) == 0
    assert "McNemar" in capsys.readouterr().out
    err = failure(["compare", place, f"{place}:{second.run_id}"], capsys)
    assert f"{place!r} has 8 runs; name one of them, as {place}:RUN-ID" in err


def test_replay(place, capsys):
    words = [
        "study",
        "replay",
        place,
        "--space",
        "blocks",
        "method",
        "beta",
        "--samplers",
        "random",
    ]
    assert main([*words, "--pruners", "none", "--repetitions", "2", "--workers", "1"]) == 0
    assert "regret" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["figure", "pareto"], ["table", "2"], ["report"], ["query"], ["study", "replay"]]
)
def test_table_that_was_cut_short_is_one_line(words, table, capsys):
    Path("cut.parquet").write_bytes(table.read_bytes()[:-100])
    assert "cannot read records 'cut.parquet': " in failure([*words, "cut.parquet"], capsys)


@pytest.mark.parametrize(
    "words", [["figure", "pareto"], ["table", "2"], ["report"], ["query"], ["study", "replay"]]
)
def test_unknown_name_is_one_line(words, table, capsys):
    err = failure([*words, "tyni"], capsys)
    assert "'tyni' is no folder of runs; tables that come with the package: tiny" in err


def test_one_command_writes_what_a_table_of_the_package_is_made_of(table, capsys):
    Path("card.yaml").write_text(
        "title: Again\ndescription: The same.\nlicense: MIT\nurl: https://example.org\n"
        "creators: [A. Person]\npublished: '2026-01-31'\n"
    )
    out = table.with_name("again.parquet")
    assert main(["query", "tiny", "--out", str(out), "--card", "card.yaml"]) == 0
    assert list(Benchmark.load("again")) == list(Benchmark.load("tiny"))
    assert "# Again" in out.with_suffix(".md").read_text()


@pytest.mark.parametrize("out", [[], ["--out", "a.jsonl"]])
def test_card_without_a_parquet_file_is_refused(out, table, capsys):
    Path("card.yaml").write_text("title: a\n")
    err = failure(["query", "tiny", *out, "--card", "card.yaml"], capsys)
    assert "card goes with --out FILE.parquet" in err


def test_bad_card_is_one_line(table, capsys):
    Path("card.yaml").write_text("title: a\n")
    err = failure(["query", "tiny", "--out", "a.parquet", "--card", "card.yaml"], capsys)
    assert "cannot read prose 'card.yaml': it lacks the field 'description'" in err
    assert not Path("a.parquet").exists()
