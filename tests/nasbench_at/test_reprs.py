"""What a terminal and a notebook show of the public objects."""

from __future__ import annotations

import html

import pytest

import nasbench_at
import studies
from nasbench_at import Architecture, AttentionSpec, Benchmark, RunConfig
from nasbench_at.config import resolve
from tests.nasbench_at.records.test_records import make_record


@pytest.mark.parametrize("package", [nasbench_at, studies], ids=lambda package: package.__name__)
def test_names_that_are_imported_on_first_use_are_listed_before(package):
    listed = dir(package)
    assert set(package.__all__) <= set(listed)
    assert listed == sorted(set(listed))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (RunConfig(), "RunConfig()"),
        (RunConfig(epochs=3, blocks=("dense",)), "RunConfig(blocks=('dense',), epochs=3)"),
        (Architecture(), "Architecture()"),
        (
            Architecture(blocks=("residual", "dense"), num_modules=3),
            "Architecture(blocks=('residual', 'dense'), num_modules=3)",
        ),
        (
            Architecture(blocks=(("dense",), ("dense",), ("residual",)), num_modules=3),
            "Architecture(blocks=(('dense',), ('dense',), ('residual',)), num_modules=3)",
        ),
        (Architecture(attention=AttentionSpec(mode="fixed", init="equal")), None),
    ],
)
def test_repr_makes_an_equal_object(value, text):
    assert text is None or repr(value) == text
    assert eval(repr(value)) == value


def test_resolved_config_shows_what_is_decided():
    text = repr(resolve(RunConfig(data="digits", epochs=3)))
    assert text.startswith("ResolvedConfig(")
    assert "epochs=3" in text
    assert "lr=" in text  # which the recipe has filled in
    assert "ema_decay" not in text


def test_records_are_tables():
    bare, evaluated = make_record(), make_record(pgd=0.4)
    assert str(bare) == f"{bare.run_id}: {bare.num_params:,} parameters"
    lines = str(evaluated).splitlines()
    assert lines[0] == str(bare)
    assert [line.split()[0] for line in lines[1:]] == ["attack", "-" * 7, "natural", "pgd"]
    assert html.escape(lines[-1]) in evaluated._repr_html_()


def test_benchmark_says_how_many():
    record = make_record()
    runs = Benchmark([record])
    assert repr(runs) == "<Benchmark, runs: 1, networks: 1>"
    shown = runs._repr_html_()
    assert html.escape(repr(runs)) in shown
    assert record.run_id in shown
