from __future__ import annotations

import json
import os
import random
import signal
import types

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nasbench_at import train
from nasbench_at.training.checkpoints import load_checkpoint, save_checkpoint
from nasbench_at.training.interruption import InterruptedTraining
from nasbench_at.training.launch import prepare_training
from nasbench_at.training.methods import LossAndLogits
from tests.nasbench_at.conftest import one_line, save_extra, tiny_config

NUM_STEPS = 3
"""Steps an epoch of the tiny run."""


class InterruptedRunError(Exception):
    """Stands for whatever ends a process."""


class Watcher:
    """Counts what it is told; interrupts at an epoch's end, or at a step."""

    def __init__(self, *, after_epoch=None, after_steps=None):
        self.after_epoch, self.after_steps = after_epoch, after_steps
        self.starts, self.steps, self.rows = [], 0, []

    def start(self, num_epochs, num_steps, num_done):
        self.starts.append((num_epochs, num_steps, num_done))

    def step(self):
        self.steps += 1
        if self.steps == self.after_steps:
            raise InterruptedRunError

    def epoch(self, row):
        self.rows.append(row)
        if row["epoch"] == self.after_epoch:
            raise InterruptedRunError


def network_of(folder):
    return load_checkpoint(folder / "last.pt")["training_step"]["network"]


def results(folder):
    """What must be the same bits however a run came about."""
    network = network_of(folder)
    with safe_open(folder / "best.safetensors", framework="pt") as file:
        header = file.metadata()
    best = load_file(folder / "best.safetensors")
    return {
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "best": {name: tensor.tolist() for name, tensor in best.items()},
        "header": header,
        "network": {name: tensor.tolist() for name, tensor in network.items()},
        "training": json.loads((folder / "record.json").read_text())["training"],
    }


def run_path(runs):
    (path,) = runs.iterdir()
    return path


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Folder of a run of three epochs that nothing disturbed."""
    runs = tmp_path_factory.mktemp("undisturbed")
    train(tiny_config(epochs=3), runs_dir=runs, device="cpu")
    return run_path(runs)


def test_run_writes_a_line_an_epoch(undisturbed):
    history = rows(undisturbed)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for row in history:
        assert row["train_loss"] > 0
        for name in ("train_accuracy", "validation_natural", "validation_robust"):
            assert 0 <= row[name] <= 1
        assert row["validation_robust"] <= row["validation_natural"]
        assert [sum(weights) for weights in row["attention"]] == pytest.approx([1, 1, 1], abs=1e-5)


def test_training_lowers_the_loss_and_moves_the_attention(undisturbed):
    history = rows(undisturbed)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert history[-1]["attention"] != history[0]["attention"]


class TickingWatcher(Watcher):
    """Lets a second pass at every step."""

    def __init__(self, clock, **interruption):
        super().__init__(**interruption)
        self.clock = clock

    def step(self):
        self.clock.now += 1
        super().step()


@pytest.fixture
def clock(monkeypatch):
    clock = types.SimpleNamespace(now=1000)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("nasbench_at.training.trainer.time", clock)
    return clock


@pytest.mark.parametrize("checkpoint_minutes", [0.0, 1.5 / 60, 5.0])
@pytest.mark.parametrize("interruption", [{}, {"after_steps": 5}, {"after_epoch": 1}], ids=str)
def test_every_second_of_training_counts_once(interruption, checkpoint_minutes, clock, tmp_path):
    def go(**interruption):
        return train(
            tiny_config(),
            runs_dir=tmp_path,
            device="cpu",
            checkpoint_minutes=checkpoint_minutes,
            reporter=TickingWatcher(clock, **interruption),
        )

    if interruption:
        with pytest.raises(InterruptedRunError):
            go(**interruption)
        clock.now += 10_000  # nothing runs
    record = go()
    assert record.provenance["train_seconds"] == 2 * NUM_STEPS


def test_rates_follow_the_milestones(undisturbed):
    assert [row["lr"] for row in rows(undisturbed)] == pytest.approx([0.1, 0.01, 0.001])


def test_best_weights_are_those_of_the_most_robust_epoch(undisturbed):
    best = max(rows(undisturbed), key=lambda r: (r["validation_robust"], r["validation_natural"]))
    selected = results(undisturbed)["training"]["selected"]
    assert selected["epoch"] == best["epoch"]
    assert selected["validation_robust"] == best["validation_robust"]
    with safe_open(undisturbed / "best.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["nasbench_at"])["epoch"] == best["epoch"]


def test_the_last_epoch_is_taken_where_it_is_asked_for(undisturbed, tmp_path):
    accuracies = [row["validation_robust"] for row in rows(undisturbed)]
    assert accuracies.index(max(accuracies)) != 2  # or there were nothing to see
    train(tiny_config(epochs=3, select_on="last"), runs_dir=tmp_path, device="cpu")
    found = results(run_path(tmp_path))
    assert found["training"]["selected"]["epoch"] == 3
    assert found["best"] == {k: v for k, v in found["network"].items() if k in found["best"]}
    assert found["network"] == results(undisturbed)["network"]


def test_training_twice_gives_the_same_bits(undisturbed, tmp_path):
    torch.manual_seed(77)  # nothing may depend on the global state
    train(tiny_config(epochs=3), runs_dir=tmp_path, device="cpu")
    assert results(run_path(tmp_path)) == results(undisturbed)


def test_another_seed_gives_another_run(undisturbed, tmp_path):
    train(tiny_config(epochs=3, seed=1), runs_dir=tmp_path, device="cpu")
    assert results(run_path(tmp_path))["network"] != results(undisturbed)["network"]


@pytest.mark.parametrize(
    "interruption",
    [
        {"after_epoch": 1},
        {"after_epoch": 2},
        {"after_steps": 1},
        {"after_steps": 5},
        {"after_epoch": 3},
    ],
    ids=str,
)
def test_interrupted_run_ends_like_an_undisturbed_one(interruption, undisturbed, tmp_path):
    config = tiny_config(epochs=3)
    with pytest.raises(InterruptedRunError):
        train(config, runs_dir=tmp_path, device="cpu", reporter=Watcher(**interruption))
    torch.manual_seed(5)
    train(config, runs_dir=tmp_path, device="cpu")
    assert results(run_path(tmp_path)) == results(undisturbed)


@pytest.mark.parametrize("interruption", [{"after_steps": 5}, {"after_epoch": 1}], ids=str)
def test_interrupted_run_in_bf16_ends_like_an_undisturbed_one(interruption, tmp_path):
    config = tiny_config(epochs=2, precision="bf16")
    train(config, runs_dir=tmp_path / "undisturbed", device="cpu")
    with pytest.raises(InterruptedRunError):
        train(config, runs_dir=tmp_path / "cut", device="cpu", reporter=Watcher(**interruption))
    train(config, runs_dir=tmp_path / "cut", device="cpu")
    assert results(run_path(tmp_path / "cut")) == results(run_path(tmp_path / "undisturbed"))


@pytest.mark.parametrize("interruption", [{"after_steps": 5}, {"after_epoch": 1}], ids=str)
def test_interrupted_run_with_extra_data_ends_like_an_undisturbed_one(interruption, tmp_path):
    config = tiny_config(extra_data=save_extra(tmp_path / "extra.npz"), augment=True)
    undisturbed, cut = tmp_path / "undisturbed", tmp_path / "cut"
    train(config, runs_dir=undisturbed, device="cpu")
    with pytest.raises(InterruptedRunError):
        train(config, runs_dir=cut, device="cpu", reporter=Watcher(**interruption))
    train(config, runs_dir=cut, device="cpu")
    assert results(run_path(cut)) == results(run_path(undisturbed))


def test_checkpoint_within_an_epoch_of_extra_data_is_gone_on_from(tmp_path):
    """Each step is saved, so that the run goes on in the middle of its batches."""
    config = tiny_config(extra_data=save_extra(tmp_path / "extra.npz"), epochs=1)
    train(config, runs_dir=tmp_path / "undisturbed", device="cpu")
    options = {"runs_dir": tmp_path / "cut", "device": "cpu", "checkpoint_minutes": 0}
    with pytest.raises(InterruptedRunError):
        train(config, reporter=Watcher(after_steps=2), **options)
    rest = Watcher()
    train(config, reporter=rest, **options)
    assert rest.steps == NUM_STEPS - 1  # the second step was not saved
    assert results(run_path(tmp_path / "cut")) == results(run_path(tmp_path / "undisturbed"))


def test_extra_data_are_part_of_every_batch_and_of_the_record(tmp_path):
    path = save_extra(tmp_path / "extra.npz")
    config = tiny_config(extra_data=path, extra_fraction=0.5, epochs=1)
    trainer = prepare_training(config, runs_dir=tmp_path / "runs", device="cpu")
    seen = []
    step = trainer.training_step
    real = step.method.perturb

    def perturb(model, x, y, noise):
        seen.append(x.clone())
        return real(model, x, y, noise)

    step.method = types.SimpleNamespace(
        perturb=perturb, loss=step.method.loss, start_epoch=lambda _: step.method
    )
    record = trainer.run()
    pool = trainer.data.mixture.pool.images / 255
    kinds = [(pool == image).flatten(1).all(1).nonzero().max() >= 144 for x in seen for image in x]
    # 144 images are held to train on: three batches of 64 places, half of them generated.
    assert (len(kinds), sum(kinds)) == (3 * 64, 3 * 32)
    # What a step's loss is a mean over: its batch is full, the last one too.
    assert [trainer._num_images(number) for number in range(NUM_STEPS)] == [64] * 3
    assert (record.training["num_train"], record.training["num_extra"]) == (144, 40)
    assert record.provenance["extra_data_fingerprint"] == trainer.data.mixture.fingerprint
    assert record.config["contents"][path] == trainer.config.contents[path]


def test_run_without_extra_data_says_nothing_of_them(undisturbed):
    text = (undisturbed / "record.json").read_text() + (undisturbed / "config.yaml").read_text()
    assert "extra" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra_fraction": 0.001}, "in each batch of 64, got 0.001, which is 0 generated ones"),
        ({"extra_fraction": 0.999}, "in each batch of 64, got 0.999, which is 64 generated ones"),
        ({"data": "digits"}, "the classes of the data set, got 11..11"),
        ({"extra_data": "none.npz"}, "data file 'none.npz' does not exist"),
    ],
    ids=str,
)
def test_extra_data_are_checked_before_a_file_is_written(changes, message, tmp_path):
    path = tmp_path / "extra.npz"
    images = np.zeros((4, 8, 8), np.uint8)
    np.savez(path, x=images, y=np.full(4, 11 if "data" in changes else 0))
    with pytest.raises(ValueError, match=message) as caught:
        train(
            tiny_config(**{"extra_data": str(path), **changes}),
            runs_dir=tmp_path / "runs",
            device="cpu",
        )
    one_line(caught)
    assert not (tmp_path / "runs").exists()


def test_resumed_run_trains_the_epochs_that_are_left(undisturbed, tmp_path):
    config, first, second = tiny_config(epochs=3), Watcher(after_epoch=1), Watcher()
    with pytest.raises(InterruptedRunError):
        train(config, runs_dir=tmp_path, device="cpu", reporter=first)
    train(config, runs_dir=tmp_path, device="cpu", reporter=second)
    num_steps = first.steps
    assert first.starts == [(3, num_steps, 0)]
    assert second.starts == [(3, num_steps, num_steps)]
    assert second.steps == 2 * num_steps
    assert [row["epoch"] for row in second.rows] == [2, 3]


def test_lines_of_epochs_that_the_checkpoint_does_not_know_are_dropped(undisturbed, tmp_path):
    config = tiny_config(epochs=3)
    with pytest.raises(InterruptedRunError):
        train(config, runs_dir=tmp_path, device="cpu", reporter=Watcher(after_epoch=1))
    with (run_path(tmp_path) / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2}\n{"epo')
    train(config, runs_dir=tmp_path, device="cpu")
    assert results(run_path(tmp_path)) == results(undisturbed)


def test_finished_run_trains_nothing(run):
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()}
    watcher = Watcher()
    record = train(tiny_config(), runs_dir=run.parent, device="cpu", reporter=watcher)
    assert record.to_json().encode() == before["record.json"][0]
    assert (watcher.starts, watcher.steps, watcher.rows) == ([], 0, [])
    del before[".lock"]
    for name, (content, time) in before.items():
        assert (run / name).read_bytes() == content
        assert (run / name).stat().st_mtime_ns == time


def test_finished_run_without_checkpoints_keeps_its_record(run):
    before = (run / "record.json").read_bytes()
    for name in ("last.pt", "previous-last.pt"):
        (run / name).unlink()
    watcher = Watcher()
    train(tiny_config(), runs_dir=run.parent, device="cpu", reporter=watcher)
    assert watcher.steps == 0
    assert (run / "record.json").read_bytes() == before


class Signaller(Watcher):
    """Asks the process to stop in its first step."""

    def step(self):
        super().step()
        if self.steps == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("batch_size", "place"), [(48, "in epoch 1 after step 1 of 3"), (144, "after epoch 1 of 3")]
)
def test_step_of_a_signal_is_the_last(batch_size, place, tmp_path):
    config = tiny_config(epochs=3, batch_size=batch_size)
    watcher = Signaller()
    with pytest.raises(InterruptedTraining, match=f"^SIGTERM: stopped {place}$"):
        train(config, runs_dir=tmp_path, device="cpu", reporter=watcher)
    assert watcher.steps == 1
    record = train(config, runs_dir=tmp_path, device="cpu")
    assert record.training["epochs"] == 3
    assert len(rows(run_path(tmp_path))) == 3


def test_run_killed_before_its_record_was_written_gets_it(run):
    (run / "record.json").unlink()
    watcher = Watcher()
    record = train(tiny_config(), runs_dir=run.parent, device="cpu", reporter=watcher)
    assert watcher.steps == 0
    assert record.training["epochs"] == 2
    assert (run / "record.json").exists()


def test_global_random_states_are_untouched(tmp_path):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    train(tiny_config(epochs=1), runs_dir=tmp_path, device="cpu")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # noqa: NPY002


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_epoch(
    undisturbed, tmp_path, monkeypatch
):
    config = tiny_config(epochs=3)
    with pytest.raises(InterruptedRunError):
        train(config, runs_dir=tmp_path, device="cpu", reporter=Watcher(after_epoch=1))
    folder = run_path(tmp_path)
    before = {name: (folder / name).read_bytes() for name in ("last.pt", "best.safetensors")}
    trainer = prepare_training(config, runs_dir=tmp_path, device="cpu")
    method = trainer.training_step.method

    class Broken:
        perturb = staticmethod(method.perturb)

        def start_epoch(self, epoch):
            return self

        @staticmethod
        def loss(*arguments):
            loss, logits = method.loss(*arguments)
            return LossAndLogits(loss * float("nan"), logits)

    monkeypatch.setattr(trainer.training_step, "method", Broken())
    message = r"loss is not finite from step 1 of epoch 2 on; .* is kept in"
    with pytest.raises(FloatingPointError, match=message) as error:
        trainer.run()
    assert str(folder) in one_line(error)
    assert {name: (folder / name).read_bytes() for name in before} == before
    train(config, runs_dir=tmp_path, device="cpu")
    assert results(folder) == results(undisturbed)


def truncate(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_checkpoint_falls_back_to_the_one_before_and_says_so(share, run):
    before = results(run)
    (run / "record.json").unlink()
    truncate(run / "last.pt", share)
    with pytest.warns(UserWarning, match=r"last.pt' is damaged.*going on from the one before"):
        trainer = prepare_training(tiny_config(), runs_dir=run.parent, device="cpu")
    assert trainer.progress.epoch == 1
    trainer.run()
    assert results(run) == before


def test_two_truncated_checkpoints_are_refused_and_left_as_they_are(run):
    for name in ("last.pt", "previous-last.pt"):
        truncate(run / name, 0.5)
    before = {path.name: path.read_bytes() for path in run.glob("*.pt")}
    with (
        pytest.warns(UserWarning, match=r"'.*last.pt' is damaged"),
        pytest.raises(ValueError, match=r"previous-last.pt' is damaged") as error,
    ):
        prepare_training(tiny_config(), runs_dir=run.parent, device="cpu")
    one_line(error)
    assert {path.name: path.read_bytes() for path in run.glob("*.pt")} == before


@pytest.mark.parametrize(
    "state",
    [{}, {"training_step": {}, "progress": {}}, {"training_step": 3}],
    ids=str,
)
def test_checkpoint_of_something_else_is_refused(state, run):
    save_checkpoint(run / "last.pt", state)
    with pytest.raises(ValueError, match=r"checkpoint '.*last.pt' is of another network") as error:
        prepare_training(tiny_config(), runs_dir=run.parent, device="cpu")
    one_line(error)


@pytest.mark.parametrize(
    "progress", [{"epoch": "two"}, {"history": 5}, {"best": None}, {"seconds": [1]}, 7]
)
def test_checkpoint_whose_progress_is_none_is_refused(progress, run):
    state = load_checkpoint(run / "last.pt")
    save_checkpoint(run / "last.pt", {**state, "progress": progress})
    with pytest.raises(ValueError, match=r"checkpoint '.*last.pt' is of another network") as error:
        prepare_training(tiny_config(), runs_dir=run.parent, device="cpu")
    one_line(error)


@pytest.mark.parametrize("part", ["network", "optimizers"])
def test_checkpoint_whose_parts_are_of_other_types_is_refused(part, run):
    state = load_checkpoint(run / "last.pt")
    state["training_step"][part] = [3]
    save_checkpoint(run / "last.pt", state)
    with pytest.raises(ValueError, match=r"checkpoint '.*last.pt' is of another network") as error:
        prepare_training(tiny_config(), runs_dir=run.parent, device="cpu")
    one_line(error)


def test_checkpoint_of_another_network_is_refused(run, tmp_path):
    train(tiny_config(init_channels=5, epochs=1), runs_dir=tmp_path / "other", device="cpu")
    other = run_path(tmp_path / "other") / "last.pt"
    (run / "last.pt").write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match=r"last.pt' is of another network: .*size") as error:
        prepare_training(tiny_config(), runs_dir=run.parent, device="cpu")
    one_line(error)


def test_fixed_attention_stays_as_it_is(tmp_path):
    train(tiny_config(attention="fixed"), runs_dir=tmp_path, device="cpu")
    attention = [row["attention"] for row in rows(run_path(tmp_path))]
    assert attention == [[[0.5, 0.5]] * 3] * 2


def test_layout_in_memory_decides_speed_alone(tmp_path):
    train(tiny_config(epochs=1, channels_last=False), runs_dir=tmp_path, device="cpu")
    train(tiny_config(epochs=1), runs_dir=tmp_path, device="cpu")
    losses = [rows(path)[0]["train_loss"] for path in tmp_path.iterdir()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_best_weights_hold_the_whole_network(undisturbed):
    names = set(network_of(undisturbed))
    assert set(load_file(undisturbed / "best.safetensors")) == names
    assert "attention.logits" in names
