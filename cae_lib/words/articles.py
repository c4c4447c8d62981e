"""Choose the indefinite article of a word."""

from __future__ import annotations

import re

AN_BEFORE_H = re.compile(r"(hour|honest|honor|honour|heir)", re.IGNORECASE)
A_BEFORE_VOWEL = re.compile(r"(uni([^mn]|que)|us[aeiu]|ut[ei]|eu|ewe|one\b|once)", re.IGNORECASE)


def indefinite_article(text: str) -> str:
    """Return "a" or "an" as the text's first sound requires."""
    vowel = text[:1].lower() in "aeiou" and not A_BEFORE_VOWEL.match(text)
    return "an" if vowel or AN_BEFORE_H.match(text) else "a"
