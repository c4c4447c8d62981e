"""Edits of a statement that make it false of a scene: exchanged, replaced, added, negated parts.

Every function returns candidates in a fixed order. `certainly_false` keeps those that nobody could
take for true; candidates with a relation keep to what the small world can show, so that a foil
cannot be told by its words alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TypeVar

import numpy as np

from cae_lib.data.world.scenes import Scene
from cae_lib.data.world.statements import Mention, Statement
from cae_lib.data.world.truth import false_attributes, kind_of
from cae_lib.data.world.vocabulary import NOUNS, RELATIONS, admits

T = TypeVar("T")
KINDS = ("size", "pattern", "color")


def pick(rng: np.random.Generator, candidates: Sequence[T]) -> T | None:
    """One of the candidates at random; None when there are none."""
    return candidates[int(rng.integers(len(candidates)))] if candidates else None


def certainly_false(
    candidates: Iterable[Statement], scene: Scene, text: str, most: int | None = None
) -> list[Statement]:
    """The candidates that are false of the scene, each text once and none equal to `text`.

    Args:
        candidates: Statements, looked at in order.
        scene: What is true.
        text: The true text.
        most: Stop at so many.
    """
    kept: dict[str, Statement] = {}
    for candidate in candidates:
        if len(kept) == most:
            break
        if not candidate.may_be_true(scene) and candidate.text != text:
            kept.setdefault(candidate.text, candidate)
    return list(kept.values())


def plausible(statement: Statement) -> bool:
    """Whether the small world can show the statement's relation between its nouns."""
    if statement.relation is None:
        return True
    subject, name, obj = statement.relation
    return admits(statement.mentions[subject].noun, name, statement.mentions[obj].noun)


def phrases_exchanged(statement: Statement, i: int, j: int) -> Statement:
    """Two whole noun phrases exchanged."""
    first, second = statement.mentions[i], statement.mentions[j]
    return statement.with_mention(i, second).with_mention(j, first)


def nouns_exchanged(statement: Statement, i: int, j: int) -> Statement:
    """Two nouns exchanged; the adjectives stay where they are."""
    first, second = statement.mentions[i], statement.mentions[j]
    changed = statement.with_mention(i, Mention(second.noun, first.attributes, first.article))
    return changed.with_mention(j, Mention(first.noun, second.attributes, second.article))


def attributes_exchanged(statement: Statement, i: int, j: int, kinds: Sequence[str] = KINDS,
                         ) -> Statement:  # fmt: skip
    """The adjectives of some kinds exchanged between two noun phrases."""
    first, second = statement.mentions[i], statement.mentions[j]
    changed = statement.with_mention(i, _with_kinds_of(first, second, kinds))
    return changed.with_mention(j, _with_kinds_of(second, first, kinds))


def attribute_exchanges(statement: Statement) -> Iterator[Statement]:
    """Adjectives of one kind, or of all, exchanged between any two noun phrases."""
    for i, j in combinations(range(len(statement.mentions)), 2):
        words = (*statement.mentions[i].attributes, *statement.mentions[j].attributes)
        there = {kind_of(word) for word in words}
        if len(there) > 1:
            yield attributes_exchanged(statement, i, j)
        for kind in KINDS:
            if kind in there:
                yield attributes_exchanged(statement, i, j, (kind,))


def exchanges(statement: Statement) -> Iterator[Statement]:
    """Nouns, phrases or adjectives exchanged between any two noun phrases."""
    pairs = list(combinations(range(len(statement.mentions)), 2))
    for exchange in (nouns_exchanged, phrases_exchanged):
        yield from (exchange(statement, i, j) for i, j in pairs)
    yield from attribute_exchanges(statement)


def absent_nouns(scene: Scene) -> list[str]:
    """Nouns that are not in the scene."""
    there = {thing.noun for thing in scene.content.things}
    return [noun for noun in NOUNS if noun not in there]


def replacements(statement: Statement, index: int, scene: Scene) -> list[str]:
    """Nouns that are not in the scene and could stand in a phrase's place."""
    nouns = absent_nouns(scene)
    return [noun for noun in nouns if plausible(noun_replaced(statement, index, noun))]


def noun_replaced(statement: Statement, index: int, noun: str) -> Statement:
    """The noun of one phrase replaced."""
    return statement.with_mention(index, replace(statement.mentions[index], noun=noun))


def attributes_replaced(statement: Statement, scene: Scene) -> list[Statement]:
    """One adjective replaced by one of its kind that is false of its thing."""
    found = []
    for index, mention in enumerate(statement.mentions):
        for place, word in enumerate(mention.attributes):
            for other in _false(scene, mention.noun, kind_of(word)):
                words = (*mention.attributes[:place], other, *mention.attributes[place + 1 :])
                found.append(statement.with_mention(index, replace(mention, attributes=words)))
    return found


def attributes_added(statement: Statement, scene: Scene) -> list[Statement]:
    """A false adjective added to a phrase that has none of its kind."""
    found = []
    for index, mention in enumerate(statement.mentions):
        for kind in set(KINDS) - {kind_of(word) for word in mention.attributes}:
            for word in _false(scene, mention.noun, kind):
                words = (*mention.attributes, word)
                found.append(statement.with_mention(index, replace(mention, attributes=words)))
    return sorted(found, key=lambda added: added.text)


def relations_replaced(statement: Statement, scene: Scene) -> list[Statement]:
    """The relation replaced by another that is false of the scene; none for other word orders."""
    if statement.relation is None or statement.relation[0] + 1 != statement.relation[2]:
        return []
    names = (name for name in RELATIONS if name != statement.relation[1])
    candidates = (statement.with_relation(name) for name in names)
    return certainly_false(filter(plausible, candidates), scene, statement.text)


def relation_like(statement: Statement, scene: Scene, rng: np.random.Generator) -> Statement | None:
    """One of `relations_replaced`, of the same kind (action or position) if there is one."""
    found = relations_replaced(statement, scene)
    action = RELATIONS[statement.relation[1]].action if statement.relation else False
    alike = [other for other in found if RELATIONS[other.relation[1]].action == action]
    return pick(rng, alike or found)


def mention_added(statement: Statement, mention: Mention) -> Statement:
    """A further noun phrase at the end, after "and"."""
    last = f"{statement.pieces[-1]} and".strip()
    return replace(
        statement,
        mentions=(*statement.mentions, mention),
        pieces=(*statement.pieces[:-1], last, ""),
    )


def negations(statement: Statement) -> list[str]:
    """The statement with one of its parts, or the whole, denied."""
    found = [f"it is not true that {statement.text}"]
    for index, mention in enumerate(statement.mentions):
        found.append(statement.with_mention(index, replace(mention, article="no")).text)
        for word in mention.attributes:
            rest = tuple(other for other in mention.attributes if other != word)
            pieces = list(statement.pieces)
            pieces[index + 1] = f"that is not {word} {pieces[index + 1]}".strip()
            without = statement.with_mention(index, replace(mention, attributes=rest))
            found.append(replace(without, pieces=tuple(pieces)).text)
    if statement.relation is not None:
        link = statement.relation[2]
        pieces = list(statement.pieces)
        pieces[link] = f"is not {pieces[link].removeprefix('is ')}"
        found.append(replace(statement, pieces=tuple(pieces)).text)
    return found


def _with_kinds_of(mention: Mention, other: Mention, kinds: Sequence[str]) -> Mention:
    """A phrase with another's adjectives of some kinds in place of its own."""
    own = tuple(word for word in mention.attributes if kind_of(word) not in kinds)
    taken = tuple(word for word in other.attributes if kind_of(word) in kinds)
    return Mention(mention.noun, own + taken, mention.article)


def _false(scene: Scene, noun: str, kind: str) -> tuple[str, ...]:
    thing = next(thing for thing in scene.content.things if thing.noun == noun)
    return false_attributes(thing, kind)
