from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pyarrow
import pytest
from pyarrow import parquet

from nasbench_at.records import Benchmark, Record, describe_column
from nasbench_at.records.columns import COLUMNS
from nasbench_at.records.parquet import TABLE_VERSION
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.records.test_records import make_record


@pytest.fixture
def records() -> list[Record]:
    """One not evaluated, one of other keys, and values of one key that have two types."""
    mixed = make_record("b", method="trades", pgd=0.75)
    mixed = replace(mixed, config={**mixed.config, "seed": 1, "beta": 6.0, "tau": [1, 2]})
    other = replace(make_record("c", pgd=0.5), config={"model": "mine:net", "tau": "none"})
    return [make_record("a"), mixed, other]


@pytest.fixture
def table(records, tmp_path):
    Benchmark(records).save(tmp_path / "all.parquet")
    return tmp_path / "all.parquet"


def rewrite(path, change):
    """Writes a file anew, its table changed, the metadata of the footer kept."""
    file = parquet.ParquetFile(path)
    changed = change(file.read())
    with parquet.ParquetWriter(path, changed.schema) as writer:
        writer.write_table(changed)
        writer.add_key_value_metadata(
            {key: value for key, value in file.metadata.metadata.items() if b"nasbench" in key}
        )


def load_or_refuse(path) -> list[Record] | str:
    try:
        return list(Benchmark.load(path))
    except ValueError as error:
        return str(error)


def test_records_round_trip(records, table):
    assert list(Benchmark.load(table)) == records


def test_columns_can_be_queried_without_this_package(records, table):
    columns = parquet.read_table(table).to_pydict()
    assert columns["method"] == ["at", "trades", None]
    assert columns["beta"] == [None, 6.0, None]
    assert columns["pgd"] == [None, 0.75, 0.5]
    assert columns["tau"] == [None, "[1, 2]", '"none"']
    assert json.loads(columns["blocks"][0]) == ["residual", "dense"]
    assert json.loads(columns["config"][1]) == records[1].config
    assert json.loads(columns["evaluations"][0]) == []


def test_each_column_says_what_it_means_and_its_unit(table):
    schema = parquet.read_schema(table)
    for name in schema.names:
        metadata = schema.field(name).metadata
        assert metadata[b"description"].decode() == describe_column(name).description
        assert metadata[b"unit"].decode() == describe_column(name).unit
        assert min(map(len, metadata.values())) > 2
    assert set(COLUMNS) - {"contents", "weights_hash"} <= set(schema.names)
    assert schema.field("eps").metadata[b"unit"] == b"a number of at least 0"
    assert b"L\xe2\x88\x9e in pixel scale" in schema.field("eps").metadata[b"description"]
    assert b"without its attention" in schema.field("num_params").metadata[b"description"]
    assert b"under PGD" in schema.field("pgd").metadata[b"description"]
    assert b"Radius of PGD" in schema.field("pgd_eps").metadata[b"description"]


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("corrupt-blur/3", "Share of test images right under corruption by blur of severity 3"),
        ("corrupt-blur", "Share of test images right under corruption by blur"),
        ("smooth_eps", "Radius of any attack within the radius, by a certificate of the smoothed"),
    ],
)
def test_columns_of_what_is_no_attack(name, description):
    assert describe_column(name).description.startswith(description)


def test_reading_leaves_no_thread_behind(table):
    code = (
        "import os, sys; from nasbench_at.records import Benchmark; Benchmark.load(sys.argv[1])\n"
        "tasks = [f'/proc/self/task/{task}/comm' for task in os.listdir('/proc/self/task')]\n"
        "print(sum('jemalloc' not in open(name).read() for name in tasks))"
    )
    words = [sys.executable, "-c", code, str(table)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_nothing_round_trips(tmp_path):
    Benchmark([]).save(tmp_path / "all.parquet")
    assert len(Benchmark.load(tmp_path / "all.parquet")) == 0


def test_floats_survive_exactly(tmp_path):
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, math.nextafter(1, 2)]
    records = [
        replace(make_record(str(i)), config={**make_record().config, "lr": value})
        for i, value in enumerate(values)
    ]
    Benchmark(records).save(tmp_path / "all.parquet")
    found = Benchmark.load(tmp_path / "all.parquet")
    assert [record.config["lr"] for record in found] == values
    assert parquet.read_table(tmp_path / "all.parquet")["lr"].to_pylist() == values


@pytest.mark.parametrize("content", [b"", b"PAR1", b"run_id,config\n"])
def test_file_that_is_no_parquet_is_named(content, tmp_path):
    path = tmp_path / "all.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read records '.*all\.parquet'") as error:
        Benchmark.load(path)
    one_line(error)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read records '.*none\.parquet': .*No such file"):
        Benchmark.load(tmp_path / "none.parquet")


def test_other_tables_are_refused(tmp_path):
    parquet.write_table(pyarrow.table({"run_id": ["a"]}), tmp_path / "all.parquet")
    with pytest.raises(ValueError, match=r"'.*all\.parquet': it is no table of runs") as error:
        Benchmark.load(tmp_path / "all.parquet")
    one_line(error)


def test_newer_table_is_refused(table):
    content = table.read_bytes()
    old = b"nasbench_at.version\x18\x01" + str(TABLE_VERSION).encode()
    assert content.count(old) == 1  # as the footer has it: a text of one letter
    table.write_bytes(content.replace(old, old[:-1] + b"9"))
    with pytest.raises(
        ValueError, match=r"'.*all\.parquet': it has version 9 of the table, this .* reads 1;"
    ) as error:
        Benchmark.load(table)
    one_line(error)


def test_edited_table_is_refused(table):
    def double(content):
        column = pyarrow.array([2 * count for count in content["num_params"].to_pylist()])
        return content.set_column(
            content.column_names.index("num_params"), content.schema.field("num_params"), column
        )

    rewrite(table, double)
    with pytest.raises(ValueError, match=r"'.*all\.parquet': its content is not what was") as error:
        Benchmark.load(table)
    one_line(error)


def test_every_cut_is_refused(table):
    content = table.read_bytes()
    for size in range(0, len(content), max(1, len(content) // 97)):
        table.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"cannot read records '.*all\.parquet'") as error:
            Benchmark.load(table)
        one_line(error)


def test_flipped_bits_are_refused_or_change_nothing(records, table):
    content = table.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    generator = random.Random(0)
    ends = [*pairwise((4, footer, len(content)))]
    for start, end in ends:
        for position in generator.sample(range(start, end), 120):
            flipped = bytearray(content)
            flipped[position] ^= 1 << generator.randrange(8)
            table.write_bytes(flipped)
            found = load_or_refuse(table)
            if isinstance(found, str):
                assert "all.parquet" in found
                assert "\n" not in found
            else:
                assert found == records
                assert start == footer  # such as the description of a column
