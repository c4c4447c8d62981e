"""The log of a run: one JSON line for each optimiser step."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TextIO


class RunLog:
    """JSON lines that survive a resumed run: lines after the step it resumes from are dropped.

    Args:
        path: file of the log.
        step: optimiser steps already taken; 0 starts an empty log.
        keep: False writes nothing, as all processes of a run but one do.
    """

    def __init__(self, path: Path, step: int, keep: bool = True) -> None:
        self.last: dict[str, float] = {}
        self._file: TextIO | None = None
        if not keep:
            return
        kept = [line for line in read_log(path) if line["step"] <= step] if step else []
        partial = path.with_name(path.name + ".partial")
        partial.write_text("".join(_encode(line) for line in kept), encoding="utf-8")
        os.replace(partial, path)
        self.last = kept[-1] if kept else {}
        self._file = path.open("a", encoding="utf-8")

    def write(self, values: dict[str, float]) -> None:
        """Append one line; `values` holds the key "step"."""
        self.last = values
        if self._file is not None:
            self._file.write(_encode(values))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def read_log(path: str | Path) -> list[dict[str, float]]:
    """All complete lines of a log; a last line cut short by a crash is left out."""
    path = Path(path)
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _encode(values: dict[str, float]) -> str:
    return json.dumps(values) + "\n"
