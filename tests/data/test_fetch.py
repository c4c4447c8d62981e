"""`cae data get` as a whole: places, checksums, archives, links, and what it tells a person."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import namedtuple
from pathlib import Path

import pytest
from filelock import FileLock

from cae_lib import cli
from cae_lib.data import disk, fetch
from cae_lib.data.completeness import check
from cae_lib.data.download import Offline, download
from cae_lib.data.fetch import get
from cae_lib.data.sources import Item, Source, Unpack
from cae_lib.errors import DataError


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    def hurried(*arguments, **options):
        return download(*arguments, **options, wait=0.0)

    monkeypatch.setattr(fetch, "download", hurried)


def test_files_come_to_their_places(toy: Source, file_server, rows):
    assert check(toy).state == "not here"
    assert get(toy) == []
    assert (toy.root / "data/rows.json").read_bytes() == rows
    assert (toy.root / "images/b.jpg").read_bytes() == b"B"
    assert [path.name for path in toy.downloads.iterdir()] == [".lock"]
    assert check(toy).lines() == ["toy: complete; 1 of 1 files, 2 of 2 rows, 2 of 2 pictures"]
    assert len(file_server.asked) == 2
    assert get(toy) == []
    assert len(file_server.asked) == 2, "nothing is fetched twice"


def test_interrupted_archive_is_resumed(toy: Source, file_server, rows, zipped):
    big = zipped({"pictures/a.jpg": bytes(200_000), "pictures/b.jpg": b"B"})
    file_server.files["/pictures.zip"] = big
    file_server.cuts = [len(rows), 150_000] + [0] * 9
    with pytest.raises(DataError, match="147,456 bytes are kept"):
        get(toy)
    file_server.cuts, file_server.asked = [], []
    get(toy)
    assert file_server.asked == [("bytes=147456-", '"one"')]
    assert (toy.root / "images/a.jpg").read_bytes() == bytes(200_000)


def test_checksum_is_noted_and_holds_later(toy: Source, file_server, home: Path, rows, archive):
    get(toy)
    noted = json.loads((home / "data/raw/fetched.json").read_text())
    assert noted["toy/pictures.zip"]["sha256"] == hashlib.sha256(archive).hexdigest()
    (toy.root / "data/rows.json").unlink()
    file_server.files["/rows.json"] = rows + b" "
    with pytest.raises(DataError, match=hashlib.sha256(rows).hexdigest()):
        get(toy)
    assert not (toy.root / "data/rows.json").exists()


def test_wrong_checksum_of_the_list(toy: Source):
    bad = dataclasses.replace(toy.get[1], sha256="0" * 64)
    with pytest.raises(DataError, match="By hand: Fetch the file at http.*pictures.zip"):
        get(dataclasses.replace(toy, get=(bad,)))
    assert not (toy.root / "images").exists()


def test_file_put_there_by_hand_is_compared_too(toy: Source, archive, zipped):
    known = dataclasses.replace(toy.get[1], sha256=hashlib.sha256(archive).hexdigest())
    entry = dataclasses.replace(toy, get=(known,))
    toy.downloads.mkdir(parents=True)
    (toy.downloads / "pictures.zip").write_bytes(zipped({"pictures/other.jpg": b"X"}))
    with pytest.raises(DataError, match="was expected. Remove the file"):
        get(entry)
    assert not (toy.root / "images").exists()
    (toy.downloads / "pictures.zip").write_bytes(archive)
    assert get(entry) == []


def test_one_missing_file_does_not_keep_the_others_back(toy: Source, file_server):
    del file_server.files["/rows.json"]
    with pytest.raises(DataError, match="404"):
        get(toy)
    assert (toy.root / "images/a.jpg").is_file()


def test_hostile_archive(toy: Source, file_server, home: Path, zipped):
    file_server.files["/pictures.zip"] = zipped({"pictures/../../../../evil": b"x"})
    with pytest.raises(DataError, match="leads out of its folder"):
        get(toy)
    assert not list(home.rglob("evil"))
    assert not (toy.root / "images").exists()


def test_offline_machine_is_told_what_to_fetch_and_where_to_put_it(
    home: Path, make_source, archive
):
    item = Item(
        url="http://127.0.0.1:9/set.zip", file="set.zip", unpack=(Unpack("images", drop_top=True),)
    )
    entry = make_source(item)
    with pytest.raises(Offline) as caught:
        get(entry)
    place = home / "data/raw/downloads/toy/set.zip"
    assert (
        f"Fetch the file at http://127.0.0.1:9/set.zip with a browser or on another machine, put "
        f"it at {place}, and run `cae data get toy` again."
    ) in str(caught.value)
    place.write_bytes(archive)
    assert get(entry) == []
    assert (entry.root / "images/a.jpg").read_bytes() == b"A"


def test_what_has_no_address_is_left_to_a_person(home: Path, make_source, archive):
    entry = make_source(
        Item(how="Sign the form.", file="set.zip", unpack=(Unpack(drop_top=True),)),
        Item(how="Ask the authors for the rest."),
    )
    place = home / "data/raw/downloads/toy/set.zip"
    assert get(entry) == [f"Sign the form. Put it at {place}.", "Ask the authors for the rest."]
    place.write_bytes(archive)
    assert get(entry) == ["Ask the authors for the rest."]
    assert (entry.root / "a.jpg").is_file()


def test_too_little_disk(toy: Source, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: usage(1, 0, 1_000_000_000))
    with pytest.raises(DataError, match="Toy: needs 1.2 GB on the disk.*1 GB are free.*CAE_HOME"):
        get(dataclasses.replace(toy, gb=1.0))
    assert get(dataclasses.replace(toy, gb=0.7)) == []


def test_links_show_shared_pictures(toy: Source):
    entry = dataclasses.replace(toy, links={"../other/pictures": "images"})
    get(entry)
    get(entry)
    link = entry.root.parent / "other/pictures"
    assert link.is_symlink() and (link / "a.jpg").read_bytes() == b"A"
    assert not link.readlink().is_absolute()


def test_only_one_at_a_time(toy: Source):
    toy.downloads.mkdir(parents=True)
    with FileLock(toy.downloads / ".lock"), pytest.raises(DataError, match="is at work"):
        get(toy)


def test_damaged_ledger(toy: Source, home: Path):
    (home / "data/raw").mkdir(parents=True)
    (home / "data/raw/fetched.json").write_text("{")
    with pytest.raises(DataError, match="fetched.json: cannot be read"):
        get(toy)


def test_commands(toy: Source, monkeypatch, capsys):
    monkeypatch.setattr("cae_lib.data.source_list.load_sources", lambda: {"toy": toy})
    assert cli.main(["data", "list"]) == 0
    assert "toy: Toy" in capsys.readouterr().out
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
