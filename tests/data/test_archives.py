"""Unpacking: what belongs there, and what hostile or damaged archives try."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from cae_lib.data import archives, disk
from cae_lib.data.archives import unpack
from cae_lib.data.sources import Unpack
from cae_lib.errors import DataError

FORMS = ("zip", "tar", "tar.gz")
ALL = [Unpack()]
Pack = Callable[..., Path]


@pytest.fixture(params=FORMS)
def pack(request, tmp_path: Path) -> Pack:
    """Write an archive of the given `{name: content}`."""

    def write(files: dict[str, bytes]) -> Path:
        path = tmp_path / f"archive.{request.param}"
        if request.param == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            with tarfile.open(path, "w:gz" if request.param == "tar.gz" else "w") as archive:
                for name, content in files.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "a" / "root"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(archive: Path, root: Path, match: str, **options) -> None:
    """Nothing is written anywhere, neither inside nor outside."""
    before = tree(root.parent.parent)
    with pytest.raises(DataError, match=match):
        unpack(archive, root, ALL, **options)
    assert tree(root.parent.parent) == before


def test_all_files(pack, root):
    files = {"a.txt": b"A", "deep/er/b.txt": b"BB", "deep/empty": b""}
    assert unpack(pack(files), root, ALL) == 3
    assert tree(root) == files


def test_only_some_files_below_another_folder_and_without_the_top(pack, root):
    files = {"repo-1/data/x.json": b"x", "repo-1/code.py": b"c", "repo-1/data/y/z.json": b"z"}
    parts = [Unpack(to="d", only=("data/",), drop_top=True), Unpack(to="e", only=("repo-1/code",))]
    assert unpack(pack(files), root, parts) == 3
    assert tree(root) == {"d/data/x.json": b"x", "d/data/y/z.json": b"z", "e/repo-1/code.py": b"c"}


def test_top_folder_is_kept_where_it_is_not_the_only_one(pack, root):
    files = {"a/x": b"1", "b/x": b"2"}
    unpack(pack(files), root, [Unpack(drop_top=True)])
    assert tree(root) == files


def test_files_that_lie_at_the_top_stay_there(pack, root):
    files = {"a/x": b"1", "y": b"2"}
    unpack(pack(files), root, [Unpack(drop_top=True)])
    assert tree(root) == files


def test_leftovers_of_macos_are_left_out(pack, root):
    files = {"top/x": b"1", "__MACOSX/top/._x": b"2", "top/._x": b"3"}
    assert unpack(pack(files), root, [Unpack(drop_top=True)]) == 1
    assert tree(root) == {"x": b"1"}


def test_older_files_are_replaced_and_others_kept(pack, root):
    root.mkdir(parents=True)
    (root / "x").write_bytes(b"old")
    (root / "other").write_bytes(b"other")
    unpack(pack({"x": b"new"}), root, ALL)
    assert tree(root) == {"x": b"new", "other": b"other"}


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "C:/evil", "//h/s/e"]
)
def test_paths_that_lead_out(pack, root, name):
    refused(pack({"good": b"1", name: b"2"}), root, "leads out of its folder")


def test_symbolic_link_in_a_zip(tmp_path, root):
    path = tmp_path / "links.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")
        archive.writestr("link/passwd", "x")
    refused(path, root, "'link' is a link")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar(tmp_path, root, kind):
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = kind, "../../outside"
        archive.addfile(link)
        inner = tarfile.TarInfo("link/x")
        inner.size = 1
        archive.addfile(inner, io.BytesIO(b"x"))
    refused(path, root, "'link' is a link or a device")


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_bomb(tmp_path, root, form, monkeypatch):
    monkeypatch.setattr(archives, "FREE_SIZE", 1_000_000)
    path = tmp_path / f"bomb.{form}"
    zeros = bytes(2_000_000)
    if form == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", zeros)
    else:
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            info = tarfile.TarInfo("zeros")
            info.size = len(zeros)
            archive.addfile(info, io.BytesIO(zeros))
    assert path.stat().st_size < 20_000
    refused(path, root, "unpacks to more than 1 MB")


def test_limit_holds_for_all_files_together(pack, root):
    archive = pack({"a": bytes(60), "b": bytes(60)})
    refused(archive, root, "unpacks to more than", limit=119)
    assert unpack(archive, root, ALL, limit=120) == 2


def test_too_many_files(pack, root, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    refused(pack({"a": b"", "b": b"", "c": b""}), root, "or 2 files")


def test_size_that_a_zip_lies_about(tmp_path, root):
    path = tmp_path / "lie.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1000))
    content = path.read_bytes()
    path.write_bytes(content.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    refused(path, root, "cannot be unpacked")


def test_damaged_archives(pack, root):
    path = pack({"a": bytes(range(256)) * 40, "b": b"2"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    refused(path, root, "cannot be unpacked|neither a zip nor a tar")


def test_no_archive_at_all(tmp_path, root):
    path = tmp_path / "page.zip"
    path.write_text("<html>sign in</html>")
    refused(path, root, "neither a zip nor a tar")


def test_nothing_wanted_is_in_it(pack, root):
    path = pack({"other/x": b"1"})
    with pytest.raises(DataError, match="none of the expected files is in it; it has other/x"):
        unpack(path, root, [Unpack(only=("data/",))])


def test_too_little_disk(pack, root, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: usage(1, 0, 200_000_500))
    path = pack({"a": bytes(600)})
    refused(path, root, "are free. Free some space")
    assert unpack(pack({"a": bytes(500)}), root, ALL) == 1
