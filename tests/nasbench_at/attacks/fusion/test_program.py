from __future__ import annotations

import operator

import torch

from nasbench_at.attacks.fusion.program import Program, Stage


def build() -> Program:
    weights, forward, backward = Stage(is_pure=True), Stage(), Stage()
    weights.add_input("num_images")
    doubled = weights.call(operator.mul, weights.add_input("weight"), 2)
    unused = weights.call(operator.mul, doubled, 3)
    x, seed = forward.add_input("x"), backward.add_input("seed")
    product = forward.call(operator.mul, x, doubled)
    forward.call(operator.mul, product, unused)
    logits = forward.call(operator.add, product, 1)
    gradient = backward.call(operator.mul, backward.call(operator.mul, seed, doubled), product)
    return Program.build(["weight"], (weights, forward, backward), logits, gradient)


def test_stages_take_what_they_need_of_earlier_ones():
    program = build()
    prepared = program.prepare({"weight": torch.tensor(5.0), "other": torch.tensor(7.0)}, 1)
    assert prepared == [torch.tensor(10.0)]
    logits, taken = program.forward(prepared, torch.tensor(3.0))
    assert logits == 31
    assert program.backward(taken, torch.tensor(2.0)) == 2 * 10 * 30


def test_pure_stage_does_the_same_operation_once():
    stage = Stage(is_pure=True)
    x = stage.add_input("x")
    first = stage.call(torch.add, x, [1, x], alpha=2)
    assert stage.call(torch.add, x, [1, x], alpha=2) is first
    # Equal numbers, but integers stay integers under one of them.
    others = [stage.call(torch.add, x, [1.0, x], alpha=2), stage.call(torch.add, x, [True, x])]
    assert len({first, *others}) == 3


def test_other_stage_does_each_operation():
    stage = Stage()
    x = stage.add_input("x")
    assert stage.call(torch.relu_, x) is not stage.call(torch.relu_, x)


def test_inputs_come_first_however_late_they_are_added():
    stage = Stage()
    x = stage.add_input("x")
    negative = stage.call(operator.neg, x)
    y = stage.add_input("y")
    run = stage.finish([stage.call(operator.add, negative, y)])
    assert run(1, 10) == (9,)
