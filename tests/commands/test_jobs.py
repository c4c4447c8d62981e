"""Jobs in processes of their own, one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from cae_lib.commands import jobs
from cae_lib.commands.jobs import run_jobs
from cae_lib.errors import DataError


def _where(number: int) -> tuple[int, int, int]:
    return number, os.getpid(), torch.get_num_threads()


def _kill_main_process() -> None:
    os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)
    time.sleep(600)


def _fail() -> None:
    raise DataError("row 7: expected a number")


def test_jobs_run_in_other_processes_on_one_thread_each_and_keep_their_order(capsys):
    labels = [f"job {n}" for n in range(4)]
    outcomes = run_jobs({name: partial(_where, n) for n, name in enumerate(labels)}, workers=2)
    assert list(outcomes) == labels
    numbers, processes, threads = zip(*(outcome.value for outcome in outcomes.values()),
                                      strict=True)
    assert numbers == (0, 1, 2, 3) and set(threads) == {1} and os.getpid() not in processes
    printed = capsys.readouterr().out.splitlines()
    assert sorted(line.split(" (")[0] for line in printed) == [f"done: {name}" for name in labels]
    assert run_jobs({"only": partial(_where, 1)})["only"].value[1] == os.getpid()


@pytest.mark.parametrize(("gigabytes", "workers"), [(2, 1), (8, 1), (9, 2), (18, 4), (500, 8)])
def test_a_machine_gets_no_more_workers_than_its_memory_holds(monkeypatch, gigabytes, workers):
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": gigabytes * 10**9 // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setattr(jobs, "pick_device", lambda: torch.device("cpu"))
    assert jobs.default_workers() == workers


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
        run_jobs({"bad": _fail} | {f"{n}": partial(_where, n) for n in range(2)}, workers)


if __name__ == "__main__":
    run_jobs({"kill": _kill_main_process, "wait": partial(time.sleep, 600)}, workers=2)
