"""The tables that come with the package: whole, described, and made again row by row."""

from __future__ import annotations

import csv
import hashlib
import json
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from analysis.claims import judge_paper
from analysis.run_entries import collect_entries
from analysis.study_figures import compute_importance
from nasbench_at import Benchmark, RunConfig, evaluate_run, load_model, train
from nasbench_at.data.datasets import load_data
from nasbench_at.evaluation.robustness import measure_robustness
from nasbench_at.records.places import (
    SHIPPED,
    metadata_path,
    shipped_networks,
    shipped_tables,
)
from nasbench_at.runtime.provenance import collect_provenance

EVERY_TABLE = pytest.mark.parametrize("name", shipped_tables())


def digest_of(name):
    return hashlib.sha256((SHIPPED / f"{name}.parquet").read_bytes()).hexdigest()


@EVERY_TABLE
def test_every_row_has_all_that_the_table_promises(name):
    table = Benchmark.load(name)
    assert len(table) > 100
    for record in table:
        assert {"natural", "fgsm", "pgd", "cw"} <= set(record.results), record.run_id
        assert len(table.metrics_of(record)) == record.config["epochs"]
        assert table.outcomes_of(record).sum() == record.results["pgd"].num_correct
    commits = {record.provenance["commit"] for record in table}
    assert not [commit for commit in commits if commit.endswith("-dirty")]


@EVERY_TABLE
def test_metadata_and_card_are_those_of_the_file(name):
    metadata = json.loads(metadata_path(SHIPPED / f"{name}.parquet").read_text())
    assert metadata["distribution"][0]["sha256"] == digest_of(name)
    card = (SHIPPED / f"{name}.md").read_text()
    assert digest_of(name) in card
    assert f"| runs (rows) | {len(Benchmark.load(name)):,} |" in card


@EVERY_TABLE
def test_all_tables_are_small(name):
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000


@pytest.mark.slow
@pytest.mark.timeout(600)
@EVERY_TABLE
def test_two_rows_at_random_are_trained_again_to_the_same_bits(name, tmp_path):
    table = Benchmark.load(name)
    here = collect_provenance(torch.device("cpu"))
    rows = np.random.default_rng(int(digest_of(name)[:8], 16)).choice(len(table), 2, replace=False)
    for row in map(int, rows):
        record = table[row]
        for key in ("torch", "cpu", "device"):
            if record.provenance[key] != here[key]:
                pytest.skip(f"bits depend on {key}: {record.provenance[key]}, here {here[key]}")
        torch.set_num_threads(record.provenance["num_threads"])
        again = train(RunConfig(**record.config), runs_dir=tmp_path, device="cpu")
        assert again.run_id == record.run_id
        evaluate_run(tmp_path / again.run_id, ("fgsm", "pgd", "cw"), device="cpu")
        found = Benchmark.load(tmp_path)
        (again,) = [each for each in found if each.run_id == record.run_id]
        assert found.metrics_of(again) == table.metrics_of(record)
        for attack in ("natural", "fgsm", "pgd", "cw"):
            np.testing.assert_array_equal(
                found.outcomes_of(again, attack), table.outcomes_of(record, attack)
            )


ROOT = Path(__file__).parents[1]
ABLATIONS = {"Fig. 4a": 1, "Fig. 4b": 4, "Fig. 5": 4, "Tab. 6": 4}
"""How many comparisons the table of ablations makes of which claim."""


def test_lock_names_what_the_tables_were_measured_with():
    lines = (ROOT / "docs/records/digits_table.lock.txt").read_text("utf-8").splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    locked = {canonicalize_name(name): version for name, version in pins}
    measured_with = {record.provenance["torch"] for record in Benchmark.load("digits")}
    assert {version.partition("+")[0] for version in measured_with} == {locked["torch"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for needed in map(Requirement, project["dependencies"]):
        assert locked[canonicalize_name(needed.name)] in needed.specifier


@pytest.mark.parametrize("name", shipped_networks())
def test_shipped_network_is_that_of_its_row(name):
    data, _, blocks = name.partition("/")
    table = Benchmark.load(data)
    card = (SHIPPED / f"{name}.md").read_text("utf-8")
    (record,) = [record for record in table if record.run_id == card.splitlines()[0][2:]]
    assert set(record.config["blocks"]) == set(blocks.split("+"))
    runs = table.query(blocks=tuple(record.config["blocks"]), method="at")
    selected = [run.training["selected"]["validation_robust"] for run in runs]
    assert record.training["selected"]["validation_robust"] == max(selected)

    model, test = load_model(name), load_data(data).test
    report = measure_robustness(model, test, {})
    found = report.outcomes["natural"].numpy()
    assert (found != table.outcomes_of(record, "natural")).sum() <= 1  # another CPU may round


@pytest.mark.parametrize("document", ["README.md", "docs/digits_table.md"])
def test_documents_say_what_the_table_of_digits_says(document):
    text = " ".join((ROOT / document).read_text("utf-8").replace("\N{MINUS SIGN}", "-").split())
    table = Benchmark.load("digits")
    (ranking,) = [r for r in table.summary().rankings if r.attack == "pgd"]
    low, high = ranking.reliability.interval
    assert f"{ranking.reliability.value:.2f} [{low:.2f}, {high:.2f}]" in text
    judged = 0
    for claim in judge_paper(collect_entries(["digits"]), "pgd"):
        if claim.effect is None or claim.verdict == "cannot be told":
            continue
        scale = 100 if "points" in claim.unit else 1
        value, (low, high) = claim.effect.value, claim.effect.interval
        numbers = f"{scale * value:+.2f} [{scale * low:+.2f}, {scale * high:+.2f}]"
        assert numbers in text, claim.statement
        assert claim.verdict in text
        judged += 1
    assert judged > 0


@pytest.mark.parametrize("document", ["README.md", "docs/digits_table.md"])
def test_documents_say_whether_weights_tell_which_blocks_matter(document):
    text = " ".join((ROOT / document).read_text("utf-8").replace("\N{MINUS SIGN}", "-").split())
    entries = collect_entries(["digits"])
    weights = {entry.run_id: entry.attention[1] for entry in entries if entry.attention}
    (found,) = compute_importance(Benchmark.load("digits"), "pgd", weights=weights)
    low, high = found.interval
    assert f"Shapley values is {found.correlation:.2f} [{low:.2f}, {high:.2f}]" in text


@pytest.mark.parametrize(
    ("document", "sources"),
    [("README.md", {"Fig. 4a", "Fig. 4b"}), ("docs/digits_table.md", {*ABLATIONS})],
)
def test_documents_say_what_the_ablations_say(document, sources):
    text = " ".join((ROOT / document).read_text("utf-8").replace("\N{MINUS SIGN}", "-").split())
    judged = judge_paper(collect_entries(["digits", "digits_ablations"]), "pgd")
    claims = [claim for claim in judged if claim.source in sources]
    assert Counter(claim.source for claim in claims).items() >= {
        (source, ABLATIONS[source]) for source in sources
    }
    for claim in claims:
        value, (low, high) = claim.effect.value, claim.effect.interval
        assert f"{100 * value:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]" in text, claim.comparison


def test_documents_say_what_was_replayed():
    text = " ".join((ROOT / "docs/digits_table.md").read_text("utf-8").split())
    rows = csv.DictReader((ROOT / "docs/records/digits_regret.csv").read_text().splitlines())
    tenth = {
        (row["sampler"], row["pruner"]): {
            k: float(row[k]) for k in ("regret", "low", "high", "best")
        }
        for row in rows
        if row["share"] == "0.1"
    }
    regrets = [100 * row["regret"] for row in tenth.values()]
    assert f"{min(regrets):.1f} to {max(regrets):.1f} points" in text
    tpe = tenth["tpe", "hyperband"]
    shown = " ".join(f"{100 * tpe[k]:.1f}" for k in ("regret", "low", "high"))
    regret, low, high = shown.split()
    assert f"TPE with Hyperband is {regret} [{low}, {high}] points" in text
    assert f"probability of {100 * tpe['best']:.0f} %" in text
