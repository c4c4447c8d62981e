"""What a set consists of before it is written: its pictures, its text files, its counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from cae_lib.world.draw import IMAGE_SIZE, render
from cae_lib.world.scenes import Scene

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Picture:
    """A picture file to draw: one scene, or two side by side or one above the other.

    Attributes:
        path: Its place in the world's folder; `.jpg` or `.png` decides the format.
        scenes: One or two scenes.
        vertical: The second of two scenes stands below the first one, not to its right.
    """

    path: str
    scenes: tuple[Scene, ...]
    vertical: bool = False

    @property
    def number(self) -> int:
        """The number that names the file."""
        return int(Path(self.path).stem)

    def box(self, index: int) -> tuple[int, int, int, int]:
        """Place of one scene in pixels: x, y, width, height."""
        offset = index * IMAGE_SIZE
        return (*((0, offset) if self.vertical else (offset, 0)), IMAGE_SIZE, IMAGE_SIZE)

    def write(self, root: Path) -> None:
        """Draw and write the file, 112 pixels a scene; its folder has to be there."""
        x, y, width, height = self.box(len(self.scenes) - 1)
        canvas = Image.new("RGB", (x + width, y + height))
        for index, scene in enumerate(self.scenes):
            canvas.paste(render(scene), self.box(index)[:2])
        if self.path.endswith(".jpg"):
            canvas.save(root / self.path, "JPEG", quality=JPEG_QUALITY)
        else:
            canvas.save(root / self.path, "PNG")


@dataclass
class Export:
    """One set, ready to be written.

    Attributes:
        name: Its name in the manifest's counts; for a benchmark that of its loader.
        pictures: Picture files.
        texts: Contents of text files by their place in the world's folder.
        counts: Number of items of each part, as the loader expects them.
        left_out: Parts of the official set that the small world does not have, and why.
    """

    name: str
    pictures: list[Picture] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def show(self, path: str, *scenes: Scene) -> None:
        """Add a picture of a scene."""
        self.pictures.append(Picture(path, scenes))

    def show_pairs(
        self, scenes: Sequence[Scene], name: str
    ) -> list[tuple[Picture, tuple[int, ...]]]:
        """Add pictures of two scenes, so that only the box tells which one an item is about.

        Args:
            scenes: Any number; the last of an odd number shares its picture with the first.
            name: Path of a picture, with `{}` for its number.

        Returns:
            For each scene its picture and its box.
        """
        places = []
        for start in range(0, len(scenes), 2):
            pair = tuple([*scenes, scenes[0]][start : start + 2])
            picture = Picture(name.format(1 + start // 2), pair, vertical=bool(start // 2 % 2))
            self.pictures.append(picture)
            places += [(picture, picture.box(index)) for index in range(2)]
        return places[: len(scenes)]

    def json(self, path: str, value: Any, count: str | None = None) -> None:
        """Add a JSON file; its length is the count of the part `count`, if one is named."""
        self.texts[path] = json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
        if count is not None:
            self.counts[count] = len(value)

    def json_lines(self, path: str, rows: Iterable[dict[str, Any]]) -> None:
        """Add a file of one JSON object a line, with no end of line after the last."""
        self.texts[path] = "\n".join(map(json.dumps, rows))

    def csv(self, path: str, rows: Sequence[dict[str, Any]]) -> None:
        """Add a file of comma separated values, with a header."""
        self.texts[path] = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")

    def tabs(self, path: str, rows: Iterable[Sequence[str]]) -> None:
        """Add a file of tab separated values, unquoted."""
        self.texts[path] = "".join("\t".join(row) + "\n" for row in rows)
