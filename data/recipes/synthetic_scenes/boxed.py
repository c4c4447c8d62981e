"""Write ARO and CREPE, whose images show two scenes; only a box tells which one is meant."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations, cycle

from data.recipes.datasets import Dataset
from data.recipes.layouts import Row, add_aro, add_crepe, aro_row, crepe_row
from data.recipes.synthetic_scenes import edits
from data.recipes.synthetic_scenes.config import WorldConfig
from data.recipes.synthetic_scenes.draw import Drawing
from data.recipes.synthetic_scenes.grammar import Mention, Statement, stated
from data.recipes.synthetic_scenes.scenes import (
    Rng,
    Scene,
    generator,
    rearranged,
    sample_scenes,
    spread,
    text_generator,
)
from data.recipes.synthetic_scenes.vocabulary import ADJECTIVES, KIND_OF, RELATIONS

# Numbers of atoms (objects, attributes and relations) in CREPE's captions.
COMPLEXITIES, N_NEGATIVES = range(4, 13), 5
ARO_LEFT_OUT = {
    "touching": "on ARO's list of symmetric relations",
    "holding": "nothing that is held can hold",
}

Box = tuple[int, int, int, int]
"""x, y, width and height in pixels."""


def draw_pairs(
    dataset: Dataset, folder: str, first: int, scenes: Sequence[Scene]
) -> list[tuple[str, Box]]:
    """Add images of two scenes each, numbered from `first`; return file and box of each scene."""
    boxes = []
    for index, start in enumerate(range(0, len(scenes), 2)):
        # The last of an odd number is beside the first.
        pair = [*scenes, scenes[0]][start : start + 2]
        drawing, name = Drawing(pair, vertical=bool(index % 2)), f"{first + index}.jpg"
        dataset.images[f"{folder}/{name}"] = drawing
        boxes += [(name, drawing.box(0)), (name, drawing.box(1))]
    return boxes[: len(scenes)]


def aro(config: WorldConfig) -> Dataset:
    """Write VG-Relation and VG-Attribution, balanced over relations and pairs of adjectives."""
    dataset, sizes = Dataset("aro"), config.sizes
    dataset.left_out = {f"relation: {name}": why for name, why in ARO_LEFT_OUT.items()}
    names = [name for name in RELATIONS if name not in ARO_LEFT_OUT]
    scenes = spread(config.scenes, "aro-relation", sizes.aro_relation, names, swappable=True)
    boxes, rows = draw_pairs(dataset, "aro/images", 1_000_001, scenes), []
    for (image, box), scene in zip(boxes, scenes, strict=True):
        true = stated(scene.content, article="the")
        false = edits.swapped(true, 0, 1)
        rows.append(aro_row(image, box, true.text, false.text, relation_name=true.relation))
    add_aro(dataset, "relation", rows)
    sampled = sample_scenes(config.scenes, "aro-attribution", sizes.aro_attribution)
    pairs = cycle(attribute_pairs(config.scenes.seed))
    described = [
        _with_adjectives(scene, words) for scene, words in zip(sampled, pairs, strict=False)
    ]
    boxes = draw_pairs(dataset, "aro/images", 2_000_001, [scene for scene, _ in described])
    rows = []
    for (image, box), (_, true) in zip(boxes, described, strict=True):
        false = edits.swapped(true, 0, 1, "attributes")
        words = [mention.attributes[0] for mention in true.mentions]
        rows.append(aro_row(image, box, true.text, false.text, attributes=words))
    add_aro(dataset, "attribution", rows)
    return dataset


def attribute_pairs(seed: int) -> list[tuple[str, str]]:
    """Return all pairs of adjectives of one kind, each in one order that `seed` decides."""
    rng = generator(seed, "attribute pairs")
    kinds = ("color", "pattern", "size")
    pairs = (pair for kind in kinds for pair in combinations(ADJECTIVES[kind], 2))
    return [(b, a) if rng.random() < 0.5 else (a, b) for a, b in pairs]


def _with_adjectives(scene: Scene, words: tuple[str, str]) -> tuple[Scene, Statement]:
    """Give the first two things of a scene these adjectives of one kind, and state the result."""
    content, mentions = scene.content, []
    for index, word in enumerate(words):
        content = content.with_thing(index, **{KIND_OF[word]: word})
        mentions.append(Mention(content.things[index].noun, (word,), "the"))
    return rearranged(scene, content), Statement(tuple(mentions), ("", "and", ""))


def crepe(config: WorldConfig) -> Dataset:
    """Write productivity items: captions of 4 to 12 atoms against five hard negatives.

    A caption has no item of a kind of which it has fewer hard negatives.
    """
    dataset, scenes = Dataset("crepe"), _crepe_scenes(config)
    rows: dict[str, list[Row]] = {"atom": [], "swap": [], "negate": []}
    boxes = draw_pairs(dataset, "crepe/VG_100K", 3_000_001, [scene for scene, _ in scenes])
    for index, ((scene, n), (name, box)) in enumerate(zip(scenes, boxes, strict=True)):
        rng = text_generator(config.scenes, "crepe", index)
        true = compound(scene, n, rng)
        n_objects = len(true.mentions)
        counts = {
            "n": n,
            "n_objects": n_objects,
            "n_relations": 1,
            "n_attributes": n - n_objects - 1,
            "n_connected_components": n_objects - 1,
        }
        for kind, texts in hard_negatives(true, scene, rng).items():
            if len(texts) == N_NEGATIVES:
                rows[kind].append(crepe_row(name, true.text, texts, [*map(float, box)], **counts))
    for kind, items in rows.items():
        add_crepe(dataset, kind, items)
    return dataset


def _crepe_scenes(config: WorldConfig) -> list[tuple[Scene, int]]:
    """Draw scenes, each with the number of atoms to state, equally often each number."""
    size = config.sizes.crepe
    missing = dict.fromkeys(COMPLEXITIES, -(-size // len(COMPLEXITIES)))
    drawn: list[tuple[Scene, int]] = []
    for scene in sample_scenes(config.scenes, "crepe", 20 * size):
        most = 1 + sum(1 + len(thing.attributes) for thing in scene.content.things)
        # Scenes with many atoms are rare: each gets the largest number that is still missing.
        n_atoms = max((n for n in COMPLEXITIES if n <= most and missing[n]), default=None)
        if len(drawn) == size:
            break
        if n_atoms is not None:
            drawn.append((scene, n_atoms))
            missing[n_atoms] -= 1
    return drawn


def compound(scene: Scene, n_atoms: int, rng: Rng) -> Statement:
    """Build a statement of `n_atoms` objects, attributes and relations, main pair first."""
    # Two nouns and the relation are always stated; a further thing takes one atom for its noun.
    main, budget = stated(scene.content), n_atoms - 3
    n_extras = min(len(scene.content.things) - 2, max(0, budget - 1) // 2)
    things = scene.content.things[: 2 + n_extras]
    words = [(thing, word) for thing in things for word in thing.attributes]
    stated_words = [words[k] for k in sorted(rng.permutation(len(words))[: budget - n_extras])]
    mentions = [
        Mention(thing.noun, tuple(word for owner, word in stated_words if owner is thing))
        for thing in things
    ]
    pieces = (*main.pieces[:2], *["and there is"] * n_extras, "")
    return Statement(tuple(mentions), pieces, main.relation)


def hard_negatives(true: Statement, scene: Scene, rng: Rng) -> dict[str, list[str]]:
    """Return up to five hard negatives of each of CREPE's kinds: "atom", "swap" and "negate"."""
    atoms = edits.attributes_changed(true, scene) + edits.relations_replaced(true, scene)
    for index in range(len(true.mentions)):
        replaced = edits.nouns_replaced(true, index, scene)
        atoms += [replaced[k] for k in rng.permutation(len(replaced))[:3]]
    # Few captions have five false swaps, so swaps of swaps follow.
    once = list(edits.swaps(true))
    swaps = filter(edits.plausible, chain(once, *map(edits.swaps, once)))
    false = {
        "atom": [other.text for other in edits.certainly_false(atoms, scene, true.text)],
        "swap": [other.text for other in edits.certainly_false(swaps, scene, true.text, 10)],
        "negate": edits.negations(true),
    }
    return {
        kind: [texts[k] for k in sorted(rng.permutation(len(texts))[:N_NEGATIVES])]
        for kind, texts in false.items()
    }
