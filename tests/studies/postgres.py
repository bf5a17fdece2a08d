"""A PostgreSQL server of a test's own, which it may stop and start."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest


class PostgresServer:
    """A cluster in a folder; the server does not run as root, so root lends it a user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        self._call("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "tester")
        self.start()
        self._call("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tester", "studies")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://tester@127.0.0.1:{self.port}/studies"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        log = str(self.folder / "log")
        self._control("start", "-l", log, "-o", options)

    def stop(self) -> None:
        self._control("stop", "-m", "immediate")

    def _control(self, *words: str) -> None:
        self._call("pg_ctl", "-D", str(self.folder / "data"), "-w", *words)

    def _call(self, program: str, *words: str) -> None:
        prefix = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        subprocess.run(
            [*prefix, find_program(program), *words],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            timeout=120,
        )


def find_program(name: str) -> str:
    """Returns the path of one of PostgreSQL's programs; Debian keeps them out of PATH."""
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(candidates[-1]) if candidates else None)
    if found is None:
        pytest.fail(f"PostgreSQL's {name} is missing: apt-get install postgresql")
    return found
