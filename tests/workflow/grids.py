"""`cae reproduce` on a small grid, in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cae_lib.models.checkpoint import read_log

STEPS = 600  # a state is written after each 200
ROW = f"negclip+batch_size=2+steps={STEPS}"


class Reproduction:
    """`cae reproduce` on a row of the smoke profile in a home of its own."""

    def __init__(self, home: Path, row: str = ROW, engine: str = "local") -> None:
        self.home, self.row, self.engine = home, row, engine
        self.log = home / "runs/smoke" / row / "log.txt"

    def start(self) -> subprocess.Popen:
        words = [
            sys.executable,
            "-m",
            "cae_lab.cli",
            "reproduce",
            "--profile",
            "smoke",
            "--runs",
            self.row,
            "--seeds",
            "1",
            "--on",
            self.engine,
        ]
        return subprocess.Popen(
            words,
            env=os.environ | {"CAE_HOME": str(self.home)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_heed_interrupts,
        )

    def run(self) -> tuple[int, str]:
        process = self.start()
        text, _ = process.communicate(timeout=800)
        return process.returncode, text

    def log_text(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""

    def states(self) -> list[Path]:
        return list((self.home / "data/checkpoints/smoke/variants").glob("*/state.pt"))

    def job(self) -> int:
        """The process that trains, in this home and no other."""
        pids = subprocess.run(
            ["pgrep", "-f", f"job.py .* run {re.escape(self.row)}/0/done.json"],
            capture_output=True,
            text=True,
        ).stdout.split()
        folders = {int(pid): Path("/proc") / pid for pid in pids}
        home = f"CAE_HOME={self.home}\0".encode()
        return next(
            pid
            for pid, folder in folders.items()
            if (folder / "comm").read_text().startswith("python")
            and home in (folder / "environ").read_bytes()
        )

    def finished(self) -> None:
        """The training is complete, and each of its steps was taken once or again after a state."""
        (log,) = (self.home / "data/checkpoints/smoke/variants").glob("*/log.jsonl")
        assert [line["step"] for line in read_log(log)] == list(range(1, STEPS + 1))
        assert not self.states() and (self.log.parent / "0" / "done.json").is_file()


def _heed_interrupts() -> None:
    """Where the tests run in the background, Ctrl-C may be ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait(condition: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait until a condition holds, which a process, if given, brings about before it ends."""
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        if process and process.poll() is not None and not condition():
            pytest.fail(f"it ended before it came to pass: {process.communicate()[0]}")
        time.sleep(0.1)
