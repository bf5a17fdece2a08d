from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pyautoattack
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from nasbench_at import Architecture, build_network, create_model
from nasbench_at.attacks import AutoAttack, AutoAttackResult, LinfPGD, autoattack
from nasbench_at.attacks.auto_pgd import AutoPGD
from nasbench_at.attacks.fab import FAB

from .conftest import build_net, images, predict

NUM_CLASSES = 4
QUERIES = 30


@pytest.fixture
def four() -> nn.Module:
    return build_net(num_classes=NUM_CLASSES)


@pytest.fixture
def labelled(four: nn.Module) -> tuple[Tensor, Tensor]:
    """Five images; the first is classified wrongly."""
    x = images(5)
    y = predict(four, x)
    y[0] = (y[0] + 1) % NUM_CLASSES
    return x, y


def upstream(
    model: nn.Module, x: Tensor, y: Tensor, *, attack: AutoAttack, num_targets: int
) -> tuple[Tensor, Tensor]:
    """Run pyautoattack's own evaluation; return its images and which samples are robust."""
    theirs = pyautoattack.AutoAttack(
        model, eps=attack.eps, norm=attack.norm, seed=attack.seed, version=attack.version
    )
    theirs.apgd_targeted.n_target_classes = theirs.fab.n_target_classes = num_targets
    theirs.square.n_queries = attack.square_queries
    trace = sys.gettrace()
    try:
        with torch.random.fork_rng(devices=[]):
            x_adv, y_adv = theirs.run_standard_evaluation(x, y, batch_size=attack.batch_size)
    finally:
        sys.settrace(trace)  # it clears the tracer of coverage
        model.zero_grad()
    return x_adv, y_adv == y


@pytest.mark.parametrize(
    "attack",
    [
        AutoAttack(0.02, square_queries=QUERIES, batch_size=3),
        AutoAttack(0.12, norm="L2", square_queries=QUERIES, batch_size=3, seed=5),
        pytest.param(AutoAttack(0.02, version="rand", batch_size=3), marks=pytest.mark.slow),
    ],
    ids=["Linf", "L2", "rand"],
)
def test_verdicts_equal_the_library_s(
    attack: AutoAttack, four: nn.Module, labelled: tuple[Tensor, Tensor]
) -> None:
    _, robust = upstream(four, *labelled, attack=attack, num_targets=NUM_CLASSES - 1)
    result = attack.run(four, *labelled)
    assert torch.equal(result.robust, robust)
    assert 0 < robust.sum() < result.correct.sum()


def test_result_tells_who_survived_each_attack(
    four: nn.Module, labelled: tuple[Tensor, Tensor]
) -> None:
    result = AutoAttack(0.02, square_queries=QUERIES).run(four, *labelled)
    assert list(result.robust_after) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert list(result.seconds) == list(result.robust_after)
    assert result.correct.tolist() == [False] + [True] * 4
    verdicts = [result.correct, *result.robust_after.values()]
    for before, after in pairwise(verdicts):
        assert not (after & ~before).any()
    assert torch.equal(result.robust, verdicts[-1])
    x, y = labelled
    assert torch.equal(predict(four, result.x_adv) == y, result.robust)
    assert torch.equal(result.x_adv[result.robust], x[result.robust])
    assert (result.x_adv - x).abs().max() <= 0.02 + 1e-6


def test_attacks_after_the_last_survivor_cost_nothing(
    four: nn.Module, labelled: tuple[Tensor, Tensor]
) -> None:
    result = AutoAttack(1.0).run(four, *labelled)
    assert list(result.robust_after) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert not any(robust.any() for robust in result.robust_after.values())
    assert result.seconds["square"] < 0.1


@pytest.mark.parametrize(
    "attacks",
    [("apgd-ce", "square"), pytest.param((), marks=pytest.mark.slow)],
    ids=["two", "standard"],
)
def test_run_resumes_from_any_batch_to_the_same_result(
    attacks: tuple[str, ...], four: nn.Module, labelled: tuple[Tensor, Tensor]
) -> None:
    attack = AutoAttack(0.02, square_queries=QUERIES, batch_size=2, attacks=attacks)
    stages: list[AutoAttackResult] = []
    whole = attack.run(four, *labelled, on_batch_done=stages.append)
    done = [sum(stage.num_batches.values()) for stage in stages]
    assert done == list(range(1, len(stages) + 1))
    assert whole.num_batches["apgd-ce"] == 2  # four images are right to begin with
    assert whole.num_batches["square"] >= 1
    for number, stage in enumerate(stages, 1):
        rest: list[AutoAttackResult] = []
        resumed = attack.run(four, *labelled, resume=stage, on_batch_done=rest.append)
        assert len(rest) == len(stages) - number
        assert torch.equal(resumed.x_adv, whole.x_adv)
        assert list(resumed.robust_after) == list(whole.robust_after)
        for name, robust in whole.robust_after.items():
            assert torch.equal(resumed.robust_after[name], robust)


def test_some_of_the_attacks_are_run_alone(
    four: nn.Module, labelled: tuple[Tensor, Tensor]
) -> None:
    whole = AutoAttack(0.02, square_queries=QUERIES).run(four, *labelled)
    attack = AutoAttack(0.02, attacks=("apgd-ce",))
    result = attack.run(four, *labelled)
    assert list(result.robust_after) == ["apgd-ce"]
    assert torch.equal(result.robust, whole.robust_after["apgd-ce"])
    assert attack.settings()["version"] == "custom"


@pytest.mark.parametrize(
    ("part", "num_classes"),
    [("apgd-ce", 2), ("apgd-dlr", 3), ("apgd-t", 4), ("fab-t", 2), ("square", 2)],
)
def test_every_part_runs_with_as_many_classes_as_it_needs(part: str, num_classes: int) -> None:
    model = build_net(num_classes=num_classes)
    x = images(3)
    AutoAttack(0.1, attacks=(part,), square_queries=5).run(model, x, predict(model, x))


def test_resuming_another_attack_s_result_is_refused(
    four: nn.Module, labelled: tuple[Tensor, Tensor]
) -> None:
    result = AutoAttack(1.0).run(four, *labelled)
    with pytest.raises(ValueError, match=r"cannot resume: .*'eps': 1.0.* was run, not .*0.5"):
        AutoAttack(0.5).run(four, *labelled, resume=result)


def test_channels_last_images_are_attacked_alike(
    four: nn.Module, labelled: tuple[Tensor, Tensor]
) -> None:
    x, y = labelled
    model = nn.Sequential(nn.Conv2d(3, 1, 1), four)
    x = x.expand(-1, 3, -1, -1).contiguous()
    y = predict(model, x)
    attack = AutoAttack(0.05, square_queries=QUERIES)
    plain = attack(model, x, y)
    last = attack(model, x.contiguous(memory_format=torch.channels_last), y)
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-4)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_model_in_training_mode_is_attacked_in_eval_mode(
    four: nn.Module, labelled: tuple[Tensor, Tensor]
) -> None:
    expected = AutoAttack(1.0).run(four, *labelled)
    found = AutoAttack(1.0).run(four.train(), *labelled)
    assert torch.equal(found.x_adv, expected.x_adv)


@pytest.mark.parametrize(("num_classes", "num_targets"), [(4, 3), (12, 9)])
@pytest.mark.parametrize("part", ["apgd-t", "fab-t"])
def test_targeted_attacks_try_nine_classes_or_all_there_are(
    part: str, num_classes: int, num_targets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    for attack in (AutoPGD, FAB):

        def attack_targets(
            self: object, model: nn.Module, x: Tensor, y: Tensor, count: int, *_: Any, **__: Any
        ) -> Tensor:
            asked.append(count)
            return x

        monkeypatch.setattr(attack, "attack_targets", attack_targets)
    model = build_net(num_classes=num_classes)
    x = images(1)
    AutoAttack(0.1, attacks=(part,)).run(model, x, predict(model, x))
    assert asked == [num_targets]


def test_image_that_only_folded_norms_fool_is_attacked_as_the_model_is(
    four: nn.Module, labelled: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folding rounds; here it computes something else, under which all images are fooled."""
    attack = AutoAttack(0.02, square_queries=QUERIES)
    expected = attack.run(four, *labelled)

    @contextmanager
    def broken(model: nn.Module, x: Tensor) -> Iterator[None]:
        head = model[-1]  # type: ignore[index]
        head.bias += torch.tensor([1e3, 0.0, 0.0, 0.0])
        yield
        head.bias -= torch.tensor([1e3, 0.0, 0.0, 0.0])

    monkeypatch.setattr(autoattack, "folded_norms", broken)
    found = attack.run(four, *labelled)
    assert torch.equal(found.robust, expected.robust)
    assert 0 < expected.robust.sum() < expected.correct.sum()


def test_trace_function_survives(four: nn.Module, labelled: tuple[Tensor, Tensor]) -> None:
    def tracer(*args: Any) -> None: ...

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        AutoAttack(1.0).run(four, *labelled)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


def test_autocast_around_it_changes_nothing(
    four: nn.Module, labelled: tuple[Tensor, Tensor]
) -> None:
    attack = AutoAttack(0.05, square_queries=QUERIES)
    expected = attack.run(four, *labelled)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attack.run(four, *labelled)
    assert torch.equal(found.x_adv, expected.x_adv)


def test_settings_are_json_and_complete() -> None:
    attack = AutoAttack(0.03, seed=4)
    settings = attack.settings()
    assert json.loads(json.dumps(settings)) == settings
    assert {field.name for field in dataclasses.fields(attack)} <= settings.keys()
    assert settings["version"] == "standard"
    assert settings["name"] == attack.name == "aa"
    assert AutoAttack(0.03, square_queries=10).settings()["version"] == "custom"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 8}, r"eps must lie in \[0, 1\], got 8"),
        ({"norm": "L1"}, "norm must be one of Linf, L2, got 'L1'"),
        ({"version": "plus"}, "version must be one of standard, rand, got 'plus'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"square_queries": 0}, "square_queries must be at least 1, got 0"),
        ({"attacks": ("pgd",)}, "attacks must be some of apgd-ce, .*square, got 'pgd'"),
        ({"attacks": ("square", "square")}, "attacks must be different, got square, square"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoAttack(**{"eps": 0.1} | changes)


@pytest.mark.parametrize(
    ("parts", "num_classes", "message"),
    [
        (
            (),
            3,
            "apgd-t needs at least 4 classes, got 3; apgd-ce\\+square, apgd-ce, apgd-dlr, fab-t,",
        ),
        (
            (),
            2,
            "apgd-t needs at least 4 classes, got 2; apgd-ce\\+square, apgd-ce, fab-t, square can",
        ),
        (
            ("apgd-dlr",),
            2,
            "apgd-dlr needs at least 3 classes, got 2; apgd-ce\\+square, apgd-ce, fab",
        ),
        (("square",), 1, "square needs at least 2 classes, got 1$"),
    ],
)
def test_too_few_classes_are_refused(
    parts: tuple[str, ...], num_classes: int, message: str
) -> None:
    attack = AutoAttack(0.1, attacks=parts)
    with pytest.raises(ValueError, match=f"AutoAttack's {message}"):
        attack.run(build_net(num_classes=num_classes), images(1), torch.tensor([0]))
    with pytest.raises(ValueError, match=f"AutoAttack's {message}"):
        attack.check_data(num_classes, (1, 8, 8))


def test_other_precisions_and_shapes_are_refused(four: nn.Module) -> None:
    y = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"needs float32 images .* got torch.float64"):
        AutoAttack(0.1).run(four, images(2).double(), y)
    with pytest.raises(ValueError, match=r"got torch.float32 of shape \(2, 64\)"):
        AutoAttack(0.1).run(four, images(2).flatten(1), y)
    low = nn.Sequential(nn.Flatten(), nn.Linear(32, 4))
    with pytest.raises(ValueError, match="at least 5x5, got 4x8"):
        AutoAttack(0.1, norm="L2").run(low, images(2)[:, :, :4], y)
    with pytest.raises(ValueError, match="at least 5x5, got 4x8"):
        AutoAttack(0.1, norm="L2").check_data(4, (1, 4, 8))
    AutoAttack(0.1, norm="L2", attacks=("fab-t",)).check_data(4, (1, 4, 8))


def train(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(120):
        rows = torch.arange(step * 64, (step + 1) * 64) % len(x)
        x_adv = LinfPGD(0.1, steps=3)(net, x[rows], y[rows])
        optimizer.zero_grad()
        F.cross_entropy(net(x_adv), y[rows]).backward()
        optimizer.step()
    return net.eval()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolution": build_net,
    "ds_net": lambda: build_network(
        Architecture(
            blocks=("residual", "mbconv", "dense"),
            num_modules=3,
            init_channels=4,
            widen_factor=1,
            input_shape=(1, 8, 8),
        )
    ),
    "wrn": lambda: create_model("tiny_wrn", num_classes=10, input_shape=(1, 8, 8)),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.15), ("L2", 0.7)])
@pytest.mark.parametrize("name", NETWORKS)
def test_verdicts_on_trained_digits_equal_the_library_s(name: str, norm: Any, eps: float) -> None:
    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    y = torch.tensor(digits.target)
    torch.manual_seed(0)
    net = train(NETWORKS[name](), x[:1500], y[:1500])
    attack = AutoAttack(eps, norm=norm, batch_size=64)
    x, y = x[1500:1580], y[1500:1580]
    _, robust = upstream(net, x, y, attack=attack, num_targets=9)
    result = attack.run(net, x, y)
    assert torch.equal(result.robust, robust)
    assert 5 < robust.sum() < result.correct.sum() - 5
    order = torch.inf if norm == "Linf" else 2
    sizes = torch.linalg.vector_norm((result.x_adv - x).flatten(1), ord=order, dim=1)
    assert sizes.max() <= eps + 1e-6
