"""The store: what is written, when it is measured again, and what goes wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from conftest import REPOSITORY

from cae_lib import store
from cae_lib.errors import ConfigError, DataError, WriteError
from cae_lib.evaluation import suites
from cae_lib.profiles import find_profile
from cae_lib.runtime import current_provenance, write_atomic

FRAME = pd.DataFrame({"item": np.arange(3, dtype=np.int32), "correct": [True, False, True]})


def save(run: str = "cae", seed: int = 0, table: str = "answers", profile: str = "mini") -> Path:
    return store.save(table, run, seed, FRAME, profile, key="abc", provenance={"seed": seed})


def runs_of(table: str = "answers", profile: str = "mini") -> list[tuple[str, int]]:
    return list(store.index_of(table, profile))


def test_a_table_survives_and_pandas_reads_it_alone(home: Path):
    staged = save(seed=2)
    expected = FRAME.assign(run="cae", seed=np.int8(2))[["run", "seed", "item", "correct"]]
    for path in (staged, home / "data" / "records" / "mini" / "answers.parquet"):
        pd.testing.assert_frame_equal(store.load("answers"), expected)
        pd.testing.assert_frame_equal(pd.read_parquet(path, partitioning=None), expected)
        rows = store.index_of("answers", "mini")["cae", 2]
        assert (rows.path, rows.key, rows.provenance) == (path, "abc", {"seed": 2})
        assert store.provenance_table("mini").iloc[0, :4].tolist() == ["answers", "cae", 2, "abc"]
        store.merge_staged("mini")
    assert not staged.exists() and [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(
    not store.PARQUET_PAGE_OPTIONS, reason="this version of pyarrow writes short pages"
)
def test_the_columns_that_all_runs_share_take_little_space(home: Path):
    """Answers at random take a bit each; the names of 73 runs and 3,000 items next to nothing."""
    rng, n = np.random.default_rng(0), 3000
    frame = pd.DataFrame({"item": np.arange(n, dtype=np.int32)})
    for number in range(73):
        answered = frame.assign(correct=rng.random(n) < 0.5)
        store.save("answers", f"run-{number}", 0, answered, "mini", key="", provenance={})
    store.merge_staged("mini")
    assert store.file_of("answers", "mini").stat().st_size < 1.3 * 73 * n / 8


def test_what_is_staged_goes_before_what_is_collected(home: Path):
    for run, seed in (("cae", 1), ("base", 0), ("cae", 0)):
        save(run, seed)
    store.merge_staged("mini")
    store.save("answers", "cae", 0, FRAME[:1], "mini", key="new", provenance={})
    store.discard("answers", "cae", 1, "mini")
    for _ in range(2):
        assert runs_of() == [("base", 0), ("cae", 0)] and len(store.load("answers")) == 4
        store.merge_staged("mini")
    filters = [("run", "in", ["cae"])]
    assert len(pd.read_parquet(store.file_of("answers", "mini"), filters=filters)) == 1
    for run in ("base", "cae"):
        store.discard("answers", run, 0, "mini")
    store.merge_staged("mini")
    assert not store.file_of("answers", "mini").exists() and runs_of() == []


def test_rows_of_one_item_follow_each_other_and_are_read_run_by_run(home: Path):
    """Five rows of one run are of other items than the three of the others."""
    other = pd.DataFrame({"item": np.arange(5, dtype=np.int32), "correct": [True] * 5})
    store.save("answers", "data", 0, other, "mini", key="", provenance={})
    for run, seed in (("cae", 1), ("base", 0), ("cae", 300)):
        save(run, seed)
    store.merge_staged("mini")
    table = pd.read_parquet(store.file_of("answers", "mini"))
    assert table["item"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, *range(5)]
    assert table["seed"].tolist() == [0, 1, 300] * 3 + [0] * 5
    assert table["run"].tolist() == ["base", "cae", "cae"] * 3 + ["data"] * 5
    frame = store.load("answers", "mini", ["cae", "data", "base"])
    assert frame["item"].tolist() == [*range(3), *range(3), *range(5), *range(3)]
    assert frame["correct"].tolist() == [True, False, True] * 2 + [True] * 5 + [True, False, True]
    assert frame["seed"].tolist() == [1] * 3 + [300] * 3 + [0] * 8


def test_reading_run_by_run_gives_each_runs_own_columns_and_rows(home: Path):
    store.save("answers", "other", 0, FRAME.assign(text="a"), "mini", key="", provenance={})
    for run, seed in (("cae", 10), ("base", 0), ("cae", 2)):
        save(run, seed)
    store.merge_staged("mini")
    store.save("answers", "cae", 3, FRAME[1:], "mini", key="", provenance={})  # in another file
    index = store.index_of("answers", "mini")
    actual = {run: table.to_pandas() for run, table in store.read_runs(index)}
    assert list(actual) == ["base", "cae", "other"]
    for run, frame in actual.items():
        rows = store.read_rows([rows for (name, _), rows in index.items() if name == run])
        pd.testing.assert_frame_equal(frame, rows.to_pandas())
    assert actual["cae"]["seed"].tolist() == [2] * 3 + [3] * 2 + [10] * 3
    assert list(store.read_runs({})) == []


def test_what_no_page_shows_is_left_out_and_rounded(home: Path):
    """1 + 2**-13 and -1 - 3 * 2**-13 lie halfway between two numbers of 13 binary digits."""
    exact = np.array([1 + 2**-13, -1 - 3 * 2**-13, 2**-20, np.nan, 0.3], dtype=np.float32)
    words = pd.DataFrame({"role": ["object", "relation", "object", "attribute", "other"]})
    words["score"] = exact
    store.save("attribution", "cae", 0, words, "mini", key="", provenance={})
    stored = store.load("attribution")
    assert stored["role"].tolist() == ["object", "relation", "object", "attribute"]
    expected = np.array([1, -1 - 2**-11, 2**-20, np.nan], dtype=np.float32)
    np.testing.assert_array_equal(stored["score"].to_numpy(), expected)
    answers = FRAME.assign(margin=np.float32(0.1), rank=np.int16(1))
    store.save("benchmarks", "cae", 0, answers, "mini", key="", provenance={})
    assert list(store.load("benchmarks")) == ["run", "seed", "item", "correct"]
    store.save("similarity", "cae", 0, words[["score"]], "mini", key="", provenance={})
    np.testing.assert_array_equal(store.load("similarity")["score"].to_numpy(), exact)


def test_what_is_staged_while_others_are_collected_stays(home: Path, monkeypatch):
    """Between reading and removing the rows of a run, another process measures it again, and a
    further one."""
    save("cae", 0), save("base", 0)
    write = store._write

    def slow(index: store.Index, content: object, path: Path) -> None:
        write(index, content, path)
        monkeypatch.setattr(store, "_write", write)
        store.save("answers", "cae", 0, FRAME[:1], "mini", key="new", provenance={})
        save("cae", 1)

    monkeypatch.setattr(store, "_write", slow)
    store.merge_staged("mini")
    for _ in range(2):
        index = store.index_of("answers", "mini")
        assert list(index) == [("base", 0), ("cae", 0), ("cae", 1)]
        assert index["cae", 0].key == "new" and len(store.load("answers")) == 3 + 1 + 3
        store.merge_staged("mini")
    assert index["cae", 0].path == store.file_of("answers", "mini")


def test_rows_that_are_stored_after_they_were_discarded_are_there(home: Path):
    save(), store.merge_staged("mini")
    store.discard("answers", "cae", 0, "mini")
    staged = store.save("answers", "cae", 0, FRAME[:2], "mini", key="new", provenance={})
    assert [path.name for path in staged.parent.iterdir()] == [staged.name]
    for _ in range(2):
        assert runs_of() == [("cae", 0)] and len(store.load("answers")) == 2
        store.merge_staged("mini")


def test_runs_come_in_the_order_asked_for_and_no_more_seeds(home: Path):
    for run in (
        "clip-ft 0", "clip-ft 1", "clip-ft 2", "clip-ft+short 0", "base 0", "tuning 100", "data 0"
    ):  # fmt: skip
        save(run.split()[0], int(run.split()[1]))
    wider = FRAME.astype({"item": np.int64})
    store.save("answers", "tuning", 100, wider, "mini", key="", provenance={})

    def found(*arguments: object) -> list[str]:
        frame = store.load("answers", "mini", *arguments)
        return list((frame["run"].astype(str) + " " + frame["seed"].astype(str)).unique())

    assert found(["clip-ft", "base"], 2) == ["clip-ft 0", "clip-ft 1", "base 0"]
    assert found(["tuning", "data"], 2) == ["tuning 100", "data 0"] and len(found()) == 7
    with pytest.raises(DataError, match="1 of 2 seeds.*clip-ft.short"):
        found(["clip-ft", "clip-ft+short"], 2)
    assert store.missing_runs("answers", ["base", "clip-"], "mini") == ["clip-"]


def test_a_column_that_is_no_longer_measured_goes_with_the_last_rows_that_had_it(home: Path):
    for seed in (0, 1):
        store.save(
            "answers", "cae", seed, FRAME.assign(word="dog"), "mini", key="old", provenance={}
        )
    save("base")
    store.merge_staged("mini")
    assert list(store.load("answers", runs=["base"])) == ["run", "seed", "item", "correct"]
    store.discard("answers", "base", 0, "mini")
    save(seed=0)
    assert list(store.load("answers")["word"].notna()) == [False] * 3 + [True] * 3
    save(seed=1)
    assert list(store.load("answers")) == ["run", "seed", "item", "correct"]


def test_processes_that_store_seeds_of_a_run_at_once_lose_none(home: Path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pandas as pd\n"
        "from cae_lib import store\n"
        "frame = pd.DataFrame({'item': range(1000)})\n"
        "store.save('a', 'cae', int(sys.argv[2]), frame, 'mini', key='', provenance={})\n"
        "store.merge_staged('mini')"
    )
    root = str(Path(store.__file__).parent.parent)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, root, str(seed)], env=os.environ | {"CAE_HOME": str(home)}
        )
        for seed in range(2)
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert store.load("a").groupby("seed").size().tolist() == [1000, 1000]


def test_smoke_tables_stay_out_of_the_committed_folder_and_faults_are_told(home: Path):
    assert home / "data" / "cache" in save(profile="smoke").parents
    with pytest.raises(DataError, match="no row to store"):
        store.save("a", "cae", 0, FRAME[:0], "mini", key="", provenance={})
    save(), store.merge_staged("mini")
    store.file_of("answers", "mini").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"mini/answers.parquet cannot be read.*restore it"):
        store.load("answers")


def test_an_interrupted_write_leaves_the_old_file(home: Path, monkeypatch):
    path = home / "data" / "a.txt"
    write_atomic(path, "old")
    write_atomic(path, b"bytes\r\n")
    assert path.read_bytes() == b"bytes\r\n" and path.stat().st_mode & 0o777 == 0o644
    for fault in (OSError(28, "No space left"), PermissionError(13, "Permission denied")):
        monkeypatch.setattr("os.replace", Mock(side_effect=fault))
        with pytest.raises(WriteError, match=f"{fault.strerror}.*folder writable.*CAE_HOME"):
            write_atomic(path, "new")
    assert path.read_bytes() == b"bytes\r\n" and len(list(path.parent.iterdir())) == 1
    with pytest.raises(WriteError, match="cannot write .*set CAE_HOME"):
        write_atomic(path / "below a file", "new")


def counter(*tables: str) -> Mock:
    """A measurement of some tables that knows how often it ran."""
    return Mock(return_value={name: FRAME for name in tables} | {"empty": FRAME[:0]})


def measure(compute: Mock, key: str = "key", fresh: bool = False, suite: str = "s") -> int:
    """How often it was computed so far."""
    suites.measure_if_stale(suite, "cae", 1, "mini", key, compute, remeasure=fresh, model="w")
    return compute.call_count


def test_a_suite_is_measured_once_per_key(home: Path):
    compute = counter("a", "b")
    assert measure(compute) == measure(compute) == 1
    known = store.index_of("a", "mini")["cae", 1].provenance
    assert (known["suite"], known["tables"], known["model"]) == ("s", ["a", "b"], "w")
    assert runs_of("empty") == []
    assert measure(compute, "other") == 2
    store.discard("a", "cae", 1, "mini")
    assert measure(compute, "other") == 3, "one of its tables is gone"
    store.save("b", "cae", 1, FRAME, "mini", key="key", provenance=known)
    assert measure(compute, "other") == 4, "one of its tables is older"
    assert measure(counter("a"), "third") == 1
    assert runs_of("b") == [], "no longer a table of the suite"


def test_fresh_measures_what_this_clone_only_received_and_no_other_suite(home: Path, monkeypatch):
    monkeypatch.setattr(suites, "current_provenance", lambda profile, seed, **entries: entries)
    compute, other = counter("a"), counter("b")
    others = (2, "mini"), (1, "paper")
    for place in others:
        suites.measure_if_stale("s", "cae", *place, "key", counter("a"))
    assert measure(compute) == measure(other, suite="t") == 1
    assert measure(compute, fresh=True) == measure(other, suite="t") == 1, "measured here already"
    for profile in ("mini", "paper"):
        store.merge_staged(profile)
    shutil.rmtree(home / "data" / "cache")  # as after a clone: the table is there, the marker not
    assert measure(compute) == 1
    assert measure(compute, fresh=True) == 2
    for place in others:
        suites.measure_if_stale("s", "cae", *place, "key", again := counter("a"), remeasure=True)
        assert again.called, "of another seed or profile"


def test_a_suite_that_gives_no_rows_is_measured_once_per_key(home: Path):
    compute = counter()
    assert measure(compute) == measure(compute, fresh=True) == 1
    assert measure(compute, "other") == 2 and measure(compute, "key") == 3
    measure(counter("a"))
    compute = counter("a")
    assert measure(compute, "third") == 1
    store.discard("a", "cae", 1, "mini")
    assert measure(compute, "third") == 2, "it gave rows, and they are gone"


def test_a_failed_measurement_stores_nothing(home: Path):
    with pytest.raises(ZeroDivisionError):
        suites.measure_if_stale("s", "cae", 1, "mini", "key", lambda: 1 / 0)
    assert measure(counter("a"), fresh=True) == 1


def test_a_stamp_is_plain_and_holds_no_path(home: Path):
    found = current_provenance("mini", 3, dtype="bfloat16", note="x")
    assert not any(str(place) in json.dumps(found) for place in (Path.home(), home))
    assert (found["seed"], found["dtype"], found["note"]) == (3, "bfloat16", "x")
    assert found["data"] is None and found["versions"]["torch"] == torch.__version__
    manifest = home / "data" / "raw" / "world-mini" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    assert current_provenance("mini", 3)["data"] == "44136fa355b3"  # sha256 of "{}"


def test_the_readme_beside_the_records_names_every_column() -> None:
    """Of all stored tables of all profiles."""
    folder = REPOSITORY / "data" / "records"
    rows = [
        line.split("|")
        for line in (folder / "README.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    told = {
        table: {*re.findall(r"`([\w-]+)`", cells[3])}
        for cells in rows
        for table in re.findall(r"`(\w+)`", cells[1])
    }
    told["captions"] |= told["items"]
    files = list(folder.glob("*/*.parquet"))
    for file in files:
        columns = {re.sub("^(gap|joint)_.*", r"\1", name) for name in pq.read_schema(file).names}
        known = {re.sub("^(gap|joint)_.*", r"\1", name) for name in told[file.stem]}
        assert columns - {"run", "seed"} <= known, file
    assert files


@pytest.mark.parametrize(
    ("run", "trained"),
    [
        ("released-clip", None),
        ("base-gelu", None),
        ("clip-ft-gelu", "clip-ft"),
        ("negclip", "negclip"),
    ],
)
def test_the_advice_for_a_missing_run_can_be_followed(run: str, trained: str | None) -> None:
    message = str(store.not_stored_error("benchmarks", run, "mini"))
    assert re.findall(r"cae train (\S+)", message) == ([trained] if trained else [])


def test_the_error_for_missing_seeds_does_not_say_that_nothing_is_stored() -> None:
    for seeds in (3, [0, 1]):
        message = str(store.not_stored_error("benchmarks", "cae", "mini", [0], seeds))
        assert "seeds" in message and "nothing" not in message


@pytest.mark.parametrize(
    ("run", "absent"),
    [
        ("released-clip", []),
        ("base+steps=600", []),
        ("base-gelu", []),
        ("clip-ft-gelu", [1, 2]),
        ("negclip+lr=0.01", [1, 2]),
        ("baseline", [1, 2]),
        ("data-half", [1, 2]),
    ],
)
def test_a_run_has_seeds_because_it_is_trained_and_not_by_its_name(
    run: str, absent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("baseline", "data-half"):
        monkeypatch.setitem(find_profile("mini").runs, name, {})
    assert store.select({(run, 0): None}, run, 3, "mini")[1] == absent


@pytest.mark.parametrize("seeds", [-1, 0, [0, -1]])
def test_no_number_of_seeds_is_below_one(seeds: int | list[int]) -> None:
    with pytest.raises(ConfigError, match="expected a number of seeds"):
        store.select({("clip-ft", 0): None}, "clip-ft", seeds, "mini")
