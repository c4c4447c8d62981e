"""Writers of small official-layout files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def write_json() -> Callable[[Path, Any], Path]:
    def write(path: Path, content: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def write_csv() -> Callable[[Path, Sequence[str], Sequence[Sequence[Any]]], Path]:
    def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


@pytest.fixture
def draw() -> Callable[..., Path]:
    """Write a picture; `names` below `folder`, all of one colour."""

    def write(folder: Path, *names: str, size: tuple[int, int] = (8, 8)) -> Path:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (200, 30, 40)).save(path)
        return folder

    return write
