"""Who may import whom: blocks <- nasbench_at <- {studies, analysis}; and where torch stays out."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("blocks", "nasbench_at", "studies", "analysis")
COMMANDS = Path("nasbench_at/commands")
WITHOUT_TORCH = tuple(
    f"nasbench_at.{name}"
    for name in (
        "networks.architecture",
        "config",
        "records",
        "allowed_values",
        "scalars",
        "suggestions",
        "evaluation_options",
    )
)

# A package or module -> what nothing in it may import.
FORBIDDEN = {
    "blocks": ("nasbench_at", "studies", "analysis"),
    "nasbench_at": ("studies", "analysis"),
    "studies": ("analysis", "nasbench_at.cli", "nasbench_at.commands"),
    "analysis": ("studies", "nasbench_at.cli", "nasbench_at.commands"),
    "nasbench_at.networks": tuple(
        f"nasbench_at.{name}" for name in ("training", "evaluation", "presets", "cli", "commands")
    ),
    "nasbench_at.attacks": tuple(
        f"nasbench_at.{name}" for name in ("training", "evaluation", "presets", "cli", "commands")
    ),
    "nasbench_at.training": ("nasbench_at.presets", "nasbench_at.cli", "nasbench_at.commands"),
    "nasbench_at.evaluation": ("nasbench_at.presets", "nasbench_at.cli", "nasbench_at.commands"),
    "nasbench_at.presets": ("nasbench_at.cli", "nasbench_at.commands"),
    **dict.fromkeys(WITHOUT_TORCH, ("torch", "torchvision", "blocks")),
}


def sources() -> list[Path]:
    return sorted(
        path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py")
    )


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path) -> Iterator[tuple[str, bool]]:
    """Yields every name a file imports, and whether that happens inside a function."""
    yield from _walk(ast.parse((ROOT / path).read_text("utf-8")), path, in_function=False)


def _walk(node: ast.AST, path: Path, *, in_function: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, in_function) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _base_of(child, path)
            # ``from package import module`` may name a module, so both readings count.
            yield base, in_function
            yield from ((f"{base}.{alias.name}", in_function) for alias in child.names)
        inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _walk(child, path, in_function=inside)


def _base_of(statement: ast.ImportFrom, path: Path) -> str:
    if not statement.level:
        return statement.module or ""
    package = path.parent.parts[: len(path.parent.parts) - statement.level + 1]
    return ".".join((*package, *filter(None, [statement.module])))


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def exists(module: str) -> bool:
    path = ROOT / Path(*module.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("path", sources(), ids=str)
def test_imports_run_one_way(path):
    for package, forbidden in FORBIDDEN.items():
        if not is_within(module_name(path), package):
            continue
        for name, in_function in imported_by(path):
            if path.parent == COMMANDS and in_function:
                continue  # a command may use the packages above it, once it runs
            wrong = [other for other in forbidden if is_within(name, other)]
            assert not wrong, f"{path} imports {name}, but nothing in {package} may"


@pytest.mark.parametrize("path", [path for path in sources() if path.parts[0] == "blocks"], ids=str)
def test_blocks_import_torch_the_standard_library_and_themselves_only(path):
    allowed = {"torch", "blocks", *sys.stdlib_module_names}
    roots = {name.partition(".")[0] for name, _ in imported_by(path)}
    assert roots <= allowed, f"{path} imports {sorted(roots - allowed)}"


@pytest.mark.parametrize("module", [name for name in WITHOUT_TORCH if exists(name)])
def test_plain_data_loads_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr or f"importing {module} loads torch"


def test_walk_sees_relative_local_and_aliased_imports(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "from . import sibling\n"
        "from ..upper import thing\n"
        "import studies.space as s\n"
        "def f():\n"
        "    if True:\n"
        "        from analysis import figures\n"
    )
    tree = ast.parse(file.read_text())
    found = set(_walk(tree, Path("nasbench_at/networks/module.py"), in_function=False))
    assert found == {
        ("nasbench_at.networks", False),
        ("nasbench_at.networks.sibling", False),
        ("nasbench_at.upper", False),
        ("nasbench_at.upper.thing", False),
        ("studies.space", False),
        ("analysis", True),
        ("analysis.figures", True),
    }
