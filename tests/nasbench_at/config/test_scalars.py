from __future__ import annotations

import math
import string
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nasbench_at.config.scalars import dump_yaml, load_yaml, read_scalar, write_scalar
from tests.nasbench_at.conftest import one_line

# What YAML 1.2's core schema says of a word.
WORDS: list[tuple[str, Any]] = [
    ("5e-4", 5e-4),
    ("5E4", 5e4),
    ("-1.", -1.0),
    (".5", 0.5),
    ("6", 6),
    ("-6", -6),
    ("010", 10),
    ("0x1F", 31),
    ("0o17", 15),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("true", True),
    ("False", False),
    ("null", None),
    ("~", None),
    ("", None),
    ("off", "off"),
    ("on", "on"),
    ("yes", "yes"),
    ("No", "No"),
    ("inf", "inf"),
    ("nan", "nan"),
    ("1_000", "1_000"),
    ("12:30", "12:30"),
    ("2024-01-01", "2024-01-01"),
    ("1e", "1e"),
    ("fp16", "fp16"),
    ("'5'", "5"),
    ("[1, 5e-4, off, [true]]", [1, 5e-4, "off", [True]]),
    ("{a: 1, b: no}", {"a": 1, "b": "no"}),
]


@pytest.mark.parametrize(("text", "value"), WORDS)
def test_flags_and_files_read_a_word_by_the_same_rules(text, value):
    read = read_scalar(text)
    assert (type(read), read) == (type(value), value)
    in_file = load_yaml(f"key: {text}")["key"]
    assert (type(in_file), in_file) == (type(value), value)


@pytest.mark.parametrize("text", ["#1", "a #b", "a: b", "- 1", "*x", "&x 1", "!!int 5", "a\nb"])
def test_a_word_is_no_yaml_document(text):
    assert read_scalar(text) == text


def test_nan_is_a_number():
    assert math.isnan(read_scalar(".nan"))


@pytest.mark.parametrize("text", ["9" * 5000, "1e999"])
def test_numbers_beyond_all_bounds_are_infinite(text):
    assert read_scalar(text) == math.inf


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(string.printable)
    | st.sampled_from([text for text, _ in WORDS]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(string.ascii_letters), inner),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_written_is_read_again(value):
    for restored in (load_yaml(dump_yaml(value)), read_scalar(write_scalar(value))):
        assert (type(restored), restored) == (type(value), value)


@pytest.mark.parametrize("text", ["off", "yes", "2024-01-01", "12:30", "1_000", "5e-4", "0o7"])
def test_texts_that_any_reader_of_yaml_would_misread_are_quoted(text):
    assert yaml.safe_load(dump_yaml({"key": text})) == {"key": text}
    assert f"'{text}'" in dump_yaml({"key": text})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eps: [", "while parsing a flow"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("lr: 1\nlr: 2", "key 'lr' is there twice"),
        ("[" * 100_000, "nest"),
    ],
    ids=["open", "code", "twice", "deep"],
)
def test_what_is_no_plain_data_gives_one_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        load_yaml(text)
    one_line(error)


def test_a_list_that_does_not_end_is_no_word():
    with pytest.raises(ValueError, match="flow"):
        read_scalar("[1, 2")
