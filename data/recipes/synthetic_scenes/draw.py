"""Draw a scene from glyphs of Noto Emoji (SIL OFL 1.1; PyPI `manimgx-fonts`).

Colour and pattern fill a glyph's silhouette; its lines are a darker outline.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cae_lib.errors import DataError
from data.recipes.synthetic_scenes.layout import Placement
from data.recipes.synthetic_scenes.scenes import Scene, Thing, generator
from data.recipes.synthetic_scenes.vocabulary import COLORS, GLYPHS

IMAGE_SIZE, JPEG_QUALITY = 112, 92
_WEIGHTS: dict[str, tuple[int, ...]] = {"plain": (350, 450, 550), "poster": (700,)}
_FONT_FILE = "NotoEmoji[wght].ttf"
# 1 for the darker parts, at column x and row y.
_PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "striped": lambda x, y, phase: (x + y + phase) // 4 % 2,
    "checkered": lambda x, y, phase: ((x + phase) // 5 + (y + phase) // 5) % 2,
    "spotted": lambda x, y, phase: ((x + phase) % 9 - 4) ** 2 + ((y + phase) % 9 - 4) ** 2 <= 7,
}


@lru_cache(maxsize=256)
def glyph(noun: str, weight: int) -> tuple[Image.Image, Image.Image]:
    """Return silhouette and outline of a noun as two 8-bit masks of side 128."""
    spec = importlib.util.find_spec("manimgx_fonts")
    if spec is None or spec.origin is None:
        raise DataError(f"{_FONT_FILE}: not found; install it with `pip install manimgx-fonts`")
    font = ImageFont.truetype(str(Path(spec.origin).with_name(_FONT_FILE)), 160)
    font.set_variation_by_axes([weight])
    left, top, right, bottom = font.getbbox(GLYPHS[noun])
    # With an empty margin, so that the outside is one region.
    outline = Image.new("L", (right - left + 8, bottom - top + 8), 0)
    ImageDraw.Draw(outline).text((4 - left, 4 - top), GLYPHS[noun], font=font, fill=255)
    side = max(outline.size)
    square = Image.new("L", (side, side), 0)
    square.paste(outline, ((side - outline.width) // 2, (side - outline.height) // 2))
    square = square.resize((128, 128), Image.Resampling.BILINEAR)
    # Connected areas without a line; all but the outside are the silhouette, lines included.
    regions, _ = ndimage.label(np.asarray(square) <= 90)
    return Image.fromarray(np.where(regions == regions[0, 0], 0, 255).astype(np.uint8)), square


class Paint(NamedTuple):
    """What is drawn at random of one thing."""

    weight: int  # of the glyph's lines
    tilts: tuple[float, float]  # in degrees, of its silhouette and of its lines
    phase: int  # of its pattern
    color: np.ndarray  # red, green, blue in [0, 255]


class Plan(NamedTuple):
    """What is drawn at random of a scene: two colours of the background, and the paints."""

    top: np.ndarray
    bottom: np.ndarray
    paints: Sequence[Paint]


def _back_to_front(scene: Scene) -> list[int]:
    """Order things so that nearer ones hide farther ones."""
    return sorted(range(len(scene.placements)), key=lambda i: -scene.placements[i].depth)


def draw_plan(scene: Scene) -> Plan:
    """Draw what is random of a scene; the same scene gives the same plan."""
    # A stream of its own: what is drawn does not depend on how the scene was sampled.
    rng = generator(scene.seed, "draw")
    light = (225, 252) if scene.style == "plain" else (150, 200)
    top, bottom = rng.uniform(*light, (2, 3)).astype(np.float32)
    paints = {}
    for index in _back_to_front(scene):
        weight = int(rng.choice(_WEIGHTS[scene.style]))
        tilts = rng.uniform(-5, 5), rng.uniform(-5, 5)
        phase = int(rng.integers(8))
        own = np.array(COLORS[scene.content.things[index].color])
        paints[index] = Paint(weight, tilts, phase, np.clip(own + rng.normal(0, 25, 3), 0, 255))
    return Plan(top, bottom, [paints[index] for index in range(len(paints))])


def _paint(canvas: np.ndarray, thing: Thing, place: Placement, paint: Paint) -> None:
    """Draw one thing onto the canvas `(S, S, 3)`, float32, in place."""
    side = max(8, round(place.scale * IMAGE_SIZE))
    masks = []
    for mask, tilt in zip(glyph(thing.noun, paint.weight), paint.tilts, strict=True):
        if place.flip:
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = mask.resize((side, side), Image.Resampling.BILINEAR)
        turned = mask.rotate(place.tilt + tilt, Image.Resampling.BILINEAR)
        masks.append(np.asarray(turned, np.float32) / 255)
    x, y = round(place.x * IMAGE_SIZE - side / 2), round(place.y * IMAGE_SIZE - side / 2)
    # A thing may reach beyond the image; `window` is the part of its masks that is seen.
    left, top = max(0, x), max(0, y)
    right, bottom = min(IMAGE_SIZE, x + side), min(IMAGE_SIZE, y + side)
    window = np.s_[top - y : bottom - y, left - x : right - x]
    fill, line = masks[0][window][..., None], masks[1][window][..., None]
    color = body = paint.color
    if thing.pattern is not None:
        v, u = np.mgrid[:side, :side]
        dark = _PATTERNS[thing.pattern](u, v, paint.phase).astype(np.float32)
        body = color * (1 - 0.5 * dark[window][..., None])
    # a view, so the additions change the canvas
    under = canvas[top:bottom, left:right]
    under += fill * (body - under)
    under += line * (0.35 * color - under)


def _marks(draw: ImageDraw.ImageDraw, place: Placement) -> None:
    """Draw lines of motion behind a moving thing, and marks where one thing touches another."""
    x, y, half = (IMAGE_SIZE * v for v in (place.x, place.y, place.scale / 2))
    if place.motion:
        start = x - place.motion * (half + 2)
        for height in (y + dy * half for dy in (-0.4, 0.0, 0.4)):
            draw.line((start, height, start - place.motion * 9, height), (70, 70, 70), width=2)
    if place.contact:
        point = x + place.contact * half
        for dy in (-0.9, -1.15):
            tip, height = point + place.contact * 7 * (1 + dy), y + dy * half
            draw.line((point, height + 3, tip, height - 6), (40, 40, 40), width=2)


def render(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB image of 112 x 112 pixels; the same scene gives the same pixels."""
    plan = draw_plan(scene)
    ramp = np.linspace(0, 1, IMAGE_SIZE, dtype=np.float32)[:, None, None]
    canvas = np.repeat(plan.top * (1 - ramp) + plan.bottom * ramp, IMAGE_SIZE, 1)
    for index in _back_to_front(scene):
        _paint(canvas, scene.content.things[index], scene.placements[index], plan.paints[index])
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for place in scene.placements:
        _marks(draw, place)
    return image


class Drawing(NamedTuple):
    """An image of one scene, or of two, side by side or one above the other."""

    scenes: Sequence[Scene]
    vertical: bool = False

    def box(self, index: int) -> tuple[int, int, int, int]:
        """Return the box of one scene in pixels: x, y, width, height."""
        x, y = (0, index * IMAGE_SIZE) if self.vertical else (index * IMAGE_SIZE, 0)
        return x, y, IMAGE_SIZE, IMAGE_SIZE

    def write(self, path: Path) -> None:
        """Draw the image and write its file, .jpg or .png."""
        x, y, width, height = self.box(len(self.scenes) - 1)
        canvas = Image.new("RGB", (x + width, y + height))
        for index, scene in enumerate(self.scenes):
            canvas.paste(render(scene), self.box(index)[:2])
        # PNG ignores the quality.
        canvas.save(path, quality=JPEG_QUALITY)
