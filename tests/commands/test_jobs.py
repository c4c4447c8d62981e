"""Jobs in processes of their own, one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cae_lib.commands import jobs
from cae_lib.commands.jobs import Job, run_jobs
from cae_lib.errors import ConfigError, DataError


def _where(number: int) -> tuple[int, int, int]:
    return number, os.getpid(), torch.get_num_threads()


def _write(file: str) -> None:
    time.sleep(0.5)
    Path(file).write_text("done")


def _read(file: str) -> str:
    return Path(file).read_text()


def _kill_main_process() -> None:
    os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)
    time.sleep(600)


def _fail() -> None:
    raise DataError("row 7: expected a number")


def test_jobs_run_in_other_processes_on_one_thread_each_and_keep_their_order(capsys):
    outcomes = run_jobs([Job(f"job {n}", _where, (n,)) for n in range(4)], workers=2)
    assert list(outcomes) == ["job 0", "job 1", "job 2", "job 3"]
    assert [outcome.value[0] for outcome in outcomes.values()] == [0, 1, 2, 3]
    assert os.getpid() not in {outcome.value[1] for outcome in outcomes.values()}
    assert {outcome.value[2] for outcome in outcomes.values()} == {1}
    assert sorted(line.split(" (")[0] for line in capsys.readouterr().out.splitlines()) == [
        f"done: job {n}" for n in range(4)
    ]


def test_a_job_waits_for_the_one_before_it(tmp_path):
    """The second job reads what the first has written, though a process is free from the start."""
    file = str(tmp_path / "written")
    outcomes = run_jobs([Job("write", _write, (file,)), Job("read", _read, (file,), ("write",)),
                         Job("other", _where, (1,))], workers=2)
    assert outcomes["read"].value == "done"
    with pytest.raises(ConfigError, match="no job is named 'nothing'"):
        run_jobs([Job("a", _where, (1,), ("nothing",)), Job("b", _where, (1,), ("a",))],
                 workers=2)


@pytest.mark.parametrize(("gigabytes", "workers"), [(2, 1), (8, 1), (9, 2), (18, 4), (500, 8)])
def test_a_machine_gets_no_more_workers_than_its_memory_holds(monkeypatch, gigabytes, workers):
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": gigabytes * 10**9 // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setattr(jobs, "pick_device", lambda: torch.device("cpu"))
    assert jobs.default_workers() == workers


def test_a_single_job_runs_here():
    assert run_jobs([Job("only", _where, (1,))])["only"].value[1] == os.getpid()


def test_a_killed_main_process_leaves_no_workers():
    command = [sys.executable, __file__]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        process.communicate(timeout=120)  # the workers hold the pipe open
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_job_reaches_the_caller(workers: int):
    with pytest.raises(DataError, match="row 7"):
        run_jobs([Job("bad", _fail), *(Job(f"{n}", _where, (n,)) for n in range(2))], workers)


if __name__ == "__main__":
    run_jobs([Job("kill", _kill_main_process), Job("wait", time.sleep, (600,))], workers=2)
