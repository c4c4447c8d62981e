"""Text similarity in SentEval's layout: two captions, scored by what their gold graphs share.

The score is the F-score of two sets of facts: things, adjectives of things, relations between
things, each thing named by its noun. It stands in for the people who scored the real sets. The
parts are those of the real sets that consist of captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cae_lib.data.similarity import FILES, SICKR, STSB
from cae_lib.world.config import WorldConfig
from cae_lib.world.export import Export
from cae_lib.world.grammar import Caption, describe
from cae_lib.world.scenes import Scene, again, sample_scene, text_generator
from cae_lib.world.vocabulary import COLORS, RELATIONS, admits

YEARS = {"STS12": "MSRvid", "STS14": "images", "STS15": "images"}
UNSCORED = 5
"""In STS15 one pair of so many has no score, as most pairs of the real set."""

TRAINING_SHARE = 4
SICK_HEADER = ("pair_ID", "sentence_A", "sentence_B", "relatedness_score", "entailment_judgment")
LEFT_OUT = {
    "STS13": "the real set has no captions",
    "STS16": "the real set has no captions",
    "STS12, STS14, STS15, other parts": "the real parts have no captions",
}
Fact = tuple[str, ...]


class Pair(NamedTuple):
    """Two captions and the F-score, from 0 to 1, of what they state."""

    first: str
    second: str
    score: float


def export_similarity(config: WorldConfig) -> Export:
    """Three years of STS, STS-B and SICK, relative to the folder of the sets.

    Scores run from 0 to 5, those of SICK from 1 to 5. Training and validation splits are smaller
    than the test splits. Some rows of STS-B have an eighth column, as the real ones.
    """
    n = config.sizes.similarity
    export = Export("similarity", left_out=LEFT_OUT)
    for year, part in YEARS.items():
        sparse = year == "STS15"
        pairs = _pairs(config, year, n * UNSCORED // (UNSCORED - 1) + 1 if sparse else n)
        golds = [f"{5 * pair.score:.3f}" for pair in pairs]
        if sparse:
            golds[::UNSCORED] = [""] * len(golds[::UNSCORED])
        export.tabs(f"STS/{year}-en-test/STS.input.{part}.txt", (pair[:2] for pair in pairs))
        export.tabs(f"STS/{year}-en-test/STS.gs.{part}.txt", ([gold] for gold in golds))
        export.counts[year] = sum(map(bool, golds))
    for split in ("train", "dev", "test"):
        size = n if split == "test" else n // TRAINING_SHARE
        rows = [
            ("main-captions", "small world", split, f"{i:04d}", f"{5 * score:.3f}", first, second)
            + (("drawn",) if i % 4 == 3 else ())
            for i, (first, second, score) in enumerate(_pairs(config, f"STS-B/{split}", size))
        ]
        export.tabs(FILES[STSB][split], rows)
        rows = [
            (str(i), first, second, f"{1 + 4 * score:.3f}", "NEUTRAL")
            for i, (first, second, score) in enumerate(_pairs(config, f"SICK/{split}", size), 1)
        ]
        export.tabs(FILES[SICKR][split], [SICK_HEADER, *rows])
        export.counts |= {f"{STSB}/{split}": size, f"{SICKR}/{split}": size}
    return export


def facts(scene: Scene, caption: Caption) -> frozenset[Fact]:
    """The things, adjectives and relations that a caption states, things named by their nouns.

    Two wordings of one relation are one fact: a right of b is b left of a.
    """
    nouns = [thing.noun for thing in scene.content.things]
    found: set[Fact] = {(nouns[i],) for i in caption.objects}
    found |= {(nouns[i], word) for i, word in caption.attributes}
    for i, name, j in caption.relations:
        inverse = RELATIONS[name].inverse
        turned = inverse is not None and inverse < name
        found.add((nouns[j], inverse, nouns[i]) if turned else (nouns[i], name, nouns[j]))
    return frozenset(found)


def f_score(first: frozenset[Fact], second: frozenset[Fact]) -> float:
    """Harmonic mean of precision and recall of one set of facts against the other."""
    return 2 * len(first & second) / (len(first) + len(second))


def _pairs(config: WorldConfig, split: str, n: int) -> list[Pair]:
    """`n` pairs, from the same picture to unrelated ones by turns."""
    return [_pair(config, f"similarity/{split}", index) for index in range(n)]


def _pair(config: WorldConfig, split: str, index: int) -> Pair:
    rng = text_generator(config.scenes, split, index)
    scene = sample_scene(config.scenes, split, index)
    other = _CHANGES[index % len(_CHANGES)](scene, rng)
    if other is None:
        other = sample_scene(config.scenes, f"{split}/other", index)
    first, second = (describe(shown, config.sentences, rng) for shown in (scene, other))
    score = f_score(facts(scene, first), facts(other, second))
    texts = (first.text, second.text) if rng.random() < 0.5 else (second.text, first.text)
    return Pair(*texts, score)


def _exchanged(scene: Scene, rng: np.random.Generator) -> Scene:
    """The arguments of the relation exchanged, where that can be shown, else the colours."""
    content = scene.content
    return again(scene, content.swapped() if content.swappable() else content.colors_exchanged())


def _recoloured(scene: Scene, rng: np.random.Generator) -> Scene:
    index = int(rng.integers(2))
    others = [color for color in COLORS if color != scene.content.things[index].color]
    return again(scene, scene.content.with_thing(index, color=str(rng.choice(others))))


def _related(scene: Scene, rng: np.random.Generator) -> Scene:
    """Another relation between the same things."""
    content = scene.content
    a, b = (thing.noun for thing in content.things[:2])
    names = [name for name in RELATIONS if name != content.relation and admits(a, name, b)]
    return again(scene, replace(content, relation=str(rng.choice(names))))


_CHANGES: Sequence = (
    lambda scene, rng: scene,
    _exchanged,
    _recoloured,
    _related,
    lambda scene, rng: None,  # a scene of its own
)
