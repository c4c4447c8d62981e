"""Choose the indefinite article of a word by its spelling."""

from __future__ import annotations

import re

# Beginnings of words with a silent h.
AN_BEFORE_H = re.compile(r"(hour|honest|honor|honour|heir)", re.IGNORECASE)

# Beginnings of words with a vowel letter but a consonant sound: "unicorn", but not "uninvited".
A_BEFORE_VOWEL = re.compile(r"(uni([^mn]|que)|us[aeiu]|ut[ei]|eu|ewe|one\b|once)", re.IGNORECASE)


def indefinite_article(text: str) -> str:
    """Return "a" or "an" for a text, judging its first sound by the spelling."""
    # "8 dogs" and "x-ray" get "a", because no rule knows how a number or a letter is read.
    vowel = text[:1].lower() in "aeiou" and not A_BEFORE_VOWEL.match(text)
    return "an" if vowel or AN_BEFORE_H.match(text) else "a"
