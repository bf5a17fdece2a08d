"""Where a result comes from: versions, commit, machine."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["collect_provenance", "package_version"]

_PACKAGE = "nasbench-at"
CPUINFO = Path("/proc/cpuinfo")
"""Where Linux describes the processor."""


def collect_provenance(device: torch.device) -> dict[str, Any]:
    """Returns what is needed to judge whether two results may differ for technical reasons.

    Args:
        device: Where the run computes.
    """
    return {
        "nasbench_at": package_version(),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.platform(),
        "cpu": _cpu(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "num_threads": torch.get_num_threads(),
        "precision": "float32",
    }


def package_version() -> str | None:
    """The installed version; None where the checkout is used as it is."""
    try:
        return version(_PACKAGE)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    """The processor, and the instructions that torch uses on it: on both do bits depend."""
    try:
        first, _, _ = CPUINFO.read_text("utf-8").partition("\n\n")
    except OSError:  # not Linux
        first = ""
    pairs = (line.partition(":") for line in first.splitlines())
    said = {key.strip(): value.strip() for key, _, value in pairs}
    parts = [said.get("model name") or platform.processor() or platform.machine()]
    parts += [f"{key} {said[key]}" for key in ("cpu family", "model", "stepping") if key in said]
    return ", ".join([*parts, torch.backends.cpu.get_cpu_capability()])


def _commit() -> str | None:
    """The commit of the checkout the package runs from, ``-dirty`` if it was changed since."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():  # installed elsewhere, perhaps below a foreign checkout
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
