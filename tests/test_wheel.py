"""What a user installs: the wheel, made of the sdist, runs where no file of the checkout is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[1]
PACKAGES = ("analysis", "blocks", "nasbench_at", "studies")

BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"

TYPED = """\
from typing import assert_type
from blocks import BlockInfo, block_info
from nasbench_at import Benchmark, Record, RunConfig
from studies import StudyConfig, recipes
assert_type(block_info("dense"), BlockInfo)
assert_type(Benchmark.load("digits")[0], Record)
assert_type(recipes.block_space(RunConfig(data="digits")), StudyConfig)
"""
"""What is not typed, or not found, is Any, which is none of these."""


def tracked_files():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def run(*words, cwd, path=""):
    """Runs Python, which finds packages under a path and those that are installed, not here."""
    environment = os.environ | {"PYTHONPATH": str(path)}
    command = [sys.executable, "-P", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def done(*words, **options):
    """The output of what has to end well."""
    process = run(*words, **options)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built of the sdist, which is built of a copy of the files that git knows."""
    pytest.importorskip("setuptools", "70.1", reason="builds wheels itself since 70.1")
    if not (ROOT / ".git").exists():
        pytest.skip("git says which files the package is made of, and this is no checkout")
    folder = tmp_path_factory.mktemp("build")
    for name in tracked_files():
        (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "checkout" / name)
    done("-c", BUILD, folder, cwd=folder / "checkout")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    flags = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder)
    done("-m", "pip", "wheel", *flags, ".", cwd=folder / sdist.name.removesuffix(".tar.gz"))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("installed")
    flags = ("--quiet", "--no-deps", "--no-index", "--target", folder)
    done("-m", "pip", "install", *flags, wheel, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def user(installed, tmp_path_factory):
    """Runs words of a command line with the installed package, in a folder of the user's."""
    folder = tmp_path_factory.mktemp("user")

    def nasbench_at(*words):
        return done("-m", "nasbench_at", *words, cwd=folder, path=installed)

    nasbench_at.folder = folder
    return nasbench_at


def test_wheel_holds_every_file_of_the_packages_and_no_other(wheel):
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == {name for name in tracked_files() if name.split("/")[0] in PACKAGES}


def test_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
        assert any(name.endswith("/LICENSE") for name in archive.namelist())
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"\nVersion: {version[1]}\n" in text
    assert (ROOT / "README.md").read_text("utf-8") in text


def test_packages_come_from_the_wheel(installed, tmp_path):
    code = f"import {', '.join(PACKAGES)}\nfor p in {', '.join(PACKAGES)}: print(p.__file__)"
    files = done("-c", code, cwd=tmp_path, path=installed).split()
    assert files == [str(installed / name / "__init__.py") for name in PACKAGES]


def test_what_ships_with_it_is_found(user):
    assert "separable_conv" in user("blocks")
    assert "0.1.0" in user("--version")
    rows = user("query", "digits", "--top", "3").splitlines()
    assert rows[0].startswith("run_id\t")
    assert len([row for row in rows if row.startswith("digits-at-")]) == 3
    assert "claims" in user("--help")
    assert "does not hold here" in user("claims", "digits")


def test_network_is_drawn(user):
    user("graph", "--blocks", "residual", "dense", "--out", "g.png")
    assert (user.folder / "g.png").read_bytes().startswith(b"\x89PNG")


def test_network_is_trained_and_reported(user):
    tiny = "--num-modules 3 --init-channels 4 --widen-factor 1 --epochs 1 --attack-steps 1"
    user("train", "--data", "digits", "--blocks", "residual", "dense", *tiny.split())
    (run_folder,) = (user.folder / "runs").iterdir()
    assert (run_folder / "record.json").is_file()
    user("evaluate", run_folder, "--attacks", "pgd")
    user("report", "runs", "--out", "report.html")
    assert run_folder.name in (user.folder / "report.html").read_text("utf-8")
    assert "DS-Net of residual + dense" in user("table", "2", "runs")


def test_types_reach_the_user(installed, tmp_path):
    (tmp_path / "mine.py").write_text(TYPED)
    flags = ("--strict", "--config-file=", "--cache-dir=cache")
    text = done("-m", "mypy", *flags, "mine.py", cwd=tmp_path, path=installed)
    assert "Success" in text
