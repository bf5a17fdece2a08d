from __future__ import annotations

import csv
import math
from pathlib import Path

import pandas as pd
import pytest

from nasbench_at.records.table_files import plain_cell, write_frame

EVIL = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\n=1", "=cmd|' /C calc'!A0", "-"]
PLAIN = ["-5", "+1.5", "-1e-3", "a=b", "1-2", "", "'=1", "-inf", 5, -5, -1.5, True, None, math.inf]


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("text", EVIL)
def test_text_that_a_spreadsheet_would_run_is_quoted(text):
    assert plain_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", PLAIN)
def test_numbers_and_other_text_are_left_as_they_are(value):
    assert plain_cell(value) is value


@pytest.mark.parametrize(
    ("text", "cell"), [("\r=1", "'\n=1"), ("a\r=1+1", "a\n=1+1"), ("a\r\nb", "a\nb")]
)
def test_carriage_return_begins_no_row(text, cell, tmp_path: Path):
    assert plain_cell(text) == cell
    write_frame(pd.DataFrame({"a": [text, "b"]}), tmp_path / "table.csv")
    assert read(tmp_path / "table.csv") == [["a"], [cell], ["b"]]


def test_cells_and_headings_of_a_csv_file_are_plain(tmp_path: Path):
    path = tmp_path / "table.csv"
    frame = pd.DataFrame({"=run": EVIL, "mixed": ["=1", ("a",), None, -1, 2.5, [], {}, "-2"]})
    frame["pgd"] = [-0.5, *[0.5] * 7]
    write_frame(frame, path)
    head, *rows = read(path)
    assert head == ["'=run", "mixed", "pgd"]
    assert [row[0] for row in rows] == [f"'{text}" for text in EVIL]
    assert [row[1] for row in rows][:5] == ["'=1", "('a',)", "", "-1", "2.5"]
    assert rows[0][2] == "-0.5"
    assert "=1+1" in frame["=run"].tolist()  # the frame itself is left alone
