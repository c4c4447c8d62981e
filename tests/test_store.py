"""The store: what is written, when it is measured again, and what goes wrong."""

import json
import re
import runpy
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from conftest import REPOSITORY

from cae_lab import measuring, results, store
from cae_lab.profiles import load_profile
from cae_lab.provenance import current_provenance
from cae_lab.runs import Profile
from cae_lab.suites import SUITES, Suite, by_name
from cae_lib.errors import ConfigError, DataError, WriteError
from cae_lib.runtime import write_atomic

FRAME = pd.DataFrame({"item": np.arange(3, dtype=np.int32), "correct": [True, False, True]})
MINI = load_profile("mini")


def save(
    run: str = "cae",
    seed: int = 0,
    table: str = "answers",
    profile: Profile = MINI,
    frame: pd.DataFrame = FRAME,
    key: str = "abc",
    **provenance: object,
) -> Path:
    return store.save(
        table, profile, run, seed, frame, key=key, provenance={"seed": seed} | provenance
    )


def pack(*runs: tuple[str, int]) -> Path:
    """Pack the results of these runs, or of all that are stored, and remove their files."""
    index = store.index_of("answers", MINI)
    store.pack(MINI, runs or list(index))
    for name, rows in index.items():
        if name in (runs or index) and "records" not in rows.path.parts:
            rows.path.unlink()
    return store.packed_path("answers", MINI)


def runs_of(table: str = "answers") -> list[tuple[str, int]]:
    return list(store.index_of(table, MINI))


def test_a_result_survives_packing_and_pandas_reads_it_alone(home: Path):
    path = save(seed=2)
    expected = FRAME.assign(run="cae", seed=np.int8(2))[["run", "seed", "item", "correct"]]
    for _ in range(2):
        pd.testing.assert_frame_equal(store.load("answers", MINI), expected)
        pd.testing.assert_frame_equal(pd.read_parquet(path, partitioning=None), expected)
        rows = store.index_of("answers", MINI)["cae", 2]
        assert (rows.path, rows.key, rows.provenance) == (path, "abc", {"seed": 2})
        assert store.provenance_table(MINI).iloc[0, :4].tolist() == ["answers", "cae", 2, "abc"]
        path = pack() if path.parent.name == "2" else path
    assert path == home / "data" / "records" / "mini" / "answers.parquet"


@pytest.mark.skipif(
    not store.PARQUET_PAGE_OPTIONS, reason="this version of pyarrow writes short pages"
)
def test_the_columns_that_all_runs_share_take_little_space(home: Path):
    """Answers at random take a bit each; the names of 73 runs and 3,000 items next to nothing."""
    rng, n = np.random.default_rng(0), 3000
    frame = pd.DataFrame({"item": np.arange(n, dtype=np.int32)})
    for number in range(73):
        answered = frame.assign(correct=rng.random(n) < 0.5)
        save(f"run-{number}", frame=answered)
    assert pack().stat().st_size < 1.3 * 73 * n / 8


def test_a_file_goes_before_packed_rows_unless_it_alone_is_out_of_date(home: Path):
    def stored(version: int, n: int) -> None:
        frame = FRAME[:n]
        save("base", table="retrieval", frame=frame, suite="retrieval", version=version)

    stored(1, 3)
    store.pack(MINI, [("base", 0)])
    for version, n, expected in ((1, 2, 2), (0, 1, 3)):
        stored(version, n)
        assert len(store.load("retrieval", MINI)) == expected
    stored(0, 1)
    store.pack(MINI, [("base", 0)])
    stored(0, 2)
    with pytest.raises(DataError, match="version of retrieval was 0, is 1"):
        store.load("retrieval", MINI)
    assert len(store.load("retrieval", MINI, suites={})) == 2, "both are old"
    found = store.index_of("retrieval", MINI)["base", 0].path
    assert found == store.result_path("retrieval", "base", 0, MINI), "also where that is known"


def test_packing_keeps_the_other_runs_and_takes_only_those_named(home: Path):
    for run, seed in (("cae", 1), ("base", 0), ("cae", 0)):
        save(run, seed)
    packed = pack(("cae", 1), ("base", 0))
    assert list(store.read_index(packed)) == [("base", 0), ("cae", 1)]
    save("cae", 1, frame=FRAME[:1], key="new")
    pack()
    assert runs_of() == [("base", 0), ("cae", 0), ("cae", 1)]
    assert len(store.load("answers", MINI)) == 3 + 3 + 1
    filters = [("run", "in", ["base"])]
    assert len(pd.read_parquet(packed, filters=filters)) == 3


def test_rows_of_one_item_follow_each_other_and_are_read_run_by_run(home: Path):
    """Five rows of one run are of other items than the three of the others."""
    other = pd.DataFrame({"item": np.arange(5, dtype=np.int32), "correct": [True] * 5})
    save("data", frame=other)
    for run, seed in (("cae", 1), ("base", 0), ("cae", 300)):
        save(run, seed)
    table = pd.read_parquet(pack())
    assert table["item"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, *range(5)]
    assert table["seed"].tolist() == [0, 1, 300] * 3 + [0] * 5
    assert table["run"].tolist() == ["base", "cae", "cae"] * 3 + ["data"] * 5
    frame = store.load("answers", MINI, ["cae", "data", "base"])
    assert frame["item"].tolist() == [*range(3), *range(3), *range(5), *range(3)]
    assert frame["correct"].tolist() == [True, False, True] * 2 + [True] * 5 + [True, False, True]
    assert frame["seed"].tolist() == [1] * 3 + [300] * 3 + [0] * 8


def test_an_index_is_read_once_until_its_file_changes(home: Path, monkeypatch):
    read = Mock(side_effect=store.pq.read_metadata)
    monkeypatch.setattr(store.pq, "read_metadata", read)
    save("cae", 0), save("cae", 1)
    for _ in range(3):
        assert store.missing_runs("answers", ["cae", "base"], MINI) == ["base"]
    assert read.call_count == 2
    save("cae", 1, key="other"), save("base")
    assert store.index_of("answers", MINI)["cae", 1].key == "other"
    assert read.call_count == 4


def test_what_is_stored_goes_by_the_versions_of_the_suites_that_are_given(home: Path):
    """A result without rows, of an older version than the packed ones."""
    suites = by_name([Suite("answers", "no.module:function", "captions", version=2)])
    save(suite="answers", version=2)
    pack()
    save(frame=FRAME[:0], suite="answers", version=1)
    assert results.missing_runs("answers", ["cae"], MINI) == ["cae"]
    assert results.missing_runs("answers", ["cae"], MINI, suites) == []
    assert results.is_stored("answers", "cae", 1, MINI, suites)
    assert ("cae", 0) in results.index_of("answers", "mini", suites)


def test_current_results_of_planned_runs_are_published(home: Path, capsys):
    """Neither runs that no reproduction makes, nor results older than the published ones."""
    smoke, version = load_profile("smoke"), SUITES["retrieval"].version
    for run, made_by in (("base", version), ("clip-ft", version + 1), ("clip-ft+lr=1.0", version)):
        save(run, 0, "retrieval", smoke, suite="retrieval", version=made_by)
    store.pack(smoke, [("clip-ft", 0)])
    packed = store.packed_path("retrieval", smoke)
    for run in ("clip-ft", "base"):
        save(run, 0, "retrieval", smoke, suite="retrieval", version=version)
    path = REPOSITORY / "scripts" / "pack_records.py"
    runpy.run_path(str(path))["main"]("smoke")
    assert capsys.readouterr().out == "retrieval: 2 runs and seeds\n"
    versions = {key: rows.provenance["version"] for key, rows in store.read_index(packed).items()}
    assert versions == {("base", 0): version, ("clip-ft", 0): version}
    assert len(pd.read_parquet(packed)) == 2 * len(FRAME)


def test_reading_run_by_run_gives_each_runs_own_columns_and_rows(home: Path):
    save("other", frame=FRAME.assign(text="a"))
    for run, seed in (("cae", 10), ("base", 0), ("cae", 2)):
        save(run, seed)
    pack()
    save("cae", 3, frame=FRAME[1:])  # in another file
    index = store.index_of("answers", MINI)
    actual = {run: table.to_pandas() for run, table in store.read_runs(index)}
    assert list(actual) == ["base", "cae", "other"]
    for run, frame in actual.items():
        rows = store.read_rows([rows for (name, _), rows in index.items() if name == run])
        pd.testing.assert_frame_equal(frame, rows.to_pandas())
    assert actual["cae"]["seed"].tolist() == [2] * 3 + [3] * 2 + [10] * 3
    assert list(store.read_runs({})) == []


def test_what_no_page_shows_is_left_out_and_rounded(home: Path):
    """1 + 2**-13 and -1 - 3 * 2**-13 lie halfway between two numbers of 13 binary digits."""

    def stored(suite: str, frame: pd.DataFrame) -> pd.DataFrame:
        kept = {"key": "", "provenance": {}, "suite": SUITES[suite]}
        store.save(suite, MINI, "cae", 0, frame, **kept)
        return store.load(suite, MINI)

    exact = np.array([1 + 2**-13, -1 - 3 * 2**-13, 2**-20, np.nan, 0.3], dtype=np.float32)
    words = pd.DataFrame({"role": ["object", "relation", "object", "attribute", "other"]})
    words["score"] = exact
    stored_table = stored("attribution", words)
    assert stored_table["role"].tolist() == ["object", "relation", "object", "attribute"]
    expected = np.array([1, -1 - 2**-11, 2**-20, np.nan], dtype=np.float32)
    np.testing.assert_array_equal(stored_table["score"].to_numpy(), expected)
    answers = FRAME.assign(margin=np.float32(0.1), rank=np.int16(1))
    assert list(stored("benchmarks", answers)) == ["run", "seed", "item", "correct"]
    stored_table = stored("similarity", words[["score"]])
    np.testing.assert_array_equal(stored_table["score"].to_numpy(), exact)


def test_runs_come_in_the_order_asked_for_and_no_more_seeds(home: Path):
    for run in (
        "clip-ft 0", "clip-ft 1", "clip-ft 2", "clip-ft+short 0", "base 0", "tuning 100", "data 0"
    ):  # fmt: skip
        save(run.split()[0], int(run.split()[1]))
    wider = FRAME.astype({"item": np.int64})
    save("tuning", 100, frame=wider)

    def runs_of(*arguments: object) -> list[str]:
        frame = store.load("answers", MINI, *arguments)
        return list((frame["run"].astype(str) + " " + frame["seed"].astype(str)).unique())

    assert runs_of(["clip-ft", "base"], 2) == ["clip-ft 0", "clip-ft 1", "base 0"]
    assert runs_of(["tuning", "data"], 2) == ["tuning 100", "data 0"] and len(runs_of()) == 7
    with pytest.raises(DataError, match="1 of 2 seeds.*clip-ft.short"):
        runs_of(["clip-ft", "clip-ft+short"], 2)
    assert store.missing_runs("answers", ["base", "clip-"], MINI) == ["clip-"]


def test_a_column_that_is_no_longer_measured_goes_with_the_last_rows_that_had_it(home: Path):
    for seed in (0, 1):
        save("cae", seed, frame=FRAME.assign(word="dog"))
    save("base")
    pack()
    assert list(store.load("answers", MINI, ["base"])) == ["run", "seed", "item", "correct"]
    save(seed=0)
    words = store.load("answers", MINI, ["cae"])["word"]
    assert list(words.notna()) == [False] * 3 + [True] * 3
    save(seed=1)
    assert list(store.load("answers", MINI)) == ["run", "seed", "item", "correct"]


def test_smoke_tables_stay_out_of_the_committed_folder_and_faults_are_told(home: Path):
    smoke = load_profile("smoke")
    save(profile=smoke)
    store.pack(smoke, [("cae", 0)])
    assert home / "data" / "cache" in store.packed_path("answers", smoke).parents
    save()
    pack().write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"mini/answers.parquet cannot be read.*restore it"):
        store.load("answers", MINI)


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


@pytest.fixture
def measured(home: Path, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """What a suite `s` gives for a model; counts how often it is computed."""
    give = Mock(side_effect=lambda encoder, profile: FRAME)
    monkeypatch.setattr(Suite, "__call__", lambda self, encoder, profile: give(encoder, profile))
    monkeypatch.setattr(measuring, "encoder_of", Mock())
    monkeypatch.setattr(
        measuring.required_data, "data_digests", lambda profile, reads: {"captions": "d"}
    )
    return give


def measure(model: str = "model", profile: Profile = MINI, seed: int = 1, **options: bool) -> int:
    """Measure a suite of a model, and return how many results were missing."""
    suite = Suite("s", "no.module:function", "captions")
    cae = Mock(seed=seed, profile=profile)
    cae.name = "cae"
    cae.stored_digest.return_value, cae.described.return_value = model, {}
    return measuring.measure(cae, [suite], **options)


def test_a_suite_is_measured_once_per_key(measured: Mock):
    assert [measure(), measure()] == [1, 0]
    assert measured.call_count == 1
    recorded = store.index_of("s", MINI)["cae", 1].provenance
    assert (recorded["suite"], recorded["version"], recorded["data"]) == ("s", 1, "d")
    measure("other")
    assert measured.call_count == 2
    measure("other", seed=2), measure("other", profile=load_profile("photo"))
    assert measured.call_count == 4


def test_what_came_with_the_clone_is_measured_again_on_request(measured: Mock):
    measure()
    store.pack(MINI, [("cae", 1)])
    measure(remeasure=True)
    assert measured.call_count == 1, "measured here already"
    store.index_of("s", MINI)["cae", 1].path.unlink()
    measure()
    assert measured.call_count == 1
    measure(remeasure=True)
    assert measured.call_count == 2


def test_a_suite_that_gives_no_rows_is_measured_once_per_key(measured: Mock):
    measured.side_effect = lambda encoder, profile: pd.DataFrame()
    measure(), measure(remeasure=True)
    assert measured.call_count == 1 and runs_of("s") == []
    measure("other")
    assert measured.call_count == 2


@pytest.mark.parametrize(("profile", "kept"), [("photo", False), ("smoke", True)])
def test_words_of_captions_that_people_wrote_are_not_stored(
    measured: Mock, profile: str, kept: bool
):
    measured.side_effect = lambda encoder, profile: FRAME.assign(word="dog")
    measure(profile=load_profile(profile))
    assert ("word" in store.load("s", load_profile(profile))) == kept


def test_a_failed_measurement_stores_nothing(measured: Mock):
    measured.side_effect = ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        measure()
    measured.side_effect = lambda encoder, profile: FRAME
    measure()
    assert measured.call_count == 2 and runs_of("s") == [("cae", 1)]


def test_a_stamp_is_plain_and_holds_no_path(home: Path):
    provenance = current_provenance("mini", 3, dtype="bfloat16", note="x")
    assert not any(str(place) in json.dumps(provenance) for place in (Path.home(), home))
    assert (provenance["seed"], provenance["dtype"], provenance["note"]) == (3, "bfloat16", "x")
    assert provenance["data"] is None and provenance["versions"]["torch"] == torch.__version__
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
    described = {
        table: {*re.findall(r"`([\w-]+)`", cells[3])}
        for cells in rows
        for table in re.findall(r"`(\w+)`", cells[1])
    }
    described["captions"] |= described["items"]
    files = list(folder.glob("*/*.parquet"))
    for file in files:
        columns = {re.sub("^(gap|joint)_.*", r"\1", name) for name in pq.read_schema(file).names}
        recorded = {re.sub("^(gap|joint)_.*", r"\1", name) for name in described[file.stem]}
        assert columns - {"run", "seed"} <= recorded, file
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
    message = str(store.not_stored_error("benchmarks", run, MINI))
    assert re.findall(r"cae train (\S+)", message) == ([trained] if trained else [])


def test_the_error_for_missing_seeds_does_not_say_that_nothing_is_stored() -> None:
    for seeds in (3, [0, 1]):
        message = str(store.not_stored_error("benchmarks", "cae", MINI, [0], seeds))
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
        monkeypatch.setitem(load_profile("mini").runs, name, {})
    assert store.select({(run, 0): None}, run, 3, MINI)[1] == absent


@pytest.mark.parametrize("seeds", [-1, 0, [0, -1]])
def test_no_number_of_seeds_is_below_one(seeds: int | list[int]) -> None:
    with pytest.raises(ConfigError, match="expected a number of seeds"):
        store.select({("clip-ft", 0): None}, "clip-ft", seeds, MINI)
