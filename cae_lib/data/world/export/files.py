"""What a set consists of before it is written: its pictures, its text files, its counts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from cae_lib.data.world.draw import IMAGE_SIZE, render
from cae_lib.data.world.scenes import Scene

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

    def box(self, index: int) -> dict[str, int]:
        """Place of one scene in pixels: x, y, width, height."""
        offset = index * IMAGE_SIZE
        x, y = (0, offset) if self.vertical else (offset, 0)
        return {"x": x, "y": y, "width": IMAGE_SIZE, "height": IMAGE_SIZE}

    def draw(self) -> Image.Image:
        """The RGB picture, 112 pixels a scene."""
        if len(self.scenes) == 1:
            return render(self.scenes[0])
        length = len(self.scenes) * IMAGE_SIZE
        size = (IMAGE_SIZE, length) if self.vertical else (length, IMAGE_SIZE)
        canvas = Image.new("RGB", size)
        for index, scene in enumerate(self.scenes):
            box = self.box(index)
            canvas.paste(render(scene), (box["x"], box["y"]))
        return canvas

    def write(self, root: Path) -> None:
        """Draw and write the file; its folder has to be there."""
        path = root / self.path
        if path.suffix == ".jpg":
            self.draw().save(path, "JPEG", quality=JPEG_QUALITY)
        else:
            self.draw().save(path, "PNG")


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

    def add_json(self, path: str, value: Any) -> None:
        """Add a JSON file."""
        self.texts[path] = json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


Place = tuple[str, dict[str, int]]


def paired(scenes: list[Scene], name: str) -> tuple[list[Picture], list[Place]]:
    """Two scenes to a picture, so that only the box tells which one an item is about.

    Args:
        scenes: Any number of scenes; the last of an odd number shares its picture with the first.
        name: Path of a picture, with `{}` for its number.

    Returns:
        The pictures, and for each scene the path of its picture and its box.
    """
    pictures, places = [], []
    for start in range(0, len(scenes), 2):
        pair = (scenes + scenes[:1])[start : start + 2]
        picture = Picture(name.format(1 + start // 2), tuple(pair), vertical=bool(start // 2 % 2))
        pictures.append(picture)
        places += [(picture.path, picture.box(index)) for index in range(2)]
    return pictures, places[: len(scenes)]
