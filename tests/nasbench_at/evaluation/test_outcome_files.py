from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from nasbench_at.attacks import AutoAttack, AutoAttackResult
from nasbench_at.data import load_data
from nasbench_at.evaluation.outcome_files import (
    ProgressFile,
    hash_images,
    hash_weights,
    remove_progress,
)
from nasbench_at.evaluation.robustness import measure_robustness

ATTACK = AutoAttack(0.28, attacks=("apgd-ce", "square"), square_queries=20, batch_size=4)
NUM_IMAGES = 12


class Killed(BaseException):
    """Stands in for a kill: nothing may catch it."""


@pytest.fixture
def data():
    return load_data("stripes").test.first(NUM_IMAGES)


@pytest.fixture
def model():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.zero_()
        for label in range(4):
            net[1].weight[label, 16 * label : 16 * label + 16] = 1 / 16
    return net.eval()


def progress_of(directory, model, data, attack=ATTACK) -> ProgressFile:
    x, y = data.take(torch.arange(len(data)))
    return ProgressFile.of(
        directory, "aa", settings=attack.settings(), model=model, images=x, labels=y
    )


def count_batches(monkeypatch, *, kill_after: int | None = None) -> list[int]:
    """Counts the batches attacked from now on; may kill right after one was saved."""
    sizes: list[int] = []
    original = AutoAttack._attack
    save = ProgressFile.save

    def counting(self: AutoAttack, *arguments: Any) -> AutoAttackResult:
        sizes.append(len(arguments[5]))
        return original(self, *arguments)

    def saving(self: ProgressFile, result: AutoAttackResult) -> None:
        save(self, result)
        if len(sizes) == kill_after:
            raise Killed

    monkeypatch.setattr(AutoAttack, "_attack", counting)
    monkeypatch.setattr(ProgressFile, "save", saving)
    return sizes


def test_killed_evaluation_goes_on_at_the_next_batch_with_the_same_verdicts(
    model, data, tmp_path, monkeypatch
):
    whole = measure_robustness(model, data, {"aa": ATTACK})
    with monkeypatch.context() as patch:
        sizes = count_batches(patch)
        measure_robustness(model, data, {"aa": ATTACK})
        total = len(sizes)
    assert total > 3  # three batches of apgd-ce, at least one of square
    for kill_after in range(1, total + 1):
        folder = tmp_path / str(kill_after)
        with monkeypatch.context() as patch:
            count_batches(patch, kill_after=kill_after)
            with pytest.raises(Killed):
                measure_robustness(model, data, {"aa": ATTACK}, progress_dir=folder)
        with monkeypatch.context() as patch:
            sizes = count_batches(patch)
            report = measure_robustness(model, data, {"aa": ATTACK}, progress_dir=folder)
        assert len(sizes) == total - kill_after
        assert report.outcomes.keys() == whole.outcomes.keys()
        for name, row in whole.outcomes.items():
            assert torch.equal(report.outcomes[name], row)


@pytest.fixture
def saved(model, data, tmp_path) -> ProgressFile:
    measure_robustness(model, data, {"aa": ATTACK}, progress_dir=tmp_path)
    return progress_of(tmp_path, model, data)


def test_progress_of_the_same_evaluation_is_used_without_a_warning(saved, data):
    x, _ = data.take(torch.arange(len(data)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = saved.load(x)
    assert result is not None
    assert list(result.robust_after) == ["apgd-ce", "square"]
    assert result.settings == ATTACK.settings()


def test_no_file_is_no_progress(model, data, tmp_path):
    assert progress_of(tmp_path, model, data).load(torch.rand(1)) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_file_is_ignored_with_a_warning(damage, saved, data):
    content = bytearray(saved.path.read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
    kept = {"cut": content[: len(content) // 2], "flipped": content, "empty": b""}[damage]
    saved.path.write_bytes(bytes(kept))
    with pytest.warns(UserWarning, match=r"'.*aa-.*safetensors' is not used.*it is damaged"):
        assert saved.load(torch.rand(NUM_IMAGES, 1, 8, 8)) is None


def test_file_of_other_weights_is_ignored_with_a_warning(saved, model, data, tmp_path):
    with torch.no_grad():
        model[1].bias += 0.01
    with pytest.warns(UserWarning, match="AutoAttack starts anew: it is of other weights"):
        report = measure_robustness(model, data, {"aa": ATTACK}, progress_dir=tmp_path)
    assert report.results["aa"].num_samples == NUM_IMAGES


def test_file_of_other_images_is_ignored_with_a_warning(saved, model, data):
    other = progress_of(saved.path.parent, model, data.first(5))
    with pytest.warns(UserWarning, match="it is of other images"):
        assert other.load(torch.rand(5, 1, 8, 8)) is None


def test_other_settings_have_a_file_of_their_own_and_are_checked_too(saved, model, data):
    settings = AutoAttack(0.1, attacks=("square",))
    other = progress_of(saved.path.parent, model, data, settings)
    assert other.path != saved.path
    saved.path.rename(other.path)
    with pytest.warns(UserWarning, match="it is of other settings"):
        assert other.load(torch.rand(NUM_IMAGES, 1, 8, 8)) is None


def test_hashes_see_values_names_and_order(model, data):
    assert hash_weights(model) == hash_weights(model)
    renamed = nn.Sequential(nn.Identity(), nn.Flatten(), model[1])
    assert hash_weights(renamed) != hash_weights(model)
    images, labels = data.images, data.labels
    flipped = hash_images(images.flip(0), labels)
    assert len({hash_images(images, labels), flipped, hash_images(images, labels.flip(0))}) == 3


def test_progress_of_the_attacks_that_ended_is_removed_and_no_other_s(model, data, tmp_path):
    folder = tmp_path / "record.progress" / "run"
    other = AutoAttack(0.1, attacks=("square",), square_queries=20)
    for attack in (ATTACK, other):
        measure_robustness(model, data, {"aa": attack}, progress_dir=folder)
    kept = progress_of(folder, model, data, other).path
    remove_progress(folder, {"aa": ATTACK.settings(), "square": other.settings()})
    assert list(folder.iterdir()) == [kept]
    remove_progress(folder, {"aa": other.settings()})
    assert not list(tmp_path.iterdir())
    remove_progress(folder, {"aa": other.settings()})
