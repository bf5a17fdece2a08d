from __future__ import annotations

import torch

from nasbench_at.runtime.seeding import derive_seed, make_generator


def draws(generator):
    return torch.rand(8, generator=generator)


def test_streams_of_different_seeds_and_purposes_differ():
    purposes = [(), ("order",), ("order", 1), ("order", "1"), ("order", 1, 2), ("order", 12)]
    seeds = {derive_seed(seed, *purpose) for seed in (-1, 0, 1) for purpose in purposes}
    assert len(seeds) == 3 * len(purposes)


def test_seeds_fit_into_63_bits():
    seeds = [derive_seed(seed, "range") for seed in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_a_seed_never_changes_so_that_old_runs_can_be_resumed():
    assert derive_seed(0, "order", 1) == 1332101017241992705


def test_generator_depends_on_seed_and_purpose_only():
    one = draws(make_generator(1, "noise", 2))
    torch.manual_seed(99)
    torch.rand(3)
    assert torch.equal(one, draws(make_generator(1, "noise", 2)))
    assert not torch.equal(one, draws(make_generator(2, "noise", 2)))


def test_generator_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    draws(make_generator(1, "noise"))
    assert torch.equal(torch.get_rng_state(), before)
