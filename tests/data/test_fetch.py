"""`cae data get` as a whole: places, checksums, archives, links, and what it tells a person."""

import contextlib
import dataclasses
import hashlib
import io
import re
import shutil
import socket
import stat
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest.mock import Mock

import httpx
import pytest
from huggingface_hub import errors

from cae_bench.completeness import source_report
from cae_bench.fetch import fetch_source
from cae_bench.sources import Download, Source, find_source
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


def test_files_come_to_their_places(toy: Source, file_server):
    rows, _ = file_server.files.values()
    assert source_report(toy).state == "not here"
    assert fetch_source(toy) == []
    placed = {"data/rows.json": rows, "images/a.jpg": b"A", "images/b.jpg": b"B"}
    assert tree(toy.root) == placed | {"images/.pictures.zip.unpacked": b""}
    assert tree(toy.download_folder) == {}
    assert source_report(toy).lines() == ["toy: complete; 1 of 1 files, 2 of 2 rows, 2 of 2 images"]
    assert fetch_source(toy) == [] and len(file_server.asked) == 2, "nothing is fetched twice"
    shutil.rmtree(toy.root / "images")
    assert fetch_source(toy) == [] and file_server.asked[2:] == ["/pictures.zip"]


@pytest.mark.parametrize("kind", ["sha256", "md5", "git"])
def test_checksum_of_the_list(toy: Source, file_server, kind):
    """It holds for what is downloaded, and for what somebody put among the downloads."""
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
def test_a_failed_download_leaves_nothing_and_keeps_no_other_back(toy: Source, file_server, fault):
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
        Download(how="Ask."),
    )
    zip_place, json_place, form_place, _ = map(entry.local_path, entry.files)
    with pytest.raises(DataError) as caught:
        fetch_source(entry)
    message = str(caught.value)
    assert message.count("cae data get toy") == 1
    for item, place in ((entry.files[0], zip_place), (entry.files[1], json_place)):
        assert f"{item.url} -> {place} (127.0.0.1 cannot be reached)" in message
    assert "Pool" not in message and "Max retries" not in message and len(message) < 1000
    assert capsys.readouterr().out.count("fetching") == 1, "a host that is down is asked once"
    zip_place.parent.mkdir(parents=True, exist_ok=True)
    zip_place.write_bytes(zipped({"pictures/a.jpg": b"A"}))
    json_place.write_text("[]")
    assert fetch_source(entry) == [f"Sign the form. Put it at {form_place}.", "Ask."]
    form_place.write_bytes(zipped({"b.jpg": b"B"}))
    assert fetch_source(entry) == ["Ask."]
    placed = {name: text for name, text in tree(entry.root).items() if text}
    assert placed == {"b.jpg": b"B", "images/a.jpg": b"A", "x.json": b"[]"}


def test_links_that_show_shared_images(toy: Source):
    entry = dataclasses.replace(toy, links={"../other/pictures": "images"})
    assert fetch_source(entry) == fetch_source(entry) == []
    link = entry.root.parent / "other/pictures"
    assert link.is_symlink() and (link / "a.jpg").read_bytes() == b"A"
    assert not link.readlink().is_absolute()


def test_commands(toy: Source, monkeypatch, capsys):
    monkeypatch.setattr("cae_bench.sources.load_sources", lambda: {"toy": toy})
    assert cli.main(["data", "list"]) == 0
    lines = "toy: Toy\n  size not known, MIT\n  goes to data/raw/toy; 2 files from the web\n"
    assert capsys.readouterr().out.startswith(lines)
    assert cli.main(["data", "check"]) == 0
    assert cli.main(["data", "check", "toy"]) == 1
    assert "toy: not here; 0 of 1 files" in capsys.readouterr().out
    assert cli.main(["data", "get", "toy"]) == 0
    out = capsys.readouterr().out
    assert "Licence: MIT" in out and "toy: complete" in out
    assert cli.main(["data", "check", "toy"]) == 0
    assert "1 of 1 complete" in capsys.readouterr().out
    (toy.root / "images/a.jpg").unlink()
    assert cli.main(["data", "check"]) == 1
    assert cli.main(["data", "get", "nothing"]) == 2
    assert "no data set or weights 'nothing'" in capsys.readouterr().err


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
def test_what_is_unpacked_where(pack, tmp_path: Path, only, places):
    """The only folder at the top is left out, and so are hidden files; older ones are replaced."""
    old = {"d/x": b"old", "other": b"old"}
    for name, content in old.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(content)
    unpack(pack({name: name.encode() for name in places}), tmp_path / "root", "d", only)
    new = {place: name.encode() for name, place in places.items() if place}
    assert tree(tmp_path / "root") == old | new


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil-1b3", "//tmp/evil-1b3"])
def test_no_path_leads_out(pack, tmp_path: Path, name):
    root = tmp_path / "a" / "root"
    with contextlib.suppress(DataError):  # refused, or written within the folder
        unpack(pack({"good": b"1", name: b"2"}), root, "d")
    outside = {path for path in tmp_path.rglob("*evil*") if not path.is_relative_to(root / "d")}
    assert not outside and not Path("/tmp/evil-1b3").exists()


@pytest.mark.parametrize(
    ("kind", "goal"),
    [(tarfile.SYMTYPE, "../../outside"), (tarfile.LNKTYPE, "good"), (tarfile.CHRTYPE, "good")],
)
def test_links_and_devices_in_a_tar(tmp_path: Path, kind, goal):
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("good"))
        link = tarfile.TarInfo("deep/link")
        link.type, link.linkname = kind, goal
        archive.addfile(link)
    with pytest.raises(DataError, match="(?s)links.tar.*deep/link"):
        unpack(path, tmp_path / "root", ".")
    assert tree(tmp_path / "root") == {}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR])
def test_links_and_devices_in_a_zip(tmp_path: Path, kind):
    path = tmp_path / "links.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good", b"1")
        link = zipfile.ZipInfo("deep/link")
        link.external_attr = (kind | 0o777) << 16
        archive.writestr(link, "../../outside")
    with pytest.raises(DataError, match="(?s)links.zip.*deep/link"):
        unpack(path, tmp_path / "root", ".")
    assert tree(tmp_path / "root") == {}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_unpacks_to_far_more_than_its_size(tmp_path: Path, monkeypatch, kind):
    """It is refused before anything is written, unless what it holds is small."""
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


def test_text_that_shrinks_a_lot_is_unpacked(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("cae_bench.unpack.ALWAYS_ALLOWED_BYTES", 0)
    random = Random(0)
    rows = "\n".join(
        f"COCO_{random.randrange(10**12):012}.jpg,a dog is sitting near a tree,"
        "a tree is sitting near a dog, or a dog"
        for _ in range(9999)
    )
    with zipfile.ZipFile(tmp_path / "text.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", rows)
    assert len(rows) > 8 * (tmp_path / "text.zip").stat().st_size
    unpack(tmp_path / "text.zip", tmp_path / "root", ".")
    assert (tmp_path / "root/rows.csv").read_text() == rows


@pytest.mark.parametrize(
    "place",
    [
        "toy",
        "toy/images",
        "toy/data",
        "toy/data/rows.json",
        "downloads/toy",
        "downloads/toy/pictures.zip",
    ],
)
def test_a_link_is_not_written_through(toy: Source, home: Path, tmp_path: Path, place):
    outside, link = tmp_path / "outside", home / "data" / "raw" / place
    link.parent.mkdir(parents=True, exist_ok=True)
    outside.mkdir()
    goal = outside / "new" if link.suffix else outside
    link.symlink_to(goal)
    with pytest.raises(DataError, match=re.escape(str(link))):
        fetch_source(toy)
    assert list(outside.iterdir()) == [] and link.is_symlink()
    link.unlink()
    assert fetch_source(toy) == [] and source_report(toy).state == "complete"


def test_a_folder_in_the_goal_of_an_archive_that_is_a_link(pack, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "d").mkdir(parents=True)
    (tmp_path / "root" / "d" / "deep").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="symbolic link"):
        unpack(pack({"a": b"1", "deep/b": b"2"}), tmp_path / "root", "d")
    assert tree(tmp_path / "outside") == {} and not (tmp_path / "root" / "d" / "a").exists()


def test_the_folder_of_the_data_may_be_a_link(toy: Source, home: Path, tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(tmp_path / "disk")
    assert fetch_source(toy) == [] and source_report(toy).state == "complete"
    assert (tmp_path / "disk" / "toy" / "images" / "a.jpg").read_bytes() == b"A"


def test_damaged_archives(pack, tmp_path: Path):
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
    unpack(path, root, ".")


def test_file_of_the_hub_comes_to_its_place(make_source, monkeypatch):
    entry, answers = make_source(HUB, gated="https://terms"), []

    def serve(name, path, repo_type, revision, local_dir):
        assert (name, path, repo_type) == ("facebook/winoground", HUB.path, "dataset")
        assert revision == COMMIT
        if answers:
            raise answers.pop()
        file = Path(local_dir, path)
        file.parent.mkdir(parents=True)
        file.write_text("{}")
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", serve)
    refusal = errors.GatedRepoError("403", response=httpx.Response(403, request=Mock()))
    for error, message in (
        (refusal, "accept them at https://terms, then"),
        (errors.LocalEntryNotFoundError("x"), f"{COMMIT}.*huggingface.co cannot be reached"),
    ):
        answers.append(error)
        with pytest.raises(DataError, match=f"(?s){message}"):
            fetch_source(entry)
    fetch_source(entry)
    assert list(tree(entry.root)) == ["examples.jsonl"]


def test_a_whole_repository_is_asked_for_until_it_is_here(make_source, monkeypatch):
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


@pytest.mark.parametrize("error", [ConnectionError("no network"), socket.gaierror(-2, "no name")])
def test_a_hub_that_is_not_reached_is_asked_once(make_source, monkeypatch, error):
    asked = []

    def serve(name, path, **_):
        asked.append(path)
        raise RuntimeError("of the HTTP library, a page long") from error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", serve)
    entry = make_source(HUB, dataclasses.replace(HUB, path="data/images.zip", to="", unpack="i"))
    with pytest.raises(DataError) as caught:
        fetch_source(entry)
    message = str(caught.value)
    assert asked == [HUB.path] and message.count("cae data get toy") == 1
    assert "a page long" not in message and HUB.path in message and "images.zip" in message


def test_file_of_google_drive(make_source, monkeypatch):
    def serve(id, output, quiet):
        assert id == "X"
        Path(output).write_bytes(b"[]")

    entry = make_source(Download(drive="X", to="rows.json"))
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DataError, match=r"drive.google.com/file/d/X/view.*pip install .*\[data\]"):
        fetch_source(entry)
    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=serve))
    assert fetch_source(entry) == [] and tree(entry.root) == {"rows.json": b"[]"}


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
    if not right:
        with pytest.raises(DataError, match=f"(?s)cache/huggingface/hub.*{digest}"):
            fetch_source(entry)
        assert source_report(entry).state == "not here", "else the next call would take it"
        return
    assert fetch_source(entry) == fetch_source(entry) == []
    assert source_report(entry).state == "complete"


def test_flickr8k_as_it_is_released(home: Path, zipped):
    entry = find_source("flickr8k")
    texts = {"Flickr8k.token.txt": b"a.jpg#0\tA dog .\n", "Flickr_8k.devImages.txt": b"a.jpg\n"}
    items = []
    for item, files in zip(entry.files, ({"Flicker8k_Dataset/a.jpg": b"A"}, texts), strict=True):
        entry.download_folder.mkdir(parents=True, exist_ok=True)
        entry.local_path(item).write_bytes(zipped(files))
        items.append(dataclasses.replace(item, checksum=None))
    with pytest.raises(DataError, match="f18a1e2920de5bd84dae7cf08ec78978 was expected"):
        fetch_source(entry)
    fetch_source(dataclasses.replace(entry, files=tuple(items)))
    images, captions = (tree(entry.root / item.unpack) for item in items)
    assert {name: text for name, text in images.items() if text} == {"a.jpg": b"A"}
    assert {name: text for name, text in captions.items() if text} == texts
    assert source_report(entry).lines()[0].endswith("2 of 4 files, 2 of 48,460 rows, 1 of 1 images")
