"""Text similarity in SentEval's layout: two captions, scored by what their gold graphs share.

The score is the F-score of two sets of facts: things, adjectives of things, relations between
things, each thing named by its noun. It stands in for the people who scored the real sets. The
parts are those of the real sets that consist of captions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cae_lib.data.world.config import WorldConfig
from cae_lib.data.world.export.files import Export
from cae_lib.data.world.export.sampling import again, swappable, text_generator
from cae_lib.data.world.grammar import Caption, CaptionStyle, describe
from cae_lib.data.world.scenes import Scene, SceneConfig, sample_scene
from cae_lib.data.world.vocabulary import COLORS, RELATIONS, admits

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


@dataclass(frozen=True)
class Pair:
    """Two captions and the F-score, from 0 to 1, of what they state."""

    first: str
    second: str
    score: float


def export_similarity(config: WorldConfig) -> Export:
    """Write three years of STS, STS-B and SICK, relative to the folder of the sets.

    Scores run from 0 to 5, those of SICK from 1 to 5. Training and validation splits are smaller
    than the test splits. Some rows of STS-B have an eighth column, as the real ones.
    """
    n = config.sizes.similarity
    export = Export("similarity", left_out=LEFT_OUT)
    for year, part in YEARS.items():
        pairs = _pairs(config, year, n if year != "STS15" else n * UNSCORED // (UNSCORED - 1) + 1)
        scored = [year != "STS15" or index % UNSCORED > 0 for index in range(len(pairs))]
        folder = f"STS/{year}-en-test"
        rows = ((pair.first, pair.second) for pair in pairs)
        export.texts[f"{folder}/STS.input.{part}.txt"] = _table(rows)
        golds = (f"{5 * p.score:.3f}" if s else "" for p, s in zip(pairs, scored, strict=True))
        export.texts[f"{folder}/STS.gs.{part}.txt"] = _table((gold,) for gold in golds)
        export.counts[year] = sum(scored)
    for split, size in (("train", n // TRAINING_SHARE), ("dev", n // TRAINING_SHARE), ("test", n)):
        pairs = _pairs(config, f"STS-B/{split}", size)
        name = f"STS/STSBenchmark/sts-{split}.csv"
        export.texts[name] = _table(_benchmark_rows(pairs, split))
        sick = _pairs(config, f"SICK/{split}", size)
        name = {"train": "train", "dev": "trial", "test": "test_annotated"}[split]
        export.texts[f"SICK/SICK_{name}.txt"] = _table([SICK_HEADER, *_sick_rows(sick)])
        export.counts |= {f"STS-B/{split}": size, f"SICK-R/{split}": size}
    return export


def facts(scene: Scene, caption: Caption) -> frozenset[Fact]:
    """The things, adjectives and relations that a caption states, things named by their nouns.

    Two wordings of one relation are one fact: a right of b is b left of a.
    """
    nouns = [thing.noun for thing in scene.content.things]
    things = {(nouns[i],) for i in caption.objects}
    adjectives = {(nouns[i], word) for i, word in caption.attributes}
    relations = {_relation(nouns[i], name, nouns[j]) for i, name, j in caption.relations}
    return frozenset(things | adjectives | relations)


def _relation(subject: str, name: str, obj: str) -> Fact:
    inverse = RELATIONS[name].inverse
    turned = inverse is not None and inverse < name
    return (obj, inverse, subject) if turned else (subject, name, obj)


def f_score(first: frozenset[Fact], second: frozenset[Fact]) -> float:
    """Harmonic mean of precision and recall of one set of facts against the other."""
    return 2 * len(first & second) / (len(first) + len(second))


def _pairs(config: WorldConfig, split: str, n: int) -> list[Pair]:
    """`n` pairs, from the same picture to unrelated ones by turns."""
    name = f"similarity/{split}"
    return [_pair(config.scenes, config.sentences, name, index) for index in range(n)]


def _pair(scenes: SceneConfig, style: CaptionStyle, split: str, index: int) -> Pair:
    rng = text_generator(scenes, split, index)
    scene = sample_scene(scenes, split, index)
    other = _CHANGES[index % len(_CHANGES)](scene, rng)
    if other is None:
        other = sample_scene(scenes, f"{split}/other", index)
    first, second = describe(scene, style, rng), describe(other, style, rng)
    score = f_score(facts(scene, first), facts(other, second))
    pair = Pair(first.text, second.text, score)
    return pair if rng.random() < 0.5 else Pair(pair.second, pair.first, pair.score)


Change = Callable[[Scene, np.random.Generator], Scene | None]


def _same(scene: Scene, rng: np.random.Generator) -> Scene | None:
    return scene


def _exchanged(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """The arguments of the relation exchanged, where that can be shown, else the colours."""
    content = scene.content
    return again(scene, content.swapped() if swappable(content) else content.colors_exchanged())


def _recoloured(scene: Scene, rng: np.random.Generator) -> Scene | None:
    index = int(rng.integers(2))
    others = [color for color in COLORS if color != scene.content.things[index].color]
    return again(scene, scene.content.with_thing(index, color=str(rng.choice(others))))


def _related(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """Another relation between the same things."""
    content = scene.content
    a, b = (thing.noun for thing in content.things[:2])
    names = [name for name in RELATIONS if name != content.relation and admits(a, name, b)]
    return again(scene, replace(content, relation=str(rng.choice(names))))


def _unrelated(scene: Scene, rng: np.random.Generator) -> Scene | None:
    return None


_CHANGES: Sequence[Change] = (_same, _exchanged, _recoloured, _related, _unrelated)


def _benchmark_rows(pairs: Sequence[Pair], split: str) -> Iterator[tuple[str, ...]]:
    for index, pair in enumerate(pairs):
        row = ("main-captions", "small world", split, f"{index:04d}", f"{5 * pair.score:.3f}",
               pair.first, pair.second)  # fmt: skip
        yield (*row, "drawn") if index % 4 == 3 else row


def _sick_rows(pairs: Sequence[Pair]) -> Iterator[tuple[str, ...]]:
    for index, pair in enumerate(pairs, start=1):
        yield str(index), pair.first, pair.second, f"{1 + 4 * pair.score:.3f}", "NEUTRAL"


def _table(rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)
