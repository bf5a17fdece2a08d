from __future__ import annotations

import pytest

from analysis.block_smoothness import compute_run_block_smoothness
from analysis.convergence import compute_run_convergence_bound
from analysis.theory import compute_run_theory
from tests.analysis.runs import make_run

BLOCKS = ("residual", "plain_conv")
OPTIONS = {"num_images": 2, "num_batches": 2}
ROUNDING = 1e-9


@pytest.mark.slow
def test_theory_of_a_run_is_of_batches_that_differ(tmp_path):
    run = make_run(tmp_path, blocks=BLOCKS)
    found = compute_run_theory(run, **OPTIONS)
    assert not found.left_out
    assert float(found.constants["Gradient variance of the last layer"]) > ROUNDING
    bound = compute_run_convergence_bound(run, loss="natural", **OPTIONS)
    blocks = compute_run_block_smoothness(run, loss="natural", **OPTIONS)
    assert min(bound.variance, *blocks.variances, *blocks.sequence_variances) > ROUNDING
    assert found.claims[-6:] == (*bound.claims(), *blocks.claims())


@pytest.mark.slow
def test_theorems_are_left_out_where_the_images_are_too_few_for_two_batches(tmp_path):
    run = make_run(tmp_path, blocks=BLOCKS, batch_size=128)
    found = compute_run_theory(run, **OPTIONS)
    reason = "a gradient variance needs images for at least 2 batches, got 144 for batches of 128"
    assert found.left_out == (reason,)
    assert {claim.source for claim in found.claims} == {"Lemma 3.2", "Prop. 3.3"}
