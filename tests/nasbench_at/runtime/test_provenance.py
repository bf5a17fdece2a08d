from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nasbench_at.runtime import provenance

DESCRIPTION = """processor\t: 0
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC
stepping\t: 1

processor\t: 1
model name\t: another
"""


def cpu_of(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(provenance, "CPUINFO", cpuinfo)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    cpu: str = provenance.collect_provenance(torch.device("cpu"))["cpu"]
    return cpu


def test_provenance_tells_processors_apart_whose_bits_may_differ(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(DESCRIPTION)
    cpu = cpu_of(tmp_path / "cpuinfo", monkeypatch)
    assert cpu == "AMD EPYC, cpu family 26, model 2, stepping 1, AVX2"


def test_provenance_where_the_system_does_not_describe_its_processor(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert cpu_of(tmp_path / "none", monkeypatch) == "arm, AVX2"
