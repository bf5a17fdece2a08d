from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from pyarrow import parquet

from nasbench_at.records import Benchmark
from nasbench_at.records.published import publish, read_prose
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.records.tables import PROSE, write_runs

YAML = """
title: Tiny
description: Made up | for tests.
license: https://creativecommons.org/licenses/by/4.0/
url: https://example.org/tiny
creators: [A. Person, B. Person]
published: "2026-01-31"
limits: [The images are noise.]
not_to_conclude: [That any of it is true.]
"""


@pytest.fixture
def table(tmp_path):
    write_runs(tmp_path / "runs")
    publish(Benchmark.load(tmp_path / "runs"), tmp_path / "tiny.parquet", PROSE)
    return tmp_path / "tiny.parquet"


def test_croissant_has_what_the_format_asks_for(table):
    content = json.loads(table.with_name("tiny.croissant.json").read_text())
    assert content["@type"] == "sc:Dataset"
    assert content["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert content["@context"]["@vocab"] == "https://schema.org/"
    assert content["@context"]["recordSet"] == "cr:recordSet"
    assert content["name"] == "Tiny"
    assert [person["name"] for person in content["creator"]] == ["A. Person", "B. Person"]
    assert content["datePublished"] == "2026-01-31"
    for key in ("description", "license", "url", "version"):
        assert content[key] == getattr(PROSE, key)
    (file,) = content["distribution"]
    assert file["@type"] == "cr:FileObject"
    assert file["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert file["contentSize"] == f"{len(table.read_bytes())} B"
    assert file["contentUrl"] == file["@id"] == "tiny.parquet"
    assert file["encodingFormat"] == "application/x-parquet"


def test_croissant_describes_each_column_of_the_file(table):
    content = json.loads(table.with_name("tiny.croissant.json").read_text())
    (rows,) = content["recordSet"]
    assert rows["@type"] == "cr:RecordSet"
    assert rows["key"] == {"@id": "runs/run_id"}
    schema = parquet.read_schema(table)
    assert [field["source"]["extract"]["column"] for field in rows["field"]] == schema.names
    kinds = {"int64": "sc:Integer", "double": "sc:Float", "bool": "sc:Boolean", "string": "sc:Text"}
    for field in rows["field"]:
        assert field["@type"] == "cr:Field"
        assert field["@id"] == f"runs/{field['name']}"
        assert field["source"]["fileObject"] == {"@id": "tiny.parquet"}
        found = str(schema.field(field["name"]).type)
        assert field["dataType"] == kinds.get(found, "sc:Text")
        assert len(field["description"]) > 10
    dtypes = {field["name"]: field["dataType"] for field in rows["field"]}
    assert (dtypes["pgd"], dtypes["seed"]) == ("sc:Float", "sc:Integer")


def test_card_is_made_of_the_records(table):
    card = table.with_name("tiny.md").read_text()
    for text in (
        "# Tiny\n",
        "| runs (rows) | 8 |",
        "| networks | 2; isomorphic ones are one |",
        "| seeds of a configuration | 2 to 3 |",
        "| method | at (6), trades (2) |",
        "| training | 8.0 processor-hours |",  # 8 runs of half an hour on two threads
        "- `pgd`: digits/test, L∞ eps 0.1, 20 steps, uniform start, 20 images (8 runs)",
        "ranking of 2 networks by pgd over 3 seeds",
        "| commit | abc | 8 |",
        "8 of 8 runs were not evaluated by AutoAttack",
        "- The images are noise.",
        "- That any of it is true.",
        "https://creativecommons.org/licenses/by/4.0/. Version 1.0.0, 2026-01-31, by A. Person, B.",
        hashlib.sha256(table.read_bytes()).hexdigest(),
    ):
        assert text in card
    columns = parquet.read_schema(table).names
    assert all(f"\n| `{name}` | " in card for name in columns)


def test_prose_is_read_from_yaml(tmp_path):
    (tmp_path / "card.yaml").write_text(YAML)
    assert read_prose(tmp_path / "card.yaml") == PROSE
    assert replace(PROSE, creators=["A. Person", "B. Person"]) == PROSE


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Tiny", "", "it lacks the field 'title'"),
        ("title:", "tilte:", "no field 'tilte'; did you mean 'title'"),
        ("2026-01-31", "today", "published must be a day as YYYY-MM-DD, got 'today'"),
        ("[A. Person, B. Person]", "5", "creators must be a list of names, got 5"),
        (YAML, "5", "it must hold keys with values"),
        ("title: Tiny", "title: [", "cannot read prose"),
    ],
)
def test_bad_prose_is_one_line(old, new, message, tmp_path):
    (tmp_path / "card.yaml").write_text(YAML.replace(old, new))
    with pytest.raises(ValueError, match=message) as error:
        read_prose(tmp_path / "card.yaml")
    assert "card.yaml" in one_line(error)
