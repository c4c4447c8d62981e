"""Downloads from a server on loopback that breaks off, lies, or is not there."""

import random
import socket
from pathlib import Path

import pytest

from cae_lib.data.download import CHUNK, TRIES, UnreachableError, download
from cae_lib.errors import DataError

CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


@pytest.fixture
def address(file_server) -> str:
    file_server.files["/file.bin"] = CONTENT
    return f"{file_server.url}/file.bin"


def test_broken_connections_are_resumed_within_one_call(file_server, address, target):
    file_server.cuts = [5 * CHUNK, 3 * CHUNK + 9, 7, CHUNK, CHUNK]  # more often than TRIES
    download(address, target)
    assert target.read_bytes() == CONTENT
    starts = [f"bytes={n * CHUNK}-" for n in (5, 8, 8, 9, 10)]
    assert file_server.asked == [(None, None), *((start, '"one"') for start in starts)]


def test_an_interrupted_call_goes_on_in_the_next_one_of_the_same_version(
    file_server, address, target
):
    file_server.cuts = [5 * CHUNK] + [0] * TRIES
    with pytest.raises(DataError, match="does not get on.*81,920 bytes are kept"):
        download(address, target)
    file_server.cuts, file_server.asked = [], []
    download(address, target)
    assert target.read_bytes() == CONTENT
    download(address, target)
    assert target.read_bytes() == CONTENT, "a whole file stays as it is"
    assert file_server.asked == [("bytes=81920-", '"one"'), ("bytes=300000-", '"one"')]
    target.write_bytes(CONTENT[:120_000])
    file_server.files["/file.bin"], file_server.etag = CONTENT[::-1], '"two"'
    download(address, target)
    assert target.read_bytes() == CONTENT[::-1], "versions are never joined"


@pytest.mark.parametrize(
    ("etag", "ranges", "asked"),
    [
        (None, True, None),
        ('W/"weak"', True, None),
        ('"one"', False, "bytes=98304-"),
        ('"one"', "wrong", "bytes=98304-"),
    ],
)
def test_one_that_cannot_resume_sends_all_anew(file_server, address, target, etag, ranges, asked):
    file_server.etag, file_server.ranges, file_server.cuts = etag, ranges, [100_000]
    download(address, target)
    assert target.read_bytes() == CONTENT
    assert [wanted for wanted, _ in file_server.asked][:2] == [None, asked]


def test_busy_server_is_asked_again_and_absent_file_is_not(file_server, address, target):
    file_server.statuses = [503, 429, 500]
    download(address, target)
    assert target.read_bytes() == CONTENT and len(file_server.asked) == 4
    with pytest.raises(DataError, match="404"):
        download(f"{file_server.url}/other", target.with_name("other"))
    assert len(file_server.asked) == 5


def test_web_page_in_place_of_the_file_too_little_disk_and_no_server(
    file_server, address, target, small_disk
):
    file_server.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="a web page came"):
        download(address, target)
    file_server.kind = "application/zip"
    small_disk(299_999)
    with pytest.raises(DataError, match="file.part: needs 0.20 GB on the disk.*CAE_HOME"):
        download(address, target)
    assert not target.exists()
    small_disk(300_000)
    download(address, target)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/file.bin"
    for kept in (b"", CONTENT[:9]):  # what an earlier call left stays
        target.with_name("other").write_bytes(kept)
        with pytest.raises(UnreachableError, match="127.0.0.1") as caught:
            download(address, target.with_name("other"))
        assert caught.value.host == "127.0.0.1" and "Max retries" not in str(caught.value)
        assert target.with_name("other").read_bytes() == kept
