"""Extract from captions their phrases, as texts, and their bindings, as tokens.

A phrase is "cat", "red cat", or with two nouns "cat chasing dog".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cae_lib.errors import DataError
from cae_lib.words.roles import ATTRIBUTE, OBJECT

if TYPE_CHECKING:
    from cae_lib.words.alignment import Alignment

KINDS = ("object", "attribute", "relation")
ARTICLES = frozenset({"a", "an", "the"})
Phrases = dict[str, tuple[str, ...]]
"""The distinct phrases of one caption by `KINDS`."""


def parsed_phrases(graphs: Sequence[Mapping[str, Any]]) -> list[Phrases]:
    """Return the phrases of each scene graph of `SceneGraphTagger.graphs`, in lower case.

    An object is the head of its noun phrase ("dog"), an attribute a head with one adjective or
    number ("brown dog"), a relation two heads with the parser's words for it between them ("dog
    chasing cat").
    """
    phrases = []
    for graph in graphs:
        entities = graph["entities"]
        heads = [entity["head"].lower() for entity in entities]
        attributes = [
            f"{modifier['span'].lower()} {head}"
            for head, entity in zip(heads, entities, strict=True)
            for modifier in entity["modifiers"]
            if modifier["dep"] in ("amod", "nummod")
        ]
        relations = [
            f"{heads[edge['subject']]} {edge['relation'].lower()} {heads[edge['object']]}"
            for edge in graph["relations"]
        ]
        phrases.append(_distinct(heads, attributes, relations))
    return phrases


def ground_truth_phrases(text: str, entry: Mapping[str, Any]) -> Phrases:
    """Return the phrases of a caption of the synthetic scenes from its scene graph.

    A relation keeps the caption's own wording, without "is": "cat to the left of dog".

    Args:
        text: The caption.
        entry: Its entry in the file of scene graphs: `spans` as `[start, end, role]`, `objects`,
            `attributes` and `relations`.
    """
    spans = entry["spans"]
    places = [(start, end) for start, end, role in spans if role == OBJECT]
    order = list(entry["objects"])
    noun = {thing: text[slice(*bounds)] for thing, bounds in zip(order, places, strict=True)}
    adjectives = {text[start:end] for start, end, role in spans if role == ATTRIBUTE}
    relations = []
    for subject, _, obj in entry["relations"]:
        between = text[places[order.index(subject)][1] : places[order.index(obj)][0]].split()
        words = [word for word in between if word not in adjectives]
        while words and words[-1] in ARTICLES:
            words.pop()
        words = words[1:] if words[:1] == ["is"] else words
        relations.append(" ".join([noun[subject], *words, noun[obj]]))
    attributes = [f"{word} {noun[thing]}" for thing, word in entry["attributes"]]
    return _distinct(list(noun.values()), attributes, relations)


def world_phrases(annotations: str | Path, graphs: str | Path) -> dict[str, Phrases]:
    """Return the ground-truth phrases of a file of captions of the synthetic scenes, by caption.

    Raises:
        DataError: If a file is missing or broken.
    """
    try:
        captions = json.loads(Path(annotations).read_text(encoding="utf-8"))["annotations"]
        entries = json.loads(Path(graphs).read_text(encoding="utf-8"))["annotations"]
        return {
            caption["caption"]: ground_truth_phrases(caption["caption"], entry)
            for caption, entry in zip(captions, entries, strict=True)
        }
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(
            f"{annotations} and {graphs}: no captions with their scene graphs ({error!r}); build "
            "the synthetic scenes with `python -m data.recipes.synthetic_scenes.build`"
        ) from error


def stated_bindings(alignment: Alignment) -> list[set[tuple[Any, ...]]]:
    """Return what each caption says of its objects, as tuples of a role and token ids.

    There is a tuple for every word whose arguments are known: its role, the word, and what the word
    is said of, which is one word for an attribute and two for a relation.
    """
    assert alignment.arguments is not None, "only the roles of placebos have no arguments"
    columns = (alignment.tokens, alignment.words, alignment.roles, alignment.arguments)
    all_bindings = []
    for ids, words, roles, arguments in zip(*(c.tolist() for c in columns), strict=True):
        texts: dict[int, tuple[int, ...]] = {}
        for token, word in zip(ids, words, strict=True):
            texts[word] = (*texts.get(word, ()), token)
        candidates = [
            (role, texts[word], *(texts[of] for of in said_of if of))
            for word, role, said_of in zip(words, roles, arguments, strict=True)
            if role > OBJECT
        ]
        # A role is 2 or 3: an attribute is complete with one argument, a relation with two.
        all_bindings.append({binding for binding in candidates if len(binding) == binding[0] + 1})
    return all_bindings


def _distinct(*lists: Sequence[str]) -> Phrases:
    return {kind: tuple(dict.fromkeys(texts)) for kind, texts in zip(KINDS, lists, strict=True)}
