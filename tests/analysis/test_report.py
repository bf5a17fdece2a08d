from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from analysis.landscape import Landscape
from analysis.report import best_theories, write_report
from analysis.report.attention import find_graph
from analysis.report.groups import rank_by_robustness
from analysis.report.landscapes import describe_landscape, landscape_to_json
from analysis.report.measuring import can_be_measured
from analysis.run_entries import RunEntry, collect_entries, name_anchors
from nasbench_at import evaluate_run, train
from nasbench_at.config import RunConfig, dump_config, resolve
from nasbench_at.records import Benchmark, Record, TrustCheck, read_record
from nasbench_at.records.run_folders import StudyRuns
from tests.analysis.synthetic import DEPTH, make_metrics, make_run, write_run
from tests.nasbench_at.conftest import tiny_config

VOID = {"meta", "link", "img", "br", "input"}
EVIL = '<img src=x onerror="alert(1)">&\'</script><script>alert(2)</script>'
WEIGHTS = [[0.4, 0.3, 0.2, 0.1], [0.25] * 4, [0.7, 0.1, 0.1, 0.1]]
AXIS = np.array([-1.0, 0.0, 1.0])
BOWL = Landscape("a bowl", AXIS, AXIS, np.array([[2, 1, 2], [1, 0.25, 1], [2, 1, 9]]), {})


class Page(HTMLParser):
    """A page as elements and text; that every element is closed is checked on the way."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text("utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self, name):
        """What the browser lays out: of a table by its name, or ``details``."""
        scripts = (a for tag, a in self.elements if tag == "script")
        texts = (data for tag, data in self.texts if tag == "script")
        for attributes, text in zip(scripts, texts, strict=True):
            if name in (attributes.get("data-for"), attributes.get("id")):
                return json.loads(text)
        raise KeyError(name)

    @property
    def anchors(self):
        return set(self.data("details")["runs"])

    @property
    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    @property
    def text(self):
        shown = (data for tag, data in self.texts if tag not in ("script", "style"))
        return " ".join(" ".join(shown).split())

    @property
    def sections(self):
        return [attributes["id"] for attributes in self.all("section")]


def write_page(tmp_path, records, *, metrics=(), **options):
    for record in records:
        write_run(tmp_path / "runs", record, metrics)
    return Page(write_report(tmp_path / "runs", tmp_path / "report.html", **options))


def study_runs():
    """Runs for tables 2 and 6 and for the figures of a study, and one that waits."""
    accuracies = {"natural": 85.0, "fgsm": 60.0, "pgd": 50.0}
    blocks = [("residual",), ("dense",), ("residual", "dense")]
    return [
        *(
            make_run({**accuracies, "pgd": 40.0 + i}, blocks=b, **DEPTH)
            for i, b in enumerate(blocks)
        ),
        *(make_run({**accuracies, "pgd": 50.0 + s}, seed=s, **DEPTH) for s in range(2)),
        make_run({**accuracies, "pgd": 45.0}, weight_decay=3e-4, **DEPTH),
        make_run({**accuracies, "pgd": 30.0}, model="resnet50"),
        make_run(None, seed=9, **DEPTH),
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_page(folder, study_runs(), metrics=make_metrics(), landscapes=[BOWL])


# What stands in it


def test_sections_appear_where_there_is_something_to_show(page, tmp_path):
    assert page.sections == [
        *("summary", "means", "runs", "compare", "tables", "figures", "claims", "curves"),
        *("landscapes", "provenance", "records"),
    ]
    assert write_page(tmp_path, [make_run(None)]).sections == [
        *("summary", "runs", "provenance", "records")
    ]


def test_contents_list_the_sections(page):
    links = [attributes["href"] for attributes in page.all("a")]
    assert links[1 : 1 + len(page.sections)] == [f"#{name}" for name in page.sections]


def test_headline_is_the_most_robust_network_with_seeds_intervals_and_conditions(page):
    conditions = "L∞ eps 0.1, 20 steps of 0.02581, uniform start, 10,000 images"
    network = "DS-Net of residual + mbconv + dense + ada_rk, --weight-decay 0.0005"
    assert f"digits, best under PGD-20, {conditions}: {network}" in page.text
    measure = "50.50 % PGD-20, 20 steps of 0.02581, uniform start mean of 2 seeds"
    assert f"{measure}, 95 % interval 44.1 to 56.9 %" in page.text
    assert "2 seeds: 0 , 1 . The best of 6 networks (7 runs) by mean accuracy" in page.text


def test_headline_of_one_seed_has_its_count(tmp_path):
    page = write_page(tmp_path, [make_run({"natural": 80.0, "pgd": 51.0, "aa": 45.0}, **DEPTH)])
    assert "5,100/10,000, one seed, 95 % interval 50.0 to 52.0 %" in page.text
    assert "The best of" not in page.text


def test_headline_judges_by_pgd_whatever_else_was_run(tmp_path):
    weak = make_run({"natural": 80.0, "pgd": 60.0, "cw": 30.0, "aa": 20.0}, blocks=("residual",))
    strong = make_run({"natural": 80.0, "pgd": 50.0, "cw": 49.0, "aa": 48.0}, blocks=("dense",))
    text = write_page(tmp_path, [weak, strong]).text
    assert "uniform start, 10,000 images: residual" in text


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"eps": 0.05}, ("L∞ eps 0.1", "L∞ eps 0.05")),
        ({"num_samples": 500}, ("10,000 images", "500 images")),
        ({"data": "cifar10"}, ("digits, best", "CIFAR-10, best")),
        ({"recipe": "authors"}, ("20 steps of 0.02581", "20 steps of 0.025")),
    ],
)
def test_each_condition_has_its_own_best_network(changes, names, tmp_path):
    accuracies = {"natural": 80.0, "pgd": 50.0}
    runs = [make_run(accuracies, **DEPTH), make_run(accuracies, seed=1, **DEPTH, **changes)]
    page = write_page(tmp_path, runs)
    assert page.text.count("best under PGD-20") == 2
    assert all(name in page.text for name in names)
    assert "Numbers under different conditions say nothing of each other." in page.text


def test_norm_is_a_condition_too(tmp_path):
    run, other = (make_run({"natural": 80.0, "pgd": 50.0 + s}, seed=s, **DEPTH) for s in (0, 1))
    (evaluation,) = other.evaluations
    rows = tuple(replace(row, norm=row.norm and "L2") for row in evaluation.results)
    other = replace(other, evaluations=(replace(evaluation, results=rows, norm="L2"),))
    page = write_page(tmp_path, [run, other])
    assert page.text.count("best under PGD-20") == 2
    cells = [row[3] for row in page.data("runs-table")["rows"]]
    assert sorted(cell[3] for cell in cells) == ["(1)", "(2)"]


def test_means_over_seeds_have_intervals(page):
    table = page.data("means-table")
    assert [column["label"] for column in table["columns"]] == [
        *("Network", "Seeds", "Natural", "FGSM", "PGD-20", "Parameters")
    ]
    best = table["rows"][0]
    assert best[0] == "DS-Net of residual + mbconv + dense + ada_rk, --weight-decay 0.0005"
    assert [seed for seed, _ in best[1]] == ["0", "1"]
    half = 12.7062 * 0.7071 / 2**0.5
    assert best[4] == [50.5, *(pytest.approx(50.5 + s * half, abs=0.01) for s in (-1, 1)), ""]


def test_one_seed_trained_in_two_ways_is_no_mean(tmp_path):
    runs = [
        make_run({"natural": 80.0, "pgd": 50.0 + is_compiled}, compile=is_compiled, **DEPTH)
        for is_compiled in (False, True)
    ]
    page = write_page(tmp_path, runs)
    rows = page.data("means-table")["rows"]
    assert sorted(row[0] for row in rows) == ["--compile", "--no-compile"]
    assert [[seed for seed, _ in row[1]] for row in rows] == [["0"], ["0"]]
    assert "mean of 2 seeds" not in page.text


def test_evaluations_without_a_seed_are_no_mean(tmp_path):
    run = make_run({"natural": 80.0, "pgd": 50.0}, **DEPTH)
    config = {"model": "nets:load", "weights": "w.pt", "data": "digits"}
    runs = [replace(run, run_id=name, config=config) for name in ("load-1", "load-2")]
    page = write_page(tmp_path, runs)
    assert [len(row[1]) for row in page.data("means-table")["rows"]] == [1, 1]


def test_seeds_of_one_network_are_one_network_whatever_else_some_were_attacked_by(tmp_path):
    runs = [
        make_run({"natural": 80.0, "pgd": 50.0, "aa": 45.0}, **DEPTH),
        make_run({"natural": 82.0, "aa": 47.0}, seed=1, **DEPTH),
    ]
    page = write_page(tmp_path, runs)
    ((_, seeds, natural, pgd, aa, _),) = page.data("means-table")["rows"]
    assert [seed for seed, _ in seeds] == ["0", "1"]
    assert (natural[0], pgd[0], aa[0]) == (81.0, 50.0, 46.0)
    assert pgd[-1] == "1 of 2 seeds"
    assert page.text.count("best under") == 1
    assert "Networks 1 evaluated" in page.text


def test_seeds_that_miss_the_judging_attack_stand_beside_those_that_have_it(tmp_path):
    runs = [make_run({"natural": 80.0, "pgd": 50.0 + s}, seed=s, **DEPTH) for s in (0, 1)]
    runs += [make_run({"natural": 83.0}, seed=2, **DEPTH)]
    runs += [make_run({"natural": 80.0, "pgd": 40.0}, attention="fixed", **DEPTH)]
    page = write_page(tmp_path, runs)
    (row, _) = page.data("means-table")["rows"]
    assert (row[0], len(row[1]), row[2][0], row[3][0]) == ("learned", 3, 81.0, 50.5)
    assert "The best of 2 networks (3 runs)" in page.text


def test_network_that_was_judged_under_two_conditions_counts_once(tmp_path):
    runs = [
        make_run({"natural": 80.0, "pgd": 50.0}, seed=seed, num_samples=count, **DEPTH)
        for seed, count in enumerate((10_000, 500))
    ]
    page = write_page(tmp_path, runs)
    assert len(page.data("means-table")["rows"]) == 2
    assert "Networks 1 evaluated" in page.text


def test_rows_say_what_differs_and_what_all_share_stands_above(tmp_path):
    accuracies = {"natural": 80.0, "pgd": 50.0}
    runs = [make_run(accuracies, attention=mode, **DEPTH) for mode in ("learned", "fixed")]
    page = write_page(tmp_path, runs)
    names = [row[0][0] for row in page.data("runs-table")["rows"]]
    assert sorted(names) == ["fixed", "learned"]
    assert (
        "2 runs; all: DS-Net of residual + mbconv + dense + ada_rk, 3 modules, k = 2, AT, digits"
        in page.text
    )


def test_every_run_is_listed_with_its_state(page):
    assert "8 runs, 1 of them not evaluated" in page.text
    assert "7 evaluated, 1 not evaluated" in page.text
    waiting = "DS-Net of residual + mbconv + dense + ada_rk, --weight-decay 0.0005, seed 9"
    assert f"in no table and no figure of accuracies: {waiting} (not evaluated)" in page.text
    rows = page.data("runs-table")["rows"]
    assert len(rows) == 8
    assert sorted(row[-1] for row in rows) == ["evaluated"] * 7 + ["not evaluated"]


def test_tables_of_the_paper_that_can_be_made_are_there(page):
    assert [name for name in page.ids if re.fullmatch(r"table-\d", name)] == ["table-2", "table-6"]
    assert "What could not be made" not in page.text


def test_figures_that_can_be_made_are_there_with_what_they_show(page):
    alternatives = " ".join(attributes["alt"] for attributes in page.all("img"))
    assert "Mean accuracies by number of blocks. 1 to choose from: robust 40.5%" in alternatives
    for start in ("Ratios to chance.", "The runs on the front.", "Spearman's correlation"):
        assert start in alternatives
    assert "Robust accuracy lost since the best epoch." in alternatives


def test_learning_curves_say_what_was_lost(page):
    assert "Best epoch" in page.text
    row = page.data("curves-table")["rows"][0]
    assert row[1:] == [4, 2, 50.0, 40.0, 10.0]


def test_run_that_still_runs_is_listed_with_its_epochs(tmp_path):
    folder = tmp_path / "runs" / "x"
    folder.mkdir(parents=True)
    config = resolve(RunConfig(epochs=20))
    (folder / "config.yaml").write_text(dump_config(config))
    (folder / "metrics.jsonl").write_text(json.dumps(make_metrics(1)[0]) + "\n")
    page = write_page(tmp_path, [])
    assert "DS-Net-4-softmax (still running)" in page.text
    assert page.data("runs-table")["rows"][0][-1] == "still running, 1 of 20 epochs"
    (run,) = page.data("details")["runs"].values()
    assert (run["id"], run["state"]) == (config.run_id, "still running: 1 of 20 epochs")
    assert "tables" not in page.sections


def test_runs_that_cannot_be_compared_are_named_and_the_rest_is_shown(tmp_path):
    accuracies = {"natural": 80.0, "pgd": 40.0}
    records = [
        make_run(accuracies, method="trades"),
        make_run(accuracies, method="trades", model="resnet50", fingerprint="others"),
        make_run(accuracies, method="mart"),
    ]
    page = write_page(tmp_path, records)
    assert "What could not be made Table 5 compares Natural of runs" in page.text
    assert "table-3" in page.ids


def test_front_of_natural_accuracies_on_other_images_is_refused(tmp_path):
    records = [make_run({"natural": 80.0, "pgd": 40.0 + s}, seed=s, **DEPTH) for s in range(3)]
    (evaluation,) = records[0].evaluations
    rows = tuple(
        replace(row, num_samples=500, num_correct=490) if row.attack == "natural" else row
        for row in evaluation.results
    )
    records[0] = replace(records[0], evaluations=(replace(evaluation, results=rows),))
    page = write_page(tmp_path, records)
    assert not any("The runs on the front." in image["alt"] for image in page.all("img"))
    assert "a Pareto front compares Natural of runs that were evaluated differently" in page.text


def test_page_says_when_numbers_cannot_be_trusted(tmp_path):
    record = make_run({"natural": 80.0, "pgd": 40.0}, recipe="authors")
    check = TrustCheck(name="masking", passed=False, detail="gradients vanish")
    record = replace(record, evaluations=(replace(record.evaluations[0], checks=(check,)),))
    page = write_page(tmp_path, [record])
    assert "Trust check masking failed: gradients vanish" in page.text
    assert "Selected on the test images" in page.text
    (run,) = page.data("details")["runs"].values()
    assert run["checks"] == [["masking", False, "gradients vanish"]]
    assert run["isSelectedOnTest"]


def test_attention_is_that_of_the_selected_epoch(tmp_path):
    even = [[0.25] * 4] * 3
    metrics = [*make_metrics(1, weights=even), *make_metrics(2, weights=WEIGHTS)[1:]]
    metrics.append({**metrics[0], "epoch": 3})
    page = write_page(tmp_path, [make_run({"natural": 80.0}, **DEPTH)], metrics=metrics)
    assert "attention" in page.sections
    weights = [data for tag, data in page.texts if tag == "td" and re.fullmatch(r"0\.\d{3}", data)]
    assert weights == [f"{weight:.3f}" for row in WEIGHTS for weight in row]


def test_equal_weights_are_not_shown(tmp_path):
    run = make_run({"natural": 80.0}, attention="fixed", **DEPTH)
    page = write_page(tmp_path, [run], metrics=make_metrics(weights=[[0.25] * 4] * 3))
    assert "attention" not in page.sections


def test_landscape_is_data_for_the_renderer_and_words_for_the_rest(page):
    (canvas,) = page.all("canvas")
    assert canvas["tabindex"] == "0"
    assert "lowest 0.25, at the centre 0.25, highest 9" in canvas["aria-label"]
    (data,) = (data for tag, data in page.texts if tag == "script" and '"losses"' in data)
    assert json.loads(data) == {
        "name": "a bowl",
        "alphas": [-1.0, 0.0, 1.0],
        "betas": [-1.0, 0.0, 1.0],
        "losses": [[2.0, 1.0, 2.0], [1.0, 0.25, 1.0], [2.0, 1.0, 9.0]],
    }


# Where numbers come from


def test_links_within_the_page_lead_somewhere(page):
    targets = [a["href"][1:] for a in page.all("a") if a["href"].startswith("#")]
    assert len(page.ids) == len(set(page.ids))
    assert set(targets) <= set(page.ids) | page.anchors
    rows = page.data("runs-table")["rows"]
    assert {row[0][1] for row in rows} == page.anchors  # every record is led to
    means = page.data("means-table")["rows"]
    assert {anchor for row in means for _, anchor in row[1]} < page.anchors


def test_every_number_of_a_table_leads_to_its_records(page):
    one, two = sorted(f"run-{run.run_id}" for run in study_runs()[3:5])
    start = page.source.index('id="table-2"')
    table = page.source[start : page.source.index("</table>", start)]
    row = next(line for line in table.splitlines() if "50.50 ±" in line)
    cell = next(part for part in row.split("</td>") if "50.50 ±" in part)
    assert re.findall(r'href="#([^"]+)"', cell) == [one, one, two]


def test_record_links_lead_to_the_files(tmp_path):
    record = make_run({"natural": 80.0})
    folder = write_run(tmp_path / "my runs & more", record)
    (tmp_path / "pages").mkdir()
    out = write_report(tmp_path / "my runs & more", tmp_path / "pages" / "report.html")
    (run,) = Page(out).data("details")["runs"].values()
    link = run["link"]
    assert (out.parent / unquote(link)).resolve() == (folder / "record.json").resolve()


def test_record_holds_configuration_provenance_and_counts(page):
    details = page.data("details")
    run = details["runs"][f"run-{study_runs()[3].run_id}"]
    config = details["config"] | run["config"]
    assert (config["method"], config["seed"]) == ("at", "0")
    assert config["blocks"] == '["residual", "mbconv", "dense", "ada_rk"]'
    assert "seed" not in details["config"]  # which all share
    attack, conditions, *counts = run["results"][2]
    assert details["attacks"][attack] == "PGD-20"
    start = "digits/test, L∞ eps 0.1, 20 steps of 0.02581"
    assert details["conditions"][conditions].startswith(start)
    assert run["main"] == [0, 1, 2]
    assert counts == [5000, 10_000, 49.02, 50.98, 1.0]
    assert details["provenances"][run["provenance"]]["commit"] == "0123456789ab"
    assert "0123456789ab" in page.text


def test_record_holds_its_learning_curve_and_attention_weights_in_thousandths(tmp_path):
    metrics = make_metrics(weights=WEIGHTS)
    page = write_page(tmp_path, [make_run({"natural": 80.0}, **DEPTH)], metrics=metrics)
    details = page.data("details")
    (run,) = details["runs"].values()
    assert details["epochs"] == [[1, 2, 3, 4]]
    assert run["curve"] == {
        "epochs": 0,
        "best": 2,
        "train": [500] * 4,
        "natural": [900] * 4,
        "robust": [450, 500, 450, 400],
    }
    assert details["columns"] == [["residual", "mbconv", "dense", "ada_rk"]]
    assert run["attention"] == {
        "epoch": 2,
        "isLearned": True,
        "columns": 0,
        "weights": [[round(1000 * weight) for weight in row] for row in WEIGHTS],
    }


def test_rows_are_of_one_condition_where_and_only_where_they_may_be_compared(tmp_path):
    accuracies = {"natural": 80.0, "pgd": 50.0}
    runs = [
        make_run(accuracies, seed=0),
        make_run(accuracies, seed=1),
        make_run(accuracies, seed=2, eps=0.05),
        make_run(accuracies, seed=3, fingerprint="others"),
    ]
    details = write_page(tmp_path, runs).data("details")
    found = {
        r["config"]["seed"]: [row[1] for row in r["results"]] for r in details["runs"].values()
    }
    natural, pgd = zip(*(found[seed] for seed in "0123"), strict=True)
    assert natural[0] == natural[1] == natural[2] != natural[3]
    assert pgd[0] == pgd[1]
    assert len(set(pgd)) == 3
    # What reads alike says in what it differs.
    assert details["conditions"][pgd[3]].endswith("data_fingerprint ('digits' and 'others')")
    assert len(set(details["conditions"])) == len(details["conditions"])


def test_run_alone_is_compared_with_nothing(tmp_path):
    page = write_page(tmp_path, [make_run({"natural": 80.0})])
    assert {"href": "#compare"} not in page.all("a")
    assert not [a for a in page.all("a") if a.get("class") == "to-comparison"]


def test_records_of_a_file_have_no_link(tmp_path):
    Benchmark(study_runs()).save(tmp_path / "all.jsonl")
    page = Page(write_report(tmp_path / "all.jsonl", tmp_path / "report.html"))
    assert {run["link"] for run in page.data("details")["runs"].values()} == {None}
    assert "table-2" in page.ids


def test_equal_runs_give_equal_pages(tmp_path):
    record = make_run({"natural": 80.0, "pgd": 40.0}, **DEPTH)
    first = write_page(tmp_path, [record], metrics=make_metrics(weights=WEIGHTS)).source
    write_report([tmp_path / "runs"], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text("utf-8") == first


# Safe, offline, for everybody


@pytest.fixture
def hostile(tmp_path):
    record = make_run({"natural": 80.0, "pgd": 40.0}, **DEPTH)
    check = TrustCheck(name=EVIL, passed=False, detail=EVIL)
    evaluations = (replace(record.evaluations[0], checks=(check,)),)
    own = Record(EVIL, {"model": EVIL, "weights": EVIL, "data": EVIL}, EVIL, 1, {EVIL: EVIL})
    records = [replace(record, evaluations=evaluations), replace(own, evaluations=evaluations)]
    landscape = replace(BOWL, name=EVIL)
    return write_page(tmp_path, records, metrics=make_metrics(), title=EVIL, landscapes=[landscape])


def test_names_that_are_markup_are_text(hostile):
    assert {a["src"][:19] for a in hostile.all("img")} == {"data:image/svg+xml;"}
    assert not [a for _, a in hostile.elements if any(name.startswith("on") for name in a)]
    # Theme, elements, pins, tables, records, comparison, page and landscapes; data of three tables,
    # the records, a landscape.
    assert len(hostile.all("script")) == 8 + 5
    assert EVIL in hostile.text
    assert EVIL in {run["id"] for run in hostile.data("details")["runs"].values()}
    (title,) = (data for tag, data in hostile.texts if tag == "title")
    assert title == EVIL
    (data,) = (data for tag, data in hostile.texts if tag == "script" and '"losses"' in data)
    assert json.loads(data)["name"] == EVIL


def test_nothing_is_fetched(hostile, page):
    for each in (hostile, page):
        for tag, attributes in each.elements:
            for name in ("src", "href", "srcset", "action", "poster", "data"):
                value = attributes.get(name, "data:")
                is_local = value.startswith(("data:", "#")) or value.endswith("record.json")
                assert is_local, (tag, name, value)
        styles = " ".join(data for tag, data in each.texts if tag == "style")
        assert "url(" not in styles
        assert "@import" not in styles
        (policy,) = (m["content"] for m in each.all("meta") if "http-equiv" in m)
        assert policy.startswith("default-src 'none'")


def test_page_is_small(page):
    assert len(page.source) < 2_000_000


def test_page_has_landmarks_and_a_way_past_the_contents(page):
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("a")[0] == {"class": "skip", "href": "#main"}
    assert page.all("main")[0]["id"] == "main"
    assert [len(page.all(tag)) for tag in ("h1", "header", "nav", "main", "footer")] == [1] * 5
    for section in page.all("section"):
        assert section["aria-labelledby"] in page.ids


def test_pictures_and_tables_are_described(page):
    assert all(attributes["alt"].strip() for attributes in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes["scope"] for attributes in page.all("th"))
    for attributes in page.all("div"):
        if attributes.get("class") == "scroll":  # what scrolls can be focused, and has a name
            assert attributes["tabindex"] == "0"
            assert attributes.get("aria-label") or attributes["aria-labelledby"] in page.ids


def test_both_themes_and_print_are_styled(page):
    for text in ("prefers-color-scheme: dark", '[data-theme="dark"]', "@media print"):
        assert text in page.source
    (button,) = (b for b in page.all("button") if b.get("id") == "theme")
    assert button["aria-pressed"] == "false"


def test_report_of_records_needs_no_torch(tmp_path):
    Benchmark(study_runs()).save(tmp_path / "all.jsonl")
    code = (
        "import sys; from nasbench_at.cli import main; "
        "assert main(['report', 'all.jsonl']) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path)


# Bad input


def test_folder_without_runs_is_named(tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"there is no run in {str(tmp_path)!r}")):
        write_report(tmp_path, tmp_path / "report.html")


@pytest.mark.parametrize(
    ("paths", "out", "message"),
    [
        ("none", "report.html", "'none' is no folder of runs"),
        ("runs", "report.pdf", "report must end in .html, got 'report.pdf'"),
        ("runs", "no/report.html", "cannot write report 'no/report.html': no such folder"),
    ],
)
def test_bad_paths_are_named(paths, out, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(Path("runs"), make_run(None))
    with pytest.raises(ValueError, match=re.escape(message)):
        write_report(paths, out)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_losses_that_are_not_finite_are_holes():
    losses = np.where(BOWL.losses > 1, np.inf, BOWL.losses)
    landscape = replace(BOWL, losses=losses)
    hole = [None, 1.0, None]
    assert landscape_to_json(landscape)["losses"] == [hole, [1.0, 0.25, 1.0], hole]
    assert "highest 1." in describe_landscape(landscape)
    with pytest.raises(ValueError, match="landscape 'a bowl' has no finite loss"):
        describe_landscape(replace(BOWL, losses=np.full((3, 3), np.nan)))


# Pieces


def test_run_found_twice_counts_once_as_it_is_furthest(tmp_path):
    done, waiting = make_run({"natural": 80.0}), make_run(None)
    write_run(tmp_path / "a", done)
    write_run(tmp_path / "b", waiting)
    for order in (("a", "b"), ("b", "a")):
        (entry,) = collect_entries([tmp_path / name for name in order])
        assert entry.status == "evaluated"


def test_copies_of_a_run_have_the_evaluations_of_all_and_the_folder_of_one(tmp_path):
    run = make_run({"natural": 80.0, "pgd": 50.0})
    again = make_run({"natural": 80.0, "fgsm": 60.0})
    weights = [[0.5, 0.5]]
    Benchmark([run]).save(tmp_path / "old.parquet")
    folder = write_run(tmp_path / "a", again, make_metrics(weights=weights))
    (folder / "best.safetensors").touch()
    write_run(tmp_path / "b", again)
    for order in itertools.permutations(("old.parquet", "a", "b")):
        (entry,) = collect_entries([tmp_path / name for name in order])
        assert {*entry.results} == {"natural", "pgd", "fgsm"}
        assert entry.folder == folder
        assert can_be_measured(entry)
        assert entry.progress.startswith("4 of")
        assert entry.attention == (2, ((0.5, 0.5),))


def test_run_that_is_trained_in_two_places_is_as_far_as_in_the_further_one(tmp_path):
    for name, epochs in (("a", 3), ("b", 1)):
        folder = write_run(tmp_path / name, make_run(None), make_metrics(epochs))
        (folder / "record.json").unlink()
        (folder / "config.yaml").write_text("data: digits")
    for order in (("a", "b"), ("b", "a")):
        (entry,) = collect_entries([tmp_path / name for name in order])
        assert (entry.status, entry.progress.split()[0]) == ("still running", "3")


def test_most_robust_are_ranked_within_the_conditions_that_most_share():
    runs = [make_run({"natural": 80.0, "pgd": 50.0 + s}, seed=s, **DEPTH) for s in range(2)]
    easy = [make_run({"natural": 80.0, "pgd": 90.0}, eps=0.01, seed=2, **DEPTH)]
    easy += [make_run({"natural": 80.0}, seed=3, **DEPTH)]
    records = [*easy, *runs]
    entries = [RunEntry(record.run_id, record.config, record) for record in records]
    ranked = [entry.config["seed"] for entry in rank_by_robustness(entries)]
    assert ranked == [1, 0, 2, 3]  # another radius, then what PGD did not attack


def test_two_conditions_are_never_interleaved():
    records = [
        make_run({"pgd": 50.0 + 10 * i + number}, eps=eps, seed=10 * number + i, **DEPTH)
        for number, eps in enumerate((0.1, 0.2))
        for i in range(2)
    ]
    entries = [RunEntry(record.run_id, record.config, record) for record in records]
    radii = [entry.results["pgd"].eps for entry in rank_by_robustness(entries)]
    assert radii == [0.1, 0.1, 0.2, 0.2]


def test_what_is_measured_anew_is_of_the_runs_that_compare(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(
        "analysis.theory.compute_run_theory", lambda folder: measured.append(folder)
    )
    monkeypatch.setattr("nasbench_at.evaluation.runs.Run.open", lambda folder, **_: folder)
    runs = [make_run({"natural": 80.0, "pgd": 50.0 - s}, seed=s, **DEPTH) for s in range(2)]
    runs += [make_run({"natural": 80.0, "pgd": 90.0}, eps=0.01, seed=2, **DEPTH)]
    for run in runs:
        (write_run(tmp_path, run) / "best.safetensors").touch()
    best_theories(collect_entries([tmp_path]), 1)
    assert [read_record(folder / "record.json").config["seed"] for folder in measured] == [0]


def test_anchors_are_of_their_own():
    entries = [RunEntry(name, {}) for name in ("a b", "a/b", "a-b", "<>")]
    assert list(name_anchors(entries).values()) == [
        *("run-a-b", "run-a-b-2", "run-a-b-3", "run-nameless")
    ]


@pytest.mark.slow
def test_graph_of_a_named_network_needs_no_data(tmp_path):
    record = make_run({"natural": 80.0}, model="tiny_ds_net")
    write_run(tmp_path, replace(record, architecture="tiny_ds_net(10,1x8x8)"))
    (entry,) = collect_entries([tmp_path])
    graph = find_graph(entry)
    assert sum(kind == "block" for _, kind in graph.nodes(data="kind")) == 12
    assert "num_params" not in graph.nodes["head"]


def test_real_run_is_shown_with_its_graph(tmp_path):
    config = resolve(tiny_config(epochs=1))
    train(config, runs_dir=tmp_path / "runs", device="cpu")
    evaluate_run(tmp_path / "runs" / config.run_id, ("fgsm",), device="cpu")
    page = Page(write_report(tmp_path / "runs", tmp_path / "report.html"))
    assert "Graph of DS-Net of residual + mbconv" in page.text
    assert page.sections == [
        *("summary", "means", "runs", "tables", "attention", "curves", "provenance", "records")
    ]


def test_figures_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.report.figures._MAX_FIGURES", 1)
    page = write_page(tmp_path, study_runs())
    assert len(page.all("img")) == 1
    assert "Figures beyond the first 1 are left out." in page.text


@pytest.mark.parametrize(
    ("is_finished", "text"),
    [
        (False, "Study ablation is still running: what follows is what it has so far."),
        (True, "Study ablation: 9 epochs trained."),
    ],
)
def test_study_is_reported_with_its_own_runs_and_whether_more_will_come(
    is_finished, text, tmp_path
):
    runs = tmp_path / "runs"
    for seed in (0, 1):
        run = make_run({"natural": 80.0, "pgd": 40.0}, seed=seed)
        (write_run(runs, run) / "config.yaml").write_text(dump_config(RunConfig(seed=seed)))
    study = runs / "studies" / "ablation"
    study.mkdir(parents=True)
    run_id = make_run(seed=1).run_id
    StudyRuns((run_id,), is_finished, "9 epochs trained").write(study)
    page = Page(write_report(study, tmp_path / "report.html"))
    assert text in page.text
    assert page.anchors == {f"run-{run_id}"}


def test_claims_are_held_against_the_runs_that_tell(tmp_path):
    for seed in range(3):
        for shift, config in enumerate(({}, {"attention": "fixed", "attention_init": "equal"})):
            accuracies = {"natural": 90, "pgd": 55 - 5 * shift + seed}
            write_run(tmp_path / "runs", make_run(accuracies, seed=seed, **DEPTH, **config))
    page = Page(write_report(tmp_path / "runs", tmp_path / "report.html"))
    cells = [text for tag, text in page.texts if tag == "td"]
    assert "learned attention weights are more robust than fixed, equal ones" in cells
    assert "+5.00 [+5.00, +5.00]" in cells
    assert {"href": "#claims"} in page.all("a")
    write_run(tmp_path / "one", make_run({"natural": 90, "pgd": 55}, **DEPTH))
    page = Page(write_report(tmp_path / "one", tmp_path / "report.html"))
    assert {"href": "#claims"} not in page.all("a")
