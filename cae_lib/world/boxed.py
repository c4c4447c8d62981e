"""Write ARO and CREPE, whose images show two scenes; only a box tells which one is meant."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations, cycle
from typing import Any

from cae_lib.world import edits
from cae_lib.world.config import WorldConfig
from cae_lib.world.draw import Picture
from cae_lib.world.grammar import Mention, Statement, stated
from cae_lib.world.layouts import Export, Question
from cae_lib.world.scenes import Rng, Scene, again, generator, scenes, spread, text_generator
from cae_lib.world.vocabulary import ADJECTIVES, KIND_OF, RELATIONS

COMPLEXITIES, N_NEGATIVES = range(4, 13), 5


def _show_pairs(export: Export, folder: str, first: int, shown: Sequence[Scene]) -> list[Any]:
    """Add images of two scenes each, numbered from `first`.

    Returns:
        The file name and the box of each scene.
    """
    places = []
    for index, start in enumerate(range(0, len(shown), 2)):
        pair = [*shown, shown[0]][start : start + 2]  # an odd one is beside the first
        picture, name = Picture(pair, vertical=bool(index % 2)), f"{first + index}.jpg"
        export.pictures[f"{folder}/{name}"] = picture
        places += [(name, picture.box(0)), (name, picture.box(1))]
    return places[: len(shown)]


def aro(config: WorldConfig, export: Export) -> None:
    """Write VG-Relation and VG-Attribution.

    There are about equally many items of each relation or pair of words.
    """
    n = config.sizes.aro_relation
    names = [name for name in RELATIONS if name not in ("touching", "holding")]  # see LEFT_OUT
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
            if true.relation:
                false, more = edits.exchanged(true, 0, 1), {"relation_name": true.relation}
            else:
                false = edits.exchanged(true, 0, 1, "attributes")
                more = {"attributes": [mention.attributes[0] for mention in true.mentions]}
            export.add_item(subset, Question([name], [true.text], [false.text], box, more))


def attribute_pairs(seed: int) -> list[tuple[str, str]]:
    """Return all pairs of attributes of one kind, each in one order that `seed` decides."""
    rng = generator(seed, "attribute pairs")
    kinds = ("color", "pattern", "size")
    pairs = (pair for kind in kinds for pair in combinations(ADJECTIVES[kind], 2))
    return [(b, a) if rng.random() < 0.5 else (a, b) for a, b in pairs]


def _dressed(scene: Scene, words: tuple[str, str]) -> tuple[Scene, Statement]:
    """Give the first two things of a scene these adjectives of one kind.

    Returns:
        The new scene, and a statement of what it shows.
    """
    content, mentions = scene.content, []
    for index, word in enumerate(words):
        content = content.with_thing(index, **{KIND_OF[word]: word})
        mentions.append(Mention(content.things[index].noun, (word,), "the"))
    return again(scene, content), Statement(tuple(mentions), ("", "and", ""))


def crepe(config: WorldConfig, export: Export) -> None:
    """Write productivity items: captions of 4 to 12 atoms against five hard negatives.

    There are equally many captions of each number of atoms. A caption has no item of a kind where
    fewer than five hard negatives exist.
    """
    drawn = _crepe_scenes(config)
    export.items |= {kind: [] for kind in ("atom", "swap", "negate")}
    places = _show_pairs(export, "crepe/VG_100K", 3_000_001, [scene for scene, _ in drawn])
    for index, ((scene, n), (name, box)) in enumerate(zip(drawn, places, strict=True)):
        rng = text_generator(config.scenes, "crepe", index)
        true = compound(scene, n, rng)
        n_objects = len(true.mentions)
        more = {"n": n, "n_objects": n_objects, "n_relations": 1}
        more |= {"n_attributes": n - n_objects - 1, "n_connected_components": n_objects - 1}
        for kind, texts in hard_negatives(true, scene, rng).items():
            if len(texts) == N_NEGATIVES:
                export.add_item(
                    kind, Question([name], [true.text], texts, [*map(float, box)], more)
                )


def _crepe_scenes(config: WorldConfig) -> list[tuple[Scene, int]]:
    """Draw scenes, each with the number of atoms to state.

    The number is the largest one that the scene has and that is still needed.
    """
    size = config.sizes.crepe
    wanted = dict.fromkeys(COMPLEXITIES, -(-size // len(COMPLEXITIES)))
    kept: list[tuple[Scene, int]] = []
    for scene in scenes(config.scenes, "crepe", 20 * size):
        most = 1 + sum(1 + len(thing.attributes) for thing in scene.content.things)
        n_atoms = max((n for n in COMPLEXITIES if n <= most and wanted[n]), default=None)
        if len(kept) == size:
            break
        if n_atoms is not None:
            kept.append((scene, n_atoms))
            wanted[n_atoms] -= 1
    return kept


def compound(scene: Scene, n_atoms: int, rng: Rng) -> Statement:
    """Build a statement of `n_atoms` objects, attributes and relations, main pair first."""
    main, budget = stated(scene.content), n_atoms - 3
    n_extras = min(len(scene.content.things) - 2, max(0, budget - 1) // 2)
    things = scene.content.things[: 2 + n_extras]
    words = [(thing, word) for thing in things for word in thing.attributes]
    chosen = [words[k] for k in sorted(rng.permutation(len(words))[: budget - n_extras])]
    said = [tuple(word for owner, word in chosen if owner is thing) for thing in things]
    mentions = [Mention(thing.noun, words) for thing, words in zip(things, said, strict=True)]
    pieces = (*main.pieces[:2], *["and there is"] * n_extras, "")
    return Statement(tuple(mentions), pieces, main.relation)


def hard_negatives(true: Statement, scene: Scene, rng: Rng) -> dict[str, list[str]]:
    """Return up to five hard negatives of each of CREPE's kinds: "atom", "swap" and "negate"."""
    atoms = edits.attributes_changed(true, scene) + edits.relations_replaced(true, scene)
    for index in range(len(true.mentions)):
        replaced = edits.nouns_replaced(true, index, scene)
        atoms += [replaced[k] for k in rng.permutation(len(replaced))[:3]]
    once = list(edits.exchanges(true))
    swaps = filter(edits.plausible, chain(once, *map(edits.exchanges, once)))
    false = {
        "atom": [foil.text for foil in edits.certainly_false(atoms, scene, true.text)],
        "swap": [foil.text for foil in edits.certainly_false(swaps, scene, true.text, 10)],
        "negate": edits.negations(true),
    }
    return {
        kind: [texts[k] for k in sorted(rng.permutation(len(texts))[:N_NEGATIVES])]
        for kind, texts in false.items()
    }
