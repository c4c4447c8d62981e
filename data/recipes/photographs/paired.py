"""Build the datasets of the profile `paired`, whose images show two photographs of Flickr8k.

The photographs are side by side or one above the other, and the captions state what is where. The
profile `redrawn` has the same training and validation data, and test items drawn anew.

Every test item has a mirror: its true caption is the hard negative of another item, and its hard
negative is the true caption of that item. So no model that reads captions alone is right in more
than half of the items. The mirror of a relation is the image with its two photographs swapped; "a
brown dog to the left of a black shirt" is mirrored by two other photographs, of a black dog and a
brown shirt.
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
TEST = 200  # pairs of photographs for relations, and quadruples for adjectives
TEST_REDRAWN = 600  # pairs and quadruples of `Redrawn`, or fewer if its rules leave no more
RELATIONS = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
SECOND_FIRST = ("right", "below")  # relations that name the second photograph first
HELD_OUT, SEEN = "pretrain/held_out.json", "pretrain/words.json"
"""What the photographs of images show, by the words of their captions: the base's, and others."""


def state(relation: str, first: str, second: str) -> str:
    """Return the caption that states a relation between an image's first and second phrase."""
    if relation in SECOND_FIRST:
        first, second = second, first
    return f"{first} {RELATIONS[relation]} {second}"


class Paired:
    """The datasets of three splits of photographs, whose files are in `folder`."""

    VERSION = 1  # raise when code that decides images or captions changes: all is built anew

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
        self.tested = self._phrases()  # no training caption joins these
        self.joined: set[frozenset[str]] = set()  # the two phrases of each training caption
        self.vocabulary = sorted({*self.nouns.counts, *self.nouns.described, *ADJECTIVES})

    def manifest(self, key: str, counts: dict[str, Any]) -> str:
        """Return the text of the folder's manifest.

        It includes how many phrases of the test occur in training captions, too, and how many
        phrases the test has.
        """
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
        """Yield captions of the base model, of fine-tuning and validation, and the test data.

        The test data are items and captions.
        """
        yield self._pretrain()
        yield from map(self._negclip, ("train", "valid"))
        yield from self._aro()
        yield self._similarity()

    def _draw(self, split: str) -> Iterator[Composite]:
        """Draw the images of a split; a third of them have adjectives that can be swapped."""
        n, some = N_IMAGES[split], self.photographs[split]
        mirrored = quadruples(some, self.nouns.described, n // 6, self.rng)
        pairs = [pair for both in mirrored for pair in both]
        for pair in pairs + self.nouns.draw(some, n - len(pairs), self.rng):
            if frozenset(pair.texts) in self.tested:
                continue
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
        """Return NegCLIP's file: both captions of an image, with hard negatives.

        A hard negative swaps the caption's phrases or its adjectives.
        """
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
        """Yield the items with the captions of their images.

        The captions form Karpathy's list, and their number is exported, too.
        """
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
        """Return scored pairs of captions, four for each caption.

        A caption is paired with a paraphrase, with its swap, with a changed caption and with
        another caption.

        The changed caption has another second phrase. The ground-truth score is 5 times the overlap
        of what the two captions state (`f_score`): two phrases, and what is where.
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
    """The datasets of `Paired` with test items drawn anew, from the same photographs.

    No item joins two phrases that an item of `Paired` or a training caption joins, and every word
    of an item occurs in a training caption.
    """

    def _aro(self) -> Iterator[Dataset]:
        rng = np.random.default_rng([self.VERSION, 1])
        used = self.tested | self.joined
        words = {word for both in self.joined for text in both for word in text.split()}

        def is_new(pair: Pair) -> bool:
            return frozenset(pair.texts) not in used and words.issuperset(
                " ".join(pair.texts).split()
            )

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
