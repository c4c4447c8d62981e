"""Device, seeds and the progress line."""

import io
import os

import pytest
import torch

from cae_lib.errors import ConfigError
from cae_lib.runtime import PROGRESS_LINES_VARIABLE, Progress, pick_device, print_status


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
    with pytest.raises(ConfigError, match="'gpu'"):
        pick_device("gpu")


def test_on_a_terminal_one_line_is_rewritten(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with Progress(3, "training") as progress:
        progress.mininterval = 0
        progress.update(1, loss=2.5)
        progress.update(2, loss=0.125)
    written = stream.getvalue()
    assert written.count("\n") == 1 and written.endswith("\n")
    _, first, second, *_ = written.strip("\r\n").split("\r")
    assert all(part in first for part in ("training", "1/3", "loss=2.5"))
    assert "3/3" in second and "loss=0.125" in second


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_without_a_terminal_or_among_processes_lines_are_rare(stream, monkeypatch):
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv(PROGRESS_LINES_VARIABLE, "1")
    with Progress(1000, "drawing") as progress:
        for _ in range(1000):
            progress.update()
    first, last = stream.getvalue().splitlines()  # 10 s have not passed
    assert "\r" not in first + last and "0/1000" in first and "drawing" in last
    assert "1000/1000" in last


def test_in_a_notebook_lines_reach_the_terminal_of_its_kernel_too(monkeypatch, capsys):
    """Where papermill was started, which shows the output of a cell only once it has ended."""
    terminal, written_to = os.pipe()

    class OutStream(io.StringIO):
        """The stream of a cell, whose file is the one that the kernel was started with."""

        def fileno(self) -> int:
            return written_to

    cell = OutStream()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", cell)
        print_status("outside of a notebook")
        OutStream.__module__ = "ipykernel.iostream"
        print_status("9 trainings")
        with Progress(2, "clip-ft, seed 0") as progress:
            progress.update(2)
    os.close(written_to)
    with os.fdopen(terminal) as stream:
        first, *bars = stream.read().splitlines()
    assert first == "9 trainings" and "9 trainings\n" in capsys.readouterr().out
    assert bars == cell.getvalue().splitlines() and "clip-ft, seed 0" in bars[-1]
