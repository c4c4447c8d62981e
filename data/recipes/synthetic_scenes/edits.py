"""Edit a statement so that it may become false of a scene; `certainly_false` selects those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from data.recipes.synthetic_scenes.grammar import KINDS, Mention, Statement, false_attributes
from data.recipes.synthetic_scenes.scenes import Rng, Scene
from data.recipes.synthetic_scenes.vocabulary import COLORS, KIND_OF, NOUNS, RELATIONS, admits

PHRASE = ("noun", "attributes", "article")


def pick(rng: Rng, candidates: Sequence[Any]) -> Any:
    """Draw one of the candidates at random, or return None if there are none."""
    return candidates[int(rng.integers(len(candidates)))] if candidates else None


def certainly_false(
    candidates: Iterable[Statement], scene: Scene, text: str, most: int | None = None
) -> list[Statement]:
    """Return the first `most` candidates that are false of the scene, with different texts."""
    statements: dict[str, Statement] = {}
    for candidate in candidates:
        if len(statements) == most:
            break
        if not candidate.may_be_true(scene) and candidate.text != text:
            statements.setdefault(candidate.text, candidate)
    return list(statements.values())


def plausible(statement: Statement) -> bool:
    """Return whether the synthetic scenes can show the statement's relation between its nouns."""
    # A negative that no image could show, such as a cup that rides, is solved by text alone.
    nouns = [mention.noun for mention in statement.mentions[:2]]
    return statement.relation is None or admits(nouns[0], statement.relation, nouns[1])


def swapped(statement: Statement, i: int, j: int, *fields: str) -> Statement:
    """Return a statement with two noun phrases, or only some of their fields, swapped."""
    pair = statement.mentions[i], statement.mentions[j]
    first, second = ({name: getattr(one, name) for name in fields or PHRASE} for one in pair)
    return statement.changed(i, **second).changed(j, **first)


def attribute_swaps(statement: Statement) -> Iterator[Statement]:
    """Yield the swaps of adjectives, all or of one kind, between any two noun phrases."""
    for i, j in combinations(range(len(statement.mentions)), 2):
        first, second = (statement.mentions[k].attributes for k in (i, j))
        kinds = {KIND_OF[word] for word in (*first, *second)}
        # With one kind, the swap of all adjectives is that of the kind.
        if len(kinds) > 1:
            yield swapped(statement, i, j, "attributes")
        for kind in (kind for kind in KINDS if kind in kinds):
            changed = statement.changed(i, attributes=_mixed(first, second, kind))
            yield changed.changed(j, attributes=_mixed(second, first, kind))


def _mixed(first: tuple[str, ...], second: tuple[str, ...], kind: str) -> tuple[str, ...]:
    """Return the adjectives of `first`, with those of one kind taken from `second`."""
    of_other_kinds = (word for word in first if KIND_OF[word] != kind)
    return (*of_other_kinds, *(word for word in second if KIND_OF[word] == kind))


def swaps(statement: Statement) -> Iterator[Statement]:
    """Yield the swaps of nouns, phrases or adjectives between any two noun phrases."""
    for fields in (("noun",), PHRASE):
        for i, j in combinations(range(len(statement.mentions)), 2):
            yield swapped(statement, i, j, *fields)
    yield from attribute_swaps(statement)


def absent_nouns(scene: Scene) -> list[str]:
    """Return the nouns that are not in the scene."""
    present = {thing.noun for thing in scene.content.things}
    return [noun for noun in NOUNS if noun not in present]


def nouns_replaced(statement: Statement, index: int, scene: Scene) -> list[Statement]:
    """Return the statement with a noun that is not in the scene and is plausible in that place."""
    candidates = (statement.changed(index, noun=noun) for noun in absent_nouns(scene))
    return list(filter(plausible, candidates))


def attributes_changed(statement: Statement, scene: Scene, added: bool = False) -> list[Statement]:
    """Return the statement with an adjective replaced by a false one, or with one `added`."""
    things = {thing.noun: thing for thing in scene.content.things}
    changed = []
    for index, mention in enumerate(statement.mentions):
        for kind in KINDS:
            rest = _mixed(mention.attributes, (), kind)
            # Without an adjective of the kind, nothing is replaced; with one, nothing is added.
            if added == (rest == mention.attributes):
                words = false_attributes(things[mention.noun], kind)
                changed += [statement.changed(index, attributes=(*rest, word)) for word in words]
    return sorted(changed, key=lambda other: other.text) if added else changed


def relations_replaced(statement: Statement, scene: Scene, alike: bool = False) -> list[Statement]:
    """Return the statement with false relations; if `alike`, of its kind (action or position)."""
    if statement.relation is None:
        return []
    copula = "is " if statement.pieces[1].startswith("is ") else ""
    candidates = (
        replace(statement.with_piece(1, copula + name), relation=name)
        for name in RELATIONS
        if name != statement.relation
    )
    false = certainly_false(filter(plausible, candidates), scene, statement.text)
    action = RELATIONS[statement.relation].action
    like = [other for other in false if RELATIONS[other.relation].action == action]
    # Where none of the same kind is false, another kind is better than no item.
    return like if alike and like else false


def negations(statement: Statement) -> list[str]:
    """Return the statement with one of its parts, or the whole statement, denied."""
    denials = [f"it is not true that {statement.text}"]
    for index, mention in enumerate(statement.mentions):
        denials.append(statement.changed(index, article="no").text)
        for word in mention.attributes:
            without = _mixed(mention.attributes, (), KIND_OF[word])
            denied = f"that is not {word} {statement.pieces[index + 1]}".strip()
            changed = statement.changed(index, attributes=without)
            denials.append(changed.with_piece(index + 1, denied).text)
    if statement.relation is not None:
        denied = f"is not {statement.pieces[1].removeprefix('is ')}"
        denials.append(statement.with_piece(1, denied).text)
    return denials


def _object_added(true: Statement, scene: Scene, rng: Rng) -> list[Statement]:
    noun = str(rng.choice(absent_nouns(scene)))
    mention = Mention(noun, (str(rng.choice(list(COLORS))),) if rng.random() < 0.5 else ())
    pieces = (*true.pieces[:-1], f"{true.pieces[-1]} and".strip(), "")
    return [replace(true, mentions=(*true.mentions, mention), pieces=pieces)]


# Ways to make a statement false, most of them SugarCrepe's; not all the candidates are false.
NEGATIVES: dict[str, Callable[[Statement, Scene, Rng], Iterable[Statement]]] = {
    "add_att": lambda true, scene, rng: attributes_changed(true, scene, added=True),
    "add_obj": _object_added,
    "replace_att": lambda true, scene, rng: attributes_changed(true, scene),
    "replace_obj": lambda true, scene, rng: nouns_replaced(
        true, int(rng.integers(len(true.mentions))), scene
    ),
    "replace_rel": lambda true, scene, rng: relations_replaced(true, scene),
    "swap_att": lambda true, scene, rng: attribute_swaps(true),
    "swap_obj": lambda true, scene, rng: [swapped(true, 0, 1)],
    "like_rel": lambda true, scene, rng: relations_replaced(true, scene, alike=True),
    "deny_obj": lambda true, scene, rng: [
        true.changed(0, article=None if true.mentions[0].article else "no")
    ],
}


def draw_negative(kind: str, statement: Statement, scene: Scene, rng: Rng) -> Statement | None:
    """Draw a hard negative of a kind of `NEGATIVES` that another synthetic scene could show."""
    candidates = filter(plausible, NEGATIVES[kind](statement, scene, rng))
    return pick(rng, certainly_false(candidates, scene, statement.text))
