from __future__ import annotations

from nasbench_at.records.text_tables import format_columns, format_tabs

HEADINGS = ["run_id", "network", "pgd"]
ROWS = [["cifar10-at-0123456789-s0", "residual + mbconv + dense", "54.03%"], ["b", "plain", "1%"]]


def test_table_that_fits_is_one_line_a_row_with_numbers_to_the_right():
    text = format_columns(HEADINGS, ROWS, width=80, numeric=[False, False, True])
    assert text.splitlines() == [
        "run_id                    network                       pgd",
        "------------------------  -------------------------  ------",
        "cifar10-at-0123456789-s0  residual + mbconv + dense  54.03%",
        "b                         plain                          1%",
    ]


def test_text_is_wrapped_at_blanks_and_words_and_numbers_are_whole():
    text = format_columns(HEADINGS, ROWS, width=50, numeric=[False, False, True])
    assert text.splitlines() == [
        "run_id                    network              pgd",
        "------------------------  ----------------  ------",
        "cifar10-at-0123456789-s0  residual +        54.03%",
        "                          mbconv + dense",
        "b                         plain                 1%",
    ]


def test_table_that_cannot_fit_is_a_block_a_row():
    assert format_columns(HEADINGS, ROWS, width=24).splitlines() == [
        "run_id   cifar10-at-0123456789-s0",
        "network  residual +",
        "         mbconv + dense",
        "pgd      54.03%",
        "",
        "run_id   b",
        "network  plain",
        "pgd      1%",
    ]


def test_nothing_has_headings_alone():
    assert format_columns(["a", "b"], [], width=80).splitlines() == ["a  b", "-  -"]


def test_cells_cannot_move_the_cursor():
    assert "\x1b" not in format_columns(["a"], [["\x1b[2Jred\r"]], width=80)
    assert format_tabs(["a", "b"], [["x\ty\nz", "\x1b"]]) == "a\tb\nx y z\t \n"
