"""Build the datasets of the profile `photo`: captions of Flickr8k, and items made from them.

An item asks to choose between a true caption and hard negatives.

Images are linked. The share `BASE` of the training split, its first images, trains the base model;
the rest is for fine-tuning. The items ask about the test split, with words of the training split.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cae_lib.data.benchmarks import sugarcrepe
from cae_lib.data.negatives import swap_negatives
from cae_lib.data.training_set import default_tagger
from cae_lib.evaluation.blind import CaptionModel
from cae_lib.photo import foils
from cae_lib.photo.flickr8k import BASE, CAPTIONS, Link, scored_pairs
from cae_lib.photo.foils import ParsedCaption, shuffled
from cae_lib.words.scene_graph import Graph
from cae_lib.world import layouts
from cae_lib.world.corpora import f_score
from cae_lib.world.layouts import Captioned, Export, Question

LINKS = (
    "flickr8k",
    "pretrain/images",
    "coco/images",
    "coco/val2017",
    "half-truths/images",
    "aro/images",
)
ATOMS = 5  # false captions of an item of CREPE
LENGTHS = range(4, 13)  # words that bear a role in a caption of CREPE
Foil = tuple[Captioned, str, str]  # a picture, a true caption of it, and a false one


class Choices:
    """The datasets of three splits of photographs, whose files are in the folder `pictures`."""

    VERSION = 2  # raise when code that decides captions or choices changes: all is built anew

    def __init__(self, splits: Mapping[str, Sequence[Captioned]], pictures: Path) -> None:
        self.splits, self.pictures = splits, pictures

    def manifest(self, key: str, counts: dict[str, Any]) -> str:
        """Return the text of the folder's manifest."""
        sizes = {split: len(pictures) for split, pictures in self.splits.items()}
        return json.dumps(
            {"key": key, "version": self.VERSION, "counts": counts, "pictures": sizes},
            indent=1,
            sort_keys=True,
        )

    def exports(self) -> Iterator[Export]:
        """Yield captions, ARO, SugarCrepe, SugarCrepe++, CREPE, Half-Truths and STS-B.

        Except for ARO, a subset of a benchmark has one item for each image.
        """
        train, test = self.splits["train"], self.splits["test"]
        n = round(BASE * len(train))
        pretrain = layouts.coco(
            ({"id": p.number, "file_name": p.name}, [{"caption": text} for text in p.captions])
            for p in train[:n]
        )
        yield Export(
            "pretrain",
            {name: Link(self.pictures) for name in LINKS},
            texts={"pretrain/annotations/captions_pretrain.json": pretrain},
        )
        yield Export(
            "coco",
            texts={
                "coco/train_neg_clip.tsv": _negclip(train[n:]),
                "coco/valid_neg_clip.tsv": _negclip(self.splits["dev"]),
                "coco/coco_karpathy_test.json": layouts.caption_list(
                    [replace(p, path=f"images/{p.path}") for p in test]
                ),
            },
        )
        yield Export("order", counts={"coco": sum(len(p.captions) for p in test)})
        self._read(train, test)
        chosen = self._sugarcrepe()
        single = Export(
            "sugarcrepe",
            items={
                subset: [Question([p.path], [text], [foil]) for p, text, foil in items]
                for subset, items in chosen.items()
            },
        )
        triple = self._sugarcrepe_pp(chosen)
        for export in (self._aro(), single, triple, self._crepe(), self._half_truths()):
            yield export.serialize()
        yield self._similarity()

    def _read(self, train: Sequence[Captioned], test: Sequence[Captioned]) -> None:
        """Read the vocabulary and the language of `train`, and the captions of `test`.

        Each caption of `test` is stored with its image and its swaps of nouns ("obj") and
        adjectives ("att").
        """
        texts = [text for p in train for text in p.captions]
        numbers = [p.number for p in train for _ in p.captions]
        self.vocabulary = foils.Vocabulary(foils.words_of(texts), numbers)
        self.language = CaptionModel(texts).log_likelihood
        self.rng = np.random.default_rng([self.VERSION, len(texts)])
        captions = [text for p in test for text in p.captions]
        words, swaps = iter(foils.words_of(captions)), iter(foils.swaps(captions))
        self.asked: list[tuple[Captioned, ParsedCaption, Mapping[str, list[str]]]] = []
        for picture in test:
            others = [next(words) for _ in picture.captions]
            said = map(ParsedCaption, picture.captions, others, repeat(others))
            self.asked += zip(repeat(picture), said, swaps)

    def _one_each(self, items: list) -> list:
        """Draw one item of each image at random; items begin with their image."""
        return list({item[0].path: item for item in shuffled(items, self.rng)}.values())

    def _whole(self, picture: Captioned) -> tuple[int, int, int, int]:
        """Return the box of a whole image."""
        with Image.open(self.pictures / picture.path) as image:
            return (0, 0, *image.size)

    def _aro(self) -> Export:
        """Return NegCLIP's swaps as they come, one of each kind for each caption.

        Swaps of nouns become relation items, whose relation is called "swap"; swaps of adjectives
        become attribution items.
        """
        export = Export("aro", items={"relation": [], "attribution": []})
        kinds = (
            ("obj", "relation", {"relation_name": "swap"}),
            ("att", "attribution", {"attributes": ["swap"] * 2}),
        )
        for picture, said, swaps in self.asked:
            for end, subset, more in kinds:
                for foil in shuffled(swaps[end], self.rng)[:1]:
                    export.add_item(
                        subset,
                        Question([picture.path], [said.text], [foil], self._whole(picture), more),
                    )
        return export

    def _sugarcrepe(self) -> dict[str, list[Foil]]:
        """Return the hard negatives of each file.

        A language model prefers half of them to the truth.
        """
        made: dict[str, list[Foil]] = {subset: [] for subset in sugarcrepe.FAMILY.published}
        for picture, said, swaps in self.asked:
            texts = {f"swap_{end}": shuffled(swaps[end], self.rng) for end in ("obj", "att")}
            texts |= {
                f"replace_{end}": self.vocabulary.replacements(said, self.rng, role)
                for end, role in foils.ROLES.items()
            }
            added = self.vocabulary.additions(said, self.rng)
            texts |= {f"add_{end}": some for end, some in added.items()}
            for subset, some in texts.items():
                likely = foils.choose_foils(said.text, some, self._likelihood(subset), self.rng)
                if subset.startswith("swap") and not likely:
                    likely = some[:1]
                made[subset] += [(picture, said.text, foil) for foil in likely]
        return {
            subset: self._balanced(self._one_each(items), self._likelihood(subset))
            for subset, items in made.items()
        }

    def _likelihood(self, subset: str) -> Callable[[str], float]:
        """Return the log likelihood of texts, per word where the hard negative is always longer."""
        return partial(self.language, per_word=subset.startswith("add"))

    def _balanced(self, items: list[Foil], language: Callable[[str], float]) -> list[Foil]:
        """Return as many hard negatives that the language model prefers to the truth as others."""
        sides: tuple[list, list] = ([], [])
        for item in items:
            truth, foil = map(language, item[1:])
            sides[foil > truth].append(item)
        n = min(map(len, sides))
        return [side[i] for side in sides for i in sorted(self.rng.permutation(len(side))[:n])]

    def _sugarcrepe_pp(self, chosen: Mapping[str, list[Foil]]) -> Export:
        """Return SugarCrepe's items, except for additions, with a second true caption."""
        export = Export("sugarcrepe_pp")
        for subset, items in chosen.items():
            if subset.startswith("add"):
                continue
            export.items[subset] = []
            for picture, caption, foil in items:
                others = [text for text in picture.captions if text != caption]
                if others:
                    second = others[self.rng.integers(len(others))]
                    export.add_item(subset, Question([picture.path], [caption, second], [foil]))
        return export

    def _crepe(self) -> Export:
        """Return items of one true caption and five hard negatives, grouped by complexity.

        The complexity is the number of words with a role.
        """
        export, items = Export("crepe"), []
        for picture, said, _ in self.asked:
            roles = [word.role for word in said.words]
            if len(roles) not in LENGTHS:
                continue
            made = self.vocabulary.replacements(said, self.rng)
            false = foils.choose_foils(said.text, made, self.language, self.rng, ATOMS)
            if false:
                more = {"n": len(roles), "n_connected_components": 1}
                more |= {
                    f"n_{name}s": roles.count(role)
                    for role, name in enumerate(("object", "attribute", "relation"), start=1)
                }
                box, name = self._whole(picture), f"{picture.number}.jpg"
                items.append((picture, Question([name], [said.text], false, box, more)))
        for picture, item in self._one_each(items):
            export.add_item("atom", item, Link(self.pictures / picture.path))
        return export

    def _half_truths(self) -> Export:
        """Return a part of a caption, and the part with something false or something true added."""
        export, items = Export("half_truths"), []
        graphs = default_tagger().graphs([said.text for _, said, _ in self.asked])
        for (picture, said, _), graph in zip(self.asked, graphs, strict=True):
            for kind, anchor, full in clauses(graph):
                added = f"{full[len(anchor) :]} "
                words = [
                    replace(word, start=at, end=at + len(word.text))
                    for word in said.words
                    if (at := len(anchor) + 1 + added.find(f" {word.text} ")) > len(anchor)
                ]
                clause = replace(said, text=full, words=words)
                made = self.vocabulary.replacements(clause, self.rng)
                half = foils.choose_foils(full, made, self.language, self.rng)
                if half:
                    items.append((picture, kind, anchor, half[0], full))
                    break
        for picture, kind, anchor, half, full in self._one_each(items):
            more = {"triplet_type": kind}
            export.add_item(
                "flickr8k", Question([picture.path], [anchor, full], [half], fields=more)
            )
        return export

    def _similarity(self) -> Export:
        """Return pairs of captions of one image, of two similar images, and of any two images.

        The ground-truth score is 5 times the overlap of the images' other captions, which is the
        mean `f_score` of each of them with each.
        """
        rng = np.random.default_rng(self.VERSION)
        others = {picture.path: (picture, said.others) for picture, said, _ in self.asked}
        pictures = [picture for picture, _ in others.values()]
        facts = [
            [frozenset((word.role, word.text) for word in words) for words in captions]
            for _, captions in others.values()
        ]
        whole = [frozenset().union(*each) for each in facts]
        rows = []
        for here, picture in enumerate(pictures):
            likeness = [f_score(whole[here], other) for other in whole]
            likeness[here] = -1.0
            far = (here + int(rng.integers(1, len(pictures)))) % len(pictures)
            for there in (here, int(np.argmax(likeness)), far):
                first, second, *rest = rng.permutation(CAPTIONS)
                pairs = (
                    (facts[here][m], facts[there][n])
                    for m in rest
                    for n in rest
                    if (here, m) != (there, n)
                )
                gold = 5 * np.mean([f_score(a, b) for a, b in pairs if a or b])
                rows.append((picture.captions[first], pictures[there].captions[second], gold))
        return scored_pairs(rows)


def _negclip(pictures: Sequence[Captioned]) -> str:
    """Return NegCLIP's file without similar images."""
    captions = [(text, f"flickr8k/{p.path}") for p in pictures for text in p.captions]
    false = swap_negatives([text for text, _ in captions])
    return layouts.negclip([(*row, texts, []) for row, texts in zip(captions, false, strict=True)])


def clauses(graph: Graph) -> list[tuple[str, str, str]]:
    """Return kind, anchor and full truth of each relation and each pair of things of a caption."""
    spans = [entity["span"].lower() for entity in graph["entities"]]
    pairs = [("entity", a, f"{a} and {b}") for a, b in zip(spans, spans[1:], strict=False)]
    triples = [
        (
            "relation",
            spans[r["subject"]],
            f"{spans[r['subject']]} {r['relation'].lower()} {spans[r['object']]}",
        )
        for r in graph["relations"]
    ]
    return triples + pairs
