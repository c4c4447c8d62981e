"""Extract the phrases of captions as texts, and their bindings as token ids.

A phrase is an object ("cat"), an attribute with its object ("red cat"), or a relation with its two
objects ("cat chasing dog"). A binding is an attribute or relation with the words of its objects.
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

PHRASE_KINDS = ("object", "attribute", "relation")
ARTICLES = frozenset({"a", "an", "the"})
PhrasesByKind = dict[str, tuple[str, ...]]
"""The distinct phrases of one caption, by kind of phrase (`PHRASE_KINDS`)."""


def parsed_phrases(graphs: Sequence[Mapping[str, Any]]) -> list[PhrasesByKind]:
    """Return the phrases of each scene graph, in lower case.

    The phrase of an object is the head of its noun phrase with the compounds of the head ("police
    dog"). The phrase of an attribute is one adjective or number with its head ("brown dog"). The
    phrase of a relation is its words, as the parser returns them, between two heads ("dog chasing
    cat").

    Args:
        graphs: Scene graphs, as `SceneGraphTagger.graphs` returns them.
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


def ground_truth_phrases(text: str, entry: Mapping[str, Any]) -> PhrasesByKind:
    """Return the phrases of a caption of the synthetic scenes from its scene graph.

    The phrase of a relation has the wording of the caption. Left out are "is", adjectives, and the
    article of the second object: "cat to the left of dog".

    Args:
        text: The caption.
        entry: Scene graph of the caption, as the file of scene graphs stores it, with four keys.
            "spans": Lists `[start, end, role]`; start and end are character offsets.
            "objects": The ids of the objects, in the order of the caption.
            "attributes": Pairs of an object's id and a word.
            "relations": Triples of the subject's id, the relation and the object's id.
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


def load_ground_truth_phrases(
    captions_path: str | Path, graphs_path: str | Path
) -> dict[str, PhrasesByKind]:
    """Load the ground-truth phrases of captions of the synthetic scenes.

    Args:
        captions_path: JSON file of captions, in COCO's format.
        graphs_path: JSON file of their scene graphs, in the same order.

    Returns:
        The phrases of each caption, by the text of the caption. If a caption occurs several times,
        its last scene graph counts.

    Raises:
        DataError: If a file is missing or malformed.
    """
    try:
        captions = json.loads(Path(captions_path).read_text(encoding="utf-8"))["annotations"]
        entries = json.loads(Path(graphs_path).read_text(encoding="utf-8"))["annotations"]
        return {
            caption["caption"]: ground_truth_phrases(caption["caption"], entry)
            for caption, entry in zip(captions, entries, strict=True)
        }
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(
            f"{captions_path} and {graphs_path}: no captions with their scene graphs ({error!r}); "
            "build the synthetic scenes with `python -m data.recipes.synthetic_scenes.build`"
        ) from error


def stated_bindings(alignment: Alignment) -> list[set[tuple[Any, ...]]]:
    """Return the distinct bindings that each caption states, as tuples of a role and token ids.

    There is a tuple for each attribute or relation word whose arguments are all known. It holds the
    role of the word, the token ids of the word, and the token ids of the first word of each
    argument: the object of an attribute, or the subject and the object of a relation.

    Args:
        alignment: Tokens, words, roles and arguments of the captions. It cannot be a placebo,
            which has no arguments.
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


def _distinct(*lists: Sequence[str]) -> PhrasesByKind:
    return {
        kind: tuple(dict.fromkeys(texts)) for kind, texts in zip(PHRASE_KINDS, lists, strict=True)
    }
