"""`cae data get` as a whole: places, checksums, archives, links, and what it tells a person."""

import contextlib
import dataclasses
import hashlib
import io
import re
import shutil
import stat
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
from huggingface_hub import errors

from cae_bench.completeness import source_report
from cae_bench.fetch import fetch_source
from cae_bench.sources import Download, Source
from cae_bench.unpack import unpack
from cae_lab import cli
from cae_lib.errors import DataError

COMMIT = "5" * 40
HUB = Download(
    hub="datasets/facebook/winoground",
    revision=COMMIT,
    path="data/examples.jsonl",
    to="examples.jsonl",
)
WEIGHTS = Download(
    hub="timm/x",
    revision="main",
    path="open_clip_model.safetensors",
    open_clip=("ViT-B-32", "openai"),
)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_files_come_to_their_places_once(toy: Source, file_server):
    rows, _ = file_server.files.values()
    assert source_report(toy).state == "not here"
    assert fetch_source(toy) == []
    placed = {"data/rows.json": rows, "images/a.jpg": b"A", "images/b.jpg": b"B"}
    assert tree(toy.root) == placed | {"images/.pictures.zip.unpacked": b""}
    assert tree(toy.download_folder) == {}
    assert source_report(toy).lines() == ["toy: complete; 1 of 1 files, 2 of 2 rows, 2 of 2 images"]
    assert fetch_source(toy) == [] and len(file_server.asked) == 2
    shutil.rmtree(toy.root / "images")
    assert fetch_source(toy) == [] and file_server.asked[2:] == ["/pictures.zip"]


@pytest.mark.parametrize("kind", ["sha256", "md5", "git"])
def test_checksum_holds_for_downloads_and_for_files_put_there(toy: Source, file_server, kind):
    archive = file_server.files["/pictures.zip"]
    hashed = b"blob %d\0" % len(archive) + archive if kind == "git" else archive
    digest = hashlib.new("sha1" if kind == "git" else kind, hashed).hexdigest()
    item = dataclasses.replace(toy.files[1], checksum=f"{kind}:{digest}")
    entry = dataclasses.replace(toy, files=(item,))
    file_server.files["/pictures.zip"] = archive[:-1] + b"x"
    with pytest.raises(DataError, match=f"(?s)pictures.zip -> .*{digest}"):
        fetch_source(entry)
    assert tree(toy.download_folder) == {} and not toy.root.exists()
    entry.local_path(item).write_bytes(archive[:-1] + b"x")
    with pytest.raises(DataError, match=digest):
        fetch_source(entry)
    entry.local_path(item).write_bytes(archive)
    assert fetch_source(entry) == [] and len(file_server.asked) == 1


@pytest.mark.parametrize("fault", ["absent", "cut"])
def test_failed_download_leaves_nothing_and_keeps_no_other_back(toy: Source, file_server, fault):
    whole = dict(file_server.files)
    file_server.files["/rows.json"] = b"" if fault == "absent" else b"x" * 100_000
    if fault == "cut":
        file_server.cut = 50_000
    url, place = toy.files[0].url, toy.local_path(toy.files[0])
    with pytest.raises(DataError, match=f"cae data get toy.*\n  {url} -> {place}") as caught:
        fetch_source(toy)
    assert str(caught.value).count("->") == 1
    assert list(place.parent.iterdir()) == [] and (toy.root / "images/a.jpg").is_file()
    file_server.files, file_server.cut = whole, None
    assert fetch_source(toy) == [] and source_report(toy).state == "complete"


def test_offline_machine_is_told_once_what_it_has_to_fetch(make_source, zipped, capsys):
    entry = make_source(
        Download(url="http://127.0.0.1:9/set.zip", unpack="images"),
        Download(url="http://127.0.0.1:9/x.json", to="x.json"),
        Download(how="Sign the form.", file="form.zip", unpack="."),
    )
    zip_place, json_place, form_place = map(entry.local_path, entry.files)
    with pytest.raises(DataError) as caught:
        fetch_source(entry)
    message = str(caught.value)
    assert message.count("cae data get toy") == 1
    for item, place in zip(entry.files[:2], (zip_place, json_place), strict=True):
        assert f"{item.url} -> {place} (127.0.0.1 cannot be reached)" in message
    assert capsys.readouterr().out.count("fetching") == 1, "a host that is down is asked once"
    zip_place.parent.mkdir(parents=True, exist_ok=True)
    zip_place.write_bytes(zipped({"pictures/a.jpg": b"A"}))
    json_place.write_text("[]")
    assert fetch_source(entry) == [f"Sign the form. Put it at {form_place}."]
    form_place.write_bytes(zipped({"b.jpg": b"B"}))
    assert fetch_source(entry) == []
    placed = {name: text for name, text in tree(entry.root).items() if text}
    assert placed == {"b.jpg": b"B", "images/a.jpg": b"A", "x.json": b"[]"}


def test_links_show_shared_images(toy: Source):
    entry = dataclasses.replace(toy, links={"../other/pictures": "images"})
    assert fetch_source(entry) == fetch_source(entry) == []
    link = entry.root.parent / "other/pictures"
    assert link.is_symlink() and (link / "a.jpg").read_bytes() == b"A"
    assert not link.readlink().is_absolute()


def test_data_commands_list_check_and_get(toy: Source, monkeypatch, capsys):
    monkeypatch.setattr("cae_bench.sources.load_sources", lambda: {"toy": toy})

    def printed(code: int, *words: str) -> str:
        assert cli.main(["data", *words]) == code
        return "".join(capsys.readouterr())

    assert printed(0, "list").startswith("toy: Toy\n  size not known, MIT\n")
    assert "toy: not here; 0 of 1 files" in printed(1, "check", "toy")
    assert "Licence: MIT" in printed(0, "get", "toy")
    assert "1 of 1 complete" in printed(0, "check", "toy")
    (toy.root / "images/a.jpg").unlink()
    printed(1, "check")
    assert "no data set or weights 'nothing'" in printed(2, "get", "nothing")


@pytest.fixture(params=["zip", "tar", "tar.gz"])
def pack(request, tmp_path: Path, zipped) -> Callable[[dict[str, bytes]], Path]:
    """Write an archive of the given `{name: content}`."""

    def write(files: dict[str, bytes]) -> Path:
        path = tmp_path / f"archive.{request.param}"
        path.write_bytes(zipped(files))
        if request.param != "zip":
            with tarfile.open(path, f"w:{request.param[4:]}") as archive:
                for name, content in files.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return path

    return write


@pytest.mark.parametrize(
    ("only", "places"),
    [
        ((), {"a": "d/a", "deep/er/b": "d/deep/er/b"}),
        ((), {"a/x": "d/a/x", "b/x": "d/b/x"}),
        (("data/",), {"repo-1/data/x/z": "d/data/x/z", "repo-1/code": "", "repo-1/y/data/z": ""}),
        ((), {"top/x": "d/x", "__MACOSX/top/._x": "", "top/._x": "", "top/.git/y": ""}),
    ],
)
def test_unpacking_leaves_out_the_only_folder_at_the_top_and_hidden_files(
    pack, tmp_path: Path, only, places
):
    """Older files are replaced."""
    old = {"d/x": b"old", "other": b"old"}
    for name, content in old.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(content)
    unpack(pack({name: name.encode() for name in places}), tmp_path / "root", "d", only)
    new = {place: name.encode() for name, place in places.items() if place}
    assert tree(tmp_path / "root") == old | new


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil-1b3", "//tmp/evil-1b3"])
def test_no_path_of_an_archive_leads_out(pack, tmp_path: Path, name):
    root = tmp_path / "a" / "root"
    with contextlib.suppress(DataError):  # refused, or written within the folder
        unpack(pack({"good": b"1", name: b"2"}), root, "d")
    outside = {path for path in tmp_path.rglob("*evil*") if not path.is_relative_to(root / "d")}
    assert not outside and not Path("/tmp/evil-1b3").exists()


@pytest.mark.parametrize(
    ("kind", "goal"),
    [
        (tarfile.SYMTYPE, "../../outside"),
        (tarfile.LNKTYPE, "good"),
        (tarfile.CHRTYPE, "good"),
        (stat.S_IFLNK, "../../outside"),
        (stat.S_IFCHR, "../../outside"),
    ],
)
def test_links_and_devices_of_an_archive_are_refused(tmp_path: Path, kind, goal):
    path = tmp_path / "links"
    if isinstance(kind, bytes):
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("good"))
            link = tarfile.TarInfo("deep/link")
            link.type, link.linkname = kind, goal
            archive.addfile(link)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("good", b"1")
            link = zipfile.ZipInfo("deep/link")
            link.external_attr = (kind | 0o777) << 16
            archive.writestr(link, goal)
    with pytest.raises(DataError, match="(?s)links.*deep/link"):
        unpack(path, tmp_path / "root", ".")
    assert tree(tmp_path / "root") == {}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bomb_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch, kind):
    """Unless what it holds is small."""
    path, root, content = tmp_path / f"bomb.{kind}", tmp_path / "root", bytes(1_000_000)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("first", b"1")
            archive.writestr("zeros", content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo("zeros")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    unpack(path, root, "d")
    assert (root / "d/zeros").read_bytes() == content
    shutil.rmtree(root)
    monkeypatch.setattr("cae_bench.unpack.ALWAYS_ALLOWED_BYTES", len(content) - 1)
    with pytest.raises(DataError, match=f"(?s)bomb.{kind}.*zeros.*{root / 'd'}"):
        unpack(path, root, "d")
    assert tree(root) == {}


@pytest.mark.parametrize(
    "place",
    ["toy", "toy/images", "toy/data/rows.json", "downloads/toy", "downloads/toy/pictures.zip"],
)
def test_link_is_not_written_through(toy: Source, home: Path, tmp_path: Path, place):
    outside, link = tmp_path / "outside", home / "data" / "raw" / place
    link.parent.mkdir(parents=True, exist_ok=True)
    outside.mkdir()
    link.symlink_to(outside / "new" if link.suffix else outside)
    with pytest.raises(DataError, match=re.escape(str(link))):
        fetch_source(toy)
    assert list(outside.iterdir()) == [] and link.is_symlink()
    link.unlink()
    assert fetch_source(toy) == [] and source_report(toy).state == "complete"


def test_archive_is_not_unpacked_into_a_folder_that_is_a_link(pack, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "d").mkdir(parents=True)
    (tmp_path / "root" / "d" / "deep").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="symbolic link"):
        unpack(pack({"a": b"1", "deep/b": b"2"}), tmp_path / "root", "d")
    assert tree(tmp_path / "outside") == {} and not (tmp_path / "root" / "d" / "a").exists()


def test_folder_of_the_data_may_be_a_link(toy: Source, home: Path, tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(tmp_path / "disk")
    assert fetch_source(toy) == []
    assert (tmp_path / "disk" / "toy" / "images" / "a.jpg").read_bytes() == b"A"


def test_damaged_archives_are_named(pack, tmp_path: Path):
    root = tmp_path / "root"
    path = pack({"a": bytes(range(256)) * 40, "b": b"2"})
    content = path.read_bytes()
    for broken in (content[: len(content) // 3], b"<html>sign in</html>"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=f"{path}: cannot be unpacked"):
            unpack(path, root, ".")
    path.write_bytes(content)
    with pytest.raises(DataError, match="it has a, b"):
        unpack(path, root, ".", ("data/",))
    assert tree(root) == {}


def test_file_of_the_hub_comes_to_its_place(make_source, monkeypatch):
    """A hub that cannot be reached is asked once for all its files."""
    entry = make_source(HUB, dataclasses.replace(HUB, to="twice.jsonl"), gated="https://terms")
    answers, calls = [], []

    def serve(name, path, repo_type, revision, local_dir):
        calls.append((name, path, repo_type, revision))
        if answers:
            raise answers.pop()
        file = Path(local_dir, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", serve)
    refusal = errors.GatedRepoError("403", response=httpx.Response(403, request=Mock()))
    unreachable = RuntimeError("of the HTTP library, a page long")
    unreachable.__cause__ = ConnectionError("no network")
    for error, message, n_calls in (
        (refusal, "accept them at https://terms, then", 2),
        (errors.LocalEntryNotFoundError("x"), f"{COMMIT}.*huggingface.co cannot be reached", 1),
        (unreachable, "huggingface.co cannot be reached", 1),
    ):
        answers[:] = [error] * n_calls
        calls.clear()
        with pytest.raises(DataError, match=f"(?s){message}") as caught:
            fetch_source(entry)
        assert len(calls) == n_calls and "a page long" not in str(caught.value)
        assert str(caught.value).count("cae data get toy") == 1
    fetch_source(entry)
    assert set(calls) == {("facebook/winoground", HUB.path, "dataset", COMMIT)}
    assert list(tree(entry.root)) == ["examples.jsonl", "twice.jsonl"]


@pytest.mark.parametrize("right", [True, False])
def test_open_clips_weights_stay_in_the_hubs_cache(make_source, monkeypatch, tmp_path, right):
    """They are asked for as open_clip asks, without a revision."""
    cached = tmp_path / "models--timm--x" / "snapshots" / "a" / WEIGHTS.path

    def serve(name, path):
        assert (name, path) == ("timm/x", WEIGHTS.path)
        cached.parent.mkdir(parents=True)
        cached.write_bytes(b"weights" if right else b"others")
        return str(cached)

    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda hub, name: str(cached) if cached.exists() else None,
    )
    monkeypatch.setattr("huggingface_hub.hf_hub_download", serve)
    digest = hashlib.sha256(b"weights").hexdigest()
    entry = make_source(dataclasses.replace(WEIGHTS, checksum=f"sha256:{digest}"))
    assert source_report(entry).lines()[1] == "  files missing: ViT-B-32 openai"
    if right:
        assert fetch_source(entry) == fetch_source(entry) == []
        assert source_report(entry).state == "complete"
    else:
        with pytest.raises(DataError, match=f"(?s)cache/huggingface/hub.*{digest}"):
            fetch_source(entry)
        assert source_report(entry).state == "not here", "else the next call would take it"


def test_whole_repository_and_a_file_of_google_drive_come_to_their_places(make_source, monkeypatch):
    entry = make_source(Download(hub="datasets/a/b", revision="main", to="."))
    faults = [ConnectionError("cut")]

    def serve(name, repo_type, revision, local_dir):
        assert (name, repo_type, revision) == ("a/b", "dataset", "main")
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / f"{len(faults)}.json").write_text("[]")
        if faults:
            raise faults.pop()

    monkeypatch.setattr("huggingface_hub.snapshot_download", serve)
    with pytest.raises(DataError, match="https://huggingface.co/datasets/a/b"):
        fetch_source(entry)
    assert fetch_source(entry) == fetch_source(entry) == []
    assert source_report(entry).lines() == ["toy: unknown; 2 files"]

    def download(id, output, quiet):
        Path(output).write_bytes(id.encode())

    entry = make_source(Download(drive="X", to="rows.json"))
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DataError, match=r"drive.google.com/file/d/X/view.*pip install .*\[data\]"):
        fetch_source(entry)
    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=download))
    assert fetch_source(entry) == [] and (entry.root / "rows.json").read_bytes() == b"X"
