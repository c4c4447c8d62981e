"""A writer of small files in the official layouts."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def put(tmp_path: Path) -> Callable[[Mapping[str, Any]], Path]:
    """Write files by path: pictures, lists of rows as CSV, texts as they are, all else as JSON."""
    def write(files: Mapping[str, Any]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".jpg", ".jpeg", ".png"):
                Image.new("RGB", content or (8, 8), (200, 30, 40)).save(path)
                continue
            if path.suffix == ".csv" and not isinstance(content, str):
                buffer = io.StringIO()
                csv.writer(buffer).writerows(content)
                content = buffer.getvalue()
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8", newline="")
        return tmp_path
    return write
