"""Contact sheets: pictures of the small world with what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cae_lib.data.world.config import world_config
from cae_lib.data.world.draw import IMAGE_SIZE, render
from cae_lib.data.world.export.sampling import scenes, text_generator
from cae_lib.data.world.grammar import captions
from cae_lib.data.world.scenes import Scene
from cae_lib.data.world.statements import stated
from cae_lib.data.world.vocabulary import RELATIONS
from cae_lib.errors import DataError

COLUMNS = 6
SCALE = 2
MARGIN = 10
LINE = 15
SPLIT = "test"


def contact_sheet(profile: str, path: str | Path, n: int = 24) -> Path:
    """Write a sheet of `n` pictures of the test split, each with two captions.

    The world need not be built.

    Raises:
        ConfigError: The profile has no small world.
        DataError: The file cannot be written.
    """
    config = world_config(profile)
    cells = []
    for index, scene in enumerate(islice(scenes(config.scenes, SPLIT), n)):
        rng = text_generator(config.scenes, SPLIT, index)
        cells.append((scene, [text.text for text in captions(scene, config.coco, rng, 2)]))
    return _write(cells, path)


def relation_sheet(profile: str, path: str | Path) -> Path:
    """Write a sheet with one picture of each relation, labelled by it; see `contact_sheet`."""
    config = world_config(profile)
    examples: dict[str, Scene] = {}
    for scene in scenes(config.scenes, SPLIT):
        examples.setdefault(scene.content.relation, scene)
        if len(examples) == len(RELATIONS):
            break
    cells = [(examples[name], [f"[{name}]", stated(examples[name].content).text])
             for name in RELATIONS]  # fmt: skip
    return _write(cells, path)


def _write(cells: Sequence[tuple[Scene, list[str]]], path: str | Path) -> Path:
    """Write a grid of pictures with lines of text below each."""
    side = SCALE * IMAGE_SIZE
    wrapped = [(scene, [line for text in texts for line in _wrap(text, side)])
               for scene, texts in cells]  # fmt: skip
    width = side + MARGIN
    height = side + MARGIN + LINE * max((len(lines) for _, lines in wrapped), default=0)
    columns = min(COLUMNS, len(cells))
    size = (columns * width + MARGIN, -(-len(cells) // columns) * height + MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for index, (scene, lines) in enumerate(wrapped):
        x, y = MARGIN + index % columns * width, MARGIN + index // columns * height
        sheet.paste(render(scene).resize((side, side), Image.Resampling.BICUBIC), (x, y))
        draw.multiline_text((x, y + side + 2), "\n".join(lines), "black", _font(), spacing=3)
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be written ({error}). Name a .png file in a folder that you can write"
        ) from error
    return Path(path)


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(12)


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font().getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
