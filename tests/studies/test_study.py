from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from blocks import register_block
from studies.recipes import block_space, search, weight_decay
from studies.study import create_or_open_study


def test_attack_that_needs_more_classes_is_refused_when_the_study_is_created(
    base, tiny_study, tmp_path
):
    images = np.random.default_rng(0).integers(0, 256, (100, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(100) % 2
    np.savez(tmp_path / "two.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    two_classes = replace(
        tiny_study, base=replace(base, data=str(tmp_path / "two.npz")), attacks=("pgd", "aa")
    )
    url = f"sqlite:///{tmp_path}/s.db"
    with pytest.raises(ValueError, match="AutoAttack's apgd-t needs at least 4 classes, got 2"):
        create_or_open_study(two_classes, url, runs_dir=tmp_path)
    assert not (tmp_path / "studies").exists()
    create_or_open_study(replace(two_classes, attacks=("pgd",)), url, runs_dir=tmp_path)


@pytest.mark.parametrize("recipe", [weight_decay, partial(search, pool=("residual", "broken"))])
def test_block_that_fails_is_refused_when_the_study_is_created(
    recipe, base, tmp_path, own_registry
):
    options = {"summary": "broken", "reference": "ours", "kind": "handcrafted"}
    register_block("broken", **options)(lambda channels: torch.nn.Conv2d(channels, channels, 3))
    study = recipe(replace(base, blocks=("residual", "broken")))
    with pytest.raises(ValueError, match=r"block 'broken' fails on features .*: its output must"):
        create_or_open_study(study, f"sqlite:///{tmp_path}/s.db", runs_dir=tmp_path)
    assert not (tmp_path / "studies").exists()


def test_width_that_one_block_of_a_pool_refuses_is_left_to_the_trials(base, tmp_path):
    study = search(replace(base, init_channels=1), pool=("residual", "resnext"))
    create_or_open_study(study, f"sqlite:///{tmp_path}/s.db", runs_dir=tmp_path)


def test_attack_that_a_norm_does_not_have_is_refused_when_the_study_is_created(base, tmp_path):
    study = block_space(replace(base, norm="L2"), sizes=(1,))
    study = replace(study, attacks=("pgd", "cw"))
    url = f"sqlite:///{tmp_path}/s.db"
    with pytest.raises(ValueError, match=r"attack must be one of pgd, aa, .* under L2, got 'cw'"):
        create_or_open_study(study, url, runs_dir=tmp_path)
    assert not (tmp_path / "studies").exists()
