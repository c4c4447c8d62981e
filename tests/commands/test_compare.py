"""`cae compare`: stored tables against those of a commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cae_lib import results
from cae_lib.cli import main

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@t")


def save(correct: list[bool], margin: list[float], run: str = "base", items: int = 0) -> None:
    frame = pd.DataFrame({"item": np.arange(len(correct)) + items, "correct": correct,
                          "margin": np.array(margin, dtype=np.float32)})
    results.save("benchmarks", run, 0, frame, "mini", key="k", provenance={})


def commit(home: Path) -> None:
    for arguments in (["init", "-q"], ["add", "data"], [*IDENTITY, "commit", "-qm", "x"]):
        subprocess.run(["git", *arguments], cwd=home, check=True)


def test_differences_are_told_by_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save([True, False], [0.1, np.nan])
    save([True, False], [0.1, 0.2], "gone")
    save([True, False], [0.1, 0.2], "other")
    commit(home)
    assert main(["compare"]) == 0
    assert capsys.readouterr().out == "same: 3 tables, 6 rows compared with HEAD\n"
    save([True, True], [0.1, np.nan], "base")
    save([True, False], [0.1, 0.2], "new")
    save([True, False], [0.1, 0.45], "other")
    results.file_of("benchmarks", "gone", "mini").unlink()
    assert main(["compare", "HEAD"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "benchmarks/gone.parquet: gone",
        "benchmarks/new.parquet: new",
        "benchmarks/base.parquet: 2 rows, 1 answers changed (correct, 50 %)",
        "benchmarks/other.parquet: 2 rows, largest difference 0.25 (margin)",
        "4 differ; 2 tables, 4 rows compared with HEAD",
    ]


def test_tables_of_other_rows_are_not_compared(home: Path, capsys) -> None:
    save([True, False], [0.1, 0.2])
    commit(home)
    save([True], [0.1])
    main(["compare"])
    assert "base.parquet: 2 rows then, 1 now" in capsys.readouterr().out
    save([True, False], [0.1, 0.2], items=5)
    main(["compare"])
    assert "other items: item differs in 2 rows" in capsys.readouterr().out


def test_what_cannot_be_compared(home: Path, capsys, monkeypatch) -> None:
    assert main(["compare", "--profile", "smoke"]) == 2
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(home.parent))
    assert main(["compare"]) == 2
    assert "not a git repository" in capsys.readouterr().err
    save([True], [0.1])
    commit(home)
    assert main(["compare", "nothing"]) == 2
    assert "cae: git ls-tree" in capsys.readouterr().err
