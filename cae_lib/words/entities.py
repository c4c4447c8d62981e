"""Replace HTML entities in captions, and convert offsets between a caption and its plain text.

Tokenizers of open_clip replace "&amp;" by "&", so parsers have to read the same text.
"""

from __future__ import annotations

import html
import re
from typing import NamedTuple

from cae_lib.words.roles import NO_OFFSETS, Offsets

# The pattern by which `html.unescape` finds entities, in a group so that `split` keeps them.
ENTITY = re.compile(r"(&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?))")


class PlainText(NamedTuple):
    """A caption without HTML entities, with the place in the caption of each character."""

    text: str
    places: list[Offsets]

    def in_caption(self, offsets: Offsets) -> Offsets:
        """Convert offsets in the text to offsets in the caption."""
        start, end = offsets
        # An empty range, such as `NO_OFFSETS`, stands for no characters in the caption, either.
        return (self.places[start][0], self.places[end - 1][1]) if start < end else NO_OFFSETS

    def in_text(self, offsets: Offsets) -> Offsets:
        """Convert offsets in the caption to offsets in the text."""
        start, end = offsets
        # A character counts if the range reaches into the entity that it stands for.
        inside = [i for i, (a, b) in enumerate(self.places) if max(a, start) < min(b, end)]
        return (inside[0], inside[-1] + 1) if inside else NO_OFFSETS


def plain_text(caption: str) -> PlainText:
    """Replace HTML entities until none is left, since some captions are escaped several times."""
    text, places = caption, [(i, i + 1) for i in range(len(caption))]
    while (unescaped := html.unescape(text)) != text:
        moved, start = [], 0
        # Every second part of the split is an entity.
        for number, part in enumerate(ENTITY.split(text)):
            covered, start = places[start : start + len(part)], start + len(part)
            if number % 2 and (replaced := html.unescape(part)) != part:
                # "&#1;" becomes nothing, "&notit;" becomes "¬it;": each character stands for all.
                covered = [(covered[0][0], covered[-1][1])] * len(replaced)
            moved += covered
        text, places = unescaped, moved
    return PlainText(text, places)
