"""Records: what is written, when it is read again, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cae_lib import provenance
from cae_lib.errors import DataError
from cae_lib.records import Record, load_or_run, load_record, record_path, save_record

RECORD = Record("cae/aro/0", "abc", {"lr": 1e-3}, {"accuracy": 0.5, "n": 4}, {"seed": 0})


def test_a_record_survives_saving_and_loading(home: Path):
    path = save_record(RECORD, "mini")
    assert path == home / "data" / "records" / "mini" / "cae" / "aro" / "0.json"
    assert load_record("cae/aro/0", "mini") == RECORD
    assert [file.name for file in path.parent.iterdir()] == ["0.json"]


def test_a_file_is_the_same_whatever_the_order_of_keys(home: Path):
    first = save_record(Record("a", "k", {}, {"x": 1, "y": 2}, {}), "mini").read_text()
    second = save_record(Record("a", "k", {}, {"y": 2, "x": 1}, {}), "mini").read_text()
    assert first == second
    assert first.endswith("}\n")


def test_smoke_records_stay_out_of_the_committed_folder(home: Path):
    path = save_record(RECORD, "smoke")
    assert home / "data" / "cache" in path.parents
    assert not (home / "data" / "records").exists()


def test_numbers_of_numpy_and_torch_become_plain(home: Path):
    results = {
        "a": np.float32(0.25),
        "b": torch.tensor(3),
        "c": np.array([1.5, 2.0]),
        "d": (np.int64(1), None, True),
    }
    path = save_record(Record("a", "k", {}, results, {}), "mini")
    stored = json.loads(path.read_text())["results"]
    assert stored == {"a": 0.25, "b": 3, "c": [1.5, 2.0], "d": [1, None, True]}


@pytest.mark.parametrize("value", [float("nan"), np.inf, {1, 2}, Path("x")])
def test_what_is_no_plain_number_is_refused_by_its_place(home: Path, value: object):
    with pytest.raises(DataError, match=r"record a\.results\.rows\[1\]"):
        save_record(Record("a", "k", {}, {"rows": [1, value]}, {}), "mini")
    assert not record_path("a", "mini").exists()


def test_an_interrupted_write_leaves_the_old_record(home: Path, monkeypatch):
    path = save_record(RECORD, "mini")
    before = path.read_text()

    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(DataError, match="No space left.*CAE_HOME"):
        save_record(Record("cae/aro/0", "new", {}, {}, {}), "mini")
    assert path.read_text() == before
    assert [file.name for file in path.parent.iterdir()] == ["0.json"]


def test_a_place_that_cannot_be_written_says_what_to_do(home: Path):
    (home / "data").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot write .*0.json.*set CAE_HOME"):
        save_record(RECORD, "mini")


@pytest.mark.skipif(os.geteuid() == 0, reason="the root user may write everywhere")
def test_no_write_permission_says_what_to_do(home: Path):
    (home / "data").mkdir(mode=0o500)
    with pytest.raises(DataError, match="Permission denied.*make the folder writable"):
        save_record(RECORD, "mini")


def test_a_missing_record_says_what_computes_it(home: Path):
    with pytest.raises(DataError, match="make reproduce"):
        load_record("nothing", "mini")


@pytest.mark.parametrize("content", ["{", "[1]", '{"name": "a"}', "\xff"])
def test_a_malformed_record_names_its_file(home: Path, content: str):
    path = save_record(RECORD, "mini")
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"mini/cae/aro/0\.json.*delete it"):
        load_record("cae/aro/0", "mini")


class Counter:
    """A computation that knows how often it ran."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> dict[str, int]:
        self.runs += 1
        return {"run": self.runs}


def test_a_record_is_computed_once_per_key(home: Path):
    compute = Counter()
    first = load_or_run("a/b", "mini", "key-1", compute, config={"lr": 1.0}, seed=5)
    again = load_or_run("a/b", "mini", "key-1", compute)
    assert first == again and compute.runs == 1
    assert first.results == {"run": 1} and first.config == {"lr": 1.0}
    assert first.provenance["seed"] == 5 and first.provenance["profile"] == "mini"
    assert load_or_run("a/b", "mini", "key-2", compute).results == {"run": 2}


def test_fresh_computes_what_this_clone_only_received(home: Path):
    compute = Counter()
    load_or_run("a", "mini", "key", compute)
    load_or_run("a", "mini", "key", compute, fresh=True)
    assert compute.runs == 1, "computed here already"
    shutil.rmtree(home / "data" / "cache")  # as after a clone: the record is there, the marker not
    load_or_run("a", "mini", "key", compute)
    assert compute.runs == 1
    load_or_run("a", "mini", "key", compute, fresh=True)
    assert compute.runs == 2
    load_or_run("a", "mini", "other", compute, fresh=True)
    assert compute.runs == 3


def test_a_failed_computation_stores_nothing(home: Path):
    def fail() -> dict[str, int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load_or_run("a", "mini", "key", fail)
    assert not record_path("a", "mini").exists()
    compute = Counter()
    load_or_run("a", "mini", "key", compute, fresh=True)
    assert compute.runs == 1


def test_a_stamp_is_plain_and_holds_no_path(home: Path):
    stamp = provenance.stamp("mini", 3, dtype="bfloat16", note="x")
    text = json.dumps(stamp)
    assert str(Path.home()) not in text and str(home) not in text
    assert stamp["seed"] == 3 and stamp["dtype"] == "bfloat16" and stamp["note"] == "x"
    assert stamp["data"] is None and stamp["versions"]["torch"] == torch.__version__
    manifest = home / "data" / "raw" / "world-mini" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    assert provenance.stamp("mini", 3)["data"] == "44136fa355b3"  # sha256 of "{}"
