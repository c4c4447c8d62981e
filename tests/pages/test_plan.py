"""What a page says before and while it computes what is not stored."""

import json
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest

from book.extension import plan
from book.studies import ALL_SUITES
from cae_lab import results, store
from cae_lab.profiles import load_profile
from cae_lab.runs import Run
from cae_lib.models import checkpoint

NAME = "cae-gradcam+weight=0.3"
MINI = load_profile("mini")


@pytest.fixture
def computed(home: Path, monkeypatch) -> Mock:
    """A home without a training, and a computation that takes no time."""
    load = Mock(side_effect=lambda *words, **_: pd.DataFrame({"run": [*words[2]]}))
    monkeypatch.setattr(results, "load", load)
    return load


def keep(run: str, seeds: int) -> None:
    for seed in range(seeds):
        frame = pd.DataFrame({"correct": [True]})
        provenance = {"wall_seconds": 30.0}
        store.save("benchmarks", MINI, run, seed, frame, key="k", provenance=provenance)


def test_trainings_and_minutes_are_printed_first_and_each_training_is_named(computed, capsys):
    """Nothing is printed of what is stored."""
    keep("clip-ft", 3)
    names = ["clip-ft", NAME, f"{NAME}+margin=0.1"]
    plan.load("benchmarks", "mini", ["clip-ft"], 3, None)
    assert capsys.readouterr().out == "" and computed.call_count == 1
    computed.reset_mock()
    rows = plan.load("benchmarks", "mini", names, 3, 1.0)
    first, *lines = capsys.readouterr().out.splitlines()
    # 400 steps of 128 pairs at 1.8 ms are 92 s, and measuring takes the 30 s that are stored
    assert first.startswith("6 trainings, about 12 minutes,") and f"{NAME}, seeds 0, 1, 2" in first
    assert len({*lines}) == len(lines) == 6
    assert "1 of 6" in lines[0] and f"{NAME}, seed 0" in lines[0]
    assert "6 of 6" in lines[5] and "margin=0.1+weight=0.3, seed 2" in lines[5]
    one, *_, last = computed.call_args_list
    assert one.args[2:] == ([NAME], [0])
    assert one.kwargs == {"compute": True, "hours": 1.0, "suites": ALL_SUITES}
    assert last.args[2:] == (names, 3) and len(rows) == 3


def test_trained_run_is_measured_alone(computed, monkeypatch):
    path = load_profile("mini").run("cae-gradcam", weight=0.3).path
    path.parent.mkdir(parents=True)
    path.touch()
    stored = Mock(extra={"identity": {"settings": "same"}})
    monkeypatch.setattr(checkpoint, "read_meta", lambda path: stored)
    monkeypatch.setattr(Run, "inputs", lambda run: {"settings": "same"})
    missing = plan.missing_rows("benchmarks", MINI, [NAME, "base"], 2)
    assert [row.is_training for row in missing] == [False, True, False]
    assert plan.describe("benchmarks", missing).startswith("1 training and 2 measurements, about 3")
    monkeypatch.setattr(Run, "inputs", lambda run: {"settings": "other"})
    assert plan.missing_rows("benchmarks", MINI, [NAME], 1)[0].is_training


def test_pace_of_the_last_training_here_gives_the_minutes(computed, home):
    log = home / "data/checkpoints/mini/clip-ft/0/log.jsonl"
    log.parent.mkdir(parents=True)
    paces = [128.0, 256.0, 1.0]  # pairs a second; their median makes a step a second
    log.write_text("".join(json.dumps({"samples_per_second": pace}) + "\n" for pace in paces))
    keep("base", 1)
    (row,) = plan.missing_rows("benchmarks", MINI, [NAME], 1)
    assert row == plan.Missing(NAME, 0, True, 400.0 + 30.0)
    of_unknown_pace = plan.missing_rows("benchmarks", load_profile("paper"), ["clip-ft"], 1)
    text = plan.describe("benchmarks", of_unknown_pace)
    assert text.startswith("1 training,") and "minute" not in text
