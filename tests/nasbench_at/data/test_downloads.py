from __future__ import annotations

import hashlib
import http.server
import tarfile
import threading
from functools import partial
from pathlib import Path

import pytest
from torchvision.datasets import CIFAR10, SVHN

from nasbench_at.data import load_data
from nasbench_at.data.downloads import Download, provide
from tests.nasbench_at.conftest import one_line

from .published_formats import write_cifar10, write_svhn


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A web site on this machine: its folder and address."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(_Silent, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def published_cifar10(site, tmp_path, monkeypatch):
    """A CIFAR-10 archive that torchvision's address and checksum point to."""
    folder, address = site
    write_cifar10(tmp_path / "made")
    archive = folder / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "url", f"{address}/cifar.tar.gz")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    return archive


def test_archive_is_downloaded_once_and_unpacked(published_cifar10, tmp_path):
    root = tmp_path / "new" / "root"
    first = load_data("cifar10", root=root)
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-py"]
    published_cifar10.unlink()
    assert load_data("cifar10", root=root).fingerprint == first.fingerprint


def test_single_files_are_downloaded_where_missing(site, tmp_path, monkeypatch):
    folder, address = site
    write_svhn(folder)
    (tmp_path / "root").mkdir()
    (folder / "train_32x32.mat").rename(tmp_path / "root" / "train_32x32.mat")
    published = {
        "train": [f"{address}/train_32x32.mat", "train_32x32.mat", "0" * 32],
        "test": [f"{address}/test_32x32.mat", "test_32x32.mat", md5(folder / "test_32x32.mat")],
    }
    monkeypatch.setattr(SVHN, "split_list", published)
    assert len(load_data("svhn", root=tmp_path / "root").test) == 10


def test_wrong_checksum_is_refused_and_leaves_nothing(published_cifar10, tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(ValueError, match="downloading failed: File not found or corrupted") as e:
        load_data("cifar10", root=tmp_path / "root")
    assert f"unpack {CIFAR10.url} in" in one_line(e)
    assert not list((tmp_path / "root").iterdir())


def test_failed_download_says_why_and_what_to_do(site, tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", f"{site[1]}/absent.tar.gz")
    with pytest.raises(ValueError, match="downloading failed: HTTP Error 404") as error:
        load_data("cifar10", root=tmp_path)
    assert f"unpack {site[1]}/absent.tar.gz in {str(tmp_path)!r}" in one_line(error)


def test_nothing_is_downloaded_unasked(published_cifar10, tmp_path):
    with pytest.raises(ValueError, match="not found; unpack"):
        load_data("cifar10", root=tmp_path / "root", download=False)
    assert not (tmp_path / "root").exists()


def test_incomplete_folder_is_left_as_it_is(published_cifar10, tmp_path):
    write_cifar10(tmp_path / "root", per_batch=7)
    folder = tmp_path / "root" / "cifar-10-batches-py"
    (folder / "data_batch_4").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="needs data_batch_4 in"):
        load_data("cifar10", root=tmp_path / "root")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_folder_that_another_process_made_meanwhile_is_used(
    published_cifar10, tmp_path, monkeypatch
):
    root = tmp_path / "root"
    rename = Path.rename

    def rename_too_late(self, target):
        write_cifar10(root, per_batch=9)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_too_late)
    assert len(load_data("cifar10", root=root).test) == 9


def test_archive_without_the_folder_is_said(published_cifar10, tmp_path):
    item = Download(CIFAR10.url, CIFAR10.tgz_md5, tmp_path / "root" / "other")
    with pytest.raises(ValueError, match=r"downloading failed: .*No such file.*; unpack"):
        provide("mine", [item.target / "file"], [item], download=True)
