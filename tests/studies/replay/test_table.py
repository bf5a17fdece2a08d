from __future__ import annotations

import itertools
import subprocess
import sys

import optuna
import pytest

from nasbench_at.records import Record
from studies.replay import TabularObjective
from tests.nasbench_at.records.test_records import make_evaluation

SPACE = ("blocks", "method")


def make_run(blocks=("residual",), method="at", pgd: float | None = 0.5, **config) -> Record:
    eps = config.pop("eps", 0.1)
    evaluation = make_evaluation({"natural": 0.9} | ({} if pgd is None else {"pgd": pgd}), eps=eps)
    values = {
        "model": "ds_net",
        "blocks": blocks,
        "method": method,
        "num_modules": 3,
        "seed": 0,
        "lr": 0.1,
    } | config
    return Record(
        run_id=f"{'+'.join(map(str, blocks))}-{method}-s{values['seed']}",
        config=values,
        architecture="",
        num_params=0,
        provenance={},
        evaluations=(evaluation,),
    )


def value_at(objective, **parameters) -> float:
    named = {name.replace("_of_", "."): value for name, value in parameters.items()}
    return objective(optuna.trial.FixedTrial(named))


@pytest.fixture
def objective() -> TabularObjective:
    """Two blocks, two methods; all but the empty set and one pair."""
    runs = [
        make_run(("residual",), "at", 0.2),
        make_run(("residual",), "trades", 0.3),
        make_run(("dense",), "at", 0.4),
        make_run(("residual", "dense"), "at", 0.6),
        make_run(("residual", "dense"), "trades", 0.8),
    ]
    return TabularObjective(runs, SPACE, "pgd")


def test_parameters_are_values_that_occur_and_a_boolean_a_block(objective):
    assert {name: d.choices for name, d in objective.search_space.items()} == {
        "method": ("at", "trades"),
        "blocks.dense": (False, True),
        "blocks.residual": (False, True),
    }
    assert (len(objective), objective.best, objective.worst) == (5, 0.8, 0.2)


def test_recorded_combination_is_looked_up(objective):
    values = {"blocks_of_dense": True, "blocks_of_residual": False, "method": "at"}
    assert value_at(objective, **values) == 0.4
    assert value_at(objective, **{**values, "blocks_of_residual": True}) == 0.6


@pytest.mark.parametrize(("dense", "method"), [(True, "trades"), (False, "at")])
def test_unknown_combination_is_pruned(objective, dense, method):
    with pytest.raises(optuna.TrialPruned, match="there is no record of this combination"):
        value_at(objective, blocks_of_dense=dense, blocks_of_residual=False, method=method)


def test_mean_is_taken_over_seeds_and_over_orders_of_the_blocks():
    runs = [
        make_run(("residual", "dense"), pgd=0.5, seed=0),
        make_run(("dense", "residual"), pgd=0.6, seed=1),
        make_run([["residual", "dense"]] * 3, pgd=0.7, seed=2),
        make_run(("residual", "dense"), pgd=None, seed=3),  # was not evaluated
    ]
    objective = TabularObjective(runs, ("blocks",), "pgd")
    assert value_at(objective, blocks_of_dense=True, blocks_of_residual=True) == pytest.approx(0.6)


def test_values_are_in_an_order_of_their_own():
    runs = [
        make_run(pgd=0.1, lr=0.1, tau=(1, 2), beta=None),
        make_run(pgd=0.2, lr=0.01, tau=None, beta=6),
        make_run(pgd=0.3, lr=1, tau=(1, 3), beta=1),
    ]
    spaces = [
        TabularObjective(order, ("lr", "tau", "beta"), "pgd").search_space
        for order in itertools.permutations(runs)
    ]
    assert {name: d.choices for name, d in spaces[0].items()} == {
        "lr": (0.01, 0.1, 1),
        "tau": ("[1, 2]", "[1, 3]", None),
        "beta": (1, 6, None),
    }
    assert all(space == spaces[0] for space in spaces)


@pytest.mark.parametrize(
    ("runs", "space", "message"),
    [
        ([], SPACE, "none of 0 records was evaluated by 'pgd'"),
        ([make_run(pgd=None)], SPACE, "none of 1 records was evaluated by 'pgd'"),
        ([make_run()], (), r"space must be keys of the configuration, at least one, got \(\)"),
        ([make_run()], "blocks", "space must be keys of the configuration, .* got 'blocks'"),
        ([make_run()], ("seed",), "space must not have the key 'seed'"),
        (
            [make_run()],
            ("eps",),
            r"space has the unknown key 'eps'; all records have: \['attention_keep'",
        ),
        (
            [make_run(), make_run(seed=1, lr=0.2)],
            ("blocks", "method"),
            r"runs 'residual-at-s0' and 'residual-at-s1' have the same blocks, method but differ "
            r"in lr \(0.1 and 0.2\)",
        ),
        ([make_run(), make_run(seed=1, beta=6)], ("blocks",), r"differ in beta \(None and 6.0\)"),
        ([make_run(beta=6), make_run(seed=1)], ("blocks",), r"differ in beta \(6.0 and None\)"),
        ([make_run([["a"], ["b"], ["a"]])], ("blocks",), "all modules must have the same set"),
        ([make_run(("a", "a"))], ("blocks",), "same set without repetition, got"),
        (
            [make_run(), make_run(eps=0.2)],
            SPACE,
            r"evaluated by 'pgd' under the same conditions; they differ in eps \(0.1 and 0.2\)",
        ),
    ],
)
def test_bad_table_is_one_line(runs, space, message):
    with pytest.raises(ValueError, match=message) as error:
        TabularObjective(runs, space, "pgd")
    assert "\n" not in str(error.value)


def test_it_needs_no_torch():
    code = "import sys, studies.replay.table; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr or "importing studies.replay.table loads torch"
