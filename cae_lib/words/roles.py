"""Roles of words in a caption, and the character spans that carry them."""

from __future__ import annotations

from dataclasses import dataclass

OTHER, OBJECT, ATTRIBUTE, RELATION = range(4)
ROLE_NAMES = ("other", "object", "attribute", "relation")


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive) of a caption, with their role."""
    start: int
    end: int
    role: int
