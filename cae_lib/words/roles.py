"""Roles of words in a caption, and the character spans that carry them."""

from __future__ import annotations

from dataclasses import dataclass, field

OTHER, OBJECT, ATTRIBUTE, RELATION = range(4)
ROLE_NAMES = ("other", "object", "attribute", "relation")


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive) of a caption, with their role. `of` are the places of
    the objects that they are said of, if they are known: of a relation its subject and its object,
    of an attribute what bears it; the place (0, 0) stands nowhere."""

    start: int
    end: int
    role: int
    of: tuple[tuple[int, int], ...] = field(default=(), compare=False)
