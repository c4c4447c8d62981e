"""Text similarity: pairs of captions, scored by the facts that they share, not by people.

The parts are those of the real sets that are captions.
"""

from __future__ import annotations

from dataclasses import replace

from cae_lib.data import layouts
from cae_lib.data.similarity import SICKR, STSB
from cae_lib.world.config import WorldConfig
from cae_lib.world.grammar import Statement, describe
from cae_lib.world.scenes import Rng, Scene, again, sample_scene, text_generator
from cae_lib.world.vocabulary import COLORS, RELATIONS, admits

YEARS = {"STS12": "MSRvid", "STS14": "images", "STS15": "images"}
UNSCORED = 5  # in STS15 one pair of so many has no score, as most pairs of the real set
TRAINING_SHARE = 4
LEFT_OUT = {
    "STS13": "the real set has no captions",
    "STS16": "the real set has no captions",
    "STS12, STS14, STS15, other parts": "the real parts have no captions",
}


def export_similarity(config: WorldConfig) -> layouts.Export:
    """Three years of STS, STS-B and SICK, relative to the folder of the sets."""
    n = config.sizes.similarity
    export = layouts.Export("similarity", left_out=LEFT_OUT)
    for year, part in YEARS.items():
        sparse = year == "STS15"
        found = _pairs(config, year, n * UNSCORED // (UNSCORED - 1) + 1 if sparse else n)
        rows = [(a, b, 5 * f) for a, b, f in found]
        if sparse:
            rows[::UNSCORED] = [(a, b, None) for a, b, _ in rows[::UNSCORED]]
        export.texts |= layouts.similarity(year, part, rows)
        export.counts[year] = sum(gold is not None for *_, gold in rows)
    for split in ("train", "dev", "test"):
        size = n if split == "test" else n // TRAINING_SHARE
        found = _pairs(config, f"STS-B/{split}", size)
        rows = [(a, b, 5 * f, *["drawn"] * (i % 4 == 3)) for i, (a, b, f) in enumerate(found)]
        export.texts |= layouts.similarity(STSB, split, rows, "small world")
        rows = [(a, b, 1 + 4 * f) for a, b, f in _pairs(config, f"SICK/{split}", size)]
        export.texts |= layouts.similarity(SICKR, split, rows)
        export.counts |= {f"{STSB}/{split}": size, f"{SICKR}/{split}": size}
    return export


def facts(caption: Statement) -> frozenset[tuple[str, ...]]:
    """The nouns, adjectives and relation of a caption; a right of b is the fact b left of a."""
    found: set[tuple[str, ...]] = {(mention.noun,) for mention in caption.mentions}
    found |= {(mention.noun, word) for mention in caption.mentions for word in mention.attributes}
    if caption.relation is not None:
        first, second = (mention.noun for mention in caption.mentions[:2])
        name, inverse = caption.relation, RELATIONS[caption.relation].inverse
        turned = inverse is not None and inverse < name
        found.add((second, inverse, first) if turned else (first, name, second))
    return frozenset(found)


def f_score(first: frozenset[tuple[str, ...]], second: frozenset[tuple[str, ...]]) -> float:
    """Harmonic mean of precision and recall of one set of facts against the other."""
    return 2 * len(first & second) / (len(first) + len(second))


def _pairs(config: WorldConfig, split: str, n: int) -> list[tuple[str, str, float]]:
    """`n` pairs of captions with their F-scores, of one picture to unrelated ones by turns."""
    pairs = []
    for index in range(n):
        rng = text_generator(config.scenes, f"similarity/{split}", index)
        scene = sample_scene(config.scenes, f"similarity/{split}", index)
        other = _changed(scene, index % 5, rng)
        if other is None:
            other = sample_scene(config.scenes, f"similarity/{split}/other", index)
        first, second = (describe(shown, config.sentences, rng) for shown in (scene, other))
        if rng.random() >= 0.5:
            first, second = second, first
        pairs.append((first.text, second.text, f_score(facts(first), facts(second))))
    return pairs


def _changed(scene: Scene, kind: int, rng: Rng) -> Scene | None:
    """The scene as it is, with arguments (or colours) exchanged, another colour or relation."""
    content = scene.content
    if kind == 1:
        return again(scene, content.exchanged(*([] if content.swappable() else ["color"])))
    if kind == 2:
        which = int(rng.integers(2))
        colors = [color for color in COLORS if color != content.things[which].color]
        return again(scene, content.with_thing(which, color=str(rng.choice(colors))))
    if kind == 3:
        a, b = (thing.noun for thing in content.things[:2])
        names = [name for name in RELATIONS if name != content.relation and admits(a, name, b)]
        return again(scene, replace(content, relation=str(rng.choice(names))))
    return scene if kind == 0 else None
