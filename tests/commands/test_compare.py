"""How stored tables differ from those of a commit and of another folder."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from cae_lab import store
from cae_lab.cli import main
from cae_lab.profiles import load_profile

MINI = load_profile("mini")


def answer(
    correct: list[bool], value: list[float], run: str = "base", items: int = 0, **more: list[float]
) -> None:
    frame = pd.DataFrame(
        {
            "item": np.arange(len(correct)) + items,
            "correct": correct,
            "value": np.array(value, dtype=np.float32),
        }
        | more
    )
    store.save("benchmarks", MINI, run, 0, frame, key="k", provenance={})


def pack() -> None:
    """Pack all results, and remove their files."""
    index = store.index_of("benchmarks", MINI)
    store.pack(MINI, list(index))
    for rows in index.values():
        if "records" not in rows.path.parts:
            rows.path.unlink()


def remove(run: str) -> None:
    """Remove the packed rows of a run."""
    path = store.packed_path("benchmarks", MINI)
    index = {key: rows for key, rows in store.read_index(path).items() if key[0] != run}
    store._write(index, store._read([*index.values()]), path)


def commit(home: Path) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    for arguments in (["init", "-q"], ["add", "data"], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", *arguments], cwd=home, check=True)


def test_differences_are_told_by_table_and_run(home: Path, capsys) -> None:
    answer([True, False], [0.1, np.nan])
    answer([True, False], [0.1, 0.2], "gone")
    answer([True, False], [0.1, 0.2], "lost", score=[0.5, 0.5], share=[0.5, 0.5])
    answer([True, False], [0.1, 0.2], "other")
    pack()
    commit(home)
    assert main(["compare"]) == 0
    assert capsys.readouterr().out == "same: 4 tables of runs, 8 rows compared with HEAD\n"
    answer([True, True], [0.1, np.nan], "base")
    answer([True, False], [0.1, 0.2], "new")
    answer([True, False], [0.1, 0.45], "other")
    answer([True, False], [np.nan, 0.2], "lost", score=[0.5, 1.0], share=[0.5, 0.75])
    remove("gone")
    assert main(["compare", "HEAD"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "benchmarks/gone: gone",
        "benchmarks/new: new",
        "benchmarks/base: 2 rows, 1 answers changed (correct, 50 %)",
        "benchmarks/lost: 2 rows, value: a number here, none there; largest difference 0.5 (score)",
        "benchmarks/other: 2 rows, largest difference 0.25 (value)",
        "5 differ; 3 tables of runs, 6 rows compared with HEAD",
    ]


def test_what_cannot_be_compared(home: Path, capsys, monkeypatch) -> None:
    assert main(["compare", "--profile", "smoke"]) == 2
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(home.parent))
    assert main(["compare"]) == 2
    message = capsys.readouterr().err
    assert "not a git repository" in message and "a folder of tables can be named" in message
    answer([True, False], [0.1, 0.2])
    pack()
    commit(home)
    assert main(["compare", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err
    for rows, items, expected_line in (
        (1, 0, "base: 2 rows then, 1 now"),
        (2, 5, "other items: item differs in 2 rows"),
    ):
        answer([True, False][:rows], [0.1, 0.2][:rows], items=items)
        main(["compare"])
        assert expected_line in capsys.readouterr().out


def test_tables_of_another_folder(home: Path, tmp_path: Path, capsys) -> None:
    """As they were, then one number that is not."""
    answer([True, False], [0.1, 0.2])
    answer([True, False], [0.1, 0.2], "run+hinge=log")
    pack()
    other = shutil.copytree(home / "data/records/mini", tmp_path / "theirs")
    assert main(["compare", str(other)]) == 0
    assert capsys.readouterr().out == f"same: 2 tables of runs, 4 rows compared with {other}\n"
    answer([True, False], [0.1, 0.45], "run+hinge=log")
    assert main(["compare", str(other)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "benchmarks/run+hinge=log: 2 rows, largest difference 0.25 (value)",
        f"1 differ; 2 tables of runs, 4 rows compared with {other}",
    ]
    assert main(["compare", str(tmp_path)]) == 2, "no tables"
    shutil.rmtree(home / "data")
    shutil.rmtree(home / "runs")
    assert main(["compare", str(other)]) == 2
    assert "mini has no tables" in capsys.readouterr().err


def test_a_table_that_differs_is_read_once_and_an_equal_one_not_at_all(
    home: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    for number in range(12):
        answer([True, False], [0.1, 0.2], f"run-{number}")
    pack()
    other = shutil.copytree(home / "data/records/mini", tmp_path / "theirs")
    opened, open_file = [], pq.ParquetFile
    monkeypatch.setattr(
        pq, "ParquetFile", lambda path, **_: opened.append(path) or open_file(path, **_)
    )
    assert main(["compare", str(other)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"same: 12 tables of runs, 24 rows compared with {other}\n"
    assert not opened and "12/12" in printed.err
    answer([True, False], [0.1, 0.45], "run-3")
    pack()
    opened.clear()
    assert main(["compare", str(other)]) == 0
    assert "benchmarks/run-3: 2 rows, largest difference 0.25" in capsys.readouterr().out
    assert sorted(opened) == sorted(
        folder / "benchmarks.parquet" for folder in (other, home / "data/records/mini")
    )
