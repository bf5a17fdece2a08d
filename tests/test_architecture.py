"""The house: who may import whom, where torch stays out, and how many rooms there are."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_TORCH = (
    "nasbench_at.cli",
    "nasbench_at.config.catalogue",
    "nasbench_at.config.presets",
    "nasbench_at.evaluation.options",
    "nasbench_at.records.naming.variants",
    "nasbench_at.records.run_folders",
    "nasbench_at.records.table_files",
)


def test_imports_run_one_way(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert lint_imports(is_debug_mode=True, cache_dir=None) == 0, capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "blocks").rglob("*.py")), ids=lambda p: p.stem)
def test_blocks_import_torch_the_standard_library_and_themselves_only(path):
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "blocks" for node in nodes if isinstance(node, ast.ImportFrom)]
    allowed = {"torch", "blocks", *sys.stdlib_module_names}
    assert {name.partition(".")[0] for name in names} <= allowed


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_plain_data_loads_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr or f"importing {module} loads torch"


def test_rooms_are_few():
    folder = ROOT / "nasbench_at"
    entries = {path.name for path in folder.iterdir()} - {
        "__init__.py",
        "__main__.py",
        "__pycache__",
    }
    assert len(entries) <= 12
    assert len([name for name in entries if name.endswith(".py")]) <= 3
