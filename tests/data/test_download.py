"""Downloads from a server on loopback that breaks off, lies, or is not there."""

from __future__ import annotations

import hashlib
import random
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from cae_lib.data import disk
from cae_lib.data.download import CHUNK, Offline, download
from cae_lib.errors import DataError

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "file.bin"


@pytest.fixture
def address(file_server) -> str:
    file_server.files["/file.bin"] = CONTENT
    return f"{file_server.url}/file.bin"


def fetch(address: str, target: Path, **options) -> str:
    return download(address, target, **{"wait": 0.0} | options)


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_whole_file(address, target):
    assert fetch(address, target, size=len(CONTENT), sha256=SHA256) == SHA256
    assert target.read_bytes() == CONTENT
    assert left(target) == ["file.bin"]


def test_broken_connections_are_resumed_within_one_call(file_server, address, target):
    file_server.cuts = [5 * CHUNK, 3 * CHUNK + 9, 7]
    assert fetch(address, target) == SHA256
    assert file_server.asked == [
        (None, None),
        (f"bytes={5 * CHUNK}-", '"one"'),
        (f"bytes={8 * CHUNK}-", '"one"'),
        (f"bytes={8 * CHUNK}-", '"one"'),
    ]


def test_an_interrupted_call_goes_on_in_the_next_one(file_server, address, target):
    file_server.cuts = [5 * CHUNK] + [0] * 5
    with pytest.raises(DataError, match="81,920 bytes are kept") as caught:
        fetch(address, target, tries=3)
    assert not isinstance(caught.value, Offline)
    assert not target.exists()
    file_server.cuts, file_server.asked = [], []
    assert fetch(address, target) == SHA256
    assert file_server.asked == [("bytes=81920-", '"one"')]
    assert left(target) == ["file.bin"]


def test_versions_are_never_joined(file_server, address, target):
    file_server.cuts = [120_000] + [0] * 5
    with pytest.raises(DataError):
        fetch(address, target, tries=2)
    file_server.cuts = []
    file_server.files["/file.bin"] = other = CONTENT[::-1]
    file_server.etag = '"two"'
    fetch(address, target)
    assert target.read_bytes() == other


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_the_file_starts_anew(file_server, address, target, etag):
    file_server.etag = etag
    file_server.cuts = [100_000]
    assert fetch(address, target) == SHA256
    assert file_server.asked == [(None, None), (None, None)]


def test_server_without_ranges(file_server, address, target):
    file_server.ranges = False
    file_server.cuts = [100_000]
    assert fetch(address, target) == SHA256
    assert target.read_bytes() == CONTENT
    assert [wanted for wanted, _ in file_server.asked] == [None, "bytes=98304-"]


def test_complete_partial_file_is_accepted(file_server, address, target):
    target.parent.mkdir(parents=True)
    file_server.cuts = [len(CONTENT)]
    fetch(address, target)
    part = target.with_name("file.bin.part")
    target.rename(part)
    note = '{"validator": "\\"one\\"", "total": 300000}'
    part.with_name("file.bin.part.json").write_text(note)
    assert fetch(address, target) == SHA256
    assert file_server.asked[-1] == ("bytes=300000-", '"one"')


def test_truncated_file_is_an_error(file_server, address, target):
    file_server.cuts = [200_000] * 20
    file_server.etag = None
    with pytest.raises(DataError, match="does not get on"):
        fetch(address, target, tries=3)
    assert not target.exists()


def test_truncated_file_of_undeclared_length_is_told_by_its_known_size(
    file_server, address, target
):
    file_server.declare, file_server.etag = False, None
    file_server.cuts = [200_000] * 20
    with pytest.raises(DataError, match="200,000 bytes in place of 300,000"):
        fetch(address, target, size=len(CONTENT), tries=2)
    assert not target.exists()


def test_wrong_checksum(address, target):
    with pytest.raises(DataError, match=f"{SHA256}.*{'0' * 64} was expected"):
        fetch(address, target, sha256="0" * 64)
    assert left(target) == []


def test_wrong_size(address, target):
    with pytest.raises(DataError, match="300,000 bytes, 299,999 were expected"):
        fetch(address, target, size=299_999)
    assert not target.exists()


def test_absent_file_is_not_asked_for_again(file_server, address, target):
    with pytest.raises(DataError, match="404"):
        fetch(f"{file_server.url}/other", target)
    assert len(file_server.asked) == 1


def test_busy_server_is_asked_again(file_server, address, target):
    file_server.statuses = [503, 429, 500]
    assert fetch(address, target) == SHA256
    assert len(file_server.asked) == 4


def test_web_page_in_place_of_the_file(file_server, address, target):
    file_server.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="a web page came"):
        fetch(address, target)
    assert not target.exists()


def test_too_little_disk(file_server, address, target, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: usage(1, 0, 200_400_000))
    assert fetch(address, target, reserve=1.0) == SHA256  # 300 kB and the margin of 200 MB
    target.unlink()
    with pytest.raises(DataError, match="CAE_HOME"):
        fetch(address, target, reserve=2.0)
    assert left(target) == []


def test_no_server(target):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(Offline, match="127.0.0.1"):
        fetch(f"http://127.0.0.1:{port}/file.bin", target)
