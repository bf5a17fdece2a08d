from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nasbench_at import evaluate_run
from nasbench_at.attacks import AutoAttack
from nasbench_at.cli import main
from nasbench_at.data import load_data
from nasbench_at.evaluation.options import EvaluationOptions
from nasbench_at.evaluation.run_evaluation import prepare_evaluation, prepare_model_evaluation
from nasbench_at.records import conditions_of, describe_conditions, differences, read_record
from nasbench_at.records.outcomes import read_outcomes
from nasbench_at.records.run_folders import FolderInUseError, open_run_folder
from tests.nasbench_at.conftest import one_line, tiny_flags


def settings_of(run: Path, *names: str, **options: object) -> dict[str, dict[str, object]]:
    prepared = prepare_evaluation(run, EvaluationOptions(names, **options), device="cpu")
    (attacks,) = prepared.attacks.values()
    return {name: dict(attack.settings()) for name, attack in attacks.items()}


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_settings_follow_the_run_s_recipe(run):
    assert settings_of(run, "pgd")["pgd"]["step_size"] == pytest.approx(0.008)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("recipe: paper", "recipe: authors"))
    found = settings_of(run, "fgsm", "pgd", recipe="authors")
    assert found["pgd"]["step_size"] == pytest.approx(0.031 / 4)
    assert found["fgsm"]["start"] == "uniform"
    assert settings_of(run, "pgd")["pgd"]["step_size"] == pytest.approx(0.031 / 4)
    assert settings_of(run, "pgd", recipe="paper")["pgd"]["step_size"] == pytest.approx(0.008)


def test_settings_follow_the_run_s_method(run):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("method: at", "method: trades"))
    assert settings_of(run, "pgd")["pgd"]["step_size"] == pytest.approx(0.003)


def test_runs_count_the_last_iterate_unless_told_otherwise(run):
    assert settings_of(run, "pgd")["pgd"]["counts"] == "last"
    assert settings_of(run, "cw", counts="any")["cw"]["counts"] == "any"


def test_default_attacks_are_the_paper_s_and_under_l2_what_it_has(run):
    options = {"norm": "L2", "eps": (0.5,)}
    prepared = prepare_evaluation(run, EvaluationOptions(**options), device="cpu")
    assert list(prepared.attacks[0.5]) == ["pgd", "aa"]
    prepared = prepare_evaluation(run, device="cpu")
    assert [list(row) for row in prepared.attacks.values()] == [["fgsm", "pgd", "cw", "aa"]]


def test_l2_needs_a_radius_of_its_own(run):
    with pytest.raises(
        ValueError, match="eps must be given with norm L2: the run's own is of Linf"
    ) as error:
        evaluate_run(run, norm="L2", device="cpu")
    one_line(error)


def test_flags_of_the_evaluation_reach_the_record(run, capsys):
    words = ["evaluate", str(run), "--attacks", "pgd", "--device", "cpu", "--norm", "L2"]
    words += ["--eps", "0.3", "--restarts", "2", "--counts", "any", "--step-size", "0.1"]
    assert main([*words, "--seed", "4"]) == 0
    (evaluation,) = read_record(run / "record.json").evaluations
    pgd = evaluation.results[1]
    assert (pgd.norm, pgd.eps, pgd.seed) == ("L2", 0.3, 4)
    chosen = ("restarts", "counts", "step_size")
    assert [pgd.settings[key] for key in chosen] == [2, "any", 0.1]
    assert (evaluation.norm, evaluation.seed) == ("L2", 4)
    assert "L2 eps 0.3, 20 steps of 0.1" in capsys.readouterr().out


def test_record_identifies_the_images(run):
    evaluate_run(run, ("fgsm",), device="cpu")
    (evaluation,) = read_record(run / "record.json").evaluations
    assert len(evaluation.data_fingerprint) == 16
    assert {row.data_fingerprint for row in evaluation.results} == {evaluation.data_fingerprint}


# The curve


def test_curve_is_recorded_and_its_figure_named(run, capsys):
    words = ["evaluate", str(run), "--attacks", "fgsm", "--device", "cpu"]
    assert main([*words, "--eps", "0.031", "0.01", "0.3"]) == 0
    record = read_record(run / "record.json")
    curve = record.curves["fgsm"]
    assert [row.eps for row in curve] == [0.01, 0.031, 0.3]
    assert record.results["fgsm"].eps == 0.031  # the run's own
    assert [row.attack for row in record.all_results].count("natural") == 1
    outcomes = read_outcomes(run / "record.json")
    assert [int(outcomes[row.key].sum()) for row in curve] == [row.num_correct for row in curve]
    out, err = capsys.readouterr()
    assert f"nasbench-at figure robustness-curve {run}\n" in err
    assert "L∞ eps 0.3, one step" in out
    assert out.splitlines()[-1] == str(run)


def test_main_rows_of_a_curve_without_the_run_s_radius_are_of_the_largest(run):
    words = ["evaluate", str(run), "--attacks", "fgsm", "--device", "cpu", "--eps", "0.2", "0.1"]
    assert main(words) == 0
    assert read_record(run / "record.json").results["fgsm"].eps == 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--eps", "0.1", "0.1"],
            "eps must be a list of numbers of at least 0, each once",
        ),
        (
            ["--eps", "0.1", "0.2", "--attacks"],
            "several --eps need one of --attacks at least, got none with (0.1, 0.2)",
        ),
        (["--eps", "-0.1"], "eps must be a list of numbers of at least 0, each once, got (-0.1,)"),
        (["--weights", "x.pt"], "weights must be an existing file, got 'x.pt'"),
        (["--out", "x.json"], "--out goes with --model, got 'x.json' with a run"),
        (["--model", "a:b"], "needs a run's folder or --model, got both '"),
        (["--aa-samples", "0%"], "aa_samples must lie in 0%..100%"),
        (["--restarts", "0"], "restarts must be a whole number from 1 to 10000, got 0"),
        (["--norm", "L2", "--eps", "1", "--attacks", "cw"], "under L2, got 'cw'"),
    ],
    ids=str,
)
def test_bad_flags_are_one_line_and_change_nothing(words, message, run, capsys):
    before = (run / "record.json").read_bytes()
    assert message in refused(["evaluate", str(run), *words], capsys)
    assert (run / "record.json").read_bytes() == before


def test_too_few_classes_for_an_attack_are_refused_before_any_work(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (8, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(8) % 2
    np.savez(tmp_path / "two.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    words = ["evaluate", "--model", "tiny_wrn", "--data", str(tmp_path / "two.npz")]
    words += ["--out", str(tmp_path / "record.json"), "--eps", "0.1", "--attacks", "fgsm", "aa"]
    assert refused(words, capsys) == (
        "nasbench-at: AutoAttack's apgd-t needs at least 4 classes, got 2; apgd-ce+square, "
        "apgd-ce, fab-t, square can be run with 2"
    )
    assert not (tmp_path / "record.json").exists()


def test_default_attacks_of_few_classes_are_those_that_they_have(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(9) % 3
    np.savez(tmp_path / "few.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    options = EvaluationOptions(eps=(0.1,))
    file, out = str(tmp_path / "few.npz"), tmp_path / "record.json"
    prepared = prepare_model_evaluation("tiny_wrn", options, data=file, out=out, device="cpu")
    assert list(prepared.attacks[0.1]) == ["fgsm", "pgd", "cw", "apgd-ce+square"]
    assert options.for_classes(4) is options
    asked = EvaluationOptions(("aa",), eps=(0.1,))
    assert asked.for_classes(3) is asked


def test_run_of_too_few_classes_is_refused_when_the_evaluation_is_prepared(run, monkeypatch):
    monkeypatch.setattr(AutoAttack, "check_data", lambda *given: refuse(given[1:]))

    def refuse(given):
        raise ValueError(f"asked with {given}")

    with pytest.raises(ValueError, match=r"asked with \(4, torch.Size\(\[1, 8, 8\]\)\)"):
        prepare_evaluation(run, EvaluationOptions(("aa",)), device="cpu")


def test_evaluation_needs_something_to_evaluate(capsys):
    assert "needs a run's folder or --model, got neither" in refused(["evaluate"], capsys)


# Interruptions


def test_folder_of_another_process_is_left_alone(run):
    prepared = prepare_evaluation(run, EvaluationOptions(("fgsm",)), device="cpu")
    before = (run / "record.json").read_bytes()
    with open_run_folder(run).locked(), pytest.raises(FolderInUseError, match="in use"):
        prepared.run()
    assert (run / "record.json").read_bytes() == before


def test_progress_is_gone_once_the_record_is_written(run):
    evaluate_run(run, ("apgd-ce",), device="cpu", aa_samples=4)
    assert not list(run.glob("*.progress"))


def test_progress_is_kept_when_the_evaluation_is_cut_short(run, monkeypatch):
    monkeypatch.setattr("nasbench_at.evaluation.run_evaluation.write_atomically", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate_run(run, ("apgd-ce",), device="cpu", aa_samples=4)
    (folder,) = run.glob("*.progress")
    assert folder.name == "record.progress"
    assert list(folder.glob(f"{run.name}/apgd-ce-*.safetensors"))


def test_another_evaluation_leaves_the_progress_of_one_cut_short(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("nasbench_at.evaluation.run_evaluation.write_atomically", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate_run(run, ("apgd-ce",), device="cpu", aa_samples=4)
    (kept,) = run.glob("record.progress/*/*")
    evaluate_run(run, ("fgsm",), device="cpu")
    evaluate_run(run, ("apgd-ce",), eps=0.2, device="cpu", aa_samples=4)
    assert list(run.glob("record.progress/*/*")) == [kept]
    evaluate_run(run, ("apgd-ce",), device="cpu", aa_samples=4)
    assert not list(run.glob("*.progress"))


KILLED = """
import sys
from nasbench_at.attacks import autoattack
from tests.nasbench_at import conftest  # registers the data set
from nasbench_at.cli import main
from dataclasses import replace
import nasbench_at.evaluation.measures as evaluation
make_attacks = evaluation.standard_attacks
evaluation.standard_attacks = lambda *words, **settings: {
    name: replace(attack, batch_size=2) for name, attack in make_attacks(*words, **settings).items()
}
sys.exit(main(["evaluate", sys.argv[1], "--attacks", "apgd-ce", "--device", "cpu"]))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sigkill_loses_a_batch_at_most_and_changes_no_verdict(run, tmp_path):
    images = load_data("stripes").test
    assert len(images) == 24
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(run)]
    whole = tmp_path / "whole"
    subprocess.run(["cp", "-r", str(run), str(whole)], check=True)
    subprocess.run([*command[:-1], str(whole)], env=environment, check=True, cwd=Path.cwd())

    kept: list[int] = []
    for _ in range(3):
        process = subprocess.Popen(command, env=environment)
        before = kept[-1] if kept else 0
        while process.poll() is None and num_batches(run) <= before:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept.append(num_batches(run))
    assert kept == sorted(set(kept))  # each attempt added to what the one before had kept
    subprocess.run(command, env=environment, check=True)
    rows, expected = (load_file(path / "outcomes.safetensors") for path in (run, whole))
    assert rows.keys() == expected.keys()
    assert all(torch.equal(rows[name], expected[name]) for name in rows)


def num_batches(run: Path) -> int:
    for path in run.glob("record.progress/*/*.safetensors"):
        header = path.read_bytes()[32:]
        length = int.from_bytes(header[:8], "little")
        metadata = json.loads(header[8 : 8 + length])["__metadata__"]
        return sum(json.loads(metadata["state"])["num_batches"].values())
    return 0


# The comparison


def test_two_evaluated_runs_are_compared(run, tmp_path, capsys):
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", str(run), str(other)], check=True)
    for path, seed in ((run, "0"), (other, "0")):
        words = ["evaluate", str(path), "--attacks", "fgsm", "--device", "cpu", "--eps", "0.1"]
        assert main([*words, "--seed", seed]) == 0
    capsys.readouterr()
    assert main(["compare", str(run), str(other), "--attack", "fgsm"]) == 0
    out = capsys.readouterr().out
    accuracy = read_record(run / "record.json").accuracy("fgsm")
    assert f"fgsm accuracy on 24 images: {accuracy:.2%} ({run}), {accuracy:.2%} ({other})" in out
    assert "difference +0.00%, 95 % interval" in out
    assert "right by the first alone 0, by the second alone 0; McNemar's exact test: p = 1" in out


def test_comparison_of_different_evaluations_is_one_line(run, tmp_path, capsys):
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", str(run), str(other)], check=True)
    for path, eps in ((run, 0.1), (other, 0.2)):
        evaluate_run(path, ("fgsm",), eps=eps, device="cpu")
    line = refused(["compare", str(run), str(other), "--attack", "fgsm"], capsys)
    assert "differ in eps (0.1 and 0.2), step_size (0.1 and 0.2)" in line
    line = refused(["compare", str(run), str(other)], capsys)
    assert "was not evaluated by 'pgd'; attacks that both were evaluated by, for --attack: " in line
    assert line.endswith("natural, fgsm, worst_case")


# Beyond one radius and norm


@pytest.fixture(scope="module")
def l2_run(tmp_path_factory):
    runs = tmp_path_factory.mktemp("l2")
    assert main(["train", *tiny_flags(norm="L2", eps=0.4, runs_dir=runs, device="cpu")]) == 0
    (folder,) = runs.iterdir()
    return folder


def test_run_is_evaluated_under_its_own_norm(l2_run, capsys):
    record = read_record(l2_run / "record.json")
    assert record.config["norm"] == "L2"
    attack = record.training["selected"]["attack"]
    assert (attack["norm"], attack["eps"]) == ("L2", 0.4)
    words = ["evaluate", str(l2_run), "--device", "cpu", "--attacks", "pgd"]
    assert main([*words, "--norm", "Linf", "--eps", "0.4"]) == 0
    assert main(words) == 0
    assert main([*words, "--eps", "0.9"]) == 0
    record = read_record(l2_run / "record.json")
    assert [(e.norm, e.results[1].eps) for e in record.evaluations] == [
        *(("Linf", 0.4), ("L2", 0.4), ("L2", 0.9))
    ]
    assert (record.result("pgd").norm, record.result("pgd").eps) == ("L2", 0.4)
    capsys.readouterr()
    assert refused([*words, "--norm", "Linf"], capsys) == (
        "nasbench-at: eps must be given with norm Linf: the run's own is of L2"
    )
    assert refused(["evaluate", str(l2_run), "--device", "cpu", "--attacks", "cw"], capsys) == (
        "nasbench-at: attack must be one of pgd, aa, apgd-ce+square, apgd-ce, apgd-dlr, apgd-t, "
        "fab-t, square under L2, got 'cw'"
    )


def test_corruptions_and_certificates_are_rows_beside_attacks(l2_run, capsys):
    words = ["evaluate", str(l2_run), "--device", "cpu", "--eps", "0.1", "0.2", "--smooth-n", "100"]
    words += ["--attacks", "pgd", "corruptions", "smooth", "--smooth-samples", "5"]
    assert main([*words, "--severities", "1", "5"]) == 0
    record = read_record(l2_run / "record.json")
    rows = record.evaluations[-1].results
    names = [row.attack for row in rows]
    assert names.count("pgd") == names.count("smooth") == 2
    assert names.count("corruptions") == names.count("corrupt-blur/5") == 1
    outcomes = read_outcomes(l2_run / "record.json")
    leaves = [row for row in rows if "/" in row.attack]
    assert len(leaves) == 12
    for row in rows:
        if row.attack not in {"corruptions", *(leaf.attack.partition("/")[0] for leaf in leaves)}:
            assert int(outcomes[row.key].sum()) == row.num_correct
    mean = sum(row.num_correct for row in leaves) / 12
    assert record.result("corruptions").num_correct == round(mean)
    subset = record.result("smooth").subset
    assert len(outcomes[f"subset-{subset}"]) == record.result("smooth").num_samples == 5
    out = " ".join(capsys.readouterr().out.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", " ").split())
    assert "mean of 6 corruptions, severities 1, 5, 24 images" in out
    assert "certified lower bound of the smoothed classifier" in out
    assert "sigma 0.25, n 100, alpha 0.001" in out


def test_severity_is_a_condition(l2_run):
    for severities in ((2,), (3,)):
        evaluate_run(l2_run, ("corrupt-blur",), severities=severities, device="cpu")
    rows = [
        row
        for row in read_record(l2_run / "record.json").all_results
        if row.attack == "corrupt-blur" and len(row.settings["severities"]) == 1
    ]
    assert [row.settings["severities"] for row in rows] == [[2], [3]]  # none replaces another
    assert differences(*map(conditions_of, rows)) == ["severities ((2,) and (3,))"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["smooth"], "attack 'smooth' certifies under norm L2, got Linf; add --norm L2 and --eps"),
        (
            ["smooth", "--norm", "L2", "--eps", "3"],
            "smooth certifies at most radius 0.9529 with smooth_sigma 0.25, smooth_n 100000 and "
            "smooth_alpha 0.001, got eps 3",
        ),
        (
            ["smooth", "--norm", "L2", "--eps", "0.1", "--smooth-samples", "25"],
            "smooth_samples must lie in 1..24, got 25",
        ),
        (
            ["corrupt-blur", "--severities", "6"],
            "severities must be a list of whole numbers from 1 to 5, each once, in order, got (6,)",
        ),
        (
            ["corrupt-blurr"],
            "got ('corrupt-blurr',); did you mean 'corrupt-blur' or 'corrupt-brightness' or "
            "'corrupt-contrast'?",
        ),
    ],
)
def test_what_cannot_be_measured_is_one_line(words, message, run, capsys):
    before = (run / "record.json").read_bytes()
    line = refused(["evaluate", str(run), "--device", "cpu", "--attacks", *words], capsys)
    assert line.endswith(message)
    assert (run / "record.json").read_bytes() == before


def test_two_classes_are_attacked_under_a_name_of_its_own(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(8) % 2
    np.savez(tmp_path / "two.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    words = ["evaluate", "--model", "tiny_wrn", "--data", str(tmp_path / "two.npz")]
    words += ["--out", str(tmp_path / "record.json"), "--eps", "0.02", "--device", "cpu"]
    assert main([*words, "--attacks", "apgd-ce+square"]) == 0
    record = read_record(tmp_path / "record.json")
    names = ["natural", "apgd-ce+square/apgd-ce", "apgd-ce+square/square", "apgd-ce+square"]
    assert [row.attack for row in record.all_results] == [*names, "worst_case"]
    row = record.result("apgd-ce+square")
    assert (row.settings["name"], row.settings["version"]) == ("apgd-ce+square", "custom")
    assert describe_conditions(row) == "L\N{INFINITY} eps 0.02, apgd-ce + square, 8 images"
