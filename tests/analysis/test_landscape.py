from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from analysis.landscape import (
    Landscape,
    compute_landscape,
    compute_run_landscape,
    computing,
    draw_landscape_contour,
    draw_landscape_line,
    draw_landscape_surface,
    load_landscape,
    measuring,
)
from analysis.landscape.directions import draw_direction
from nasbench_at import RunConfig, build_network
from nasbench_at.attacks import LinfPGD
from nasbench_at.config import resolve
from nasbench_at.evaluation.runs import Run
from nasbench_at.records.run_folders import create_run_folder
from nasbench_at.training.checkpoints import save_weights


class Quadratic(nn.Module):
    """Its answer is ½ wᵀAw + bᵀw, whatever the image."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
        self.matrix = root @ root.T
        self.slope = torch.randn(12, generator=generator, dtype=torch.float64)
        weight = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value(self.weight.flatten()).expand(len(x), 1)

    def value(self, w: torch.Tensor) -> torch.Tensor:
        return 0.5 * w @ self.matrix @ w + self.slope @ w


class Tied(nn.Module):
    """Two convolutions share a weight; each has a norm of its own to be folded into it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.conv2, self.norm2 = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.conv2.weight = self.conv1.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())).mean(dim=(2, 3))


def first_logit(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return logits[:, 0]


def pixels(count: int = 6, shape=(3, 8, 8)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(count, *shape, generator=generator)
    return images, torch.randint(2, (count,), generator=generator)


def quadratic_landscape(model: nn.Module | None = None, **options) -> Landscape:
    images, labels = pixels(2)
    model = model or Quadratic()
    return compute_landscape(model, images, labels, **{"loss": first_logit, "points": 5} | options)


@pytest.fixture
def network(tiny_architecture):
    """Trained a little, so that norms and their statistics are not those of the start."""
    network = build_network(tiny_architecture)
    x, y = pixels(16)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network


@pytest.fixture
def set_workers(monkeypatch):
    """Sets how many threads take points."""
    return lambda number: monkeypatch.setattr(measuring, "count_workers", lambda *_: number)


def plain_losses(model, images, labels, landscape) -> np.ndarray:
    """As the definition reads: a copy of the model with other weights at each point."""
    directions = [draw_direction(model, number) for number in range(2)]
    losses = np.empty(landscape.losses.shape)
    for i, alpha in enumerate(landscape.alphas):
        for j, beta in enumerate(landscape.betas):
            moved = copy.deepcopy(model).eval()
            with torch.no_grad():
                for coordinate, direction in zip((alpha, beta), directions, strict=True):
                    for name, step in direction.items():
                        moved.get_parameter(name).add_(step, alpha=coordinate)
                losses[i, j] = F.cross_entropy(moved(images), labels)
    return losses


def test_quadratic_loss_has_its_exact_landscape():
    model = Quadratic()
    found = quadratic_landscape(model, span=3.0, seed=7, name="bowl")
    assert found.alphas.tolist() == found.betas.tolist() == [-3.0, -1.5, 0.0, 1.5, 3.0]
    delta, eta = (draw_direction(model, i, seed=7)["weight"] for i in range(2))
    center = model.weight.detach()
    for i, alpha in enumerate(found.alphas):
        for j, beta in enumerate(found.betas):
            expected = model.value((center + alpha * delta + beta * eta).flatten())
            assert found.losses[i, j] == pytest.approx(expected.item(), rel=1e-12)
    assert found.center_loss == pytest.approx(model.value(center.flatten()).item(), rel=1e-12)


def test_line_is_the_middle_of_the_plane():
    line, plane = quadratic_landscape(dimensions=1), quadratic_landscape()
    np.testing.assert_array_equal(line.losses[:, 0], plane.losses[:, 2])
    assert line.betas.tolist() == [0.0]


def test_filters_of_a_direction_have_the_norms_of_the_weights(network):
    direction = draw_direction(network, 0)
    for name, step in direction.items():
        weight = network.get_parameter(name).detach()
        torch.testing.assert_close(step.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
    moved = {name for name, p in network.named_parameters() if p.ndim >= 2}
    assert direction.keys() == moved - {"attention.logits"}


def test_directions_are_decided_by_seed_and_number(network):
    def head(*arguments, **options):
        return draw_direction(network, *arguments, **options)["head.weight"]

    assert torch.equal(head(0, seed=1), head(0, seed=1))
    assert not torch.equal(head(0, seed=1), head(1, seed=1))
    assert not torch.equal(head(0, seed=1), head(0, seed=2))


def test_landscape_of_a_network_is_that_of_copies_of_it(network, set_workers):
    images, labels = pixels()
    options = {"points": 3, "span": 0.5}
    found = compute_landscape(network, images, labels, **options)
    expected = plain_losses(network, images, labels, found)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-4)
    parts = compute_landscape(network, images, labels, batch_size=4, **options)
    np.testing.assert_allclose(parts.losses, expected, rtol=1e-4)
    set_workers(2)
    threads = compute_landscape(network, images, labels, **options)
    np.testing.assert_allclose(threads.losses, expected, rtol=1e-4)
    assert found.losses.std() > 0.01


def test_weight_that_two_convolutions_share_moves_in_both():
    model, (images, labels) = Tied(), pixels(shape=(2, 4, 4))
    model(images)
    found = compute_landscape(model, images, labels, points=3)
    expected = plain_losses(model, images, labels, found)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)


@pytest.mark.parametrize("workers", [1, 2])
def test_model_is_left_as_it_was_even_after_an_error(network, workers, set_workers):
    set_workers(workers)
    images, labels = pixels()
    network.head.eval()
    state = copy.deepcopy(network.state_dict())
    where = [p.data_ptr() for p in network.parameters()]
    gradients = [p.grad.clone() for p in network.parameters()]
    modes = [module.training for module in network.modules()]

    def check() -> None:
        assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
        assert [p.data_ptr() for p in network.parameters()] == where
        for p, gradient in zip(network.parameters(), gradients, strict=True):
            assert p.requires_grad
            assert torch.equal(p.grad, gradient)
        assert [module.training for module in network.modules()] == modes

    def fail(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    options = {"points": 3}
    compute_landscape(network, images, labels, attack=LinfPGD(0.1, steps=1), **options)
    check()
    with pytest.raises(KeyboardInterrupt):
        compute_landscape(network, images, labels, on_progress=fail, **options)
    check()


def test_workers_share_the_threads_of_an_operation(set_workers):
    seen = []

    def spy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return logits[:, 0]

    torch.set_num_threads(4)
    try:
        for workers in (1, 2, 8):
            set_workers(workers)
            quadratic_landscape(loss=spy)
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(1)
    assert set(seen[:25]) == {4}
    assert set(seen[25:50]) == {2}
    assert set(seen[50:]) == {1}


def test_images_are_attacked_once_at_the_weights(network):
    images, labels = pixels()
    attack = LinfPGD(0.1, steps=2, start="none")
    found = compute_landscape(network, images, labels, points=3, attack=attack)
    attacked = attack(network, images, labels)
    natural = compute_landscape(network, attacked, labels, points=3)
    np.testing.assert_allclose(found.losses, natural.losses, rtol=1e-5)
    assert found.settings["attack"]["eps"] == 0.1


def test_interrupted_landscape_goes_on_from_its_last_row(tmp_path):
    file = tmp_path / "landscape.safetensors"
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quadratic_landscape(progress_file=file, on_progress=stop)
    assert load_landscape(file).num_missing == 15
    seen.clear()
    resumed = quadratic_landscape(progress_file=file, on_progress=lambda *n: seen.append(n))
    assert (seen[0], seen[-1]) == ((1, 15), (15, 15))
    np.testing.assert_array_equal(resumed.losses, quadratic_landscape().losses)
    np.testing.assert_array_equal(load_landscape(file).losses, resumed.losses)
    seen.clear()

    def refuse(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a finished landscape is computed again")

    refuse.__name__ = first_logit.__name__
    done = quadratic_landscape(progress_file=file, loss=refuse)
    np.testing.assert_array_equal(done.losses, resumed.losses)


def test_file_of_another_landscape_is_not_used(tmp_path):
    file = tmp_path / "landscape.safetensors"
    model = Quadratic()
    quadratic_landscape(model, progress_file=file)
    with pytest.raises(ValueError, match="is of other seed: 0, not 1"):
        quadratic_landscape(model, progress_file=file, seed=1)
    with pytest.raises(ValueError, match="has 5 alphas from -1 to 1, not 3 from -1 to 1"):
        quadratic_landscape(model, progress_file=file, points=3)
    with torch.no_grad():
        model.weight += 1
    with pytest.raises(ValueError, match=r"landscape\.safetensors' is of other weights: "):
        quadratic_landscape(model, progress_file=file)
    with pytest.raises(ValueError, match=r"cannot write landscape '.*none/file': No such file"):
        quadratic_landscape(progress_file=tmp_path / "none" / "file")
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"cannot read landscape '.*landscape\.safetensors'"):
        quadratic_landscape(model, progress_file=file)


def test_loss_that_is_no_number_is_infinite():
    def broken(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return logits[:, 0] * math.nan

    found = quadratic_landscape(loss=broken)
    assert np.isposinf(found.losses).all()
    with pytest.raises(ValueError, match="none of the losses is finite"):
        draw_landscape_contour(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"span": 0.0}, r"span must be positive and finite, got 0\.0"),
        ({"points": 4}, "points must be odd and at least 3, got 4"),
        ({"dimensions": 3}, "dimensions must be 1 or 2, got 3"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"model": nn.BatchNorm2d(3)}, "weights of two or more dimensions, .* got none"),
        ({"loss": F.cross_entropy}, r"a value an image, shape \(2,\), got shape \(\)"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        quadratic_landscape(**options)


def test_landscape_of_a_run(tmp_path, monkeypatch):
    config = resolve(
        RunConfig(blocks=("residual",), num_modules=3, init_channels=4, widen_factor=1, eps=0.1)
    )
    network = build_network(config.architecture((1, 8, 8), 10))
    run = Run(create_run_folder(tmp_path, config), torch.device("cpu"))
    save_weights(run.folder.best, network, {"epoch": 1})
    options = {"points": 3, "num_images": 20}
    natural = compute_run_landscape(run, **options)
    attacked = compute_run_landscape(run, adversarial=True, **options)
    assert natural.name == "DS-Net of residual, 3 modules of 4 channels, k = 1, seed 0"
    assert natural.settings["attack"] is None
    assert natural.settings["num_images"] == 20
    attack = attacked.settings["attack"]
    assert (attack["eps"], attack["steps"]) == (0.1, 20)
    assert attacked.center_loss > natural.center_loss
    with pytest.raises(ValueError, match=r"num_images must lie in 1\.\.500, got 501"):
        compute_run_landscape(run, num_images=501)
    monkeypatch.setattr(computing, "_NUM_IMAGES", 7)
    assert compute_run_landscape(run, points=3).settings["num_images"] == 7


def test_contour_shows_the_plane_from_above():
    found = quadratic_landscape(name="bowl")
    axes, bar = draw_landscape_contour(found).axes
    assert axes.get_title() == "bowl\n2 images, natural; directions of seed 0"
    assert bar.get_ylabel() == "first logit, logarithmic"
    filled = axes.collections[0]
    assert filled.levels[0] == found.losses.min()
    assert filled.levels[-1] == found.losses.max()
    endless = replace(found, losses=found.losses.copy())
    endless.losses[0, 0] = np.inf
    bar = draw_landscape_contour(endless).axes[1]
    assert bar.get_ylabel().startswith("first logit, logarithmic, cut at")


def test_contour_has_alpha_to_the_right():
    found = quadratic_landscape()
    slope = replace(found, losses=np.tile(found.alphas[:, None], (1, 5)))
    axes = draw_landscape_contour(slope).axes[0]
    low, high = (axes.collections[0].get_paths()[i].vertices[:, 0].mean() for i in (0, -1))
    assert low < -0.5 < 0.5 < high


def test_surfaces_share_one_scale():
    low = quadratic_landscape(name="a")
    high = replace(low, name="b", losses=low.losses + 100)
    for is_linear, height in ((True, np.asarray), (False, np.log10)):
        left, right, bar = draw_landscape_surface([low, high], is_linear=is_linear).axes
        assert [left.get_title(), right.get_title()] == ["a", "b"]
        assert left.get_zlim() == right.get_zlim()
        assert left.get_zlim()[0] <= height(low.losses.min())
        assert left.get_zlim()[1] >= height(high.losses.max())
        assert bar.get_ylabel() == f"first logit, {'linear' if is_linear else 'logarithmic'}"


def test_scales_are_logarithmic_unless_asked_otherwise_or_a_loss_is_not_positive():
    found = quadratic_landscape(name="bowl")
    (axes,) = draw_landscape_line([found]).axes
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "first logit, logarithmic")
    (axes,) = draw_landscape_line([found], is_linear=True).axes
    assert (axes.get_yscale(), axes.get_ylabel()) == ("linear", "first logit, linear")
    levels = draw_landscape_contour(found).axes[0].collections[0].levels
    np.testing.assert_allclose(levels[1:] / levels[:-1], levels[1] / levels[0])
    negative = replace(found, losses=found.losses - found.losses.max())
    (axes,) = draw_landscape_line([negative]).axes
    assert (axes.get_yscale(), axes.get_ylabel()) == ("linear", "first logit, linear")


def test_surface_says_losses_and_not_their_logarithms():
    figure = draw_landscape_surface([quadratic_landscape(name="bowl")])
    figure.canvas.draw()
    panel = figure.axes[0]
    texts = [label.get_text() for label in panel.get_zticklabels()]
    heights = panel.get_zticks()
    assert [float(text) for text in texts] == pytest.approx(10**heights, rel=0.01)


def test_lines_are_the_middle_sections():
    plane, line = quadratic_landscape(name="a"), quadratic_landscape(name="b", dimensions=1)
    (axes,) = draw_landscape_line([plane, line]).axes
    for drawn in axes.lines:
        np.testing.assert_array_equal(drawn.get_ydata(), plane.losses[:, 2])
    assert [drawn.get_label() for drawn in axes.lines] == ["a", "b"]


def test_what_cannot_be_drawn_together_is_named():
    plane = quadratic_landscape(name="a")
    line = quadratic_landscape(name="b", dimensions=1)
    with pytest.raises(ValueError, match="landscape 'b' is a line"):
        draw_landscape_surface([plane, line])
    with pytest.raises(ValueError, match="at least one landscape to draw, got none"):
        draw_landscape_line([])
    plane.losses[2:] = np.nan
    with pytest.raises(ValueError, match="'a' lacks 15 of 25 points"):
        draw_landscape_contour(plane)
    plane = quadratic_landscape(name="a")
    attacked = replace(plane, name="c", settings={**plane.settings, "images": "others"})
    with pytest.raises(ValueError, match=r"must be of the same images, got .* of 'c', others"):
        draw_landscape_line([plane, attacked])
