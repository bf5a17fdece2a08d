from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from nasbench_at.cli import main
from nasbench_at.records import Benchmark
from tests.nasbench_at.records.test_records import make_evaluation, make_record, write


@pytest.fixture(autouse=True)
def _runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, method, pgd in (("a", "at", 0.5), ("b", "trades", 0.75), ("c", "mart", None)):
        write(Path("runs"), make_record(name, method=method, pgd=pgd))


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns."""
    monkeypatch.setattr("nasbench_at.commands.console.stdout.width", 80)
    monkeypatch.setattr("nasbench_at.commands.console.is_terminal", lambda: True)


def tab_separated(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


def real_run(name: str, seed: int, accuracies: dict[str, float], **changes):
    """A run as CIFAR-10's are called."""
    record = replace(make_record(name), evaluations=(make_evaluation(accuracies, **changes),))
    config = {"model": "ds_net", "data": "cifar10", "blocks": ["residual", "mbconv", "dense"]}
    return replace(record, config={**record.config, **config, "seed": seed})


# Into a pipe


def test_pipe_gets_a_line_a_run_parted_by_tabs(capsys):
    assert main(["query"]) == 0
    out = capsys.readouterr().out
    rows = tab_separated(out)
    assert list(rows[0])[:5] == ["run_id", "network", "seed", "natural", "pgd"]
    assert [row["run_id"] for row in rows] == ["a", "b", "c"]
    assert [row["pgd"] for row in rows] == ["0.5", "0.75", ""]
    assert rows[1]["pgd_conditions"].startswith("stripes/test, L∞ eps 0.1, 20 steps, ")
    assert out.count("\n") == 4
    assert not set("│┃━─") & set(out)


def test_pipe_of_one_run_is_one_line_and_no_folding():
    write(Path("one"), real_run("cifar10-at-0123456789-s0", 0, {"natural": 0.9, "pgd": 0.5}))
    environment = {**os.environ, "COLUMNS": "20", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "nasbench_at", "query", "one"]
    out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    (row,) = tab_separated(out.stdout)
    assert row["run_id"] == "cifar10-at-0123456789-s0"
    assert row["network"] == "DS-Net of residual + mbconv + dense, 15 modules of 20 channels, k = 4"


# At a terminal


def test_80_columns_hold_whole_run_ids_words_and_conditions_once(terminal, capsys):
    for seed in range(3):
        accuracies = {"natural": 0.84, "pgd": 0.5403, "aa": 0.4}
        name = f"cifar10-trades-0123456789-s{seed}"
        write(Path("many"), real_run(name, seed, accuracies))
    write(Path("many"), make_record("not_evaluated"))
    assert main(["query", "many"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["run_id", "network", "seed", "natural", "pgd", "aa"]
    for seed in range(3):
        (line,) = (line for line in lines if f"cifar10-trades-0123456789-s{seed} " in line)
        assert line.split()[-4:] == [str(seed), "84.00%", "54.03%", "40.00%"]
    text = " ".join(" ".join(lines).split())
    assert text.count("pgd: stripes/test, L∞ eps 0.1, 20 steps,") == 1
    assert "natural: stripes/test, 10,000 images" in text
    assert "1 of 4 runs are not evaluated yet: nasbench-at evaluate RUN" in text


def test_conditions_that_differ_are_marked(terminal, capsys):
    for name, eps in (("a", 0.1), ("b", 0.1), ("c", 0.3), ("d", 0.2)):
        write(Path("many"), real_run(name, 0, {"natural": 0.9, "pgd": 0.5}, eps=eps))
    assert main(["query", "many"]) == 0
    out = capsys.readouterr().out
    cells = {line.split()[0]: line.split()[-2:] for line in out.splitlines() if "%" in line}
    assert cells["a"] == cells["b"] == ["90.00%", "50.00%"]
    assert [cells["c"], cells["d"]] == [["50.00%", "a"], ["50.00%", "b"]]
    notes = [line for line in out.splitlines() if line.startswith("pgd")]
    assert [" ".join(line.split()[:5]) for line in notes] == [
        "pgd: stripes/test, L∞ eps 0.1,",
        "pgd a: stripes/test, L∞ eps",
        "pgd b: stripes/test, L∞ eps",
    ]


def test_summary_has_means_over_seeds_with_intervals(terminal, capsys):
    for seed, pgd in enumerate((0.5, 0.6, 0.75)):
        write(Path("seeds"), real_run(f"s{seed}", seed, {"natural": 0.9, "pgd": pgd}))
    write(Path("seeds"), replace(real_run("t", 0, {"pgd": 0.2}), config={"method": "mart"}))
    assert main(["query", "seeds", "--summary"]) == 0
    out = capsys.readouterr().out
    assert "61.7 ± 31.3%" in out
    assert "20.0%" in out
    assert "±: 95 % interval of the mean over seeds, by Student's t" in out
    assert max(map(len, out.splitlines())) <= 80


def test_mean_over_a_part_of_the_seeds_says_over_how_many(terminal, capsys, monkeypatch):
    for seed, accuracies in enumerate(({"aa": 0.3}, {"pgd": 0.5}, {"pgd": 0.6})):
        write(Path("seeds"), real_run(f"s{seed}", seed, {"natural": 0.9, **accuracies}))
    words = ["query", "seeds", "--summary"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "3  90.0 ± 0.0%  55.0 ± 63.5% (2 seeds)  30.0% (1 seed)" in out
    monkeypatch.setattr("nasbench_at.commands.console.is_terminal", lambda: False)
    assert main(words) == 0
    (row,) = tab_separated(capsys.readouterr().out)
    assert [row[f"{name}seeds"] for name in ("", "natural_", "pgd_", "aa_")] == [*"3321"]


def test_what_belongs_to_a_part_of_an_attack_is_no_share(terminal, capsys):
    write(Path("parts"), real_run("a", 0, {"aa/apgd-ce": 0.5}))
    assert main(["query", "parts", "--columns", "aa/apgd-ce", "aa/apgd-ce_num_samples"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["50.00%", "10000"]


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ([{"pgd": 0.5, "aa": 0.9}, {"pgd": 0.6, "aa": 0.1}], "pgd"),
        ([{"natural": 0.5}, {"natural": 0.6}], "natural"),
    ],
)
def test_summary_begins_with_the_best_and_explains_its_signs(accuracies, best, terminal, capsys):
    for blocks, own in zip((["dense"], ["mbconv"]), accuracies, strict=True):
        for seed in range(2):
            record = real_run(f"{blocks[0]}{seed}", seed, own)
            config = {**record.config, "blocks": blocks, "widen_factor": len(blocks[0])}
            write(Path("nets"), replace(record, config=config))
    assert main(["query", "nets", "--summary"]) == 0
    out = capsys.readouterr().out
    assert out.index("mbconv, k = 6") < out.index("dense, k = 5")
    assert f"sorted by {best}, the highest first" in out
    assert "k: by how much a network's first reduction widens (widen_factor)" in out
    assert main(["query", "nets", "--summary", "--top", "1", "--sort", "widen_factor"]) == 0
    out = capsys.readouterr().out
    assert "sorted by widen_factor, the highest first" in out
    assert "k = 6" in out


def test_summary_of_several_conditions_is_in_no_order(terminal, capsys):
    for method, eps in (("at", 0.1), ("mart", 0.2)):
        record = real_run(method, 0, {"pgd": eps}, eps=eps)
        write(Path("nets"), replace(record, config={**record.config, "method": method}))
    assert main(["query", "nets", "--summary"]) == 0
    out = capsys.readouterr().out
    assert out.index("AT") < out.index("MART")
    assert "sorted" not in out


def test_means_in_a_pipe_end_where_rounding_begins(capsys):
    for seed, pgd in enumerate((0.1, 0.1, 0.1 + 0.2)):
        write(Path("seeds"), real_run(f"s{seed}", seed, {"pgd": pgd}))
    assert main(["query", "seeds", "--summary"]) == 0
    (row,) = tab_separated(capsys.readouterr().out)
    assert row["pgd"] == "0.166667"


@pytest.mark.parametrize("words", ["residual,dense", "dense,residual", "[residual, dense]"])
def test_lists_are_words_parted_by_commas_blocks_in_any_order(words, capsys):
    for name, blocks in (("pair", ["residual", "dense"]), ("lone", ["dense"])):
        config = {**make_record(name).config, "blocks": blocks, "milestones": [6, 9]}
        write(Path("nets"), replace(make_record(name), config=config))
    assert main(["query", "nets", "--where", f"blocks={words}", "milestones=6,9"]) == 0
    assert [row["run_id"] for row in tab_separated(capsys.readouterr().out)] == ["pair"]
    assert main(["query", "nets", "--where", "blocks=dense"]) == 0
    assert [row["run_id"] for row in tab_separated(capsys.readouterr().out)] == ["lone"]


@pytest.mark.parametrize("more", [[], ["--summary"]])
def test_networks_selected_on_test_images_are_marked(more, terminal, capsys):
    for name, select_on in (("held", "validation"), ("seen", "test")):
        record = make_record(name, pgd=0.5)
        write(Path("nets"), replace(record, config={**record.config, "select_on": select_on}))
    assert main(["query", "nets", *more]) == 0
    assert "1 of 2 runs was selected on the test images" in capsys.readouterr().out
    assert "1 of 2 runs was selected on the test images" in str(Benchmark.load("nets").summary())
    assert main(["query", "nets", "--where", "select_on=validation", *more]) == 0
    assert "selected" not in capsys.readouterr().out


def test_names_cannot_move_the_cursor(terminal, capsys):
    write(Path("evil"), replace(make_record("x", pgd=0.5), run_id="\x1b[2J[red]evil"))
    assert main(["query", "evil"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[red]evil" in out


# Columns, rows and files


def test_rows_are_selected_sorted_and_cut(capsys):
    words = ["query", "runs", "--sort", "pgd", "--columns", "run_id", "pgd"]
    assert main([*words, "--top", "1", "--out", "best.csv"]) == 0
    assert "written to best.csv" in capsys.readouterr().out
    frame = pd.read_csv("best.csv")
    assert frame.to_dict("records") == [{"run_id": "b", "pgd": 0.75}]
    assert main([*words, "--top", "1", "--out", "best.jsonl"]) == 0
    assert [record.run_id for record in Benchmark.load("best.jsonl")] == ["b"]
    assert main(["query", "--where", "method=at", "--out", "at.jsonl"]) == 0
    assert [record.run_id for record in Benchmark.load("at.jsonl")] == ["a"]


def test_rows_without_the_sorted_value_come_last(capsys):
    assert main(["query", "--sort", "pgd", "--columns", "run_id"]) == 0
    assert capsys.readouterr().out.split() == ["run_id", "b", "a", "c"]


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("pgd", ["--sort", "pgd"]),
        ("pgd", ["--sort", "pgd_low", "--summary"]),
        ("aa/apgd-ce", ["--sort", "aa/apgd-ce_std", "--summary"]),
    ],
)
def test_numbers_of_different_conditions_are_not_ranked(attack, words, capsys):
    for seed, (method, eps) in enumerate((("at", 0.1), ("at", 0.1), ("mart", 0.3), ("mart", 0.3))):
        record = real_run(f"r{seed}", seed, {"natural": 0.5, attack: 0.4}, eps=eps)
        write(Path("many"), replace(record, config={**record.config, "method": method}))
    assert main(["query", "many", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert (
        f"'r0' and 'r2' cannot be compared by '{attack}'; they differ in eps (0.1 and 0.3)" in err
    )
    assert main(["query", "many", "--sort", f"{attack}_eps"]) == 0
    assert main(["query", "many", "--sort", attack, "--where", "method=mart"]) == 0


def test_chosen_accuracies_have_their_conditions_below(terminal, capsys):
    for name, eps in (("a", 0.1), ("b", 0.1), ("c", 0.3)):
        write(Path("many"), real_run(name, 0, {"cw": 0.5}, eps=eps))
    assert main(["query", "many", "--columns", "run_id", "cw"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split()[0]: line.split()[1:] for line in lines if "%" in line}
    assert cells == {"a": ["50.00%"], "b": ["50.00%"], "c": ["50.00%", "a"]}
    assert [" ".join(line.split()[:5]) for line in lines if line.startswith("cw")] == [
        "cw: stripes/test, L∞ eps 0.1,",
        "cw a: stripes/test, L∞ eps",
    ]
    assert main(["query", "many", "--columns", "run_id", "eps"]) == 0
    assert "stripes" not in capsys.readouterr().out


def test_images_of_another_path_are_no_other_conditions(terminal, capsys):
    for name, data in (("a", "here.npz/test"), ("b", "there.npz/test")):
        write(Path("many"), real_run(name, 0, {"pgd": 0.5}, data=data))
    assert main(["query", "many", "--sort", "pgd"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pgd")]
    assert [" ".join(note.split()[:2]) for note in notes] == ["pgd: here.npz/test,"]


def test_chosen_columns_hold_conditions(capsys):
    assert main(["query", "--columns", "run_id", "pgd", "pgd_eps", "blocks"]) == 0
    rows = tab_separated(capsys.readouterr().out)
    assert rows[0] == {"run_id": "a", "pgd": "0.5", "pgd_eps": "0.1"} | {
        "blocks": '["residual", "dense"]'
    }


def test_file_has_all_columns_unless_told(capsys):
    assert main(["query", "--out", "all.csv"]) == 0
    frame = pd.read_csv("all.csv")
    assert {"run_id", "network", "method", "eps", "pgd", "pgd_eps", "pgd_norm"} <= set(
        frame.columns
    )


def test_column_that_no_row_of_the_cut_has_is_empty_in_the_file(capsys):
    words = ["query", "--sort", "run_id", "--columns", "run_id", "pgd", "--top", "1"]
    assert main([*words, "--out", "top.csv"]) == 0  # c was not evaluated
    assert Path("top.csv").read_text().splitlines() == ["run_id,pgd", "c,"]


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
    assert len(tab_separated(out)) == 2


def test_summary_counts_seeds(capsys):
    assert main(["query", "--summary", "--out", "summary.csv"]) == 0
    assert pd.read_csv("summary.csv")["seeds"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("word", ["weight_decay=5e-4", "weight_decay=0.0005", "lr=1e-1"])
def test_numbers_are_found_however_they_are_written(word, capsys):
    record = make_record("found", pgd=0.5)
    config = {**record.config, "weight_decay": 5e-4, "lr": 0.1}
    write(Path("more"), replace(record, config=config))
    assert main(["query", "more", "--where", word]) == 0
    assert tab_separated(capsys.readouterr().out)[0]["run_id"] == "found"


def test_precision_is_a_word(capsys):
    record = make_record("found", pgd=0.5)
    write(Path("more"), replace(record, config={**record.config, "precision": "fp32"}))
    assert main(["query", "more", "--where", "precision=fp32"]) == 0
    assert main(["query", "more", "--where", "precision=off"]) == 2
    assert "no record has precision='off'; there is fp32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "'nowhere' is no folder of runs"),
        (["--where", "methd=at"], "no configuration key 'methd'; did you mean 'method'? known: bl"),
        (["--where", "method=att"], "no record has method=att; there is at, mart, trades"),
        (["--where", "eps=8"], "no record has eps=8; there is 0.1"),
        (
            ["--where", "method=at", "blocks=[dense]"],
            "no record has blocks=[dense]; there is [residual, dense]",
        ),
        (["--sort", "pgdd"], "no column 'pgdd'; did you mean 'pgd'"),
        (["--sort", "zzz"], "no column 'zzz'; there are run_id, network"),
        (["--columns", "run"], "no column 'run'"),
        (["--sort", "aa"], "none of 3 runs was evaluated by 'aa', so there is no column 'aa'; eva"),
        (["--columns", "cw_eps"], "none of 3 runs was evaluated by 'cw', so there is no column"),
        (["--top", "0"], "top must be a whole number from 1 to 1000000, got 0"),
        (
            ["--out", "table.xls"],
            "out must be a file ending in .csv, .tex, .jsonl or .parquet, in an existing folder",
        ),
        (["--out", "no/such/table.csv"], "in an existing folder, got 'no/such/table.csv'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_query_is_one_line(words, message, capsys):
    assert main(["query", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_values_that_never_meet_are_named(capsys):
    write(Path("runs"), make_record("d", method="at", blocks=("dense",)))
    assert main(["query", "--where", "method=trades", "blocks=[dense]"]) == 2
    assert "no record has method=trades and blocks=[dense] together" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--sort", "pgd"], ["--summary"]])
def test_folder_without_a_record_is_named(words, capsys):
    Path("empty").mkdir()
    assert main(["query", "empty", *words]) == 2
    assert capsys.readouterr().err == "nasbench-at: there is no record in 'empty'\n"


@pytest.mark.parametrize("words", [[], ["--summary"]])
def test_run_that_was_not_evaluated_says_so(words, terminal, capsys):
    write(Path("new"), make_record("new"))
    assert main(["query", "new", *words]) == 0
    out = capsys.readouterr().out
    assert "no run is evaluated yet: nasbench-at evaluate RUN" in out
    assert len(out.splitlines()) < 8
    assert main(["query", "new", *words, "--sort", "pgd"]) == 2
    err = capsys.readouterr().err
    assert "none of 1 runs was evaluated by 'pgd'" in err
    assert "evaluate one first: nasbench-at evaluate RUN" in err


@pytest.mark.parametrize("is_terminal", [False, True])
def test_summary_over_different_conditions_has_an_empty_cell(is_terminal, monkeypatch, capsys):
    monkeypatch.setattr("nasbench_at.commands.console.is_terminal", lambda: is_terminal)
    for seed, eps in enumerate((0.1, 0.3)):
        record = real_run(f"s{seed}", seed, {"natural": 0.5})
        write(Path("seeds"), record.with_evaluation(make_evaluation({"pgd": 0.5}, eps=eps)))
    assert main(["query", "seeds", "--summary"]) == 0
    out, err = capsys.readouterr()
    assert err == (
        "nasbench-at: warning: no mean of 'pgd' over seeds: 's0' and 's1' cannot be compared by "
        "'pgd'; they differ in eps (0.1 and 0.3)\n"
    )
    if is_terminal:
        (line,) = (line for line in out.splitlines() if "%" in line and "DS-Net" in line)
        assert line.split()[-5:] == ["2", "50.0", "±", "0.0%", "-"]
    else:
        (row,) = tab_separated(out)
        assert (row["natural"], row["pgd"]) == ("0.5", "")
