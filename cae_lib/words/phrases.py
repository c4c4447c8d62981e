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
# The distinct phrases of one caption, by kind of phrase (`PHRASE_KINDS`).
PhrasesByKind = dict[str, tuple[str, ...]]


def parsed_phrases(graphs: Sequence[Mapping[str, Any]]) -> list[PhrasesByKind]:
    """Return the phrases of each graph of `SceneGraphTagger.graphs`, in lower case."""
    phrases = []
    for graph in graphs:
        entities = graph["entities"]
        # A head includes its compounds: "police dog".
        heads = [entity["head"].lower() for entity in entities]
        attributes = [
            f"{modifier['span'].lower()} {head}"
            for head, entity in zip(heads, entities, strict=True)
            for modifier in entity["modifiers"]
            # The parser lists determiners as modifiers, too.
            if modifier["dep"] in ("amod", "nummod")
        ]
        relations = [
            f"{heads[edge['subject']]} {edge['relation'].lower()} {heads[edge['object']]}"
            for edge in graph["relations"]
        ]
        phrases.append(_distinct(heads, attributes, relations))
    return phrases


def ground_truth_phrases(text: str, entry: Mapping[str, Any]) -> PhrasesByKind:
    """Return the phrases of a caption of the synthetic scenes, given its stored scene graph.

    The graph has "spans" `[start, end, role]`, the "objects" (ids in the order of the caption),
    "attributes" (id, word) and "relations" (subject's id, relation, object's id).
    """
    spans = entry["spans"]
    places = [(start, end) for start, end, role in spans if role == OBJECT]
    order = list(entry["objects"])
    noun = {thing: text[slice(*bounds)] for thing, bounds in zip(order, places, strict=True)}
    adjectives = {text[start:end] for start, end, role in spans if role == ATTRIBUTE}
    relations = []
    for subject, _, obj in entry["relations"]:
        # In the caption's wording: "a cat is to the left of a red dog" gives "cat to the left of
        # dog", where the graph has "left of".
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
    """Load the phrases of captions of the synthetic scenes, by the text of the caption.

    Both files are JSON in COCO's format and in the same order. The first of equal captions counts,
    as for `SyntheticSceneTagger`.
    """
    try:
        captions = json.loads(Path(captions_path).read_text(encoding="utf-8"))["annotations"]
        entries = json.loads(Path(graphs_path).read_text(encoding="utf-8"))["annotations"]
        first: dict[str, Mapping[str, Any]] = {}
        for caption, entry in zip(captions, entries, strict=True):
            first.setdefault(caption["caption"], entry)
        return {text: ground_truth_phrases(text, entry) for text, entry in first.items()}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(
            f"{captions_path} and {graphs_path}: no captions with their scene graphs ({error!r}); "
            "build the synthetic scenes with `python -m data.recipes.synthetic_scenes.build`"
        ) from error


def stated_bindings(alignment: Alignment) -> list[set[tuple[Any, ...]]]:
    """Return the distinct bindings of each caption, for words whose arguments are all known.

    A binding is a tuple: the role of the word, its token ids, and the token ids of the first word
    of each argument (an attribute's object, or a relation's subject and object).
    """
    assert alignment.arguments is not None, "only the roles of placebos have no arguments"
    columns = (alignment.tokens, alignment.words, alignment.roles, alignment.arguments)
    all_bindings = []
    for ids, words, roles, arguments in zip(*(c.tolist() for c in columns), strict=True):
        # The token ids of each word, which serve as its text.
        texts: dict[int, tuple[int, ...]] = {}
        for token, word in zip(ids, words, strict=True):
            texts[word] = (*texts.get(word, ()), token)
        candidates = [
            # 0 is an argument that is not known.
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
