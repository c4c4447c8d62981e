"""Device, seeds and the progress line."""

from __future__ import annotations

import io

import pytest
import torch

from cae_lib.runtime import Progress, format_seconds, pick_device


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_named_device_wins():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_processes_of_torchrun_get_a_gpu_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device() == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device() == torch.device("cuda:1")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min")],
)
def test_durations_read_as_people_say_them(seconds: float, text: str):
    assert format_seconds(seconds) == text


def test_on_a_terminal_one_line_is_rewritten():
    stream = Terminal()
    with Progress(3, "training", stream=stream, every=0) as progress:
        progress.update(1, loss=2.5)
        progress.update(2, loss=0.125)
    written = stream.getvalue()
    assert written.count("\n") == 1 and written.endswith("\n")
    first, second, last = written.strip("\r\n").split("\r")
    assert first.startswith("training 1/3 | loss 2.5 | ") and first.rstrip().endswith(" left")
    assert second.startswith("training 3/3 | loss 0.125 | ") and " left" not in second
    assert "took" in last


def test_a_shorter_line_covers_a_longer_one():
    stream = Terminal()
    progress = Progress(2, "x", stream=stream, every=0)
    progress.update(1, note="something long to say")
    progress.update(1, note="short")
    long, short = stream.getvalue().strip("\r").split("\r")
    assert len(short) >= len(long)


def test_without_a_terminal_lines_are_rare():
    stream = io.StringIO()
    with Progress(1000, "drawing", stream=stream) as progress:
        for _ in range(1000):
            progress.update()
    assert len(stream.getvalue().splitlines()) == 1  # only the last, since 10 s have not passed
    assert stream.getvalue().startswith("drawing 1000/1000")


def test_closing_twice_writes_once():
    stream = io.StringIO()
    progress = Progress(1, "x", stream=stream)
    progress.close()
    progress.close()
    assert len(stream.getvalue().splitlines()) == 1


def test_in_a_page_progress_goes_to_the_runner(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAE_PROGRESS_FILE", str(tmp_path / "progress"))
    with Progress(2, "training", every=0) as progress:
        progress.update(2)
    assert (tmp_path / "progress").read_text().startswith("training 2/2")
    assert capsys.readouterr() == ("", "")
