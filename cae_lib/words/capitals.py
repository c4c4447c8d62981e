"""Warn of captions in Title Case or capitals, which parsers read as names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

WORD = re.compile(r"[^\W\d_]+")
# Words of so many letters are capitalised in Title Case; shorter ones, such as "on", may not be.
SHORTEST_LONG_WORD = 4


def has_title_case(caption: str) -> bool:
    """Return whether a caption is in Title Case or capitals, rather than a sentence with names."""
    # Without the first word, which any sentence capitalises, and without "A" and "I".
    words = [word for word in WORD.findall(caption)[1:] if len(word) > 1]
    n_capital = sum(word[0].isupper() for word in words)
    n_small = sum(not word[0].isupper() and len(word) >= SHORTEST_LONG_WORD for word in words)
    # One capital may be a name, as in "Two Dachshunds".
    return n_capital >= 2 and n_capital > n_small


def warn_of_title_case(captions: Sequence[str]) -> None:
    """Warn once if more than half of the captions are in Title Case or capitals."""
    count = sum(map(has_title_case, captions))
    if 2 * count > len(captions):
        warnings.warn(
            f"{count:,} of {len(captions):,} captions are in Title Case or capitals. Roles depend "
            "on capitals, because a parser reads capitalised words as names; tokens do not. Lower "
            "them first, for example [caption.lower() for caption in captions].",
            # The warning names the line that called `token_roles`.
            stacklevel=3,
        )
