"""The diagram of the method, as an SVG on white: `python -m cae_lib.report.diagram` writes it.

It shows one training step on one pair. The bar heights are an illustration, not a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from cae_lib.config import paths
from cae_lib.files import write_atomic

WIDTH, HEIGHT = 760, 420
INK, LINE = "#222222", "#555555"
COLORS = {"object": "#0173b2", "attribute": "#b26a00", "relation": "#027a55", "other": "#8a8a8a"}
WORDS: Sequence[tuple[str, str, int]] = (
    ("a", "other", 8), ("red", "attribute", 18), ("cat", "object", 58), ("riding", "relation", 22),
    ("a", "other", 8), ("small", "attribute", 15), ("dog", "object", 52), ("EOT", "other", 0),
)  # fmt: skip
TITLE = "Composition attribution enhancement: one training step"
DESCRIPTION = (
    "A picture passes CLIP's image encoder, and its caption, a red cat riding a small dog, passes "
    "the text encoder. Their features give the similarity S and the contrastive loss. An "
    "attribution method gives each token of the caption a score. The mean over object words, cat "
    "and dog, is A obj; the mean over attribute and relation words, red, small and riding, is A "
    "comp. The attribution loss is the hinge on A obj minus A comp. The total loss is the "
    "contrastive loss plus lambda times the attribution loss."
)


def diagram() -> str:
    """The SVG document."""
    parts = [*_towers(), *_words(), *_losses(), *_legend()]
    body = "\n".join(f"  {part}" for part in parts)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14">\n'
        f"  <title>{escape(TITLE)}</title>\n  <desc>{escape(DESCRIPTION)}</desc>\n"
        '  <defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>\n'
        f'  <rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    )
    return f"{head}\n{body}\n</svg>\n"


def diagram_path() -> Path:
    """Where the book keeps it."""
    return paths().book / "images" / "cae.svg"


def _text(x: float, y: float, words: str, color: str = INK, anchor: str = "middle",
          weight: str = "normal") -> str:  # fmt: skip
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{color}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{words}</text>'
    )


def _box(x: float, y: float, width: float, height: float, lines: Sequence[str],
         fill: str = "#f3f5f8") -> list[str]:  # fmt: skip
    """A rounded box with lines of text in its middle."""
    shape = (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
        f'fill="{fill}" stroke="{LINE}"/>'
    )
    first = y + height / 2 + 5 - 9 * (len(lines) - 1)
    middle = x + width / 2
    return [shape, *(_text(middle, first + 18 * i, line) for i, line in enumerate(lines))]


def _arrow(*points: tuple[float, float]) -> str:
    path = "L".join(f"{x:g} {y:g}" for x, y in points)
    return (
        f'<path d="M{path}" fill="none" stroke="{LINE}" stroke-width="1.4" marker-end="url(#tip)"/>'
    )


def _sub(symbol: str, index: str) -> str:
    """A symbol with an upright index."""
    return (
        f'<tspan font-style="italic">{symbol}</tspan><tspan font-size="11" dy="4">{index}</tspan>'
        '<tspan dy="-4">&#8203;</tspan>'
    )


def _towers() -> list[str]:
    """Picture and caption, the two encoders, and the similarity of their features."""
    return [
        *_box(20, 30, 110, 54, ["picture"]),
        *_box(190, 30, 140, 54, ["image encoder"]),
        *_box(20, 138, 110, 54, ["caption", "tokens"]),
        *_box(190, 138, 140, 54, ["text encoder"]),
        *_box(400, 84, 120, 54, ["similarity", "<tspan font-style='italic'>S</tspan> = cos"]),
        _arrow((130, 57), (188, 57)),
        _arrow((330, 57), (365, 57), (398, 100)),
        _arrow((130, 165), (188, 165)),
        _arrow((330, 165), (365, 165), (398, 122)),
        _text(372, 182, "read at EOT", LINE, "start"),
    ]


def _words() -> list[str]:
    """The caption's tokens with a bar for each score."""
    base, step, left = 340, 54, 40
    parts = [_arrow((260, 192), (260, 240)), _text(272, 222, "attribution method", LINE, "start")]
    for place, (word, role, height) in enumerate(WORDS):
        x = left + place * step
        color = COLORS[role]
        if height:
            parts.append(
                f'<rect x="{x - 12}" y="{base - height}" width="24" height="{height}" '
                f'fill="{color}"/>'
            )
        parts.append(
            _text(x, base + 20, word, color, weight="bold" if role != "other" else "normal")
        )
    right = left + (len(WORDS) - 1) * step + 20
    parts.append(f'<path d="M20 {base}H{right}" stroke="{LINE}"/>')
    parts.append(_text(20, 268, f"score {_sub('a', 'j')}", LINE, "start"))
    return parts


def _losses() -> list[str]:
    """Means of the two groups, the hinge, and the sum of both losses."""
    obj, comp = _sub("A", "obj"), _sub("A", "comp")
    return [
        *_box(476, 240, 134, 50, [obj, "objects"], "#e6f1f8"),
        *_box(476, 306, 134, 50, [comp, "attributes, relations"], "#f4efe4"),
        _arrow((436, 298), (456, 298), (456, 265), (474, 265)),
        _arrow((436, 298), (456, 298), (456, 331), (474, 331)),
        *_box(640, 270, 110, 56, [_sub("L", "attr"), "max(0, gap + &#949;)"]),
        _arrow((610, 265), (638, 287)),
        _arrow((610, 331), (638, 309)),
        *_box(570, 84, 104, 54, [_sub("L", "ITC"), "contrastive"]),
        _arrow((520, 111), (568, 111)),
        *_box(640, 176, 110, 50, [f"{_sub('L', 'ITC')} + &#955; {_sub('L', 'attr')}"], "#ececec"),
        _arrow((660, 138), (680, 174)),
        _arrow((695, 270), (695, 228)),
    ]


def _legend() -> list[str]:
    parts, x = [], 40.0
    for role in ("object", "attribute", "relation"):
        parts.append(f'<rect x="{x:g}" y="385" width="13" height="13" fill="{COLORS[role]}"/>')
        parts.append(_text(x + 20, 397, f"{role} words", INK, "start"))
        x += 140
    return parts


if __name__ == "__main__":
    write_atomic(diagram_path(), diagram())
