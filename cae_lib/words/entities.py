"""Replace HTML entities in captions, and convert offsets between a caption and its plain text.

Captions from web pages write "&amp;" for "&". Tokenizers of open_clip replace such entities, so
parsers have to read the same text.
"""

from __future__ import annotations

import html
import re
from typing import NamedTuple

from cae_lib.words.roles import NO_OFFSETS, Offsets

ENTITY = re.compile(r"(&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?))")
"""Pattern of what `html.unescape` reads as an entity."""


class PlainText(NamedTuple):
    """A caption without HTML entities.

    Attributes:
        text: The text.
        places: For each character of the text, the offsets of what it stands for in the caption.
    """

    text: str
    places: list[Offsets]

    def in_caption(self, offsets: Offsets) -> Offsets:
        """Convert offsets in the text to offsets in the caption."""
        start, end = offsets
        return (self.places[start][0], self.places[end - 1][1]) if start < end else NO_OFFSETS

    def in_text(self, offsets: Offsets) -> Offsets:
        """Convert offsets in the caption to offsets in the text."""
        start, end = offsets
        inside = [i for i, (a, b) in enumerate(self.places) if max(a, start) < min(b, end)]
        return (inside[0], inside[-1] + 1) if inside else NO_OFFSETS


def plain_text(caption: str) -> PlainText:
    """Replace HTML entities until none is left, since some captions are escaped several times."""
    text, places = caption, [(i, i + 1) for i in range(len(caption))]
    while (unescaped := html.unescape(text)) != text:
        moved, start = [], 0
        for number, part in enumerate(ENTITY.split(text)):  # every second part is an entity
            covered, start = places[start : start + len(part)], start + len(part)
            if number % 2 and (replaced := html.unescape(part)) != part:
                covered = [(covered[0][0], covered[-1][1])] * len(replaced)
            moved += covered
        text, places = unescaped, moved
    return PlainText(text, places)
