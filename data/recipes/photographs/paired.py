"""Build the datasets of the profile `paired`, whose images show two photographs of Flickr8k.

Captions state what is where. Every test item has a mirror, an item in which true caption and hard
negative are exchanged, so a model that reads captions alone is right in half of them. A relation is
mirrored by the swapped photographs; "a brown dog to the left of a black shirt" by two others, of a
black dog and a brown shirt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from data.recipes import layouts
from data.recipes.datasets import Dataset, Image, Link
from data.recipes.layouts import Captioned
from data.recipes.photographs import versions
from data.recipes.photographs.flickr8k import BASE, similarity_dataset
from data.recipes.photographs.pairs import (
    ADJECTIVES,
    SIZE,
    Composite,
    Nouns,
    Pair,
    photographs,
    quadruples,
)
from data.recipes.synthetic_scenes.corpora import f_score

N_IMAGES = {"pretrain": 8000, "train": 4000, "valid": 500}
# Pairs of photographs for relations, and quadruples for adjectives.
TEST = 200
# Pairs and quadruples of `Redrawn`, or fewer if its rules leave no more.
TEST_REDRAWN = 600
RELATIONS = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
# Relations whose caption names the second photograph first.
SECOND_FIRST = ("right", "below")
HELD_OUT, SEEN = "pretrain/held_out.json", "pretrain/words.json"
"""What photographs show, by words of their captions: of others, and of the base's training."""


def state(relation: str, first: str, second: str) -> str:
    """Return the caption for a relation between an image's first and second phrase."""
    if relation in SECOND_FIRST:
        first, second = second, first
    return f"{first} {RELATIONS[relation]} {second}"


class Paired:
    """The datasets of three splits of photographs, whose files are in `folder`."""

    VERSION = versions.PAIRED

    def __init__(self, splits: Mapping[str, Sequence[Captioned]], folder: Path) -> None:
        train, valid, test = (
            photographs(splits[name], folder) for name in ("train", "dev", "test")
        )
        n = round(BASE * len(train))
        self.photographs = {"pretrain": train[:n], "train": train[n:], "valid": valid}
        self.nouns = Nouns(train)
        self.rng = np.random.default_rng(self.VERSION)
        self.test = test
        self.pairs = self.nouns.draw(test, TEST, self.rng)
        self.mirrored = quadruples(test, self.nouns.described, TEST, self.rng)
        # No training caption joins two phrases that a test item joins, in whatever order.
        self.tested = self._phrases()
        self.joined: set[frozenset[str]] = set()
        self.vocabulary = sorted({*self.nouns.counts, *self.nouns.described, *ADJECTIVES})

    def manifest(self, key: str, counts: dict[str, Any]) -> str:
        """Return the folder's manifest, with the share of tested phrases that training has, too."""
        phrases, seen = (frozenset().union(*some) for some in (self._phrases(), self.joined))
        repeated = {"phrases": [len(phrases & seen), len(phrases)]}
        return json.dumps(
            {"key": key, "version": self.VERSION, "counts": counts, "seen_in_training": repeated},
            indent=1,
        )

    def _phrases(self) -> set[frozenset[str]]:
        """Return the two phrases of each pair of the test."""
        every = (*self.pairs, *(pair for both in self.mirrored for pair in both))
        return {frozenset(pair.texts) for pair in every}

    def datasets(self) -> Iterator[Dataset]:
        """Yield pretraining, fine-tuning and validation captions, and the test items."""
        # In this order, since all draw from one generator.
        yield self._pretrain()
        yield from map(self._negclip, ("train", "valid"))
        yield from self._aro()
        yield self._similarity()

    def _draw(self, split: str) -> Iterator[Composite]:
        """Draw the images of a split."""
        n, some = N_IMAGES[split], self.photographs[split]
        # Two pairs of each quadruple: a third of the images have adjectives that can be swapped.
        mirrored = quadruples(some, self.nouns.described, n // 6, self.rng)
        pairs = [pair for both in mirrored for pair in both]
        for pair in pairs + self.nouns.draw(some, n - len(pairs), self.rng):
            if frozenset(pair.texts) in self.tested:
                continue
            # Neither noun has a usual place.
            if self.rng.random() < 0.5:
                pair = pair.reversed
            if split != "valid":
                self.joined.add(frozenset(pair.texts))
            yield Composite(pair, bool(self.rng.random() < 0.5))

    def _pretrain(self) -> Dataset:
        """Export images with captions that name what both photographs show, in both orders."""
        composites: dict[str, Composite] = {}
        for composite in self._draw("pretrain"):
            composites.setdefault(composite.name, composite)
        coco = layouts.coco(
            (
                {"id": n, "file_name": name},
                [{"caption": " and ".join(pair.texts)} for pair in (one.pair, one.pair.reversed)],
            )
            for n, (name, one) in enumerate(composites.items())
        )
        texts = {
            "pretrain/annotations/captions_pretrain.json": coco,
            SEEN: self._words(composites),
        }
        link = Link(Path("../pictures"))
        links = {"pretrain/images": link, "coco/images": link, "aro/images": link}
        counts = {"pictures": len(composites)}
        return Dataset("pretrain", links | _image_files(composites), texts, counts)

    def _words(self, composites: Mapping[str, Composite]) -> str:
        """Return the `vocabulary`, and what the base's image tower learns of it from images."""
        rows = [
            {
                "file_name": name,
                "upright": upright,
                "nouns": [pair.a.noun, pair.b.noun],
                "words": [
                    [n for n, word in enumerate(self.vocabulary) if word in photograph.lemmas]
                    for photograph in (pair.p, pair.q)
                ],
            }
            for name, (pair, upright) in composites.items()
        ]
        return json.dumps({"words": self.vocabulary, "pictures": rows}) + "\n"

    def _negclip(self, split: str) -> Dataset:
        """Export NegCLIP's file: both captions of an image, with phrases or adjectives swapped."""
        composites: dict[str, Composite] = {}
        rows = []
        for composite in self._draw(split):
            composites[composite.name] = composite
            texts = composite.pair.texts
            false = [both for both in (texts[::-1], composite.pair.swapped()) if both]
            rows += [
                (
                    state(relation, *texts),
                    f"pictures/{composite.name}",
                    [state(relation, *both) for both in false],
                    [],
                )
                for relation in composite.relations
            ]
        files = {f"coco/{split}_neg_clip.tsv": layouts.negclip(rows)}
        if split == "valid":
            files[HELD_OUT] = self._words(composites)
        counts = {"pictures": len(composites), "captions": len(rows)}
        return Dataset(split, _image_files(composites), files, counts)

    def _aro(self) -> Iterator[Dataset]:
        """Yield the items with the captions of their images, and the number of these captions."""
        dataset = Dataset("aro")
        rows: list[layouts.Row] = []
        for pair, upright in product(self.pairs, (False, True)):
            for one in (pair, pair.reversed):
                composite = Composite(one, upright)
                dataset.images[f"aro/images/{composite.name}"] = composite
                for relation in composite.relations:
                    false = one.texts[::-1]
                    rows.append(_aro_row(composite, relation, false, relation_name=relation))
        layouts.add_aro(dataset, "relation", rows)
        asked, rows = rows, []
        for both, upright in product(self.mirrored, (False, True)):
            # Both images of a quadruple alike, or the mirror would have another caption.
            is_reversed = self.rng.random() < 0.5
            for pair in both:
                one = pair.reversed if is_reversed else pair
                composite = Composite(one, upright)
                dataset.images[f"aro/images/{composite.name}"] = composite
                words = sorted([one.a.adjective, one.b.adjective])
                for relation in composite.relations:
                    rows.append(_aro_row(composite, relation, one.swapped(), attributes=words))
        layouts.add_aro(dataset, "attribution", rows)
        captions: dict[str, dict[str, None]] = {}
        for row in asked + rows:
            captions.setdefault(row["image_path"], {})[row["true_caption"]] = None
        dataset.texts["coco/coco_karpathy_test.json"] = layouts.caption_list(
            Captioned(n, f"images/{name}", list(texts))
            for n, (name, texts) in enumerate(captions.items())
        )
        yield dataset
        yield Dataset("order", counts={"coco": sum(map(len, captions.values()))})

    def _similarity(self) -> Dataset:
        """Return each caption with a paraphrase, its swap, a changed caption and another caption.

        The score is 5 times the overlap of what they state: two phrases, and what is where.
        """
        rows = []
        for number, pair in enumerate(self.pairs):
            relation, reverse = Composite(pair, bool(number % 2)).relations
            (a, b), (c, d) = pair.texts, self.pairs[(number + 1) % len(self.pairs)].texts
            for texts, stated_by in (
                ((a, b), reverse),
                ((b, a), relation),
                ((a, d), relation),
                ((c, d), relation),
            ):
                score = 5 * f_score(frozenset((a, b, (a, b))), frozenset((*texts, texts)))
                rows.append((state(relation, a, b), state(stated_by, *texts), score))
        return similarity_dataset(rows)


class Redrawn(Paired):
    """The datasets of `Paired` with test items drawn anew, from the same photographs."""

    def _aro(self) -> Iterator[Dataset]:
        # A generator of its own, and only now: training and validation data are those of `Paired`.
        rng = np.random.default_rng([self.VERSION, 1])
        used = self.tested | self.joined
        words = {word for both in self.joined for text in both for word in text.split()}

        # Every word occurs in a training caption, but nothing joins the two phrases.
        def is_new(pair: Pair) -> bool:
            return frozenset(pair.texts) not in used and words.issuperset(
                " ".join(pair.texts).split()
            )

        # Twice as many as needed, because the rules reject some.
        drawn = self.nouns.draw(self.test, 2 * TEST_REDRAWN, rng)
        self.pairs = [pair for pair in drawn if is_new(pair)][:TEST_REDRAWN]
        mirrored = quadruples(self.test, self.nouns.described, 2 * TEST_REDRAWN, rng)
        self.mirrored = [both for both in mirrored if all(map(is_new, both))][:TEST_REDRAWN]
        yield from super()._aro()


def _aro_row(
    composite: Composite, relation: str, false: Sequence[str], **fields: Any
) -> layouts.Row:
    """Return an item about an image, for a relation that holds in it."""
    true, negative = state(relation, *composite.pair.texts), state(relation, *false)
    return layouts.aro_row(composite.name, (0, 0, SIZE, SIZE), true, negative, **fields)


def _image_files(composites: Mapping[str, Composite]) -> dict[str, Image]:
    return {f"pictures/{name}": composite for name, composite in composites.items()}
