"""Choose the indefinite article of a word by its spelling."""

from __future__ import annotations

import re

AN_BEFORE_H = re.compile(r"(hour|honest|honor|honour|heir)", re.IGNORECASE)
"""Pattern of the beginnings of words with a silent h, which take "an"."""

A_BEFORE_VOWEL = re.compile(r"(uni([^mn]|que)|us[aeiu]|ut[ei]|eu|ewe|one\b|once)", re.IGNORECASE)
"""Pattern of the beginnings of words with a vowel letter but a consonant sound, which take "a"."""


def indefinite_article(text: str) -> str:
    """Return "a" or "an" for a text, judging its first sound by the spelling.

    Numbers, and abbreviations that begin with a consonant letter such as "x-ray", get "a".
    """
    vowel = text[:1].lower() in "aeiou" and not A_BEFORE_VOWEL.match(text)
    return "an" if vowel or AN_BEFORE_H.match(text) else "a"
