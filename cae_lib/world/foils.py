"""Edits of a statement that make it false of a scene: exchanged, replaced, added, negated parts.

Every function returns candidates in a fixed order. `certainly_false` keeps those that nobody could
take for true; candidates with a relation keep to what the small world can show, so that a foil
cannot be told by its words alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TypeVar

import numpy as np

from cae_lib.world.scenes import Scene
from cae_lib.world.statements import Mention, Statement, false_attributes
from cae_lib.world.vocabulary import ADJECTIVES, COLORS, KIND_OF, NOUNS, RELATIONS, admits

T = TypeVar("T")
KINDS = tuple(ADJECTIVES)


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


def phrases_exchanged(statement: Statement, i: int = 0, j: int = 1) -> Statement:
    """Two whole noun phrases exchanged."""
    first, second = statement.mentions[i], statement.mentions[j]
    return statement.with_mention(i, second).with_mention(j, first)


def nouns_exchanged(statement: Statement, i: int, j: int) -> Statement:
    """Two nouns exchanged; the adjectives stay where they are."""
    first, second = statement.mentions[i].noun, statement.mentions[j].noun
    return statement.changed(i, noun=second).changed(j, noun=first)


def attributes_exchanged(
    statement: Statement, i: int, j: int, kinds: Sequence[str] = KINDS
) -> Statement:
    """The adjectives of some kinds exchanged between two noun phrases."""

    def mixed(own: Mention, other: Mention) -> tuple[str, ...]:
        kept = (word for word in own.attributes if KIND_OF[word] not in kinds)
        return (*kept, *(word for word in other.attributes if KIND_OF[word] in kinds))

    first, second = statement.mentions[i], statement.mentions[j]
    changed = statement.changed(i, attributes=mixed(first, second))
    return changed.changed(j, attributes=mixed(second, first))


def attribute_exchanges(statement: Statement) -> Iterator[Statement]:
    """Adjectives of one kind, or of all, exchanged between any two noun phrases."""
    for i, j in combinations(range(len(statement.mentions)), 2):
        words = (*statement.mentions[i].attributes, *statement.mentions[j].attributes)
        there = {KIND_OF[word] for word in words}
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


def nouns_replaced(statement: Statement, index: int, scene: Scene) -> list[Statement]:
    """The noun of one phrase replaced by nouns that are not in the scene and could stand there."""
    candidates = (statement.changed(index, noun=noun) for noun in absent_nouns(scene))
    return list(filter(plausible, candidates))


def attributes_replaced(statement: Statement, scene: Scene) -> list[Statement]:
    """One adjective replaced by one of its kind that is false of its thing."""
    found = []
    for index, mention in enumerate(statement.mentions):
        for word in mention.attributes:
            rest = tuple(other for other in mention.attributes if other != word)
            for other in _false(scene, mention.noun, KIND_OF[word]):
                found.append(statement.changed(index, attributes=(*rest, other)))
    return found


def attributes_added(statement: Statement, scene: Scene) -> list[Statement]:
    """A false adjective added to a phrase that has none of its kind."""
    found = []
    for index, mention in enumerate(statement.mentions):
        for kind in set(KINDS) - {KIND_OF[word] for word in mention.attributes}:
            for word in _false(scene, mention.noun, kind):
                found.append(statement.changed(index, attributes=(*mention.attributes, word)))
    return sorted(found, key=lambda added: added.text)


def relations_replaced(statement: Statement, scene: Scene) -> list[Statement]:
    """The relation replaced by another that is false of the scene; none for other word orders."""
    if statement.relation is None or statement.relation[0] + 1 != statement.relation[2]:
        return []
    names = (name for name in RELATIONS if name != statement.relation[1])
    candidates = (statement.with_relation(name) for name in names)
    return certainly_false(filter(plausible, candidates), scene, statement.text)


def relations_like(statement: Statement, scene: Scene) -> list[Statement]:
    """Those of `relations_replaced` of the same kind (action or position), or all if none is."""
    found = relations_replaced(statement, scene)
    action = bool(found) and RELATIONS[statement.relation[1]].action
    return [other for other in found if RELATIONS[other.relation[1]].action == action] or found


def mention_added(statement: Statement, mention: Mention) -> Statement:
    """A further noun phrase at the end, after "and"."""
    last = f"{statement.pieces[-1]} and".strip()
    mentions = (*statement.mentions, mention)
    return replace(statement, mentions=mentions, pieces=(*statement.pieces[:-1], last, ""))


def negations(statement: Statement) -> list[str]:
    """The statement with one of its parts, or the whole, denied."""
    found = [f"it is not true that {statement.text}"]
    for index, mention in enumerate(statement.mentions):
        found.append(statement.changed(index, article="no").text)
        for word in mention.attributes:
            rest = tuple(other for other in mention.attributes if other != word)
            denied = f"that is not {word} {statement.pieces[index + 1]}".strip()
            without = statement.changed(index, attributes=rest)
            found.append(without.with_piece(index + 1, denied).text)
    if statement.relation is not None:
        link = statement.relation[2]
        denied = f"is not {statement.pieces[link].removeprefix('is ')}"
        found.append(statement.with_piece(link, denied).text)
    return found


def _false(scene: Scene, noun: str, kind: str) -> list[str]:
    thing = next(thing for thing in scene.content.things if thing.noun == noun)
    return false_attributes(thing, kind)


Foil = Callable[[Statement, Scene, np.random.Generator], Iterable[Statement]]


def _object_added(true: Statement, scene: Scene, rng: np.random.Generator) -> list[Statement]:
    noun = str(rng.choice(absent_nouns(scene)))
    attributes = (str(rng.choice(list(COLORS))),) if rng.random() < 0.5 else ()
    return [mention_added(true, Mention(noun, attributes))]


def _denied(true: Statement, scene: Scene, rng: np.random.Generator) -> list[Statement]:
    """ "a cat" for "no cat", and the other way round."""
    return [true.changed(0, article=None if true.mentions[0].article else "no")]


def _object_replaced(true: Statement, scene: Scene, rng: np.random.Generator) -> list[Statement]:
    return nouns_replaced(true, int(rng.integers(len(true.mentions))), scene)


FOILS: dict[str, Foil] = {
    "add_att": lambda true, scene, rng: attributes_added(true, scene),
    "add_obj": _object_added,
    "replace_att": lambda true, scene, rng: attributes_replaced(true, scene),
    "replace_obj": _object_replaced,
    "replace_rel": lambda true, scene, rng: relations_replaced(true, scene),
    "swap_att": lambda true, scene, rng: attribute_exchanges(true),
    "swap_obj": lambda true, scene, rng: [phrases_exchanged(true)],
    "like_rel": lambda true, scene, rng: relations_like(true, scene),
    "deny_obj": _denied,
}
"""Ways to make a statement false, most of them SugarCrepe's; not all the candidates are false."""


def foil(
    kind: str, statement: Statement, scene: Scene, rng: np.random.Generator
) -> Statement | None:
    """One statement that the small world could show, and that is false of the scene.

    Args:
        kind: One of `FOILS`.
        statement: What is true of the scene.
        scene: What is true.
        rng: Draws one of the candidates.
    """
    candidates = filter(plausible, FOILS[kind](statement, scene, rng))
    return pick(rng, certainly_false(candidates, scene, statement.text))
