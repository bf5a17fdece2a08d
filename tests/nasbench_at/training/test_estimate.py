"""What a dry run tells of precisions."""

from __future__ import annotations

from dataclasses import replace

from nasbench_at.training import launch
from nasbench_at.training.launch import prepare_estimate
from tests.nasbench_at.conftest import tiny_config


def test_precisions_are_timed_in_turn_and_a_compiled_run_in_its_own(monkeypatch):
    prepared = prepare_estimate(tiny_config(precision="fp16_unscaled"), device="cpu")
    seen = []
    times = iter([9.0, 9.0, 9.0, 3.0, 1.0, 2.0, 2.0, 4.0, 2.0])

    def record(step, number):
        seen.append(prepared.training_step.precision.name)
        step()
        return next(times)

    monkeypatch.setattr(launch.timeit, "timeit", record)
    assert prepared.time_precisions(num_rounds=2) == {
        "fp16_unscaled": 2.0,
        "fp32": 1.0,
        "bf16": 2.0,
    }
    assert seen == ["fp16_unscaled", "fp32", "bf16"] * 3
    compiled = replace(prepared.config, compile=True)
    times = iter([5.0] * 4)
    assert replace(prepared, config=compiled).time_precisions() == {"fp16_unscaled": 5.0}


def test_precision_that_the_device_lacks_is_not_timed(monkeypatch):
    def refuse(name, device):
        if name == "bf16":
            raise ValueError

    monkeypatch.setattr(launch, "check_precision", refuse)
    prepared = prepare_estimate(tiny_config(), device="cpu")
    assert set(prepared.time_precisions(num_rounds=1)) == {"fp32"}
