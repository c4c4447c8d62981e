"""Build the sets of the profile `photo` from Flickr8k: captions and choices, in official layouts.

Pictures are linked. The first `BASE` of the training split are the base model's, the rest is for
fine-tuning; the choices ask about the test split, by words of the training split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cae_lib.config import paths
from cae_lib.data import layouts
from cae_lib.data.benchmarks import LAYOUTS
from cae_lib.data.captions import load_negclip_tsv
from cae_lib.data.layouts import Captioned, Export, Item
from cae_lib.data.negatives import similar_rows, swap_negatives
from cae_lib.data.similarity import FOLDER, STSB
from cae_lib.data.training_set import data_root, default_tagger
from cae_lib.evaluation.blind import CaptionModel
from cae_lib.models.clip import load_clip
from cae_lib.photo import flickr8k, foils
from cae_lib.photo.trunk import fill_trunk, trunk_features
from cae_lib.words.scene_graph import Graph
from cae_lib.world.build import MANIFEST, replacing, stored_key
from cae_lib.world.corpora import f_score

MODEL = "clip-photo"
VERSION = 2  # raise when code that decides captions or choices changes: all is built anew
BASE = 0.75  # share of the training split that the base model is trained on
LINKS = ("flickr8k", "pretrain/images", "coco/images", "coco/val2017", "half-truths/images",
         "aro/images")
ATOMS = 5  # false captions of an item of CREPE
Foil = tuple[Captioned, str, str]  # a picture, a true caption of it, and a false one


def build(profile: str) -> Path:
    """Write the sets of a profile of photographs, unless they are there; returns their folder.

    A DataError if Flickr8k is not in `data/raw/flickr8k`, or the folder cannot be written.
    """
    target, source = data_root(profile), paths().raw / "flickr8k"
    splits = flickr8k.load(source)
    known = json.dumps([VERSION, [[p.path, *p.captions] for s in splits.values() for p in s]])
    key = hashlib.sha256(known.encode()).hexdigest()[:12]
    if stored_key(target) == key:
        return target
    with replacing(target) as folder:
        counts: dict[str, Any] = {}

        def place(name: str) -> Path:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            return folder / name

        for name in LINKS:
            place(name).symlink_to(source / flickr8k.PICTURES, target_is_directory=True)
        for export in exports(splits, source / flickr8k.PICTURES):
            for path, text in export.texts.items():
                place(path).write_text(text, encoding="utf-8", newline="")
            for path, name in export.pictures.items():
                place(path).symlink_to(source / flickr8k.PICTURES / name)
            counts[export.name] = export.counts
        name_similar(folder)
        content = {"key": key, "version": VERSION, "counts": counts, "pictures": {
            split: len(pictures) for split, pictures in splits.items()}}
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    return target


def exports(splits: dict[str, list[Captioned]], pictures: Path) -> Iterator[Export]:
    """The sets, one at a time: captions first, then the choices."""
    train, dev, test = splits["train"], splits["dev"], splits["test"]
    n = round(BASE * len(train))
    pretrain = layouts.coco(({"id": p.number, "file_name": p.name},
                             [{"caption": text} for text in p.captions]) for p in train[:n])
    yield Export("pretrain", texts={"pretrain/annotations/captions_pretrain.json": pretrain})
    yield Export("coco", texts={
        "coco/train_neg_clip.tsv": _negclip(train[n:]),
        "coco/valid_neg_clip.tsv": _negclip(dev),
        "coco/coco_karpathy_test.json": layouts.caption_list(
            [replace(p, path=f"images/{p.path}") for p in test]),
    })
    yield Export("order", counts={"coco": sum(len(p.captions) for p in test)})
    yield from Choices(train, test, pictures).exports()


def _negclip(pictures: Sequence[Captioned]) -> str:
    """NegCLIP's file, for now without similar pictures, see `name_similar`."""
    captions = [(text, f"flickr8k/{p.path}") for p in pictures for text in p.captions]
    false = swap_negatives([text for text, _ in captions])
    return layouts.negclip([(*row, texts, []) for row, texts in zip(captions, false, strict=True)])


def name_similar(folder: Path) -> None:
    """Complete NegCLIP's training file by pictures that look alike to the image network."""
    path = folder / "coco" / "train_neg_clip.tsv"
    pairs = load_negclip_tsv(path, folder)
    clip = load_clip(MODEL)
    fill_trunk(clip.model)
    features = torch.from_numpy(trunk_features(clip, pairs.image_paths))
    names = [pairs.image_paths[i].relative_to(folder).as_posix() for i in pairs.image_index]
    similar = similar_rows(pairs, features)
    rows = list(zip(pairs.captions, names, pairs.negatives or [], similar, strict=True))
    path.write_text(layouts.negclip(rows), encoding="utf-8", newline="")


class Choices:
    """True and false captions of `test`, by the words and the language of `train`."""

    def __init__(
        self, train: Sequence[Captioned], test: Sequence[Captioned], pictures: Path
    ) -> None:
        self.pictures = pictures
        known = [(p.number, text) for p in train for text in p.captions]
        texts = [text for _, text in known]
        self.vocabulary = foils.Vocabulary(foils.words_of(texts), [n for n, _ in known])
        self.language = CaptionModel(texts).log_likelihood
        self.rng = np.random.default_rng([VERSION, len(texts)])
        self.test = [(p, text) for p in test for text in p.captions]
        words = foils.words_of([text for _, text in self.test])
        self.words = dict(zip([(p.path, text) for p, text in self.test], words, strict=True))
        self.swaps = foils.swaps([text for _, text in self.test])

    def exports(self) -> Iterator[Export]:
        """ARO; SugarCrepe's subsets, SugarCrepe++, CREPE, Half-Truths: an item a picture; STS-B."""
        single, triple = Export("sugarcrepe"), Export("sugarcrepe_pp")
        for subset, items in self._sugarcrepe().items():
            single.items[subset] = [Item([p.path], [text], [foil]) for p, text, foil in items]
            if subset.startswith("add"):
                continue
            triple.items[subset] = []
            for picture, caption, foil in items:
                others = [text for text in picture.captions if text != caption]
                if others:
                    second = others[self.rng.integers(len(others))]
                    triple.ask(subset, Item([picture.path], [caption, second], [foil]))
        for export in (self._aro(), single, triple, self._crepe(), self._half_truths()):
            yield export.lay_out()
        yield self._similarity()

    def _replacements(self, picture: Captioned, text: str, role: int | None) -> list[str]:
        others = [self.words[picture.path, other] for other in picture.captions]
        own = self.words[picture.path, text]
        return foils.replacements(text, own, others, self.vocabulary, self.rng, role)

    def _aro(self) -> Export:
        """NegCLIP's exchanges as they come, one of each kind and caption: nouns as relations, with
        "swap" for the relation, adjectives as attributes."""
        export = Export("aro", items={"relation": [], "attribution": []})
        for (picture, text), swapped in zip(self.test, self.swaps, strict=True):
            for end, subset in (("obj", "relation"), ("att", "attribution")):
                made = self._shuffled([foil for kind, foil in swapped if kind == end])[:1]
                more = {"relation_name": "swap"} if end == "obj" else {"attributes": ["swap"] * 2}
                for foil in made:
                    box = self._whole(picture)
                    export.ask(subset, Item([picture.path], [text], [foil], box, more))
        return export

    def _whole(self, picture: Captioned) -> tuple[int, int, int, int]:
        """The box of a whole picture."""
        with Image.open(self.pictures / picture.path) as image:
            return (0, 0, *image.size)

    def _shuffled(self, found: list) -> list:
        return [found[i] for i in self.rng.permutation(len(found))]

    def _sugarcrepe(self) -> dict[str, list[Foil]]:
        found: dict[str, list[Foil]] = {subset: [] for subset in LAYOUTS["sugarcrepe"].sizes}
        for (picture, text), swapped in zip(self.test, self.swaps, strict=True):
            made = {f"swap_{end}": self._shuffled([foil for kind, foil in swapped if kind == end])
                    for end in ("obj", "att")}
            made |= {f"replace_{end}": self._replacements(picture, text, role)
                     for end, role in foils.ROLES.items()}
            others = [self.words[picture.path, other] for other in picture.captions]
            added = foils.additions(text, self.words[picture.path, text], others, self.vocabulary,
                                    self.rng)
            made |= {f"add_{end}": texts for end, texts in added.items()}
            for subset, texts in made.items():
                likely = foils.chosen(text, texts, self._likelihood(subset), self.rng)
                if subset.startswith("swap") and not likely:
                    likely = texts[:1]
                for foil in likely:
                    found[subset].append((picture, text, foil))
        return {subset: self._balanced(self._one_each(items), self._likelihood(subset))
                for subset, items in found.items()}

    def _one_each(self, items: list) -> list:
        """Of items that begin with a picture one of each picture, drawn by chance."""
        return list({item[0].path: item for item in self._shuffled(items)}.values())

    def _likelihood(self, subset: str) -> Callable[[str], float]:
        """Log likelihood of a text, per word where the foil is always the longer text."""
        return partial(self.language, per_word=subset.startswith("add"))

    def _balanced(self, items: list[Foil], language: Callable[[str], float]) -> list[Foil]:
        """As many foils that language prefers to the truth as others, drawn by chance."""
        sides: tuple[list, list] = ([], [])
        for item in items:
            truth, foil = map(language, item[1:])
            sides[foil > truth].append(item)
        n = min(map(len, sides))
        return [side[i] for side in sides for i in sorted(self.rng.permutation(len(side))[:n])]

    def _crepe(self) -> Export:
        """Items of six captions, grouped by how many words bear a role."""
        export, found = Export("crepe"), []
        for picture, text in self.test:
            roles = [word.role for word in self.words[picture.path, text]]
            if not 4 <= len(roles) <= 12:
                continue
            made = self._replacements(picture, text, None)
            false = foils.chosen(text, made, self.language, self.rng, ATOMS)
            if false:
                counts = {f"n_{name}s": roles.count(role) for role, name in
                          enumerate(("object", "attribute", "relation"), start=1)}
                more = {"n": len(roles), "n_connected_components": 1} | counts
                item = Item([f"{picture.number}.jpg"], [text], false, self._whole(picture), more)
                found.append((picture, item))
        for picture, item in self._one_each(found):
            export.ask("atom", item, picture.path)
        return export

    def _half_truths(self) -> Export:
        """A part of a caption, and with something false or something true added."""
        export, texts = Export("half_truths"), [text for _, text in self.test]
        graphs = default_tagger().graphs(texts)
        found: list[tuple[Captioned, str, str, str, str]] = []
        for (picture, text), graph in zip(self.test, graphs, strict=True):
            for kind, anchor, full in _parts(graph):
                others = [self.words[picture.path, other] for other in picture.captions]
                added = f"{full[len(anchor):]} "
                placed = [replace(w, start=at, end=at + len(w.text))
                          for w in self.words[picture.path, text] if f" {w.text} " in added
                          for at in [len(anchor) + added.index(f" {w.text} ") + 1]]
                made = foils.replacements(full, placed, others, self.vocabulary, self.rng)
                half = foils.chosen(full, made, self.language, self.rng)
                if half:
                    found.append((picture, kind, anchor, half[0], full))
                    break
        for picture, kind, anchor, half, full in self._one_each(found):
            more = {"image": {"path": picture.path}, "triplet_type": kind}
            export.ask("flickr8k", Item([picture.path], [anchor, full], [half], more=more))
        return export


    def _similarity(self) -> Export:
        """Pairs of captions: of one picture, of one and that whose captions are most like its own,
        and of one and any other. Gold is 5 times how much of their pictures' other captions is the
        same, the mean `f_score` of each with each."""
        rng = np.random.default_rng(VERSION)
        pictures = list({picture.path: picture for picture, _ in self.test}.values())
        said = [[frozenset((word.role, word.text) for word in self.words[p.path, text])
                 for text in p.captions] for p in pictures]
        whole = [frozenset().union(*found) for found in said]
        rows = []
        for here, picture in enumerate(pictures):
            likeness = [f_score(whole[here], other) for other in whole]
            likeness[here] = -1.0
            far = (here + int(rng.integers(1, len(pictures)))) % len(pictures)
            for there in (here, int(np.argmax(likeness)), far):
                first, second, *rest = rng.permutation(flickr8k.CAPTIONS)
                others = ((said[here][m], said[there][n]) for m in rest for n in rest
                          if (here, m) != (there, n))
                gold = 5 * np.mean([f_score(a, b) for a, b in others if a or b])
                rows.append((picture.captions[first], pictures[there].captions[second], gold))
        texts = layouts.similarity(STSB, "test", rows, "Flickr8k")
        texts = {f"{FOLDER}/{path}": text for path, text in texts.items()}
        return Export("similarity", texts=texts, counts={f"{STSB}/test": len(rows)})


def _parts(graph: Graph) -> list[tuple[str, str, str]]:
    """Kind, anchor and full truth of each pair of things, and of each relation, of a caption."""
    spans = [entity["span"].lower() for entity in graph["entities"]]
    pairs = [("entity", a, f"{a} and {b}") for a, b in zip(spans, spans[1:], strict=False)]
    triples = [("relation", spans[r["subject"]],
                f"{spans[r['subject']]} {r['relation'].lower()} {spans[r['object']]}")
               for r in graph["relations"]]
    return triples + pairs
