"""A table of runs as it is handed on: the file, its Croissant metadata and its data card.

All numbers come from the records; what only people know is :class:`TableProse`.

Reference:
    ML Commons, "Croissant Format Specification", version 1.0.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nasbench_at.config.allowed_values import Matches, Name, check_fields
from nasbench_at.config.scalars import load_yaml, write_scalar
from nasbench_at.config.suggestions import suggest
from nasbench_at.records.columns import describe_column
from nasbench_at.records.places import metadata_path
from nasbench_at.records.record import Record
from nasbench_at.records.summary import Summary
from nasbench_at.records.text_tables import format_markdown
from nasbench_at.runtime.atomic_files import write_atomically

if TYPE_CHECKING:
    from nasbench_at.records.benchmark import Benchmark

__all__ = ["TableProse", "publish", "read_prose"]

_CROISSANT = "http://mlcommons.org/croissant/1.0"
_KEYS_OF_CROISSANT = (
    *("citeAs", "column", "extract", "field", "fileObject", "fileProperty"),
    *("fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField"),
    *("path", "recordSet", "references", "regex", "repeated", "replace", "separator", "source"),
    *("subField", "transform"),
)
_MEASURED_BY = ("commit", "nasbench_at", "torch", "python", "machine", "cpu", "device", "precision")


@dataclass(frozen=True)
class TableProse:
    """What is said of a published table that no record tells.

    Attributes:
        title: Its name.
        description: What it is, and what for.
        license: Licence of the data, a URL or an SPDX name.
        url: Where it is published.
        creators: Who made it.
        published: The day, ``YYYY-MM-DD``.
        version: Its version, such as ``1.0.0``.
        citation: How to cite it.
        limits: Known limits, a sentence each.
        not_to_conclude: What must not be concluded from it, a sentence each.
    """

    title: Name
    description: Name
    license: Name
    url: Name
    creators: tuple[Name, ...]
    published: Annotated[str, Matches(r"\d{4}-\d\d-\d\d", "a day as YYYY-MM-DD")]
    version: Name = "1.0.0"
    citation: str = ""
    limits: tuple[Name, ...] = ()
    not_to_conclude: tuple[Name, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)


def read_prose(path: str | Path) -> TableProse:
    """Reads the prose from a YAML file with the fields of :class:`TableProse`.

    Raises:
        ValueError: If the file cannot be read, or a field is missing, unknown or not allowed; the
            message names the file and the field.
    """
    try:
        content = load_yaml(Path(path).read_text("utf-8"))
        if not isinstance(content, Mapping):
            raise ValueError("it must hold keys with values")
        known = [item.name for item in fields(TableProse)]
        for key in content:
            if key not in known:
                raise ValueError(f"no field {key!r}; {suggest(str(key), known)}")
        for key in ("title", "description", "license", "url", "creators", "published"):
            if key not in content:
                raise ValueError(f"it lacks the field {key!r}")
        return TableProse(**content)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read prose {str(path)!r}: {error}") from None


def publish(records: Benchmark, table: Path, prose: TableProse) -> None:
    """Writes records to a Parquet file, and beside it Croissant metadata and a data card.

    Of ``digits.parquet`` these are ``digits.croissant.json``, which has the SHA-256 of the table,
    and ``digits.md``. Where the package keeps its tables, the three make one that
    ``Benchmark.load("digits")`` finds.

    Args:
        records: What the table is to hold.
        table: The file, ``.parquet``.
        prose: What no record tells.

    Raises:
        ValueError: If what a run measured cannot be read.
    """
    from pyarrow import parquet

    records.save(table)
    columns = {field.name: str(field.type) for field in parquet.read_schema(table)}
    _write_croissant(table, columns, prose)
    _write_card(table, records, [*columns], prose)


def _write_croissant(table: Path, columns: Mapping[str, str], prose: TableProse) -> None:
    content = table.read_bytes()
    file = table.name
    text = {
        "@context": {
            "@language": "en",
            "@vocab": "https://schema.org/",
            "conformsTo": "dct:conformsTo",
            "cr": "http://mlcommons.org/croissant/",
            "data": {"@id": "cr:data", "@type": "@json"},
            "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
            "dct": "http://purl.org/dc/terms/",
            "rai": "http://mlcommons.org/croissant/RAI/",
            "sc": "https://schema.org/",
            **{key: f"cr:{key}" for key in _KEYS_OF_CROISSANT},
            "examples": {"@id": "cr:examples", "@type": "@json"},
        },
        "@type": "sc:Dataset",
        "conformsTo": _CROISSANT,
        "name": prose.title,
        "description": prose.description,
        "license": prose.license,
        "url": prose.url,
        "creator": [{"@type": "sc:Person", "name": name} for name in prose.creators],
        "datePublished": prose.published,
        "version": prose.version,
        **({"citeAs": prose.citation} if prose.citation else {}),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file,
                "name": file,
                "contentUrl": file,
                "contentSize": f"{len(content)} B",
                "encodingFormat": "application/x-parquet",
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "runs",
                "name": "runs",
                "description": "A row a run: a configuration, trained and evaluated with one seed.",
                "key": {"@id": "runs/run_id"},
                "field": [_describe_field(name, kind, file) for name, kind in columns.items()],
            }
        ],
    }
    write_atomically(metadata_path(table), (json.dumps(text, indent=2) + "\n").encode())


def _describe_field(name: str, kind: str, file: str) -> dict[str, Any]:
    column = describe_column(name)
    kinds = {"int64": "sc:Integer", "double": "sc:Float", "bool": "sc:Boolean"}
    return {
        "@type": "cr:Field",
        "@id": f"runs/{name}",
        "name": name,
        "description": f"{column.description} ({column.unit})",
        "dataType": kinds.get(kind, "sc:Text"),
        "source": {"fileObject": {"@id": file}, "extract": {"column": name}},
    }


def _write_card(
    table: Path, records: Sequence[Record], columns: Sequence[str], prose: TableProse
) -> None:
    summary = Summary.of(records)
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    lines = [
        f"# {prose.title}",
        "",
        prose.description,
        "",
        "## What is in it",
        "",
        format_markdown(("", ""), _describe_content(records, summary)),
        "",
        "## How it was measured",
        "",
        *(
            f"- `{attack}`: {text} ({count} runs)"
            for attack, texts in summary.conditions.items()
            if "/" not in attack  # parts of another
            for text, count in texts.items()
        ),
        "",
        "## How far it ranks networks",
        "",
        "Reliability is the share of the variance of means over seeds that networks account for, "
        "with its 95 % interval; its square root bounds what a predictor can be expected to reach.",
        "",
        *_bullets(
            [str(each) for each in summary.rankings]
            or ["It cannot be said: no two networks were trained alike with two seeds each."]
        ),
        "",
        "## Where it comes from",
        "",
        format_markdown(("", "value", "runs"), _describe_origin(records)),
        "",
        "## Known limits",
        "",
        *_bullets([*_find_limits(records, summary), *prose.limits]),
        "",
        "## What must not be concluded from it",
        "",
        *_bullets(
            [
                "That one of two networks is more robust, from their means: compare their seeds.",
                "That networks rank alike under another attack, radius, data set or size.",
                *prose.not_to_conclude,
            ]
        ),
        "",
        "## Columns",
        "",
        format_markdown(("column", "meaning", "unit or form"), _describe_columns(columns)),
        "",
        "## Licence, version, file",
        "",
        f"{prose.license}. Version {prose.version}, {prose.published}, by "
        f"{', '.join(prose.creators)}; {prose.url}",
        *(["", prose.citation] if prose.citation else []),
        "",
        f"`{table.name}`, {table.stat().st_size:,} bytes, SHA-256 `{digest}`; metadata: "
        f"`{metadata_path(table).name}`.",
    ]
    write_atomically(table.with_suffix(".md"), ("\n".join(lines) + "\n").encode())


def _describe_content(records: Sequence[Record], summary: Summary) -> Iterator[tuple[str, str]]:
    yield "runs (rows)", f"{summary.num_runs:,}"
    yield "networks", f"{summary.num_networks:,}; isomorphic ones are one"
    yield "configurations", f"{len(summary.groups):,}"
    sizes = sorted(len(group) for group in summary.groups)
    yield "seeds of a configuration", f"{sizes[0]} to {sizes[-1]}" if sizes else "none"
    for key in ("data", "method", "epochs", "eps", "select_on"):
        values = Counter(_value(record.config.get(key)) for record in records)
        yield key, ", ".join(f"{value} ({count})" for value, count in values.most_common())
    sets = {_value(record.config.get("blocks")) for record in records}
    yield "block sets", f"{len(sets):,}"
    yield "training", f"{math.fsum(map(_training_hours, records)):,.1f} processor-hours"
    hours = math.fsum(map(_evaluation_hours, records))
    yield "evaluation", f"{hours:,.1f} processor-hours (both: wall clock by threads and ranks)"


def _training_hours(record: Record) -> float:
    seconds: float = record.provenance.get("train_seconds", 0.0)
    return seconds * _num_threads(record.provenance) / 3600


def _evaluation_hours(record: Record) -> float:
    return math.fsum(
        row.seconds * _num_threads(each.provenance) / 3600
        for each in record.evaluations
        for row in each.results
        if "/" not in row.attack  # parts are in the time of the whole
    )


def _num_threads(provenance: Mapping[str, Any]) -> int:
    return int(provenance.get("num_threads") or 1) * int(provenance.get("num_ranks") or 1)


def _describe_origin(records: Sequence[Record]) -> Iterator[tuple[str, ...]]:
    for key in _MEASURED_BY:
        values = Counter(_value(record.provenance.get(key)) for record in records)
        for value, count in values.most_common():
            yield key, value, f"{count:,}"


def _find_limits(records: Sequence[Record], summary: Summary) -> Iterator[str]:
    """Says what the records themselves tell of what they cannot."""
    missing = sum(not record.was_evaluated_by("aa") for record in records)
    if missing:
        yield (
            f"{missing:,} of {len(records):,} runs were not evaluated by AutoAttack: accuracy "
            "under weaker attacks bounds their robustness from above."
        )
    single = sum(len(group) < 2 for group in summary.groups)
    if single:
        yield f"{single:,} of {len(summary.groups):,} configurations have one seed alone."
    failed = sum(any(not c.passed for e in r.evaluations for c in e.checks) for r in records)
    if failed:
        yield f"Of {failed:,} runs a trust check failed; their evaluations say which."
    yield "The weights of the networks are not in it."


def _describe_columns(columns: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for name in columns:
        column = describe_column(name)
        yield f"`{name}`", column.description, column.unit


def _value(value: Any) -> str:
    return "unknown" if value is None else write_scalar(value)


def _bullets(texts: Sequence[str]) -> list[str]:
    return [f"- {text}" for text in texts]
