"""Build the datasets of the profile `paired`, whose images show two photographs of Flickr8k.

The photographs are side by side or one above the other, and the captions state what is where.

Every test item has a mirror: its true caption is the hard negative of another item, and its hard
negative is the true caption of that item. So no model that reads captions alone is right in more
than half of the items. The mirror of a relation is the image with its two photographs swapped; "a
brown dog to the left of a black shirt" is mirrored by two other photographs, of a black dog and a
brown shirt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from cae_lib.photo.flickr8k import BASE, Link, scored_pairs
from cae_lib.photo.pairs import ADJECTIVES, SIZE, Composite, Nouns, photographs, quadruples
from cae_lib.world import layouts
from cae_lib.world.corpora import f_score
from cae_lib.world.layouts import Captioned, Export, Question

PICTURES = {"pretrain": 8000, "train": 4000, "valid": 500}
TEST = 200  # pairs of photographs for relations, and quadruples for adjectives
RELATIONS = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
TURNED = ("right", "below")  # of which the second photograph is named first
HELD_OUT, SEEN = "pretrain/held_out.json", "pretrain/words.json"
"""What the photographs of pictures show, by the words of their captions: the base's, and others."""


def caption(relation: str, first: str, second: str) -> str:
    """Return the caption that states a relation between an image's first and second phrase."""
    if relation in TURNED:
        first, second = second, first
    return f"{first} {RELATIONS[relation]} {second}"


class Paired:
    """The datasets of three splits of photographs, whose files are in the folder `pictures`."""

    VERSION = 1  # raise when code that decides pictures or captions changes: all is built anew

    def __init__(self, splits: Mapping[str, Sequence[Captioned]], pictures: Path) -> None:
        train, valid, test = (
            photographs(splits[name], pictures) for name in ("train", "dev", "test")
        )
        n = round(BASE * len(train))
        self.photographs = {"pretrain": train[:n], "train": train[n:], "valid": valid}
        self.nouns = Nouns(train)
        self.rng = np.random.default_rng(self.VERSION)
        self.pairs = self.nouns.draw(test, TEST, self.rng)
        self.mirrored = quadruples(test, self.nouns.described, TEST, self.rng)
        every = (*self.pairs, *(pair for both in self.mirrored for pair in both))
        self.asked = {frozenset(pair.texts) for pair in every}  # no training caption joins these
        self.seen: set[str] = set()  # phrases of training captions
        self.vocabulary = sorted({*self.nouns.counts, *self.nouns.described, *ADJECTIVES})

    def manifest(self, key: str, counts: dict[str, Any]) -> str:
        """Return the text of the folder's manifest.

        It includes how many phrases of the test occur in training captions, too, and how many
        phrases the test has.
        """
        phrases = frozenset().union(*self.asked)
        repeated = {"phrases": [len(phrases & self.seen), len(phrases)]}
        return json.dumps(
            {"key": key, "version": self.VERSION, "counts": counts, "seen_in_training": repeated},
            indent=1,
        )

    def exports(self) -> Iterator[Export]:
        """Yield captions of the base model, of fine-tuning and validation, and the test data.

        The test data are items and captions.
        """
        yield self._pretrain()
        yield from map(self._negclip, ("train", "valid"))
        yield from self._aro()
        yield self._similarity()

    def _drawn(self, split: str) -> Iterator[Composite]:
        """Draw the images of a split; a third of them have adjectives that can be swapped."""
        n, some = PICTURES[split], self.photographs[split]
        mirrored = quadruples(some, self.nouns.described, n // 6, self.rng)
        pairs = [pair for both in mirrored for pair in both]
        for pair in pairs + self.nouns.draw(some, n - len(pairs), self.rng):
            if frozenset(pair.texts) in self.asked:
                continue
            if self.rng.random() < 0.5:
                pair = pair.reversed
            if split != "valid":
                self.seen.update(pair.texts)
            yield Composite(pair, bool(self.rng.random() < 0.5))

    def _pretrain(self) -> Export:
        """Export images with captions that name what both photographs show, in both orders."""
        pictures: dict[str, Composite] = {}
        for composite in self._drawn("pretrain"):
            pictures.setdefault(composite.name, composite)
        coco = layouts.coco(
            (
                {"id": n, "file_name": name},
                [{"caption": " and ".join(one.texts)} for one in (shown.pair, shown.pair.reversed)],
            )
            for n, (name, shown) in enumerate(pictures.items())
        )
        texts = {"pretrain/annotations/captions_pretrain.json": coco, SEEN: self._words(pictures)}
        link = Link(Path("../pictures"))
        links = {"pretrain/images": link, "coco/images": link, "aro/images": link}
        return Export(
            "pretrain", links | _placed(pictures), texts=texts, counts={"pictures": len(pictures)}
        )

    def _words(self, pictures: Mapping[str, Composite]) -> str:
        """Return the `vocabulary`, and what the base's image tower learns of it from images."""
        rows = [
            {
                "file_name": name,
                "upright": upright,
                "nouns": [pair.a.noun, pair.b.noun],
                "words": [
                    [n for n, word in enumerate(self.vocabulary) if word in p.said]
                    for p in (pair.p, pair.q)
                ],
            }
            for name, (pair, upright) in pictures.items()
        ]
        return json.dumps({"words": self.vocabulary, "pictures": rows}) + "\n"

    def _negclip(self, split: str) -> Export:
        """Return NegCLIP's file: both captions of an image, with hard negatives.

        A hard negative swaps the caption's phrases or its adjectives.
        """
        pictures: dict[str, Composite] = {}
        rows = []
        for composite in self._drawn(split):
            pictures[composite.name] = composite
            texts = composite.pair.texts
            false = [both for both in (texts[::-1], composite.pair.exchanged()) if both]
            rows += [
                (
                    caption(relation, *texts),
                    f"pictures/{composite.name}",
                    [caption(relation, *both) for both in false],
                    [],
                )
                for relation in composite.relations
            ]
        files = {f"coco/{split}_neg_clip.tsv": layouts.negclip(rows)}
        if split == "valid":
            files[HELD_OUT] = self._words(pictures)
        counts = {"pictures": len(pictures), "captions": len(rows)}
        return Export(split, _placed(pictures), texts=files, counts=counts)

    def _aro(self) -> Iterator[Export]:
        """Yield the items with the captions of their images.

        The captions form Karpathy's list, and their number is exported, too.
        """
        export = Export("aro", items={"relation": [], "attribution": []})
        for pair, upright in product(self.pairs, (False, True)):
            for one in (pair, pair.reversed):
                _ask(export, "relation", Composite(one, upright), one.texts[::-1])
        for both, upright in product(self.mirrored, (False, True)):
            turned = self.rng.random() < 0.5
            for pair in both:
                one = pair.reversed if turned else pair
                _ask(export, "attribution", Composite(one, upright), one.exchanged())
        captions: dict[str, dict[str, None]] = {}
        for item in (item for items in export.items.values() for item in items):
            captions.setdefault(item.images[0], {})[item.captions[0]] = None
        listed = [
            Captioned(n, f"images/{name}", list(texts))
            for n, (name, texts) in enumerate(captions.items())
        ]
        export.serialize().texts["coco/coco_karpathy_test.json"] = layouts.caption_list(listed)
        yield export
        yield Export("order", counts={"coco": sum(map(len, captions.values()))})

    def _similarity(self) -> Export:
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
            for texts, how in (
                ((a, b), reverse),
                ((b, a), relation),
                ((a, d), relation),
                ((c, d), relation),
            ):
                gold = 5 * f_score(frozenset((a, b, (a, b))), frozenset((*texts, texts)))
                rows.append((caption(relation, a, b), caption(how, *texts), gold))
        return scored_pairs(rows)


def _ask(export: Export, subset: str, composite: Composite, false: Iterable[str]) -> None:
    """Add an item about an image for each of the two relations that hold in it."""
    pair = composite.pair
    for relation in composite.relations:
        truth, foil = caption(relation, *pair.texts), caption(relation, *false)
        more: dict[str, Any] = {"relation_name": relation}
        if subset == "attribution":
            more = {"attributes": sorted([pair.a.adjective, pair.b.adjective])}
        item = Question([composite.name], [truth], [foil], (0, 0, SIZE, SIZE), more)
        export.add_item(subset, item, composite)


def _placed(pictures: Mapping[str, Composite]) -> dict[str, Any]:
    return {f"pictures/{name}": composite for name, composite in pictures.items()}
