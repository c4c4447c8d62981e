"""Build the datasets of the profile `photo`: captions of Flickr8k, and items made from them.

The first images of the training split, the share `BASE`, train the base model; the rest is for
fine-tuning. Items ask about the test split, with words of the training split.
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

from cae_bench.benchmarks import sugarcrepe
from cae_bench.blind import TrigramModel
from cae_lab.training_set import default_tagger
from cae_lib.data.negatives import swap_negatives
from cae_lib.words.scene_graph import SceneGraph
from data.recipes import layouts
from data.recipes.datasets import Dataset, Link
from data.recipes.layouts import Captioned
from data.recipes.photographs import negatives, versions
from data.recipes.photographs.flickr8k import BASE, CAPTIONS, similarity_dataset
from data.recipes.photographs.negatives import ParsedCaption, shuffled
from data.recipes.synthetic_scenes.corpora import f_score

LINKS = (
    "flickr8k",
    "pretrain/images",
    "coco/images",
    "coco/val2017",
    "half-truths/images",
    "aro/images",
)
# Of an item of CREPE.
N_NEGATIVES = 5
# Words that bear a role in a caption of CREPE.
LENGTHS = range(4, 13)
Item = tuple[Captioned, str, str]  # an image, a true caption of it, and a hard negative


class Single:
    """The datasets of three splits of photographs, whose files are in `folder`."""

    VERSION = versions.SINGLE

    def __init__(self, splits: Mapping[str, Sequence[Captioned]], folder: Path) -> None:
        self.splits, self.folder = splits, folder

    def manifest(self, key: str, counts: dict[str, Any]) -> str:
        """Return the text of the folder's manifest."""
        sizes = {split: len(images) for split, images in self.splits.items()}
        return json.dumps(
            {"key": key, "version": self.VERSION, "counts": counts, "pictures": sizes},
            indent=1,
            sort_keys=True,
        )

    def datasets(self) -> Iterator[Dataset]:
        """Yield captions, ARO, SugarCrepe, SugarCrepe++, CREPE, Half-Truths and STS-B."""
        train, test = self.splits["train"], self.splits["test"]
        n = round(BASE * len(train))
        pretrain = layouts.coco(
            ({"id": p.number, "file_name": p.name}, [{"caption": text} for text in p.captions])
            for p in train[:n]
        )
        yield Dataset(
            "pretrain",
            {name: Link(self.folder) for name in LINKS},
            {"pretrain/annotations/captions_pretrain.json": pretrain},
        )
        listed = layouts.caption_list(replace(p, path=f"images/{p.path}") for p in test)
        texts = {
            "coco/train_neg_clip.tsv": _negclip(train[n:]),
            "coco/valid_neg_clip.tsv": _negclip(self.splits["dev"]),
            "coco/coco_karpathy_test.json": listed,
        }
        yield Dataset("coco", texts=texts)
        yield Dataset("order", counts={"coco": sum(len(p.captions) for p in test)})
        self._read(train, test)
        # In this order, since all draw from one generator.
        items = self._sugarcrepe_items()
        triples = self._sugarcrepe_pp(items)
        yield self._aro()
        yield self._sugarcrepe(items)
        yield triples
        yield self._crepe()
        yield self._half_truths()
        yield self._similarity()

    def _read(self, train: Sequence[Captioned], test: Sequence[Captioned]) -> None:
        """Read the vocabulary and the language model of `train`, and the captions of `test`."""
        texts = [text for p in train for text in p.captions]
        numbers = [p.number for p in train for _ in p.captions]
        self.vocabulary = negatives.Vocabulary(negatives.words_of(texts), numbers)
        self.language = TrigramModel(texts).log_likelihood
        self.rng = np.random.default_rng([self.VERSION, len(texts)])
        captions = [text for p in test for text in p.captions]
        words, swaps = iter(negatives.words_of(captions)), iter(negatives.swaps(captions))
        # Each with its image, and its swaps of nouns ("obj") and of adjectives ("att").
        self.captions: list[tuple[Captioned, ParsedCaption, Mapping[str, list[str]]]] = []
        for image in test:
            others = [next(words) for _ in image.captions]
            parsed = map(ParsedCaption, image.captions, others, repeat(others))
            self.captions += zip(repeat(image), parsed, swaps)

    def _one_per_image(self, items: list) -> list:
        """Draw one item of each image at random; items begin with their image."""
        return list({item[0].path: item for item in shuffled(items, self.rng)}.values())

    def _whole(self, image: Captioned) -> tuple[int, int, int, int]:
        """Return the box of a whole image."""
        with Image.open(self.folder / image.path) as file:
            return (0, 0, *file.size)

    def _aro(self) -> Dataset:
        """Return NegCLIP's swaps, one of each kind for each caption, not chosen by likelihood."""
        rows: dict[str, list[layouts.Row]] = {"relation": [], "attribution": []}
        kinds: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("obj", "relation", {"relation_name": "swap"}),
            ("att", "attribution", {"attributes": ["swap"] * 2}),
        )
        for image, caption, swaps in self.captions:
            for end, subset, fields in kinds:
                for text in shuffled(swaps[end], self.rng)[:1]:
                    box = self._whole(image)
                    rows[subset].append(
                        layouts.aro_row(image.path, box, caption.text, text, **fields)
                    )
        dataset = Dataset("aro")
        for subset, items in rows.items():
            layouts.add_aro(dataset, subset, items)
        return dataset

    def _sugarcrepe_items(self) -> dict[str, list[Item]]:
        """Return the items of each subset; a language model is right in half of them."""
        items: dict[str, list[Item]] = {subset: [] for subset in sugarcrepe.FAMILY.published_counts}
        for image, caption, swaps in self.captions:
            texts = {f"swap_{end}": shuffled(swaps[end], self.rng) for end in ("obj", "att")}
            texts |= {
                f"replace_{end}": self.vocabulary.replacements(caption, self.rng, role)
                for end, role in negatives.ROLES.items()
            }
            added = self.vocabulary.additions(caption, self.rng)
            texts |= {f"add_{end}": some for end, some in added.items()}
            for subset, some in texts.items():
                selected = negatives.choose_negatives(
                    caption.text, some, self._likelihood(subset), self.rng
                )
                # A caption has few swaps: one of the other rank is better than none.
                if subset.startswith("swap") and not selected:
                    selected = some[:1]
                items[subset] += [(image, caption.text, text) for text in selected]
        return {
            subset: self._balanced(self._one_per_image(some), self._likelihood(subset))
            for subset, some in items.items()
        }

    def _likelihood(self, subset: str) -> Callable[[str], float]:
        """Return the log likelihood of texts, per word for additions."""
        # An addition is always longer, and so nearly always less likely as a whole.
        return partial(self.language, per_word=subset.startswith("add"))

    def _balanced(self, items: list[Item], language: Callable[[str], float]) -> list[Item]:
        """Return as many items in which `language` prefers the negative as in which it does not."""
        sides: tuple[list, list] = ([], [])
        for item in items:
            truth, negative = map(language, item[1:])
            sides[negative > truth].append(item)
        n = min(map(len, sides))
        return [side[i] for side in sides for i in sorted(self.rng.permutation(len(side))[:n])]

    def _sugarcrepe(self, items: Mapping[str, list[Item]]) -> Dataset:
        dataset = Dataset("sugarcrepe")
        for subset, some in items.items():
            layouts.add_sugarcrepe(dataset, subset, [(i.path, *texts) for i, *texts in some])
        return dataset

    def _sugarcrepe_pp(self, items: Mapping[str, list[Item]]) -> Dataset:
        """Return SugarCrepe's items, except for additions, with a second true caption."""
        dataset = Dataset("sugarcrepe_pp")
        for subset, some in items.items():
            if subset.startswith("add"):
                continue
            rows = []
            for image, caption, negative in some:
                others = [text for text in image.captions if text != caption]
                if others:
                    second = others[self.rng.integers(len(others))]
                    rows.append((image.path, caption, second, negative))
            layouts.add_sugarcrepe_pp(dataset, subset, rows)
        return dataset

    def _crepe(self) -> Dataset:
        """Return one true caption and five hard negatives, by the number of words with a role."""
        dataset, items = Dataset("crepe"), []
        for image, caption, _ in self.captions:
            roles = [word.role for word in caption.words]
            if len(roles) not in LENGTHS:
                continue
            texts = self.vocabulary.replacements(caption, self.rng)
            false = negatives.choose_negatives(
                caption.text, texts, self.language, self.rng, N_NEGATIVES
            )
            if false:
                counts = {
                    f"n_{name}s": roles.count(role)
                    for role, name in enumerate(("object", "attribute", "relation"), start=1)
                }
                counts |= {"n": len(roles), "n_connected_components": 1}
                box, name = self._whole(image), f"{image.number}.jpg"
                row = layouts.crepe_row(name, caption.text, false, box, **counts)
                items.append((image, row))
        # Only the images of the items that are left are linked.
        rows = []
        for image, row in self._one_per_image(items):
            rows.append(row)
            link = Link(self.folder / image.path)
            dataset.images[f"crepe/VG_100K/{image.number}.jpg"] = link
        layouts.add_crepe(dataset, "atom", rows)
        return dataset

    def _half_truths(self) -> Dataset:
        """Return a part of a caption, and the part with something true and with something false."""
        dataset, items = Dataset("half_truths"), []
        graphs = default_tagger().graphs([caption.text for _, caption, _ in self.captions])
        for (image, caption, _), graph in zip(self.captions, graphs, strict=True):
            for kind, anchor, full in clauses(graph):
                # Only words of the addition are replaced, at their places in the clause.
                added = f"{full[len(anchor) :]} "
                words = [
                    replace(word, start=at, end=at + len(word.text))
                    for word in caption.words
                    if (at := len(anchor) + 1 + added.find(f" {word.text} ")) > len(anchor)
                ]
                clause = replace(caption, text=full, words=words)
                texts = self.vocabulary.replacements(clause, self.rng)
                half = negatives.choose_negatives(full, texts, self.language, self.rng)
                if half:
                    items.append((image, kind, anchor, half[0], full))
                    break
        rows = [(image.path, *texts) for image, *texts in self._one_per_image(items)]
        layouts.add_half_truths(dataset, "flickr8k", rows)
        return dataset

    def _similarity(self) -> Dataset:
        """Return pairs of captions of one image, of two similar images, and of any two images."""
        # A generator of its own, so that pairs do not depend on the items before.
        rng = np.random.default_rng(self.VERSION)
        by_path = {image.path: (image, caption.others) for image, caption, _ in self.captions}
        images = [image for image, _ in by_path.values()]
        facts = [
            [frozenset((word.role, word.text) for word in words) for words in captions]
            for _, captions in by_path.values()
        ]
        whole = [frozenset().union(*each) for each in facts]
        rows = []
        for here, image in enumerate(images):
            likeness = [f_score(whole[here], other) for other in whole]
            likeness[here] = -1.0
            far = (here + int(rng.integers(1, len(images)))) % len(images)
            for there in (here, int(np.argmax(likeness)), far):
                # Scored by the images' other captions, each with each: the two captions do not
                # decide their own score.
                first, second, *rest = rng.permutation(CAPTIONS)
                pairs = (
                    (facts[here][m], facts[there][n])
                    for m in rest
                    for n in rest
                    if (here, m) != (there, n)
                )
                score = 5 * np.mean([f_score(a, b) for a, b in pairs if a or b])
                rows.append((image.captions[first], images[there].captions[second], score))
        return similarity_dataset(rows)


def _negclip(images: Sequence[Captioned]) -> str:
    """Return NegCLIP's file without similar images."""
    captions = [(text, f"flickr8k/{p.path}") for p in images for text in p.captions]
    false = swap_negatives([text for text, _ in captions])
    return layouts.negclip([(*row, texts, []) for row, texts in zip(captions, false, strict=True)])


def clauses(graph: SceneGraph) -> list[tuple[str, str, str]]:
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
