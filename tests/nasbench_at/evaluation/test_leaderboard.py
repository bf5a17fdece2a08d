from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nasbench_at import evaluate_run, load_model, train
from nasbench_at.commands.claim import run_claim
from nasbench_at.commands.input_errors import BadInputError
from nasbench_at.evaluation.leaderboard import Authorship, write_claim
from nasbench_at.records import TrustCheck, read_record
from tests.nasbench_at.conftest import tiny_config


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A trained run's folder."""
    runs = tmp_path_factory.mktemp("claimed")
    return runs / train(tiny_config(), runs_dir=runs, device="cpu").run_id


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One that was attacked at two radii, the run's own not the last."""
    runs = tmp_path_factory.mktemp("claimed")
    run = runs / train(tiny_config(seed=1), runs_dir=runs, device="cpu").run_id
    for eps in (None, 0.5):
        evaluate_run(run, ("pgd", "aa"), eps=eps, device="cpu", aa_samples=10, seed=4)
    return run


def test_entry_says_what_the_record_says(run, tmp_path):
    record = read_record(run / "record.json")
    aa, natural = record.results["aa"], record.results["natural"]
    entry, log, weights, card = write_claim(run, tmp_path / "new/claims")
    assert [path.name for path in (entry, log, weights, card)] == [
        f"{run.name}{suffix}" for suffix in (".json", ".log", ".safetensors", ".md")
    ]
    found = json.loads(entry.read_text("utf-8"))
    assert found["clean_acc"] == f"{100 * natural.num_correct / natural.num_samples:.2f}"
    assert found["autoattack_acc"] == found["reported"] == f"{10 * aa.num_correct:.2f}"
    assert (found["eps"], found["threat_model"]) == (record.config["eps"], "Linf")
    assert (found["clean_num_images"], found["autoattack_num_images"]) == (24, 10)
    assert found["train_seconds"] == record.provenance["train_seconds"] > 0
    assert found["autoattack_seconds"] == aa.seconds > 0
    assert found["architecture"].startswith("DS-Net of ")
    assert found["name"] == run.name
    assert found["dataset"] == "stripes"
    assert found["unreliable"] is not None
    assert [found[name] for name in ("authors", "venue", "link")] == [None] * 3
    assert "on randomly drawn 10 test images." in found["footnote"]
    assert not load_model(weights).training


def test_log_has_the_parts_in_the_order_they_ran(run, tmp_path):
    record = read_record(run / "record.json")
    _, log, *_ = write_claim(run, tmp_path)
    head, initial, *parts, last = log.read_text("utf-8").splitlines()
    assert f"eps {record.config['eps']:g}, standard version, 10 images" in head
    assert head.endswith("seed 4")
    assert initial.startswith("initial accuracy: ")
    assert [part.split(":")[0] for part in parts] == [
        f"robust accuracy after {name}" for name in ("APGD-CE", "APGD-T", "FAB-T", "SQUARE")
    ]
    assert parts[-1].endswith(f"total time {record.results['aa'].seconds:.1f} s)")
    assert last == f"robust accuracy: {record.results['aa'].accuracy:.2%}"


def test_authorship_is_what_the_user_says(run, tmp_path):
    said = Authorship("A net", "A. Nobody", "nowhere, 2026", "https://example.org")
    entry, *_ = write_claim(run, tmp_path, said)
    found = json.loads(entry.read_text("utf-8"))
    assert (found["name"], found["authors"]) == ("A net", "A. Nobody")
    assert (found["venue"], found["link"]) == ("nowhere, 2026", "https://example.org")


def test_reservations_are_made(run, tmp_path):
    path = run / "record.json"
    text = path.read_text("utf-8")
    record = read_record(path)
    check = TrustCheck("logits", passed=False, detail="rows sum to 1")
    *others, last = record.evaluations
    doubtful = (*others, replace(last, checks=(check,)))
    config = record.config | {"select_on": "test", "data": "some/where/mine.npz"}
    path.write_text(replace(record, config=config, evaluations=doubtful).to_json())
    try:
        found = json.loads(write_claim(run, tmp_path)[0].read_text("utf-8"))
    finally:
        path.write_text(text)
    assert found["unreliable"] is True
    assert found["dataset"] == "mine.npz"
    assert "The epoch was selected on test images" in found["footnote"]
    assert found["footnote"].endswith("Trust check logits failed: rows sum to 1.")


def test_autoattack_on_the_most_images_is_claimed(tmp_path):
    bare = tmp_path / train(tiny_config(seed=2), runs_dir=tmp_path, device="cpu").run_id
    for count in (12, 4):
        evaluate_run(bare, ("aa",), device="cpu", aa_samples=count)
    assert read_record(bare / "record.json").results["aa"].num_samples == 4
    entry, log, *_ = write_claim(bare, tmp_path / "claims")
    found = json.loads(entry.read_text())
    assert found["autoattack_num_images"] == 12
    assert "/12;" in log.read_text()


def test_run_without_autoattack_is_no_claim(bare, tmp_path):
    wanted = r"a claim needs AutoAttack under the run's own Linf eps 0\.031, got none of run "
    with pytest.raises(ValueError, match=f"{wanted}.*: nasbench-at evaluate .* --attacks aa$"):
        write_claim(bare, tmp_path)
    evaluate_run(bare, ("aa",), eps=0.3, device="cpu", aa_samples=4)
    with pytest.raises(ValueError, match=r"got Linf eps 0\.3 of run "):
        write_claim(bare, tmp_path)
    assert not list(tmp_path.iterdir())


def test_command_names_the_files_and_refuses_a_file_as_folder(run, tmp_path, capsys):
    assert run_claim([str(run), "--out", str(tmp_path), "--authors", "A. Nobody"]) == 0
    written = capsys.readouterr().out.split()
    assert written[0] == str(tmp_path / f"{run.name}.json")
    assert len(written) == 4
    with pytest.raises(BadInputError, match=r"cannot write to '.*\.log': "):
        run_claim([str(run), "--out", written[1]])


def test_extra_data_are_additional_data_and_said_in_the_footnote_and_the_card(
    run, tmp_path, monkeypatch
):
    own = read_record(run / "record.json")
    record = replace(
        own,
        config={**own.config, "extra_data": "/home/me/gen.npz", "extra_fraction": 0.7},
        training={**own.training, "num_extra": 40},
    )
    for place in ("leaderboard", "runs"):
        monkeypatch.setattr(f"nasbench_at.evaluation.{place}.read_record", lambda _: record)
    entry, _, _, card = write_claim(run, tmp_path)
    found = json.loads(entry.read_text("utf-8"))
    assert found["additional_data"] is True
    said = "70 % of each batch of gen.npz"
    assert f"Trained on 40 generated images, too: {said}." in found["footnote"]
    assert f"| generated images | {said} |" in card.read_text("utf-8").splitlines()
