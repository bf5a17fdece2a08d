from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from nasbench_at import train
from nasbench_at.config import resolve
from nasbench_at.training.checkpoints import load_checkpoint
from nasbench_at.training.launch import prepare_training
from nasbench_at.training.step import TrainingStep
from nasbench_at.training.weight_perturbation import perturbed_weights
from tests.nasbench_at.conftest import tiny_config

PLAIN = {"lr": 0.5, "momentum": 0.0, "weight_decay": 0.0}


def build(*, norm=True):
    torch.manual_seed(1)
    norms = [nn.BatchNorm2d(4)] if norm else []
    return nn.Sequential(nn.Conv2d(1, 4, 3), *norms, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4))


def build_step(net, **changes):
    config = tiny_config(**{**PLAIN, "attack_start": "none", **changes})
    return TrainingStep(net, resolve(config))


def make_batch(size=12):
    torch.manual_seed(2)
    return torch.rand(size, 1, 8, 8), torch.arange(size) % 4


def take(step, batch, num_images=None):
    step.optimizers.set_rate(0.5)
    noise = torch.Generator().manual_seed(0)
    return step(*batch, noise, num_images=num_images or len(batch[1]))


def weights(net):
    return [p.detach().clone() for p in net.parameters()]


# --- parts of a batch


@pytest.mark.parametrize("method", ["st", "at", "trades", "mart"])
@pytest.mark.parametrize(("size", "num_parts"), [(12, 3), (7, 3), (12, 100)])
def test_batch_in_parts_takes_the_step_of_the_whole_batch(method, size, num_parts):
    batch, nets, totals = make_batch(size), [], []
    for steps in (1, num_parts):
        net = build(norm=False)
        changes = {"attack_start": "none"}
        if method == "trades":  # at the image itself its gradient is zero
            changes = {"attack_steps": 1, "step_size": 1e-9}
        step = build_step(net, method=method, accumulation_steps=steps, **changes)
        totals.append(take(step, batch))
        nets.append(net)
    for whole, parts in zip(*map(weights, nets), strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(totals[0], totals[1], atol=1e-4, rtol=1e-5)
    assert totals[0][2] == size


@pytest.mark.parametrize(
    ("size", "num_parts", "sizes"), [(7, 3, [3, 2, 2]), (4, 9, [2, 2]), (3, 2, [3]), (5, 1, [5])]
)
def test_no_part_is_an_image_alone(size, num_parts, sizes):
    step, seen = build_step(build(), accumulation_steps=num_parts), []
    method = step.method

    class Watching:
        loss = method.loss

        def perturb(self, model, x, y, generator):
            seen.append(len(x))
            return x

    step.method = Watching()
    take(step, make_batch(size))
    assert seen == sizes


# --- shares of a batch


def test_share_of_a_batch_weighs_by_its_images():
    batch, moves, totals = make_batch(), [], []
    for num_images in (12, 24):
        net = build()
        before = weights(net)
        totals.append(take(build_step(net), batch, num_images))
        moves.append([new - old for new, old in zip(weights(net), before, strict=True)])
    for whole, half in zip(*moves, strict=True):
        torch.testing.assert_close(half, whole / 2, atol=1e-6, rtol=1e-4)
    assert torch.equal(*totals)


def test_totals_are_sums_over_the_images():
    net, (x, y) = build(), make_batch()
    with torch.no_grad():
        logits = copy.deepcopy(net).train()(x)
    loss, num_correct, num_images = take(build_step(net, method="st"), (x, y)).tolist()
    assert loss == pytest.approx(12 * float(F.cross_entropy(logits, y)), rel=1e-5)
    assert num_correct == (logits.argmax(dim=1) == y).sum()
    assert num_images == 12


# --- average


def test_average_is_the_one_kept_by_hand_statistics_too():
    net = build()
    step = build_step(net, ema_decay=0.75)
    expected = None
    for _ in range(4):
        take(step, make_batch())
        state = {name: t.clone() for name, t in net.state_dict().items() if t.is_floating_point()}
        if expected is None:
            expected = state
        else:
            expected = {n: 0.75 * old + 0.25 * state[n] for n, old in expected.items()}
    averaged = step.evaluated.state_dict()
    assert step.evaluated is not net
    for name, tensor in expected.items():
        torch.testing.assert_close(averaged[name], tensor, atol=1e-6, rtol=1e-5)
    assert not torch.equal(averaged["0.weight"], net.state_dict()["0.weight"])


def test_no_average_leaves_the_network_itself():
    net = build()
    step = build_step(net)
    assert step.average is None
    assert step.evaluated is net


def test_average_is_restored_with_the_rest():
    first, second = build_step(build(), ema_decay=0.5), build_step(build(), ema_decay=0.5)
    for _ in range(2):
        take(first, make_batch())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for step in (first, second):
        take(step, make_batch())
    for name, tensor in first.evaluated.state_dict().items():
        assert torch.equal(tensor, second.evaluated.state_dict()[name])


def test_average_is_what_is_validated(tmp_path):
    trainer = prepare_training(tiny_config(ema_decay=0.9), runs_dir=tmp_path, device="cpu")
    with torch.no_grad():
        for parameter in trainer.training_step.average.module.parameters():
            parameter.zero_()
    natural, robust = trainer._validate()
    always_first = (trainer.data.validation.labels == 0).float().mean()
    assert natural == robust == pytest.approx(float(always_first))


def test_average_is_what_is_kept(tmp_path):
    train(tiny_config(epochs=1, ema_decay=0.5), runs_dir=tmp_path, device="cpu")
    (folder,) = tmp_path.iterdir()
    state = load_checkpoint(folder / "last.pt")["training_step"]
    best = load_file(folder / "best.safetensors")
    assert all(torch.equal(t, state["average"][f"module.{name}"]) for name, t in best.items())
    assert not all(torch.equal(t, state["network"][name]) for name, t in best.items())


# --- adversarial weight perturbation


@pytest.mark.parametrize("gamma", [0.005, 0.3])
def test_each_matrix_moves_by_gamma_times_its_norm_up_the_gradient(gamma):
    net, (x, y) = build().train(), make_batch()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}

    def loss():
        return F.cross_entropy(net(x), y)

    gradients = dict(zip(before, torch.autograd.grad(loss(), list(net.parameters())), strict=True))
    with perturbed_weights(net, loss, gamma):
        for name, parameter in net.named_parameters():
            move = parameter.detach() - before[name]
            if parameter.ndim == 1:
                assert torch.equal(move, torch.zeros_like(move))
            else:
                assert float(move.norm()) == pytest.approx(
                    gamma * float(before[name].norm()), rel=1e-3
                )
                assert F.cosine_similarity(move.flatten(), gradients[name].flatten(), dim=0) > 0.999
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


def test_weights_come_back_after_an_error_too():
    net, (x, y) = build().train(), make_batch()
    before = weights(net)
    with (
        pytest.raises(RuntimeError, match="stop"),
        perturbed_weights(net, lambda: F.cross_entropy(net(x), y), 0.1),
    ):
        raise RuntimeError("stop")
    assert all(torch.equal(*pair) for pair in zip(weights(net), before, strict=True))


def test_climb_moves_no_statistics_and_leaves_no_gradients():
    net, (x, y) = build().train(), make_batch()
    before = {name: t.clone() for name, t in net.named_buffers()}
    with perturbed_weights(net, lambda: F.cross_entropy(net(x), y), 0.1):
        pass
    assert all(torch.equal(t, before[name]) for name, t in net.named_buffers())
    assert net[1].track_running_stats
    assert all(p.grad is None for p in net.parameters())


def test_step_descends_from_where_the_weights_were():
    net, (x, y) = build(), make_batch()
    before, twin = weights(net), copy.deepcopy(net).train()
    with perturbed_weights(twin, lambda: F.cross_entropy(twin(x), y), 0.2):
        F.cross_entropy(twin(x), y).backward()
    take(build_step(net, method="st", awp_gamma=0.2), (x, y))
    for now, old, parameter in zip(weights(net), before, twin.parameters(), strict=True):
        torch.testing.assert_close(now, old - 0.5 * parameter.grad)
    assert net[1].num_batches_tracked == 1


def test_step_without_an_optimizer_s_move_leaves_the_weights_as_they_were(monkeypatch):
    net = build()
    step, before = build_step(net, awp_gamma=0.2), weights(net)
    step.optimizers.blocks.step = lambda *_: None
    take(step, make_batch())
    assert all(torch.equal(*pair) for pair in zip(weights(net), before, strict=True))


def test_gamma_zero_is_off():
    nets = [build(), build()]
    take(build_step(nets[0]), make_batch())
    take(build_step(nets[1], awp_gamma=0.0), make_batch())
    assert all(torch.equal(*pair) for pair in zip(*map(weights, nets), strict=True))
    other = build()
    take(build_step(other, awp_gamma=0.1), make_batch())
    assert not torch.equal(other[0].weight, nets[0][0].weight)
