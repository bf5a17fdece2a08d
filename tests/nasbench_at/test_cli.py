from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file

import nasbench_at.commands.console as console
from nasbench_at import Architecture, RunConfig, build_graph, cli, match_parameters
from nasbench_at.cli import find_commands, main
from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.train import TrainArguments
from nasbench_at.config import load_config, resolve
from nasbench_at.records import describe_attack, read_record
from nasbench_at.records.run_folders import open_run_folder
from nasbench_at.training.checkpoints import load_checkpoint
from studies.commands.study import SUBCOMMANDS
from studies.recipes import RECIPES

from .conftest import TINY, tiny_config, tiny_flags

ROOT = Path(__file__).resolve().parents[2]
GRAPH = ["graph", "--blocks", "residual", "dense", "--num-modules", "3", "--init-channels", "4"]
PLUGIN = """
from torch import nn
from blocks import register_block

@register_block("cli_block", summary="one convolution", reference="ours", kind="handcrafted")
class CliBlock(nn.Conv2d):
    def __init__(self, channels, *, bias=True):
        super().__init__(channels, channels, 3, padding=1, bias=bias)
"""


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    """Runs land in ./runs, which must not be the checkout's."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def plugin(tmp_path, own_registry):
    path = tmp_path / "cli_blocks.py"
    path.write_text(PLUGIN)
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        if name.startswith("_block_plugin_"):
            del sys.modules[name]


def train_words(*words, **changes):
    return ["train", "--device", "cpu", *tiny_flags(**changes), *words]


def refused(words, capsys):
    """Runs words that are bad input; returns the one line on stderr."""
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nasbench-at: ")
    assert err.count("\n") == 1
    return err.strip()


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def only_run(folder="runs"):
    (path,) = Path(folder).iterdir()
    return path


# --- help and usage


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_usage_lists_every_command(words, capsys):
    assert main(words) == (0 if words else 2)
    out = capsys.readouterr().out
    for name in ("blocks", "graph", "train", "evaluate"):
        assert f"\n  {name} " in out


@pytest.mark.parametrize("command", find_commands())
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"usage: nasbench-at {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        *([name] for name in find_commands()),
        *(["study", name] for name in SUBCOMMANDS),
        *(["study", "run", name] for name in RECIPES),
        ["figure", "landscape"],
    ],
    ids=" ".join,
)
def test_help_shows_no_markup_of_docstrings(words, capsys):
    assert main([*words, "--help"]) == 0
    assert not re.findall(r".*(?:`|:\w+:).*", capsys.readouterr().out)


def test_help_of_train_explains_the_fields_of_the_configuration(capsys):
    main(["train", "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--validation-fraction" in words
    assert "held out for that, in (0, 1)" in words
    assert "NAME.OPTION=VALUE" in words


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("nasbench-at ")


@pytest.mark.parametrize("world_size", ["1", "2"])
def test_rank_ends_before_its_interpreter_is_taken_down(world_size):
    code = (
        "import atexit, sys; from nasbench_at.cli import run; print('output'); "
        "atexit.register(print, 'taken down'); sys.argv = ['nasbench-at', 'trian']; run()"
    )
    done = python(code, WORLD_SIZE=world_size)
    assert done.returncode == 2
    assert done.stdout == ("output\n" if world_size == "2" else "output\ntaken down\n")
    assert "unknown command 'trian'" in done.stderr


def test_help_takes_less_than_a_second():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "nasbench_at", "--help"], cwd=ROOT, capture_output=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    # Processor time, so that a busy machine does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["evaluate", "--help"]])
def test_help_loads_no_torch(words):
    code = f"import sys; from nasbench_at.cli import main; main({words}); "
    done = python(code + "sys.exit(3 if 'torch' in sys.modules else 0)")
    assert done.returncode == 0, done.stderr


# --- bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["trian"],
            "unknown command 'trian'; did you mean 'train'? known: blocks, claim, claims, com",
        ),
        (["zzz"], "unknown command 'zzz'; known: blocks, claim, claims, compare, eva"),
        (["blocks", "residul"], "unknown block 'residul'; did you mean 'residual'"),
        (
            ["blocks", "--plugins", "nope.py"],
            "a plugin must be an existing .py file, got 'nope.py'",
        ),
        (["graph", "--blocks", "residul"], "unknown block 'residul'"),
        (["graph", "--blocks"], "blocks must name at least one block, got an empty set"),
        (
            ["graph", "--num-modules", "2"],
            "num_modules must be a whole number from 3",
        ),
        (
            [*GRAPH, "--remove", "module1.dense"],
            "the graph has no node 'module1.dense'; there are 'module01.dense'",
        ),
        ([*GRAPH, "--remove", "stem"], "stem"),
        ([*GRAPH, "--out", "graph.txt"], "or .svg, in an existing folder, got 'graph.txt'"),
        ([*GRAPH, "--input-shape", "3", "0", "8"], "input_shape must be 3 whole numbers from 1"),
        (["evaluate", "runs/none"], "'runs/none' is no run folder: it holds no config.yaml"),
        (train_words(blocks=("residul",)), "unknown block 'residul'"),
        (train_words(blocks=()), "blocks must name at least one block, got an empty set"),
        (train_words(data="digit"), "unknown data set 'digit'; did you mean 'digits'?"),
        (train_words(num_modules=2), "num_modules must be a whole number from 3"),
        (
            train_words("--eps", "2"),
            "eps must be a number in [0, 1] (pixel scale; divide by 255), got 2",
        ),
        (train_words("--eps", "-0.1"), "eps must be a number of at least 0, got -0.1"),
        (train_words(epochs=0), "epochs must be a whole number from 1 to 100000, got 0"),
        (train_words("--method", "atx"), "method 'atx'"),
        (
            train_words("--milestones", "5", "3"),
            "milestones must be a list of whole numbers from 1 to",
        ),
        (train_words("--block-options", "residual.nrm=1"), "block 'residual' has no option 'nrm'"),
        (train_words("--block-options", "dense.growth=2"), "dense"),
        (train_words("--plugins", "nope.py"), "existing .py file, got 'nope.py'"),
        (train_words("--device", "tpu"), "device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        (train_words("--config", "nope.yaml"), "cannot read configuration 'nope.yaml'"),
        (train_words("--config"), "--config needs the path of a YAML file"),
        (train_words("--lr", "inf"), "lr must be a number above 0, got 'inf'"),
        (
            train_words("--weight-decay", ".inf"),
            "weight_decay must be a number of at least 0, got ",
        ),
        (
            train_words("--warmup-epochs", "50"),
            "warmup_epochs must be at most the number of",
        ),
        (train_words("--checkpoint-minutes", "-1"), "checkpoint_minutes must be a number of at l"),
        (train_words("--checkpoint-minutes", "nan"), "checkpoint_minutes must be a number of at l"),
        (train_words("--runs-dir", ""), "runs_dir must be a folder, got ''"),
        (train_words("--runs-dir", "/dev/null"), "runs_dir must be a folder, got '/dev/null'"),
        (
            train_words("--seed", "0", "--seeds", "1", "2"),
            "seeds does not go with seed, got 1 2",
        ),
        (train_words("--seeds", "1", "1"), "seeds must be a list of whole numbers from 0 to 4294"),
        (train_words("--lr", "1e400"), "lr must be a number above 0, got '1e400'"),
        (train_words("--lr", "true"), "lr must be a number above 0, got 'true'"),
        (train_words("--lr", "["), "lr must be a number above 0, got '['"),
        (train_words("--model-options", "a=["), "model_options cannot be read from 'a=['"),
        (train_words("--augment", "maybe"), "augment must be true or false, got 'maybe'"),
        (
            train_words("--attack-steps", "99999999999999999999", "--dry-run"),
            "attack_steps must be a whole number from 1 to 10000, got 99999999999999999999",
        ),
        (
            ["evaluate", "--model", "tiny_wrn", "--data", "cifar10", "--weights", "no.pt"],
            "weights must be an existing file, got 'no.pt'",
        ),
        (["theory", "runs", "--num-images", "0"], "num_images must be a whole number from 1"),
        (["theory", "runs", "--num-batches", "0"], "num_batches must be a whole number from 2"),
        (["query", ""], "paths must be a list of folders, files or tables, got ('',)"),
        (
            ["study", "run", "block_space", "--dry-run", "--storage", "mysql://me:secret@x"],
            "storage must be a URL of sqlite or postgresql, blanks and quotes in it as %20, %22 "
            "and %27, got 'mysql://me:***@x'",
        ),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_that_names_it(words, message, capsys):
    assert message in refused(words, capsys)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (train_words("--epoch", "3"), "unknown flag '--epoch'; did you mean '--epochs' or .*?"),
        (
            train_words("--epochs", "many"),
            "epochs must be a whole number from 1 to 100000, got 'many'",
        ),
        (train_words("--zzz", "3"), "unknown flag '--zzz'; see --help"),
        (train_words("--epochs", "3", "4"), "unexpected word '4'"),
        (
            train_words("--recipe", "ours"),
            "recipe must be one of paper, authors, got 'ours'",
        ),
        (
            train_words("--block-options", "norm"),
            "block_options must be written NAME.OPTION=VALUE, got 'norm'",
        ),
        (["compare"], "Missing from nasbench-at compare: PLACE .*(required)"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_flag_that_cannot_be_read_gets_one_line(words, message, capsys):
    assert main(words) == 2
    err = capsys.readouterr().err
    expected = ".*".join(map(re.escape, message.split(".*")))
    assert re.fullmatch(f"nasbench-at: {expected}\n", err), err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--block-options", "residual.norm=["],
        ["--block-copies", "residual=two"],
        ["--attention-init-options", "scale=big"],
        ["--attention-keep", "0.5", "0", "0"],
        ["--attention-init", "given", "--attention-weights", "a,b", "a,b", "a,b"],
        ["--milestones", "2", "--milestone-factors"],
    ],
    ids=" ".join,
)
def test_value_of_the_wrong_kind_is_bad_input(words):
    assert main(train_words(*words)) == 2


def test_graph_into_a_missing_folder_is_bad_input(capsys):
    assert "missing/g.json" in refused([*GRAPH, "--out", "missing/g.json"], capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epsilon: 0.1", "unknown configuration key 'epsilon'; did you mean 'precision' or 'eps'?"),
        ("eps: 8", "eps must be a number in [0, 1]"),
        ("eps: [", "cannot read configuration 'broken.yaml'"),
        ("", "must be a mapping, got None"),
    ],
)
def test_bad_configuration_file_is_one_line(text, message, capsys):
    Path("broken.yaml").write_text(text)
    line = refused(["train", "--config", "broken.yaml"], capsys)
    assert message in line
    assert "broken.yaml" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attacks", "pdg"], "smooth, got ('pdg',); did you mean 'pgd'?"),
        (["--aa-samples", "-1"], "aa_samples must be a whole number of at least 1 or a percentage"),
        (["--eps", "8"], "eps must"),
        (["--aa-samples", "99"], "aa_samples must lie in 1..24, got 99"),
        (["--device", "tpu"], "device must be"),
    ],
    ids=str,
)
def test_bad_evaluation_is_one_line_and_changes_nothing(words, message, run, capsys):
    before = (run / "record.json").read_bytes()
    assert message in refused(["evaluate", str(run), *words], capsys)
    assert (run / "record.json").read_bytes() == before


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_truncated_weights_are_one_line(share, run, capsys):
    path = run / "best.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    line = refused(["evaluate", str(run), "--attacks", "fgsm"], capsys)
    assert f"cannot read weights '{path}'" in line


def test_truncated_checkpoints_are_one_line_and_left_as_they_are(run, capsys):
    paths = [run / "last.pt", run / "previous-last.pt"]
    for path in paths:
        path.write_bytes(path.read_bytes()[:-100])
    before = [path.read_bytes() for path in paths]
    assert main(train_words()) == 2
    warned, refused_line = capsys.readouterr().err.splitlines()
    assert f"checkpoint 'runs/{run.name}/last.pt' is damaged" in warned
    assert f"checkpoint 'runs/{run.name}/previous-last.pt' is damaged" in refused_line
    assert [path.read_bytes() for path in paths] == before


def test_run_of_another_configuration_is_refused_and_left_as_it_is(run, capsys):
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 5"))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert "belongs to another configuration" in refused(train_words(), capsys)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_unwritable_folder_is_one_line(capsys):
    Path("file").write_text("")
    line = refused(train_words("--runs-dir", "file/runs"), capsys)
    assert "runs_dir must be a folder, got 'file/runs'" in line


def test_second_process_on_a_run_is_bad_input(run, capsys):
    with open_run_folder(run).locked():
        assert "in use by another process" in refused(train_words(), capsys)


def test_loss_that_is_not_finite_is_one_line(capsys):
    assert main(train_words("--lr", "1e38")) == 1
    assert "loss" in capsys.readouterr().err.splitlines()[-1]


def test_fault_is_one_line_that_names_the_log_with_its_traceback(monkeypatch, tmp_path, capsys):
    def fail(words):
        raise ValueError("no connection to\npostgresql://me:secret@host/db")

    monkeypatch.setattr(cli, "_load", lambda entry: fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["train"]) == 1
    (log,) = tmp_path.glob("nasbench-at-*.log")
    expected = "nasbench-at: ValueError: no connection to postgresql://me:***@host/db; traceback in"
    assert capsys.readouterr().err == f"{expected} {log}\n"
    assert "Traceback" in log.read_text()
    assert "in fail" in log.read_text()
    assert "secret" not in log.read_text()


def test_fault_without_a_place_for_its_log_shows_the_traceback(monkeypatch, tmp_path, capsys):
    def fail(words):
        raise KeyError("row")

    monkeypatch.setattr(cli, "_load", lambda entry: fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert main(["train"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("nasbench-at: KeyError: 'row'\n")


def test_value_error_after_the_checks_is_a_fault(run, capsys, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ValueError("not broadcastable")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("nasbench_at.evaluation.run_evaluation.PreparedEvaluation.run", fail)
    assert main(["evaluate", str(run), "--attacks", "fgsm", "--device", "cpu"]) == 1
    assert "ValueError: not broadcastable; traceback in" in capsys.readouterr().err
    monkeypatch.setattr("nasbench_at.training.launch.PreparedEstimate.run", fail)
    assert main(train_words("--dry-run")) == 1
    assert "ValueError: not broadcastable; traceback in" in capsys.readouterr().err


# --- blocks and graph


def test_blocks_are_listed_with_options_and_reference(capsys):
    assert main(["blocks"]) == 0
    out = capsys.readouterr().out
    for name in ("residual", "mbconv", "dense", "ada_rk", "resnext", "dla_tree"):
        assert name in out


def test_named_blocks_alone_are_shown(capsys):
    assert main(["blocks", "dense"]) == 0
    out = capsys.readouterr().out
    assert "dense" in out
    assert "mbconv" not in out


def test_blocks_of_a_plugin_are_listed(plugin, capsys):
    assert main(["blocks", "cli_block", "--plugins", str(plugin)]) == 0
    out = capsys.readouterr().out
    assert "cli_block" in out
    assert "bias=True" in out


def test_graph_says_what_the_network_has(capsys):
    assert main(GRAPH) == 0
    architecture = Architecture(blocks=("residual", "dense"), num_modules=3, init_channels=4)
    graph = build_graph(architecture)
    out = capsys.readouterr().out
    assert f"{len(graph)} nodes, {graph.graph['num_params']:,} parameters" in out
    assert f"architecture {architecture.hash}" in out


def test_graph_is_drawn_and_exported(capsys):
    for name in ("g.png", "g.json"):
        assert main([*GRAPH, "--out", name]) == 0
        assert f"written to {name}" in capsys.readouterr().out
    assert Path("g.png").read_bytes().startswith(b"\x89PNG")
    assert "module01.dense" in Path("g.json").read_text()


def test_removed_nodes_are_left_out(capsys):
    assert main([*GRAPH, "--remove", "module01.dense", "module02.residual", "--out", "g.json"]) == 0
    text = Path("g.json").read_text()
    assert "module01.dense" not in text
    assert "module02.residual" not in text
    assert "module01.residual" in text
    num_all = len(build_graph(Architecture(("residual", "dense"), 3)))
    assert f"{num_all - 2} nodes, " in capsys.readouterr().out


def test_width_is_chosen_to_match_a_number_of_parameters(capsys):
    assert main([*GRAPH, "--match-parameters", "100000"]) == 0
    architecture = Architecture(blocks=("residual", "dense"), num_modules=3, init_channels=4)
    matched = match_parameters(architecture, 100_000)
    out = capsys.readouterr().out
    assert f"init_channels {matched.init_channels}, architecture {matched.hash}" in out
    assert matched.init_channels != 4


def test_block_sets_may_differ_from_module_to_module(capsys):
    words = ["graph", "--blocks", "residual,", "residual,dense", "dense,", "--num-modules", "3"]
    assert main([*words, "--init-channels", "4"]) == 0
    sets = (("residual",), ("residual", "dense"), ("dense",))
    architecture = Architecture(blocks=sets, num_modules=3, init_channels=4)
    assert f"architecture {architecture.hash}" in capsys.readouterr().out


# --- train and evaluate


def test_train_reports_the_selected_epoch_and_the_folder(capsys):
    assert main(train_words()) == 0
    out, err = capsys.readouterr()
    path = only_run()
    assert path.name == resolve(tiny_config()).run_id
    assert out.splitlines()[-1] == str(path)
    assert "selected epoch" in out
    assert "on 16 validation images" in out
    assert [line.split()[1] for line in err.splitlines() if line.startswith("epoch")] == [
        "1/2",
        "2/2",
    ]


def test_finished_run_is_reported_and_trains_nothing(run, capsys):
    before = (run / "last.pt").stat().st_mtime_ns
    assert main(train_words()) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"runs/{run.name}"
    assert err.strip() == ""
    assert (run / "last.pt").stat().st_mtime_ns == before


def test_flags_reach_the_configuration(capsys):
    words = train_words(
        "--milestones",
        "1",
        "2",
        "--milestone-factors",
        "0.5",
        "0.25",
        "--attention-betas",
        "0.5",
        "0.99",
        "--block-options",
        "ada_rk.separate_norms=true",
        "--block-copies",
        "residual=2",
        "--attention-init",
        "uniform",
        "--attention-init-options",
        "scale=0.5",
        "--attention-keep",
        "0,",
        "0,1",
        "1,",
        "--no-channels-last",
        blocks=("residual", "ada_rk"),
        epochs=1,
    )
    assert main(words) == 0
    config = load_config(only_run() / "config.yaml")
    assert config.milestones == (1, 2)
    assert config.milestone_factors == (0.5, 0.25)
    assert config.attention_betas == (0.5, 0.99)
    assert config.block_options == {"ada_rk": {"separate_norms": True}}
    assert config.block_copies == {"residual": 2}
    assert config.attention_init == "uniform"
    assert config.attention_init_options == {"scale": 0.5}
    assert config.attention_keep == ((0,), (0, 1), (1,))
    assert not config.channels_last


def test_given_weights_are_written_as_rows(capsys):
    rows = ["1,0", "0.25,0.75", "0.5,0.5"]
    words = ["--attention", "fixed", "--attention-init", "given", "--attention-weights", *rows]
    assert main(train_words(*words, epochs=1)) == 0
    assert load_config(only_run() / "config.yaml").attention_weights == (
        (1.0, 0.0),
        (0.25, 0.75),
        (0.5, 0.5),
    )


def test_flags_win_over_the_file():
    text = "{eps: 5e-2, seed: 3, milestones: [2, 3], block_copies: {dense: 2}}"
    Path("my.yaml").write_text(text)
    for words in (["--config", "my.yaml", "--seed", "9"], ["--seed", "9", "--config=my.yaml"]):
        config = parse_flags(TrainArguments, words, "train", None).config
        assert (config.eps, config.milestones, config.block_copies) == (0.05, (2, 3), {"dense": 2})
        assert config.seed == 9


def test_flags_change_the_fields_of_a_ds_net_that_the_file_names():
    Path("my.yaml").write_text("{model: ds_net_6, epochs: 3}")
    words = ["--config", "my.yaml", "--init-channels", "8"]
    config = parse_flags(TrainArguments, words, "train", None).config
    assert resolve(config) == resolve(RunConfig(widen_factor=6, init_channels=8, epochs=3))


def test_file_and_flags_are_trained_together(capsys):
    Path("my.yaml").write_text(json.dumps({**TINY, "seed": 3, "eps": 0.05, "epochs": 7}))
    assert main(["train", "--config", "my.yaml", "--epochs", "1", "--device", "cpu"]) == 0
    assert open_run_folder(only_run()).config == resolve(tiny_config(seed=3, eps=0.05, epochs=1))


def test_written_configuration_alone_repeats_the_run(run, capsys):
    words = ["train", "--config", str(run / "config.yaml"), "--runs-dir", "again"]
    assert main([*words, "--device", "cpu"]) == 0
    again = only_run("again")
    assert again.name == run.name
    assert (again / "config.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    assert (again / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_written_configuration_of_whole_numbers_is_the_same_run(capsys):
    assert main(train_words("--attention-init-options", "scale=1", epochs=1)) == 0
    path = only_run()
    assert load_config(path / "config.yaml").run_id == path.name


def test_block_of_a_plugin_is_trained_and_evaluated(plugin, capsys):
    words = train_words("--plugins", str(plugin), blocks=("residual", "cli_block"), epochs=1)
    assert main([*words, "--block-options", "cli_block.bias=false"]) == 0
    path = only_run()
    assert "stages.0.blocks.1.weight" in load_file(path / "best.safetensors")
    assert "stages.0.blocks.1.bias" not in load_file(path / "best.safetensors")
    assert main(["evaluate", str(path), "--attacks", "fgsm", "--device", "cpu"]) == 0


def test_block_of_a_plugin_that_fails_is_bad_input_before_training(plugin, capsys):
    plugin.write_text(PLUGIN.replace("padding=1, ", ""))
    words = train_words("--plugins", str(plugin), blocks=("residual", "cli_block"))
    line = refused(words, capsys)
    assert "block 'cli_block' fails on features of shape (4, 8, 8): its output must keep" in line
    assert "blocks.testing.check_block('cli_block') tries it alone" in line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "words", [["blocks", "residual"], GRAPH, train_words(epochs=1)], ids=lambda words: words[0]
)
def test_plugin_that_registers_nothing_is_a_line(words, plugin, capsys):
    plugin.write_text("from blocks import register_block")
    assert main([*words, "--plugins", str(plugin)]) == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        f"nasbench-at: warning: plugin {str(plugin)!r} registers nothing; the decorator "
        "blocks.register_block makes a class a block"
    )


def test_evaluation_prints_a_table_and_writes_the_record(run, capsys):
    words = ["evaluate", str(run), "--attacks", "fgsm", "--device", "cpu", "--eps", "0.05"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    results = read_record(run / "record.json").evaluations[-1].results
    assert [result.attack for result in results] == ["natural", "fgsm", "worst_case"]
    for result in results:
        name = result.attack
        row = next(line for line in out.splitlines() if f"│ {name} " in line)
        assert f"{result.num_correct}/24" in row
        assert f"{result.accuracy:.2%}" in row
        assert f"{name}: {result.num_correct}/24 correct after" in err
    assert "L∞ eps 0.05, one step of 0.05, from the image, 24 images" in out
    assert "L∞ eps 0.05, the images that no attack fooled, 24 images" in out
    assert out.splitlines()[-1] == str(run)


@pytest.mark.slow
def test_evaluation_prints_what_the_trust_checks_found(run, capsys):
    words = ["evaluate", str(run), "--attacks", "fgsm", "pgd", "--device", "cpu"]
    assert main([*words, "--step-size", "0.02"]) == 0
    out = capsys.readouterr().out
    evaluation = read_record(run / "record.json").evaluations[-1]
    assert "L∞ eps 0.031, 20 steps of 0.02, uniform start, 24 images" in out
    lines = [line for line in out.splitlines() if line.startswith("trust check ")]
    marks = ["passed" if check.passed else "WARNING" for check in evaluation.checks]
    names = [check.name for check in evaluation.checks]
    assert len(lines) == 5
    assert all(
        line.startswith(f"trust check {name}: {mark}: ")
        for line, name, mark in zip(lines, names, marks, strict=True)
    )


def test_settings_of_autoattack_are_described():
    standard = ["apgd-ce", "apgd-t", "fab-t", "square"]
    settings = {"version": "standard", "attacks": standard}
    assert describe_attack(settings) == "standard version"
    assert describe_attack(settings | {"attacks": standard[:2]}) == "apgd-ce + apgd-t"


# --- interruptions


@pytest.mark.parametrize(
    ("interruption", "name"),
    [(KeyboardInterrupt(), "SIGINT"), (KeyboardInterrupt("SIGTERM"), "SIGTERM")],
    ids=["SIGINT", "SIGTERM"],
)
def test_interruption_has_an_exit_code_of_its_own_and_the_run_goes_on(
    interruption, name, run, capsys, monkeypatch
):
    def interrupt(reporter, row):
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(console.ConsoleReporter, "epoch", interrupt)
        assert main(train_words("--runs-dir", "again")) == 75
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"nasbench-at: {name}: interrupted; the same command goes on"
    again = only_run("again")
    assert len((again / "metrics.jsonl").read_text().splitlines()) == 1
    assert main(train_words("--runs-dir", "again")) == 0
    assert (again / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    "words", [["--help"], pytest.param(["blocks"], marks=pytest.mark.slow)], ids=" ".join
)
def test_reader_that_has_seen_enough_is_no_error(words):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "nasbench_at", *words],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def start_training(runs):
    words = ["--data", "digits", "--blocks", "residual", "mbconv", "--num-modules", "3"]
    words += ["--init-channels", "4", "--widen-factor", "1", "--attack-steps", "1"]
    words += ["--epochs", "4", "--batch-size", "256", "--device", "cpu"]
    return subprocess.Popen(
        [sys.executable, "-m", "nasbench_at", "train", *words, "--runs-dir", str(runs)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_process_ends_like_an_undisturbed_one(tmp_path):
    with start_training(tmp_path / "killed") as process:
        line = next(line for line in process.stderr if line.startswith("epoch "))
        process.kill()
    assert line.startswith("epoch 1/4")
    assert process.returncode == -signal.SIGKILL
    assert not (only_run("killed") / "record.json").exists()
    seen = {}
    for runs in ("killed", "undisturbed"):
        with start_training(tmp_path / runs) as process:
            seen[runs] = [line for line in process.stderr if line.startswith("epoch ")]
        assert process.returncode == 0
    assert len(seen["undisturbed"]) == 4
    assert 1 <= len(seen["killed"]) <= 3
    killed, undisturbed = only_run("killed"), only_run("undisturbed")
    assert killed.name == undisturbed.name
    for name in ("metrics.jsonl", "config.yaml"):
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()
    states = [
        load_checkpoint(path / "last.pt")["training_step"]["network"]
        for path in (killed, undisturbed)
    ]
    assert all((tensor == states[1][name]).all() for name, tensor in states[0].items())
    best = [load_file(path / "best.safetensors") for path in (killed, undisturbed)]
    assert all((tensor == best[1][name]).all() for name, tensor in best[0].items())
    training = [read_record(path / "record.json").training for path in (killed, undisturbed)]
    assert training[0] == training[1]


# --- what a person sees


def test_terminal_shows_a_bar_with_the_current_accuracies(monkeypatch, tmp_path):
    with Path("screen.txt").open("w") as file:
        terminal = Console(file=file, force_terminal=True, width=140)
        monkeypatch.setattr(console, "stderr", terminal)
        reporter = console.ConsoleReporter()
        reporter.start(2, 3, 3)
        row = {"epoch": 2, "train_loss": 0.5}
        row |= {"validation_natural": 0.75, "validation_robust": 0.25}
        for _ in range(3):
            reporter.step()
        reporter.epoch(row)
        reporter.stop()
    screen = Path("screen.txt").read_text()
    assert "epoch 2/2" in screen
    assert "6/6" in screen
    assert "loss 0.500  natural 75.0%  robust 25.0%" in screen
