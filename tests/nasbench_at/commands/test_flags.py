from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from nasbench_at.commands.flags import (
    fill_in,
    flags_of,
    parameter_flags,
    parse_flags,
    read_flags,
)
from nasbench_at.commands.input_errors import BadInputError
from nasbench_at.config.allowed_values import FromFile, InOrder, InsteadOf, Name, Positional, Range
from tests.nasbench_at.conftest import one_line

Positive = Annotated[int, Range("[1, inf)")]


@dataclass(frozen=True)
class Flags:
    """Flags of every type.

    Attributes:
        paths: Where to look.
        number: A number.
        share: A share.
        steps: Some steps.
        pair: Two numbers.
        names: Names, or rows of names.
        rows: Rows of numbers.
        options: Options.
        nested: Options by name.
        mode: A mode.
        count: A count or a percentage.
        on: A switch.
        maybe: A switch that may be unset.
        others: Numbers instead of one.
        hidden: No flag.
    """

    paths: Positional[tuple[Path, ...]] = (Path("runs"),)
    number: Positive | None = 3
    share: float = 0.5
    steps: Annotated[tuple[Positive, ...], InOrder()] | None = None
    pair: tuple[float, float] = (0.0, 1.0)
    names: tuple[Name, ...] | tuple[tuple[Name, ...], ...] = ()
    rows: tuple[tuple[float, ...], ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    nested: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mode: Literal["fast", "slow"] = "fast"
    count: Positive | str | None = None
    on: bool = False
    maybe: bool | None = None
    others: Annotated[tuple[int, ...], InsteadOf("number")] = ()
    hidden: Mapping[str, str] = field(default_factory=dict, metadata={"is_flag": False})


def parse(words: str) -> Flags:
    return parse_flags(Flags, words.split(), "test", "Test.")


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("", "number", 3),
        ("a b", "paths", (Path("a"), Path("b"))),
        ("--number 7", "number", 7),
        ("--number 7.0", "number", 7),
        ("--number None", "number", None),
        ("--share 5e-1", "share", 0.5),
        ("--share -1", "share", -1.0),
        ("--share -1e-3", "share", -0.001),
        ("--share=.5", "share", 0.5),
        ("--steps 1 2", "steps", (1, 2)),
        ("--steps", "steps", ()),
        ("--steps null", "steps", None),
        ("--pair 1 2", "pair", (1.0, 2.0)),
        ("--names a b", "names", ("a", "b")),
        ("--names a,b c,", "names", (("a", "b"), ("c",))),
        ("--names 1 off", "names", ("1", "off")),
        ("--rows 1 0.5,0.5", "rows", ((1.0,), (0.5, 0.5))),
        ("--options a=5e-4 b=off c=[1,2] d=", "options", {"a": 5e-4, "b": "off", "c": (1, 2)}),
        ("--nested a.b=1 a.c=true", "nested", {"a": {"b": 1, "c": True}}),
        ("--mode slow", "mode", "slow"),
        ("--count 5", "count", 5),
        ("--count 5%", "count", "5%"),
        ("--on", "on", True),
        ("--no-on", "on", False),
        ("--maybe true", "maybe", True),
        ("--maybe False", "maybe", False),
        ("--others 1 2", "others", (1, 2)),
    ],
)
def test_words_are_read_as_their_field_s_type(words, name, value):
    expected = {**value, "d": None} if "d=" in words else value
    assert getattr(parse(words), name) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--number x", "number must be a whole number of at least 1, got 'x'"),
        ("--number true", "number must be a whole number of at least 1, got 'true'"),
        ("--number 1.5", "number must be a whole number of at least 1, got 1.5"),
        ("--share 1e400", "share must be a number, got '1e400'"),
        ("--share -inf", "share must be a number, got '-inf'"),
        ("--share .nan", "share must be a number, got '.nan'"),
        ("--steps 2 1", "steps must be a list of whole numbers of at least 1, in order, got"),
        ("--options a", "options must be written NAME=VALUE, got 'a'"),
        ("--nested a=1", "nested must be written NAME.OPTION=VALUE, got 'a=1'"),
        ("--options a=[", "options cannot be read from 'a=[': while parsing"),
        ("--mode slo", "mode must be one of fast, slow, got 'slo'; did you mean 'slow'?"),
        ("--maybe yes", "maybe must be true or false, got 'yes'"),
        ("--others 1 --number 2", "others does not go with number, got 1 and 2"),
        ("--numbr 2", "unknown flag '--numbr'; did you mean '--number'"),
        ("--hidden a=b", "unknown flag '--hidden'"),
        ("--numb 2", "unknown flag '--numb'; did you mean '--number'"),
        ("--on=true", "a switch takes no value: argument --on/--no-on: "),
        ("--pair 1", "Missing value for argument '--pair'. Expected 2 values"),
    ],
)
def test_word_that_cannot_be_read_is_named_with_its_field(words, message):
    with pytest.raises(BadInputError, match=re.escape(message)) as error:
        parse(words)
    one_line(error)


def test_help_shows_how_each_flag_is_written(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse("--help")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for flag in (
        "--number INT A number. (default: 3)",
        "--pair FLOAT FLOAT",
        "--names NAME ... | NAME,... ...",
        "--rows FLOAT,... ...",
        "--options NAME=VALUE ...",
        "--nested NAME.OPTION=VALUE ...",
        "--mode {fast,slow}",
        "--count INT | NAME",
        "--on, --no-on",
        "--maybe {true,false}",
        "[PATH ...]",
    ):
        assert flag in text
    assert "hidden" not in text


@dataclass(frozen=True)
class Inner:
    """A part.

    Attributes:
        size: Its size.
        form: Its form.
    """

    size: int = 1
    form: str = "round"


def read_inner(path: str) -> Inner:
    return Inner(int(path), "read")


@dataclass(frozen=True)
class Outer:
    """Flags around a part.

    Attributes:
        part: A part: this file, changed by flags.
        out: Where to write.
    """

    part: Annotated[Inner, FromFile("a list", read_inner)]
    out: Path = Path("out")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("", Inner()),
        ("--out there --size 2", Inner(2)),
        ("--part 7", Inner(7, "read")),
        ("--size 2 --part 7", Inner(2, "read")),
    ],
)
def test_flags_of_a_part_change_what_a_file_holds(words, part):
    assert parse_flags(Outer, words.split(), "test", None).part == part


def test_flags_change_a_base_that_no_file_replaces():
    flags = [*flags_of(Outer)]
    given = read_flags(flags, ["--size", "2"], "test", None)
    assert given == {"size": 2}
    assert fill_in(Outer, given, part=Inner(5, "base")).part == Inner(2, "base")
    given = read_flags(flags, ["--part", "7"], "test", None)
    assert fill_in(Outer, given, part=Inner(5, "base")).part == Inner(7, "read")


def test_a_file_without_its_name_is_asked_for():
    with pytest.raises(BadInputError, match=r"^--part needs the path of a list$"):
        parse_flags(Outer, ["--part"], "test", None)


def test_the_help_of_a_part_is_a_group(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse_flags(Outer, ["--help"], "test", None)
    assert "\nA part:\n  --size INT" in capsys.readouterr().out


def test_parameters_of_a_function_are_flags():
    def draw(base: Inner, *, times: Positive = 3, **_: Any) -> None:
        """Draws.

        Args:
            base: What.
            times: How often.
        """

    (flag,) = parameter_flags(draw, ["times"], "own")
    assert (flag.word, flag.default, flag.text, flag.group) == ("--times", 3, "How often.", "own")
    with pytest.raises(ValueError, match="times must be a whole number of at least 1, got 0"):
        read_flags([flag], ["--times", "0"], "test", None)
