from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nasbench_at.cli import main
from nasbench_at.records import Benchmark
from tests.nasbench_at.test_records import make_record, write


@pytest.fixture(autouse=True)
def _runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, method, pgd in (("a", "at", 0.5), ("b", "trades", 0.75), ("c", "mart", None)):
        write(Path("runs"), make_record(name, method=method, pgd=pgd))


def test_table_shows_what_differs(capsys):
    assert main(["query"]) == 0
    out = capsys.readouterr().out
    assert "trades" in out
    assert "0.75" in out
    assert "eps" not in out  # the same for all


def test_rows_are_selected_sorted_and_cut(capsys):
    words = ["query", "runs", "--sort", "pgd", "--columns", "run_id", "pgd"]
    assert main([*words, "--top", "1", "--out", "best.csv"]) == 0
    assert "written to best.csv" in capsys.readouterr().out
    frame = pd.read_csv("best.csv")
    assert frame.to_dict("records") == [{"run_id": "b", "pgd": 0.75}]
    assert main(["query", "--where", "method=at", "--out", "at.jsonl"]) == 0
    assert [record.run_id for record in Benchmark.load("at.jsonl")] == ["a"]


@pytest.mark.parametrize("name", ["at.jsonl", "at.parquet"])
def test_records_behind_the_rows_are_written_and_read_again(name, capsys):
    assert main(["query", "--where", "method=at", "--columns", "run_id", "--out", name]) == 0
    assert main(["query", name, "--columns", "run_id", "pgd", "--out", "rows.csv"]) == 0
    assert pd.read_csv("rows.csv").to_dict("records") == [{"run_id": "a", "pgd": 0.5}]


def test_latex_table_is_escaped(capsys):
    write(Path("more"), make_record("50 % & $x_1$", blocks=("ada_rk", "dense"), pgd=1 / 3))
    write(Path("more"), make_record("plain"))
    words = ["query", "more", "--columns", "run_id", "blocks", "pgd", "num_params"]
    assert main([*words, "--out", "table.tex"]) == 0
    assert Path("table.tex").read_text().splitlines() == [
        r"\begin{tabular}{llrr}",
        r"\toprule",
        r"run\_id & blocks & pgd & num\_params \\",
        r"\midrule",
        r"50 \% \& \$x\_1\$ & ada\_rk, dense & 0.3333 & 1234 \\",
        r"plain & residual, dense & -- & 1234 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_line_that_was_cut_short_is_a_warning(capsys):
    Benchmark.load("runs").save("all.jsonl")
    Path("all.jsonl").write_text(Path("all.jsonl").read_text()[:-20])
    assert main(["query", "all.jsonl"]) == 0
    out, err = capsys.readouterr()
    assert (
        err
        == "nasbench-at: warning: skipped line 3 of 'all.jsonl', the last, which was cut short\n"
    )
    assert "trades" in out


def test_summary_counts_seeds(capsys):
    assert main(["query", "--summary", "--out", "summary.csv"]) == 0
    assert pd.read_csv("summary.csv")["seeds"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "'nowhere' is no folder of runs"),
        (["--where", "methd=at"], "no configuration key 'methd'; known: blocks, eps, method"),
        (["--sort", "accuracy"], "no column 'accuracy'; there are run_id"),
        (["--columns", "run"], "no column 'run'"),
        (["--top", "0"], "top must be a whole number from 1 to 1000000, got 0"),
        (
            ["--out", "table.xls"],
            "--out must end in .csv, .tex, .jsonl or .parquet, got 'table.xls'",
        ),
        (["--out", "no/such/table.csv"], "cannot write 'no/such/table.csv': No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_query_is_one_line(words, message, capsys):
    assert main(["query", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
