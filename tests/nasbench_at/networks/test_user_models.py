from __future__ import annotations

from pathlib import Path

import numpy as np
import pyautoattack
import pytest
import safetensors.torch
import torch

from nasbench_at.cli import main
from nasbench_at.config.contents import hash_contents
from nasbench_at.networks.user_models import load_user_model
from nasbench_at.records import Benchmark, read_record
from nasbench_at.records.outcomes import read_outcomes
from tests.nasbench_at.conftest import one_line

MODULE = """
import torch
from torch import nn

def bright_rows():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    return net

def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(10, 4))

def images_out():
    return nn.Identity()

def doubles():
    return bright_rows().double()

def fails():
    raise RuntimeError("no such\\nlayer")

def text():
    return "network"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module of the user's in the current folder, new to each test."""
    name = f"models_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.fixture
def state():
    weight = torch.zeros(4, 64)
    for label in range(4):
        weight[label, 16 * label : 16 * label + 16] = 1 / 16
    return {"1.weight": weight, "1.bias": torch.zeros(4)}


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_weights_are_loaded_from_safetensors_or_a_state_dict(name, module, state, tmp_path):
    model = load_user_model(f"{module}:bright_rows", save(state, tmp_path / name))
    assert not model.training
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_model_is_evaluated_in_float32(module):
    model = load_user_model(f"{module}:doubles")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


class Evil:
    def __reduce__(self):
        return print, ("run",)


BAD_WEIGHTS = {
    "missing": (None, "cannot read weights .*: No such file or directory"),
    "text": (
        b"text",
        "cannot read weights .*: it is not tensors and plain data that torch.save wrote",
    ),
    "code": (
        Evil(),
        "cannot read weights .*: it is not tensors and plain data that torch.save wrote",
    ),
    "list": ([torch.zeros(1)], "must be a plain state_dict of tensors, got list"),
    "wrapped": ({"state_dict": {}}, "must be a plain state_dict of tensors, got dict"),
    "others": ({"2.weight": torch.zeros(1)}, "are not those of model"),
}


@pytest.mark.parametrize(("content", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_bad_weights_are_one_line_and_nothing_is_run(content, message, module, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as error:
        load_user_model(f"{module}:bright_rows", path)
    assert str(path) in one_line(error)
    assert "weights_only" not in one_line(error)
    assert capsys.readouterr().out == ""


def test_damaged_safetensors_are_named(module, state, tmp_path):
    path = save(state, tmp_path / "w.safetensors")
    path.write_bytes(path.read_bytes()[:50])
    message = r"cannot read weights '.*w.safetensors': it is no safetensors file \("
    with pytest.raises(ValueError, match=message):
        load_user_model(f"{module}:bright_rows", path)


def test_factory_of_a_file_is_evaluated_on_the_command_line(module, tmp_path, capsys):
    (tmp_path / "sub").mkdir()
    (tmp_path / f"{module}.py").rename(tmp_path / "sub/my.py")
    assert main(words("sub/my.py")) == 0
    record = read_record(capsys.readouterr().out.splitlines()[-1])
    assert record.run_id.startswith("bright_rows-")
    assert record.config["model"] == "sub/my.py:bright_rows"
    assert list(record.config["contents"]) == ["sub/my.py:bright_rows"]


BAD_FACTORIES = {
    "no colon": ("models", "unknown model 'models'; known: ds_net_4"),
    "no factory's name": (
        "models:",
        "must be written file.py:factory or module:factory, got 'models:'",
    ),
    "no module": ("no_such_module:f", r"factory 'no_such_module:f' failed: ModuleNotFoundError"),
    "no file": ("none.py:f", r"factory 'none.py:f' failed: FileNotFoundError"),
    "no factory": ("{}:none", r"failed: AttributeError: module .* has no attribute 'none'"),
    "no factory in the file": ("{}.py:none", r"AttributeError: module '\w+\.py' has no attribute"),
    "raises": ("{}:fails", "failed: RuntimeError: no such layer"),
    "no module returned": ("{}:text", r"must return a torch\.nn\.Module, got str"),
}


@pytest.mark.parametrize(("spec", "message"), BAD_FACTORIES.values(), ids=BAD_FACTORIES)
def test_bad_factory_is_one_line(spec, message, module):
    with pytest.raises(ValueError, match=message) as error:
        load_user_model(spec.format(module))
    one_line(error)


# The command line


def words(module: str, factory: str = "bright_rows", *more: str) -> list[str]:
    flags = ["--data", "stripes", "--attacks", "fgsm", "--eps", "0.1", "--device", "cpu"]
    return ["evaluate", "--model", f"{module}:{factory}", *flags, *more]


def test_model_of_the_user_is_evaluated_to_a_record(module, state, tmp_path, capsys):
    weights = save(state, tmp_path / "w.safetensors")
    assert main(words(module, "bright_rows", "--weights", str(weights))) == 0
    path = Path(capsys.readouterr().out.splitlines()[-1])
    assert path.parts[0] == "evaluations"
    assert path.parts[1].startswith("bright_rows-w-")
    record = read_record(path)
    assert record.run_id == path.parts[1]
    assert record.accuracy("natural") == 1.0
    assert record.num_params == 64 * 4 + 4
    spec = f"{module}:bright_rows"
    expected = {"model": spec, "weights": str(weights), "data": "stripes"}
    expected |= {"weights_hash": record.config["weights_hash"]}
    assert record.config == {**expected, "contents": hash_contents([spec])}
    assert record.evaluations[-1].data == "stripes/test"
    result = record.results["fgsm"]
    assert int(read_outcomes(path)[result.key].sum()) == result.num_correct
    assert Benchmark.load("evaluations").query(model=f"{module}:bright_rows")[0] == record


def test_other_weights_land_in_another_folder(module, state, tmp_path):
    for scale in (1, 2):
        scaled = {key: scale * value for key, value in state.items()}
        weights = save(scaled, tmp_path / "w.pt")
        assert main(words(module, "bright_rows", "--weights", str(weights))) == 0
    assert len(list(Path("evaluations").iterdir())) == 2
    records = Benchmark.load("evaluations")
    assert len({record.config["weights_hash"] for record in records}) == 2
    assert records.summary().frame["seeds"].tolist() == [1, 1]


def test_record_is_written_where_it_was_asked_for(module, state, tmp_path, capsys):
    out = tmp_path / "results" / "mine.json"
    assert main(words(module, "bright_rows", "--out", str(out))) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert read_record(out).is_evaluated
    assert out.with_name("mine.outcomes.safetensors").exists()
    assert main(["compare", str(out), str(out), "--attack", "fgsm"]) == 0


def test_models_of_the_user_count_any_iterate(module):
    out = Path("r.json")
    assert main(words(module, "bright_rows", "--attacks", "pgd", "--out", str(out))) == 0
    assert read_record(out).results["pgd"].settings["counts"] == "any"


def test_other_attacks_on_the_same_model_go_to_the_same_record(module):
    for attack in ("fgsm", "pgd"):
        assert main(words(module, "bright_rows", "--attacks", attack)) == 0
    (path,) = Path("evaluations").glob("*/record.json")
    assert {"fgsm", "pgd"} <= read_record(path).results.keys()


def test_record_of_another_model_is_not_overwritten(module, state, tmp_path, capsys):
    assert main(words(module, "bright_rows", "--out", "mine.json")) == 0
    before = Path("mine.json").read_bytes()
    weights = save({key: 2 * value for key, value in state.items()}, tmp_path / "w.pt")
    capsys.readouterr()
    flags = ["--weights", str(weights), "--out", "mine.json"]
    assert main(words(module, "bright_rows", *flags)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'mine.json' holds the record of another model or other images, 'bright_rows-" in line
    assert Path("mine.json").read_bytes() == before


@pytest.mark.parametrize(
    ("factory", "more", "message"),
    [
        ("small", (), "cannot take images (1, 8, 8): "),
        ("images_out", (), "must return logits (N, C), got (1, 1, 8, 8)"),
        ("bright_rows", ("--data", "strips"), "unknown data set 'strips'"),
        ("bright_rows", ("--out", "."), "out must be a file"),
        ("bright_rows", ("--eps", "8"), "eps must lie in [0, 1]"),
        (
            "bright_rows",
            ("--weights", "none.pt"),
            "weights must be an existing file",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(factory, more, message, module, capsys):
    assert main(words(module, factory, *more)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(Path().glob("**/record.json"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--model", "m:f", "--eps", "0.1"], "--model needs --data"),
        (["--model", "m:f", "--data", "stripes"], "eps must be given with a model of your own"),
    ],
)
def test_what_a_model_needs_is_asked_for(given, message, capsys):
    assert main(["evaluate", *given]) == 2
    assert message in capsys.readouterr().err


# The network that pyautoattack ships, on the images that foolbox ships

RESNET = """
from importlib.util import module_from_spec, spec_from_file_location

spec = spec_from_file_location("shipped_resnet", {path!r})
module = module_from_spec(spec)
spec.loader.exec_module(module)
make = module.ResNet18
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_shipped_resnet_is_right_on_all_shipped_images_and_robust_on_none(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that foolbox imports
        import foolbox
    from PIL import Image

    files = sorted((Path(foolbox.__file__).parent / "data").glob("cifar10_*.png"))
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    labels = np.array([int(file.stem.rsplit("_", 1)[1]) for file in files])
    assert images.shape == (20, 32, 32, 3)
    # Nothing is trained: the training part only has to name the ten classes.
    every_class = np.arange(10).repeat(2)
    np.savez("shipped.npz", x_train=images, y_train=every_class, x_test=images, y_test=labels)

    examples = Path(pyautoattack.__file__).parent / "examples"
    Path("shipped_model.py").write_text(RESNET.format(path=str(examples / "resnet.py")))
    flags = ["--weights", str(examples / "model_test.pt"), "--data", "shipped.npz"]
    flags += ["--attacks", "apgd-ce", "--eps", str(8 / 255), "--out", "shipped.json"]
    assert main(["evaluate", "--model", "shipped_model:make", *flags, "--device", "cpu"]) == 0
    record = read_record("shipped.json")
    assert record.results["natural"].num_samples == 20
    assert record.accuracy("natural") == 1.0
    assert record.accuracy("apgd-ce") == 0.0
    assert "100.00%" in capsys.readouterr().out
