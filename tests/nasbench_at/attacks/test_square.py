"""Square, query by query against pyautoattack's."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from nasbench_at.attacks.guard import attack_mode
from nasbench_at.attacks.square import Square

from .conftest import PerImage, build_net, images, predict

QUERIES = 700


def build_model(channels: int) -> PerImage:
    net = build_net()
    if channels == 1:
        return PerImage(net)
    mix = nn.Conv2d(channels, 1, 1, bias=False)
    nn.init.constant_(mix.weight, 1 / channels)
    return PerImage(nn.Sequential(mix, net).eval())


def run_both(
    model: PerImage, x: Tensor, norm: str, eps: float, *, max_rows: int, queries: int = QUERIES
) -> tuple[Tensor, Tensor, set[bytes], set[bytes], int]:
    """Returns the library's images and ours, all that each gave to the model, and our calls."""
    y = predict(model, x)
    library = SquareAttack(
        model,
        norm=norm,
        eps=eps,
        n_queries=queries,
        p_init=0.8,
        seed=0,
        resc_schedule=False,
        device="cpu",
    )
    with attack_mode(model), torch.no_grad():
        model.seen.clear()
        expected = library.perturb(x, y)
        theirs = model.take_seen()
        attack = Square(eps, norm, queries)
        generator = torch.Generator().manual_seed(0)
        found = attack.attack(model, x, y, generator, max_rows=max_rows)
        num_ours = len(model.seen)
    return expected, found, theirs, model.take_seen(), num_ours


@pytest.mark.parametrize("max_rows", [1, 1000])
@pytest.mark.parametrize(
    ("norm", "eps", "channels"),
    [("Linf", 0.03, 1), ("Linf", 0.06, 3), ("L2", 0.16, 1), ("L2", 0.4, 3)],
)
def test_images_are_the_library_s(norm: str, eps: float, channels: int, max_rows: int) -> None:
    x = images(12).expand(-1, channels, -1, -1).contiguous()
    expected, found, *_ = run_both(build_model(channels), x, norm, eps, max_rows=max_rows)
    assert torch.equal(found, expected)
    fooled = (found != x).flatten(1).any(dim=1)
    assert 2 <= fooled.sum() <= 9


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.004), ("L2", 0.02)])
def test_queries_are_the_library_s_but_for_those_in_vain(norm: str, eps: float) -> None:
    x = images(6)
    _, found, theirs, ours, num_ours = run_both(build_model(1), x, norm, eps, max_rows=1)
    assert torch.equal(found, x)
    # With one query at a time, nothing is computed that the library does not compute, and nothing
    # left out but what repeats; it looks at the clean images, too.
    clean = {image.numpy().tobytes() for image in x}
    assert ours == theirs - clean
    assert num_ours < QUERIES * len(x)


def test_small_images_need_few_of_the_queries() -> None:
    x = images(4)
    *_, num_ours = run_both(build_model(1), x, "Linf", 0.004, max_rows=64, queries=3000)
    assert num_ours < 3000 * len(x) / 4


def test_nothing_is_left_to_query_for_a_fooled_batch() -> None:
    x = images(4)
    expected, found, *_, num_ours = run_both(build_model(1), x, "Linf", 1.0, max_rows=64)
    assert torch.equal(found, expected)
    assert num_ours < 100


def test_many_channels_are_told_apart_by_their_queries() -> None:
    """With 45 channels no whole number holds all signs."""
    x = images(2).expand(-1, 45, -1, -1).contiguous()
    expected, found, *_ = run_both(build_model(45), x, "L2", 0.5, max_rows=64, queries=40)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(12, 12), (18, 18), (19, 24), (32, 30)])
def test_tiles_that_reach_beyond_an_image_are_cut_off(shape):
    x = torch.rand(3, 3, *shape)
    generator = torch.Generator().manual_seed(0)
    start = Square(0.5, "L2", 1)._start_l2(x, generator)
    assert not torch.equal(start, x)
    assert (start - x).flatten(1).norm(dim=1).max() <= 0.5 + 1e-5
