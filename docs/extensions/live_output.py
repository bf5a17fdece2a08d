"""Directives that run a command of the package while the site is built, and show what it gives.

``{output} nasbench-at claims digits`` shows what the command prints; ``{drawn} nasbench-at figure
importance digits`` the figure that it draws, with its caption as content. So neither can go stale.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import nasbench_at

FOLDER = "drawn"
_SECONDS = 600


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directives."""
    app.add_directive("output", Output)
    app.add_directive("drawn", Drawn)
    return {"parallel_read_safe": True}


def run(command: str, *flags: str) -> str:
    """Runs a command line that begins with ``nasbench-at`` and returns what it prints."""
    program, *words = shlex.split(command)
    if program != "nasbench-at":
        raise ValueError(f"only nasbench-at is run while the site is built, got {program!r}")
    environment = os.environ | {"COLUMNS": "110", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "nasbench_at", *words, *flags],
        capture_output=True,
        text=True,
        env=environment,
        timeout=_SECONDS,
    )
    if done.returncode:
        raise ValueError(f"{command} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Live(SphinxDirective):
    """What a command gives."""

    def note_tables(self) -> None:
        """Has the page made anew when a shipped table is another one."""
        for table in Path(nasbench_at.__file__).with_name("tables").glob("*.parquet"):
            self.env.note_dependency(str(table))


class Output(Live):
    """What a command prints, below the command."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Runs the command."""
        command = self.arguments[0]
        self.note_tables()
        try:
            text = run(command)
        except ValueError as error:
            raise self.error(str(error)) from error
        return [nodes.literal_block(text, f"$ {command}\n{text.rstrip()}", language="text")]


class Drawn(Live):
    """The figure that a command draws, below the command."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Draws the figure."""
        command = self.arguments[0]
        name = f"{hashlib.sha256(command.encode()).hexdigest()[:12]}.svg"
        path = Path(self.env.srcdir) / FOLDER / name
        path.parent.mkdir(exist_ok=True)
        self.note_tables()
        try:
            run(command, "--out", str(path))
        except ValueError as error:
            raise self.error(str(error)) from error
        caption = " ".join(self.content)
        shown = nodes.literal_block(command, f"$ {command}", language="text")
        return [shown, nodes.image(uri=f"/{FOLDER}/{name}", alt=caption)]
