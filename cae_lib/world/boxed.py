"""ARO and CREPE: their pictures show two scenes, and only a box tells which one is meant."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations, cycle

import numpy as np

from cae_lib.data.layouts import Export, Item
from cae_lib.world import foils
from cae_lib.world.config import WorldConfig
from cae_lib.world.draw import Box, Picture
from cae_lib.world.scenes import Content, Scene, again, generator, scenes, spread, text_generator
from cae_lib.world.statements import Mention, Statement, stated
from cae_lib.world.vocabulary import ADJECTIVES, KIND_OF, RELATIONS

COMPLEXITIES = range(4, 13)
N_NEGATIVES = 5


def _show_pairs(
    export: Export, folder: str, first: int, shown: Sequence[Scene]
) -> list[tuple[str, Box]]:
    """Add pictures of two scenes, numbered from `first`; give each scene's picture and its box.

    Only the box tells which scene an item is about. The last of an odd number shares its picture
    with the first.
    """
    places = []
    for index, start in enumerate(range(0, len(shown), 2)):
        picture = Picture([*shown, shown[0]][start : start + 2], vertical=bool(index % 2))
        name = f"{first + index}.jpg"
        export.pictures[f"{folder}/{name}"] = picture
        places += [(name, picture.box(0)), (name, picture.box(1))]
    return places[: len(shown)]


def aro(config: WorldConfig, export: Export) -> None:
    """VG-Relation and VG-Attribution; the picture shows a second scene beside the box.

    Every relation has about as many items, of scenes whose arguments can be exchanged; so has
    every pair of attributes, more than the 25 that the macro average asks for.
    """
    n = config.sizes.aro_relation
    names = [name for name in RELATIONS if name not in ("touching", "holding")]
    related = spread(config.scenes, "aro-relation", n, names, swappable=True)
    drawn = scenes(config.scenes, "aro-attribution", config.sizes.aro_attribution)
    subsets = {
        "relation": [(scene, stated(scene.content, article="the")) for scene in related],
        "attribution": list(map(_dressed, drawn, cycle(attribute_pairs(config.scenes.seed)))),
    }
    for number, (subset, asked) in enumerate(subsets.items(), start=1):
        shown = [scene for scene, _ in asked]
        places = _show_pairs(export, "aro/images", 1_000_000 * number + 1, shown)
        for (name, box), (_, true) in zip(places, asked, strict=True):
            false = foils.exchanged(true, 0, 1, *([] if true.relation else ["attributes"]))
            more: dict[str, object] = {"relation_name": true.relation}
            if not true.relation:
                more = {"attributes": [mention.attributes[0] for mention in true.mentions]}
            export.ask(subset, Item([name], [true.text], [false.text], box, more))


def attribute_pairs(seed: int) -> list[tuple[str, str]]:
    """All pairs of attributes of one kind, each in one order, drawn once for the world."""
    rng = generator(seed, "attribute pairs")
    kinds = ("color", "pattern", "size")
    pairs = (pair for kind in kinds for pair in combinations(ADJECTIVES[kind], 2))
    return [(b, a) if rng.random() < 0.5 else (a, b) for a, b in pairs]


def _dressed(scene: Scene, words: tuple[str, str]) -> tuple[Scene, Statement]:
    """The scene with these adjectives of one kind on its first two things, and what it shows."""
    content = scene.content
    for index, word in enumerate(words):
        content = content.with_thing(index, **{KIND_OF[word]: word})
    pairs = zip(content.things, words, strict=False)
    mentions = tuple(Mention(thing.noun, (word,), "the") for thing, word in pairs)
    return again(scene, content), Statement(mentions, ("", "and", ""))


def crepe(config: WorldConfig, export: Export) -> None:
    """CREPE's productivity sets: captions of 4 to 12 atoms, each against five hard negatives.

    Each number of atoms (objects, attributes, relations) has about as many captions. A kind for
    which a caption has no five false ones leaves it out. Pictures hold two scenes each.
    """
    found = _crepe_scenes(config)
    export.items |= {kind: [] for kind in ("atom", "swap", "negate")}
    places = _show_pairs(export, "crepe/VG_100K", 3_000_001, [scene for scene, _ in found])
    for index, ((scene, n), (name, box)) in enumerate(zip(found, places, strict=True)):
        rng = text_generator(config.scenes, "crepe", index)
        true = compound(scene.content, n, rng)
        n_objects = len(true.mentions)
        more = {"n": n, "n_objects": n_objects, "n_relations": 1}
        more |= {"n_attributes": n - n_objects - 1, "n_connected_components": n_objects - 1}
        for kind, texts in hard_negatives(true, scene, rng).items():
            if len(texts) == N_NEGATIVES:
                export.ask(kind, Item([name], [true.text], texts, [*map(float, box)], more))


def _crepe_scenes(config: WorldConfig) -> list[tuple[Scene, int]]:
    """Scenes, and for each the number of atoms to state: the highest still wanted that it has."""
    size = config.sizes.crepe
    wanted = dict.fromkeys(COMPLEXITIES, -(-size // len(COMPLEXITIES)))
    found: list[tuple[Scene, int]] = []
    for scene in scenes(config.scenes, "crepe", 20 * size):
        most = 1 + sum(1 + len(thing.attributes) for thing in scene.content.things)
        fitting = [n for n in COMPLEXITIES if n <= most and wanted[n]]
        if len(found) == size:
            break
        if fitting:
            found.append((scene, fitting[-1]))
            wanted[fitting[-1]] -= 1
    return found


def compound(content: Content, n_atoms: int, rng: np.random.Generator) -> Statement:
    """A statement of `n_atoms` objects, attributes and relations: the main pair, then the rest."""
    main, budget = stated(content), n_atoms - 3
    n_extras = min(len(content.things) - 2, max(0, budget - 1) // 2)
    things = content.things[: 2 + n_extras]
    words = [(thing, word) for thing in things for word in thing.attributes]
    chosen = [words[k] for k in sorted(rng.permutation(len(words))[: budget - n_extras])]
    said = [tuple(word for owner, word in chosen if owner is thing) for thing in things]
    mentions = tuple(Mention(thing.noun, own) for thing, own in zip(things, said, strict=True))
    return Statement(mentions, (*main.pieces[:2], *["and there is"] * n_extras, ""), main.relation)


def hard_negatives(true: Statement, scene: Scene, rng: np.random.Generator) -> dict[str, list[str]]:
    """Up to five false texts of each of CREPE's kinds: "atom", "swap" and "negate"."""
    atoms = foils.attributes_changed(true, scene) + foils.relations_replaced(true, scene)
    for index in range(len(true.mentions)):
        replaced = foils.nouns_replaced(true, index, scene)
        atoms += [replaced[k] for k in rng.permutation(len(replaced))[:3]]
    once = list(foils.exchanges(true))
    swaps = filter(foils.plausible, chain(once, *map(foils.exchanges, once)))
    found = {
        "atom": [false.text for false in foils.certainly_false(atoms, scene, true.text)],
        "swap": [false.text for false in foils.certainly_false(swaps, scene, true.text, 10)],
        "negate": foils.negations(true),
    }
    return {
        kind: [texts[k] for k in sorted(rng.permutation(len(texts))[:N_NEGATIVES])]
        for kind, texts in found.items()
    }
