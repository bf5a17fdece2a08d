"""What the files of a user hold: the part of a run's identity that names and paths do not tell.

A plugin and an ``.npz`` file are hashed as they are, ``module:function`` and ``file.py:function``
as the source file. Nothing else is: not what a plugin or module imports, nor files that a function
reads (a run's data are compared by their fingerprint besides), nor blocks that installed packages
offer or a program registers by itself.

No torch here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = [
    "changed_contents",
    "check_contents",
    "hash_contents",
    "import_function",
    "replace_paths",
]

_LARGE = 2**20
"""Bytes from which a file is read again only if its time or size has changed."""

_IMPORTED: dict[str, str] = {}
"""The source of each module that :func:`import_function` used, as it was then."""


def hash_contents(names: Iterable[str]) -> dict[str, str]:
    """Hashes the files that names stand for.

    Args:
        names: Paths of ``.py`` and ``.npz`` files, ``module:function``, ``file.py:function``, and
            names of other things.

    Returns:
        Name to the first 16 hex digits of the SHA-256 of its file; nothing for a name without one,
        and for a file that cannot be read, which whoever loads it complains of.
    """
    found = {name: _hash_source(name) for name in names}
    return {name: digest for name, digest in found.items() if digest is not None}


def changed_contents(contents: Mapping[str, str]) -> list[str]:
    """Returns the names whose files are there and hold something else than they did."""
    now = hash_contents(contents)
    return [name for name, digest in contents.items() if now.get(name, digest) != digest]


def check_contents(contents: Mapping[str, str]) -> None:
    """Checks that files are those that a run was made with.

    Raises:
        ValueError: If one has changed; the message names it.
    """
    for name in changed_contents(contents):
        raise ValueError(
            f"{name!r} has changed since the run was made: its SHA-256 began with "
            f"{contents[name]}, now with {hash_contents([name])[name]}; put the old file back, or "
            "train anew"
        )


def replace_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration as plain data, its files' contents in place of their paths.

    It is the same wherever the files lie. Of ``module:function`` the function stays.
    """
    plain = dict(config)
    contents = plain.pop("contents", {})
    if "plugins" in plain:
        plain["plugins"] = [contents.get(path, path) for path in plain["plugins"]]
    for key in ("data", "extra_data", "model"):
        if (name := plain.get(key, "")) in contents:
            function = "" if name.endswith(".npz") else name.partition(":")[2]
            plain[key] = [contents[name], function]
    return plain


def import_function(spec: str) -> Callable[[], Any]:
    """Imports ``module:function`` or ``path/to/file.py:function``.

    The module may lie in the current folder, and what a file imports beside it.

    Raises:
        ValueError: If the module's file has changed since this process first used it.
        Exception: Whatever the user's module raises.
    """
    module, _, function = spec.partition(":")
    _look_in(Path.cwd())
    is_file = module.endswith(".py")
    home = _import_file(Path(module)) if is_file else importlib.import_module(module)
    try:
        found: Callable[[], Any] = getattr(home, function)
    except AttributeError:  # Python's own calls a file by a name that its user never wrote
        raise AttributeError(f"module {module!r} has no attribute {function!r}") from None
    digest = _hash_source(spec)
    if digest is not None and _IMPORTED.setdefault(home.__name__, digest) != digest:
        raise ValueError(
            f"the file of module {module!r} has changed since this process imported it; start a "
            "new process"
        )
    return found


def _import_file(path: Path) -> ModuleType:
    """Runs a file once a process, under a name that no installed module has."""
    path = path.expanduser().resolve()
    name = f"_user_module_{hashlib.sha256(bytes(path)).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # as of every .py file
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _look_in(path.parent)
    # Registered before it runs, so that its classes can be pickled and deep-copied.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _hash_source(name: str) -> str | None:
    path = Path(name).expanduser() if name.endswith((".npz", ".py")) else _find_module(name)
    if path is None:
        return None
    try:
        status = path.stat()
        if status.st_size < _LARGE:
            return _hash_file(path)
        return _hash_large(path.absolute(), status.st_size, status.st_mtime_ns)
    except OSError:
        return None


def _find_module(spec: str) -> Path | None:
    """The source of ``module:function``; None of other names, and of a module without a file."""
    module, separator, _ = spec.partition(":")
    if not separator:
        return None
    if module.endswith(".py"):
        return Path(module).expanduser()
    _look_in(Path.cwd())
    importlib.invalidate_caches()  # the file may be newer than what the import system remembers
    try:
        found = importlib.util.find_spec(module)
    except Exception:  # noqa: BLE001 - the package around it is a user's code, too
        return None
    return Path(found.origin) if found is not None and found.has_location and found.origin else None


def _look_in(folder: Path) -> None:
    """Lets modules lie where users keep them; the console script does not look there."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@lru_cache(maxsize=64)
def _hash_large(path: Path, size: int, mtime_ns: int) -> str:
    return _hash_file(path)
