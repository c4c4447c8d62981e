"""Device, seeds and the progress line."""

import io

import torch

from cae_lib.runtime import Progress, format_seconds, pick_device


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_named_device_wins_and_processes_of_torchrun_get_a_gpu_each(monkeypatch):
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device() == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device() == torch.device("cuda:1")
    assert pick_device("cpu") == torch.device("cpu")


def test_durations_read_as_people_say_them():
    found = [format_seconds(seconds) for seconds in (0.4, 59.4, 59.6, 200, 3900)]
    assert found == ["0 s", "59 s", "1 min 00 s", "3 min 20 s", "1 h 05 min"]


def test_on_a_terminal_one_line_is_rewritten():
    stream = Terminal()
    with Progress(3, "training", stream=stream, every=0) as progress:
        progress.update(1, loss=2.5, note="something long to say")
        progress.update(2, loss=0.125, note="")
    written = stream.getvalue()
    assert written.count("\n") == 1 and written.endswith("\n")
    first, second, last = written.strip("\r\n").split("\r")
    assert first.startswith("training 1/3 | loss 2.5 | ") and first.rstrip().endswith(" left")
    assert second.startswith("training 3/3 | loss 0.125 | ") and " left" not in second
    assert len(second) >= len(first), "the shorter line covers the longer"
    assert "took" in last


def test_without_a_terminal_lines_are_rare():
    stream = io.StringIO()
    with Progress(1000, "drawing", stream=stream) as progress:
        for _ in range(1000):
            progress.update()
        progress.close()  # closing twice writes once
    (line,) = stream.getvalue().splitlines()  # only the last, since 10 s have not passed
    assert line.startswith("drawing 1000/1000")
