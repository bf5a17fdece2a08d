from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from nasbench_at.config.allowed_values import (
    DataRoot,
    Device,
    Distinct,
    ExistingFile,
    Folder,
    InOrder,
    Name,
    NewFile,
    OneOf,
    Range,
    StorageUrl,
    check_fields,
    check_value,
    hide_passwords,
)

Rows = tuple[Name, ...] | tuple[tuple[Name, ...], ...]
Share = Annotated[float, Range("[0, 1)")]
Attacks = tuple[Annotated[str, OneOf(("fgsm", "pgd"))], ...]
Called = Annotated[str, OneOf(("aa", "cw"), also_called=(("autoattack", "aa"),))]


@pytest.mark.parametrize(
    ("annotation", "value", "form"),
    [
        (int, 6.0, 6),
        (int, np.int64(6), 6),
        (int, 10**30, 10**30),
        (float, 6, 6.0),
        (float, np.float32(0.5), 0.5),
        (float, Fraction(1, 2), 0.5),
        (Share | None, None, None),
        (Share | None, 0, 0.0),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, ...], range(2), (0, 1)),
        (tuple[int, int], [1, 2], (1, 2)),
        (Rows, ["a"], ("a",)),
        (Rows, [["a"], ("b",)], (("a",), ("b",))),
        (Mapping[str, float], {"a": 1}, {"a": 1.0}),
        (Mapping[str, Any], {"a": [1, {"b": None}]}, {"a": (1, {"b": None})}),
        (Path, "runs", Path("runs")),
        (Literal["a", "b"], "b", "b"),
        (int | str, "many", "many"),
    ],
    ids=str,
)
def test_equal_values_get_one_form(annotation, value, form):
    checked = check_value("it", annotation, value)
    assert (type(checked), checked) == (type(form), form)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, True, "it must be a whole number, got True"),
        (int, 1.5, "it must be a whole number, got 1.5"),
        (int, float("inf"), "it must be a whole number, got inf"),
        (float, float("nan"), "it must be a number, got nan"),
        (float, "0.5", "it must be a number, got '0.5'"),
        (float, 1j, "it must be a number, got 1j"),
        (Share, 1, "it must be a number in [0, 1), got 1"),
        (tuple[Share, Share], (0.5,), "it must be 2 numbers in [0, 1), got (0.5,)"),
        (Annotated[int, Range("(0, inf)")], 0, "it must be a whole number above 0, got 0"),
        (Annotated[int, Range("[2, 9]", "both")], 1, "a whole number from 2 to 9 (both), got 1"),
        (tuple[int, ...], "12", "it must be a list of whole numbers, got '12'"),
        (tuple[int, ...], {1, 2}, "it must be a list of whole numbers, got {1, 2}"),
        (Annotated[tuple[int, ...], InOrder()], (2, 1), "a list of whole numbers, in order, got"),
        (Annotated[tuple[int, ...], Distinct()], (1, 1), "list of whole numbers, each once, got"),
        (Mapping[str, Share], {"a": 2}, "it must be a mapping of names to numbers in [0, 1), got"),
        (Mapping[str, Any], {"a": object}, "it must be a mapping of names to plain data, got"),
        (Literal["cat", "dog"], "cot", "one of cat, dog, got 'cot'; did you mean 'cat'?"),
        (Called, "AutoAttack", "one of aa, cw, got 'AutoAttack'; did you mean 'aa'?"),
        (Attacks, ("PGD",), "names among fgsm, pgd, got ('PGD',); did you mean 'pgd'?"),
        (Attacks, ("pdg",), "names among fgsm, pgd, got ('pdg',); did you mean 'pgd'?"),
        (Device, "tpu", "it must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        (
            StorageUrl,
            "mysql://me:secret@host",
            "sqlite or postgresql, blanks and quotes in it as %20, %22 and %27, got 'mysql://me:***@host'",
        ),
        (StorageUrl, "postgresql://me:my secret@host", "it must be a URL of sqlite or postgresql,"),
        (StorageUrl, "postgresql://h/d?password=a 'b", "got 'postgresql://h/d?password=***'"),
        (Name, "", "it must be a name, got ''"),
        (bool, 1, "it must be true or false, got 1"),
        (int | Name, None, "it must be a whole number or a name, got None"),
        (Path, "", "it must be a path, got ''"),
        pytest.param(
            str, 10**5000, "it must be a text, got a number of thousands of digits", id="huge"
        ),
        (int, "x" * 500, "... (502 letters)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_message_names_what_is_allowed_and_the_value(annotation, value, message):
    with pytest.raises(ValueError, match=r"^it must be ") as error:
        check_value("it", annotation, value)
    assert message in str(error.value)
    assert len(str(error.value)) < 300


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Annotated[Path, Folder()], [".", "new/runs"], ["file", "file/runs", "x" * 5000]),
        (DataRoot, [None, "new"], ["", "/dev/null"]),
        (Annotated[Path, ExistingFile()], ["file"], [".", "missing", "x" * 5000]),
        (Annotated[Path, NewFile()], ["new", "file"], [".", "new/file"]),
        (Annotated[Path, NewFile((".csv",))], ["a.csv"], ["a.CSV", "a.tex", "new/a.csv"]),
    ],
    ids=["folder", "data root", "existing file", "new file", "new csv"],
)
def test_paths_are_looked_up(annotation, good, bad):
    for path in good:
        check_value("it", annotation, path)
    for path in bad:
        with pytest.raises(ValueError, match=r"^it must be an? .*, got"):
            check_value("it", annotation, path)


def test_fields_of_a_dataclass_are_checked_and_given_one_form():
    @dataclass(frozen=True)
    class Options:
        share: Share = 0.5
        steps: tuple[int, ...] = ()

        def __post_init__(self) -> None:
            check_fields(self)

    Options.__annotations__ |= {"share": Share, "steps": tuple[int, ...]}
    assert Options(0, [1]) == Options(0.0, (1,))
    with pytest.raises(ValueError, match=r"share must be a number in \[0, 1\), got 2"):
        Options(2)


def test_passwords_of_urls_are_hidden():
    text = "cannot reach postgresql+psycopg://me:s3:c/r@t@host:5432/db, and sqlite:///a.db"
    assert hide_passwords(text) == text.replace("s3:c/r@t", "***")
    blank = "cannot reach postgresql://me:my \"own' word@host/db"
    assert hide_passwords(blank) == "cannot reach postgresql://me:***@host/db"
    in_query = "postgresql://host/db?password=s3:c/r@t&user=me"
    assert hide_passwords(in_query) == in_query.replace("s3:c/r@t", "***")
