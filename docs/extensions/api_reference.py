"""Writes a page for each module that has public names, and fails if a name ends up without one.

A name is public if its module's ``__all__`` holds it, or, in a module without one, if it is defined
there and has no underscore. What several modules offer is documented once: a class or a function
where its path is the shortest, ``nasbench_at.Benchmark`` and not
``nasbench_at.records.benchmark.Benchmark``, and a constant where it is defined and explained.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

PACKAGES = ("nasbench_at", "blocks", "studies", "analysis")
FOLDER = "api"
logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the two steps."""
    app.connect("builder-inited", write_pages)
    app.connect("env-check-consistency", check_count)
    app.connect("missing-reference", find_reference)
    return {"parallel_read_safe": True}


@lru_cache
def find_public_names() -> dict[str, list[str]]:
    """Returns for each public object its home, ``module.name``, and all names that it goes by."""
    found: dict[Any, list[tuple[object, str]]] = defaultdict(list)
    for module in _modules():
        for name in _names_of(module):
            value = getattr(module, name)
            # Two constants may be one object, as two names for the number 20 are.
            key = id(value) if _has_own_path(value) else (name, id(value))
            found[key].append((value, f"{module.__name__}.{name}"))
    homes = {}
    for offered in found.values():
        value, names = offered[0][0], [path for _, path in offered]
        by_length = sorted(names, key=lambda path: (path.count("."), path))
        homes[by_length[0 if _has_own_path(value) else -1]] = names
    return homes


def _has_own_path(value: object) -> bool:
    return inspect.isclass(value) or inspect.isfunction(value)


def _modules() -> Iterator[ModuleType]:
    for package in map(importlib.import_module, PACKAGES):
        yield package
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not info.name.endswith("__main__"):
                yield importlib.import_module(info.name)


def _names_of(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):  # a module among them has a page of its own
        return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def write_pages(app: Sphinx) -> None:
    """Writes ``api/MODULE.rst`` for each module, and ``api/index.rst`` over them."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    homes: dict[str, list[str]] = defaultdict(list)
    elsewhere: dict[str, list[tuple[str, str]]] = defaultdict(list)
    public = find_public_names()
    for home, names in public.items():
        for path in names:
            module, _, name = path.rpartition(".")
            if path == home:
                homes[module].append(name)
            else:
                elsewhere[module].append((name, home))
    pages = {module.__name__: module for module in _modules()}
    texts = {
        name: "\n".join(_page(module, homes[name], elsewhere[name], is_indexed=name not in public))
        for name, module in pages.items()
        if homes[name] or elsewhere[name]
    }
    texts["index"] = "\n".join(_index(texts))
    for old in folder.glob("*.rst"):
        if old.stem not in texts:
            old.unlink()
    for name, text in texts.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text() != text:  # what has not changed is not read anew
            path.write_text(text)


def _page(
    module: ModuleType, names: list[str], others: list[tuple[str, str]], *, is_indexed: bool
) -> Iterator[str]:
    name = module.__name__
    yield from (name, "=" * len(name), "", f".. automodule:: {name}", "   :no-members:")
    if not is_indexed:  # a function of its package goes by the module's name
        yield "   :no-index:"
    yield ""
    for own in names:
        value = getattr(module, own)
        yield f".. {_directive(value)}:: {name}.{own}"
        if inspect.isclass(value):
            yield from ("   :members:", "   :show-inheritance:")
        yield ""
    if others:
        yield from ("It also offers, documented elsewhere:", "")
        yield from (f"- :py:obj:`{own} <{home}>`" for own, home in others)
        yield ""


def _directive(value: object) -> str:
    if inspect.isclass(value):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    return "autofunction" if inspect.isfunction(value) else "autodata"


def _index(pages: dict[str, str]) -> Iterator[str]:
    yield from ("Python reference", "================", "")
    yield from ("Every public name of the four packages, from its docstring.", "")
    for package in PACKAGES:
        yield from (".. toctree::", f"   :caption: {package}", "   :maxdepth: 1", "")
        names = sorted(name for name in pages if name.split(".")[0] == package)
        yield from (f"   {name}" for name in names)
        yield ""


def check_count(app: Sphinx, env: Any) -> None:
    """Fails the build if a public name has no entry."""
    documented = {entry[0] for entry in env.domains["py"].get_objects()}
    public = set(find_public_names())
    missing = sorted(public - documented)
    if missing:
        raise ExtensionError(f"{len(missing)} public names have no page: {', '.join(missing)}")
    logger.info("all %d public names of %d packages have an entry", len(public), len(PACKAGES))


def find_reference(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Resolves what a docstring calls by another of its names, or by its last one alone."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    objects = env.domains["py"].objects
    found = {
        home
        for home, names in find_public_names().items()
        for path in names
        if target in (path, path.rpartition(".")[2])
    }
    found |= {path for path in objects if path.endswith(f".{target}") and "." in target}
    if len(found) != 1:
        return None
    (home,) = found
    entry = objects[home]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, home)
