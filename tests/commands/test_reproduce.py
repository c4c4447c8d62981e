"""The time that a reproduction still takes, told from the jobs that are done."""

import json
from pathlib import Path

import pytest

from cae_lab import grid
from cae_lab.commands import reproduce
from cae_lab.estimates import LARGE_RUN, Job, seconds_left
from cae_lab.profiles import load_profile

JOBS = [
    Job("data", 60),
    Job("base", 30),
    *[Job("run", 100)] * 47,
    Job("run", 40),
    *[Job("page", 15)] * 20,
    Job("book", 60),
]


def finished(**seconds: dict[int, float]) -> list[Job]:
    """The jobs, with the durations of some of each kind by their number within the kind."""
    numbers = dict.fromkeys(seconds, -1)
    jobs = []
    for job in JOBS:
        numbers[job.kind] = numbers.get(job.kind, -1) + 1
        jobs.append(job._replace(seconds=seconds.get(job.kind, {}).get(numbers[job.kind])))
    return jobs


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({}, None),
        ({"data": {0: 800}}, None),  # which took 13 minutes and says nothing about the runs
        ({"data": {0: 800}, "base": {0: 60}}, None),
        # at twice the expected time: 46 runs of 200 s, one of 80 s, pages and book of 720 s
        ({"data": {0: 800}, "base": {0: 60}, "run": {0: 200}}, (9200 + 80 + 720) / 2),
        # the short run alone says the same
        ({"data": {0: 800}, "base": {0: 60}, "run": {47: 80}}, (9400 + 720) / 2),
        # pages go at their own pace once there is one: 19 at 30 s; fast runs make no fast book
        (
            {"data": {0: 9}, "base": {0: 9}, "run": dict.fromkeys(range(48), 50), "page": {3: 30}},
            (19 * 30 + 60) / 2,
        ),
    ],
)
def test_the_time_left_goes_by_the_runs_and_their_expected_work(seconds, expected):
    left = seconds_left(finished(**seconds), n_parallel=2)
    assert left is None if expected is None else left == pytest.approx(expected)


def test_nothing_left_takes_no_time():
    assert seconds_left([job._replace(seconds=1.0) for job in JOBS], 2) == 0


def test_no_time_is_told_before_a_run_is_done(home: Path, capsys):
    """Two seconds a run here, of which two run side by side."""
    names = ["data/0", "base/0", "clip-ft/0", "clip-ft/1", "negclip/0", "negclip/1"]
    jobs = {
        home / name / "done.json": Job("run" if "/" in name and name[0] in "cn" else name[:4], 100)
        for name in names
    }
    jobs[home / "page" / "done.json"] = Job("page", 50)
    jobs[home / "book" / "done.json"] = Job("book", 50)
    outputs = iter(jobs)

    def finish_one(_: float) -> None:
        output = next(outputs)
        output.parent.mkdir(parents=True)
        output.write_text(json.dumps({"seconds": 200.0}))

    codes = iter([None] * len(jobs))
    reproduce._print_progress(lambda: next(codes, 0), jobs, 2, finish_one)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [f"{n} of 6 runs done" for n in range(3)]
    # at twice the expected time: three runs of 200 s, a page and a book of 100 s each
    assert lines[3] == "3 of 6 runs done, about 6 min 40 s left"
    assert lines[4].endswith("about 5 min 00 s left")
    assert lines[6] == "6 of 6 runs done, about 1 min 40 s left; pages and book follow"
    assert lines[7].startswith("6 of 6 runs and 1 of 1 pages done")


def test_runs_that_were_trained_before_say_nothing_about_trainings(home: Path, capsys):
    """One of three runs is still to be trained; the others took 20 s, to be measured."""
    jobs = {home / f"{name}.json": Job("run", 420.0, training=400.0) for name in "abc"}
    for output in [*jobs][:2]:
        output.write_text(json.dumps({"seconds": 20.0, "trained": False}))
    codes = iter([None])
    reproduce._print_progress(lambda: next(codes, 0), jobs, 1, lambda _: None)
    assert capsys.readouterr().out == "2 of 3 runs done, about 7 min 00 s left\n"


def test_runs_that_were_done_before_say_nothing_about_the_time_left(home: Path, capsys):
    """Two of four runs are done; the one that was trained and measured took twice as expected."""
    jobs = {home / f"{name}.json": Job("run", 420.0, training=400.0) for name in "abcd"}
    records = {"seconds": 1.0, "trained": False, "measured": False}, {"seconds": 840.0}
    for output, record in zip(jobs, records, strict=False):
        output.write_text(json.dumps(record))
        codes = iter([None, 0])
        reproduce._print_progress(codes.__next__, jobs, 1, lambda _: None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 of 4 runs done"
    assert lines[1] == "2 of 4 runs done, about 28 min 00 s left"


def test_pages_of_an_earlier_call_do_not_count_while_their_runs_are_made(home: Path, capsys):
    jobs = {home / "run.json": Job("run", 10.0), home / "page.json": Job("page", 10.0)}
    (home / "page.json").write_text(json.dumps({"seconds": 10.0}))
    codes = iter([None, None])
    reproduce._print_progress(
        lambda: next(codes, 0), jobs, 1, lambda _: (home / "run.json").write_text('{"seconds": 10}')
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "0 of 1 runs done",
        "1 of 1 runs done, about 10 s left; pages and book follow",
    ]


def test_a_run_whose_weights_are_here_is_expected_to_be_measured(home: Path):
    selection = grid.parse_selection(load_profile("smoke"), {"runs": "clip-ft", "seeds": 2})
    path = load_profile("smoke").run("clip-ft", 1).path
    path.parent.mkdir(parents=True)
    path.touch()
    jobs = {path.parts[-3:-1]: job for path, job in reproduce.expected_jobs(selection).items()}
    first, second = jobs["clip-ft", "0"], jobs["clip-ft", "1"]
    assert first.training > 0 == second.training
    assert second.expected == first.expected - first.training


def test_trainings_of_larger_models_have_a_pace_of_their_own():
    jobs = reproduce.expected_jobs(grid.parse_selection(load_profile("paper"), {"runs": "clip-ft"}))
    assert {job.kind for job in jobs.values() if job.training} == {LARGE_RUN}
    done = [Job(LARGE_RUN, 10.0, seconds=1000.0), Job(LARGE_RUN, 10.0), Job("page", 15.0)]
    assert seconds_left(done, 1) == 1000 + 15


def test_where_a_scheduler_decides_no_time_is_told(home: Path, capsys):
    output = home / "done.json"
    output.write_text(json.dumps({"seconds": 200.0}))
    jobs = {output: Job("run", 1), home / "other.json": Job("run", 1)}
    codes = iter([None])
    reproduce._print_progress(lambda: next(codes, 0), jobs, None, lambda _: None)
    assert capsys.readouterr().out == "1 of 2 runs done\n"


def test_a_run_is_expected_to_take_its_steps_and_its_suites(monkeypatch):
    """By the records of the repository."""
    monkeypatch.delenv("CAE_HOME", raising=False)
    jobs = reproduce.expected_jobs(grid.parse_selection(load_profile("mini"), {"all": True}))
    expected = {path.parent.relative_to(path.parents[2]): job for path, job in jobs.items()}
    run, short, data = (expected[Path(name)] for name in ("clip-ft/0", "clip-ft+short/0", "data/0"))
    assert run.kind == short.kind == "run" and data.kind == "data"
    assert run.expected > 2 * short.expected, (
        "a quarter of the steps of half the batch, and two suites"
    )
    assert {job.kind for job in jobs.values()} == {"data", "base", "run", "page", "book"}
    assert not any(job.seconds for job in jobs.values())
