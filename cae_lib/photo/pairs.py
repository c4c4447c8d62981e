"""Build the sets of the profile `side-by-side`: pictures of two photographs of Flickr8k, left and
right or above and below, and captions of what is where, in official layouts.

Every test item has a mirror: its true caption is the false one of another item, of which its false
one is true. So nothing that reads captions alone is right in more than half of the items. A
relation's mirror is the picture with its two photographs exchanged; "a brown dog to the left of a
black shirt" is mirrored by two other photographs, of a black dog and a brown shirt.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import spacy
from PIL import Image
from spacy.tokens import Doc

from cae_lib.config import paths
from cae_lib.data import layouts
from cae_lib.data.layouts import Captioned, Export, Item
from cae_lib.data.negatives import AMOUNTS
from cae_lib.data.similarity import FOLDER, STSB
from cae_lib.data.training_set import data_root
from cae_lib.photo import flickr8k, foils
from cae_lib.photo.build import BASE, name_similar
from cae_lib.runtime import Progress
from cae_lib.words.pipeline import drop_entity_recogniser, model_name, parse_distinct
from cae_lib.words.roles import OBJECT
from cae_lib.world.build import MANIFEST, replacing, stored_key
from cae_lib.world.corpora import f_score

VERSION = 1  # raise when code that decides pictures or captions changes: all is built anew
SIZE, QUALITY = 224, 90  # of a picture in pixels, of its JPEG
PICTURES = {"pretrain": 8000, "train": 4000, "valid": 500}
TEST = 200  # pairs of photographs for relations, and quadruples for adjectives
NOUNS, THINGS = 40, 16  # the commonest nouns that captions start with, and of `coloured` phrases
NO_THINGS = ("bunch", "leap", "race")  # what the parser makes of "a dog leaps"
LENGTH = (2, 4)  # words of a noun phrase

RELATIONS = {"left": "to the left of", "right": "to the right of", "above": "above",
             "below": "below"}
TURNED = ("right", "below")  # of which the second photograph is named first
SCALES = (  # adjectives of one scale in different groups cannot both be true of one thing
    (("black",), ("white",), ("grey", "gray"), ("brown", "tan", "yellow", "golden", "orange"),
     ("red", "pink"), ("blue", "purple"), ("green",)),
    (("young", "little", "small"), ("old", "older", "elderly")),
    (("small", "little"), ("large", "big")),
)
HELD_OUT, SEEN = "pretrain/held_out.json", "pretrain/words.json"
"""What the photographs of pictures show, by the words of their captions: the base's, and others."""


class Phrase(NamedTuple):
    """A noun phrase in lower case, its head as the dictionary has it, and the one adjective."""

    text: str
    noun: str
    adjective: str = ""

    def with_adjective(self, other: str) -> str:
        """The text with another adjective."""
        start = self.text.index(self.adjective)
        word = foils.Word(start, start + len(self.adjective), self.adjective, 0, "")
        return foils.replaced(self.text, word, other)


@dataclass(frozen=True)
class Photograph:
    """A photograph with the phrases that captions start with, those of "a", an adjective of
    `SCALES` and a noun, and all words of its captions as the dictionary has them."""

    number: int
    path: str
    firsts: tuple[Phrase, ...]
    coloured: tuple[Phrase, ...]
    said: frozenset[str]


@dataclass(frozen=True)
class Composite:
    """A picture of two photographs, the first left of the second, or above it if `upright`."""

    first: Photograph
    second: Photograph
    upright: bool

    @property
    def name(self) -> str:
        """Name of the file."""
        place = "above" if self.upright else "left"
        return f"{self.first.number}_{place}_{self.second.number}.jpg"

    def write(self, path: Path, folder: Path) -> None:
        """Write the picture to `path`, of the photographs in `folder`."""
        half = (SIZE, SIZE // 2) if self.upright else (SIZE // 2, SIZE)
        whole = Image.new("RGB", (SIZE, SIZE))
        for photograph, place in ((self.first, (0, 0)), (self.second, (SIZE, SIZE))):
            with Image.open(folder / photograph.path) as image:
                part = image.convert("RGB").resize(half, Image.Resampling.BICUBIC)
            corner = [max(0, a - b) for a, b in zip(place, half, strict=True)]
            whole.paste(part, tuple(corner))
        whole.save(path, quality=QUALITY)

    @property
    def relations(self) -> tuple[str, str]:
        """The two relations that hold, that of the first photograph first."""
        return ("above", "below") if self.upright else ("left", "right")


def caption(relation: str, first: str, second: str) -> str:
    """What a relation says of a picture's first and second phrase."""
    if relation in TURNED:
        first, second = second, first
    return f"{first} {RELATIONS[relation]} {second}"


def contradict(a: str, b: str) -> bool:
    """Whether two adjectives cannot both be true of one thing."""
    places = [[n for n, group in enumerate(scale) if word in group]
              for scale in SCALES for word in (a, b)]
    return any(x and y and x != y for x, y in zip(places[::2], places[1::2], strict=True))


def photographs(pictures: Sequence[Captioned]) -> list[Photograph]:
    """The photographs of a split, by spaCy's parse of their captions."""
    nlp = drop_entity_recogniser(spacy.load(model_name()))
    known = {word for scale in SCALES for group in scale for word in group}

    def read(doc: Doc) -> tuple[list[Phrase], list[Phrase], set[str]]:
        found = []
        for chunk in doc.noun_chunks:
            adjectives = [t.lower_ for t in chunk if t.pos_ == "ADJ" and t.lower_ not in AMOUNTS]
            owned = any(token.tag_ in ("PRP$", "POS") for token in chunk)
            only = adjectives[0] if len(adjectives) == 1 and adjectives[0] in known else ""
            phrase = Phrase(chunk.text.lower(), chunk.root.lemma_.lower(), only)
            fits = LENGTH[0] <= len(chunk) <= LENGTH[1] and phrase.noun not in NO_THINGS
            found.append(phrase if fits and not owned else None)
        coloured = [p for p in found if p and p.adjective and p.text in
                    (f"a {p.adjective} {p.noun}", f"an {p.adjective} {p.noun}")
                    and p.text == p.with_adjective(p.adjective)]  # "a orange ball" is not
        return list(filter(None, found[:1])), coloured, {t.lemma_.lower() for t in doc}

    parsed = iter(parse_distinct(nlp, [text for p in pictures for text in p.captions], read))
    made = []
    for picture in pictures:
        firsts, coloured, said = zip(*(next(parsed) for _ in picture.captions), strict=True)
        phrases = [tuple(dict.fromkeys(p for some in found for p in some))
                   for found in (firsts, coloured)]
        made.append(Photograph(picture.number, picture.path, *phrases, frozenset().union(*said)))
    return made


class Nouns:
    """The commonest nouns of photographs' phrases, how often they come, and which may be said of
    one thing."""

    def __init__(self, known: Sequence[Photograph]) -> None:
        said = [(p.number, [foils.Word(0, 0, phrase.noun, OBJECT, "")])
                for p in known for phrase in p.firsts]
        found = Counter(words[0].text for _, words in said)
        self.counts = dict(found.most_common(NOUNS))
        described = Counter(phrase.noun for p in known for phrase in p.coloured)
        self.described = {noun for noun, _ in described.most_common(THINGS)}
        self._vocabulary = foils.Vocabulary([words for _, words in said], [n for n, _ in said])

    def apart(self, a: Phrase, p: Photograph, b: Phrase, q: Photograph) -> bool:
        """Whether one phrase is of its photograph alone, and so the other one."""
        word = foils.Word(0, 0, a.noun, OBJECT, "")
        return not (a.noun == b.noun or a.noun in q.said or b.noun in p.said
                    or self._vocabulary.may_be_said_too(word, b.noun))

    def draw(self, known: Sequence[Photograph], n: int, rng: np.random.Generator) -> list[Pair]:
        """`n` pairs of phrases that are `apart`, or fewer if chance finds no more; each phrase is
        drawn by one over the root of how often its noun comes."""
        found = [(phrase, p) for p in known for phrase in p.firsts if phrase.noun in self.counts]
        shares = np.array([self.counts[phrase.noun] ** -0.5 for phrase, _ in found])
        pairs: dict[tuple[int, int], Pair] = {}
        for first, second in rng.choice(len(found), (20 * n, 2), p=shares / shares.sum()):
            (a, p), (b, q) = found[first], found[second]
            if self.apart(a, p, b, q):
                pairs.setdefault((p.number, q.number), Pair(a, p, b, q))
            if len(pairs) == n:
                break
        return list(pairs.values())


class Pair(NamedTuple):
    """Two phrases and the photographs that they are of."""

    a: Phrase
    p: Photograph
    b: Phrase
    q: Photograph

    @property
    def texts(self) -> tuple[str, str]:
        """The texts of the phrases."""
        return self.a.text, self.b.text

    @property
    def turned(self) -> Pair:
        """The second photograph first."""
        return Pair(self.b, self.q, self.a, self.p)

    def exchanged(self) -> tuple[str, str] | None:
        """The phrases with their adjectives exchanged, where that is false of both."""
        if not contradict(self.a.adjective, self.b.adjective):
            return None
        if self.b.adjective in self.p.said or self.a.adjective in self.q.said:
            return None
        return (self.a.with_adjective(self.b.adjective), self.b.with_adjective(self.a.adjective))


def quadruples(
    known: Sequence[Photograph], nouns: Iterable[str], n: int, rng: np.random.Generator
) -> list[tuple[Pair, Pair]]:
    """At most `n` pairs with their mirrors: two nouns, two adjectives that contradict each other,
    and four photographs, one of each noun with each adjective."""
    found: dict[tuple[str, str], list[tuple[Phrase, Photograph]]] = defaultdict(list)
    for photograph in known:
        for phrase in photograph.coloured:
            found[phrase.noun, phrase.adjective].append((phrase, photograph))
    adjectives = sorted({adjective for _, adjective in found})
    fitting: list[tuple[Pair, Pair]] = []
    for noun, other in combinations(sorted(nouns), 2):
        for a, b in combinations(adjectives, 2):
            four = [found[noun, a], found[other, b], found[noun, b], found[other, a]]
            if not (contradict(a, b) and all(four)):
                continue
            drawn = [[some[i] for i in rng.permutation(len(some))] for some in four]
            made = ((Pair(*p, *q), Pair(*r, *s)) for p, q, r, s in zip(*drawn, strict=False))
            fitting += [pairs for pairs in made if all(pair.exchanged() for pair in pairs)
                        and len({x.number for pair in pairs for x in (pair.p, pair.q)}) == 4]
    return [fitting[i] for i in rng.permutation(len(fitting))[:n]]


class Sets:
    """The sets of three splits of photographs."""

    def __init__(self, splits: Mapping[str, list[Captioned]]) -> None:
        train = photographs(splits["train"])
        n = round(BASE * len(train))
        self.parts = {"pretrain": train[:n], "train": train[n:]}
        self.parts |= {"valid": photographs(splits["dev"]), "test": photographs(splits["test"])}
        self.nouns = Nouns(train)
        self.rng = np.random.default_rng(VERSION)
        test = self.parts["test"]
        self.pairs = self.nouns.draw(test, TEST, self.rng)
        self.mirrored = quadruples(test, self.nouns.described, TEST, self.rng)
        every = (*self.pairs, *(pair for both in self.mirrored for pair in both))
        self.asked = {frozenset(pair.texts) for pair in every}  # no training caption joins these
        self.seen: set[str] = set()  # phrases of training captions

    def exports(self) -> Iterator[Export]:
        """The base's captions, those for fine-tuning and validation, test items and captions."""
        yield self._pretrain()
        yield from (self._negclip(part) for part in ("train", "valid"))
        aro, n_captions = self._aro()
        yield aro
        yield Export("order", counts={"coco": n_captions})
        yield similarity(self.pairs)

    def repeated(self) -> dict[str, list[int]]:
        """How many phrases of the test are in training captions, too, and of how many."""
        phrases = frozenset().union(*self.asked)
        return {"phrases": [len(phrases & self.seen), len(phrases)]}

    def _drawn(self, part: str) -> Iterator[tuple[Pair, Composite]]:
        """Pairs of a part with their pictures; a third of adjectives that can be exchanged."""
        n = PICTURES[part]
        known = self.parts[part]
        some = [pair for both in quadruples(known, self.nouns.described, n // 6, self.rng)
                for pair in both]
        for pair in some + self.nouns.draw(known, n - len(some), self.rng):
            if frozenset(pair.texts) in self.asked:
                continue
            if self.rng.random() < 0.5:
                pair = pair.turned
            if part != "valid":
                self.seen.update(pair.texts)
            yield pair, Composite(pair.p, pair.q, bool(self.rng.random() < 0.5))

    def _pretrain(self) -> Export:
        """Pictures with what both photographs show, in both orders."""
        pictures, captions = {}, []
        for pair, composite in self._drawn("pretrain"):
            if composite.name not in pictures:
                a, b = pair.texts
                captions.append([f"{a} and {b}", f"{b} and {a}"])
                pictures[composite.name] = (pair, composite)
        coco = layouts.coco(({"id": n, "file_name": name}, [{"caption": text} for text in texts])
                            for n, (name, texts) in enumerate(zip(pictures, captions, strict=True)))
        return Export("pretrain", _placed(pictures), counts={"pictures": len(pictures)}, texts={
            "pretrain/annotations/captions_pretrain.json": coco, SEEN: self._words(pictures)})

    @cached_property
    def vocabulary(self) -> list[str]:
        """The words that the base's image tower learns to see."""
        kept = {*self.nouns.counts, *self.nouns.described}
        kept |= {word for scale in SCALES for group in scale for word in group}
        return sorted(kept)

    def _words(self, pictures: Mapping[str, tuple[Pair, Composite]]) -> str:
        rows = [{"file_name": name, "upright": composite.upright,
                 "nouns": [pair.a.noun, pair.b.noun],
                 "words": [[n for n, word in enumerate(self.vocabulary) if word in p.said]
                           for p in (pair.p, pair.q)]}
                for name, (pair, composite) in pictures.items()]
        return json.dumps({"words": self.vocabulary, "pictures": rows}) + "\n"

    def _negclip(self, part: str) -> Export:
        """NegCLIP's file: both captions of a picture, false ones by exchange of its phrases and of
        its adjectives."""
        pictures: dict[str, tuple[Pair, Composite]] = {}
        rows = []
        for pair, composite in self._drawn(part):
            pictures[composite.name] = (pair, composite)
            false = [pair.texts[::-1], pair.exchanged()]
            for relation in composite.relations:
                wrong = [caption(relation, *texts) for texts in false if texts]
                rows.append((caption(relation, *pair.texts), f"pictures/{composite.name}", wrong,
                             []))
        texts = {f"coco/{part}_neg_clip.tsv": layouts.negclip(rows)}
        if part == "valid":
            texts[HELD_OUT] = self._words(pictures)
        counts = {"pictures": len(pictures), "captions": len(rows)}
        return Export(part, _placed(pictures), texts=texts, counts=counts)

    def _aro(self) -> tuple[Export, int]:
        """The items, with the captions of their pictures as Karpathy's list; how many these are."""
        export = Export("aro", items={"relation": [], "attribution": []})
        asked: dict[Composite, dict[str, None]] = {}
        for pair, upright in product(self.pairs, (False, True)):
            for one in (pair, pair.turned):
                self._ask(export, "relation", one, one.texts[::-1], upright, asked)
        for both, upright in product(self.mirrored, (False, True)):
            turned = self.rng.random() < 0.5
            for pair in both:
                one = pair.turned if turned else pair
                self._ask(export, "attribution", one, one.exchanged(), upright, asked)
        export.lay_out()
        listed = [Captioned(n, f"images/{composite.name}", list(texts))
                  for n, (composite, texts) in enumerate(asked.items())]
        export.texts["coco/coco_karpathy_test.json"] = layouts.caption_list(listed)
        export.pictures = {f"pictures/{composite.name}": composite for composite in asked}
        return export, sum(map(len, asked.values()))

    def _ask(self, export: Export, subset: str, pair: Pair, false: tuple[str, str] | None,
             upright: bool, asked: dict[Composite, dict[str, None]]) -> None:
        """Ask of a picture by both relations that hold in it."""
        composite = Composite(pair.p, pair.q, upright)
        assert false
        for relation in composite.relations:
            truth, foil = caption(relation, *pair.texts), caption(relation, *false)
            more: dict[str, Any] = {"relation_name": relation}
            if subset == "attribution":
                more = {"attributes": sorted([pair.a.adjective, pair.b.adjective])}
            box = (0, 0, SIZE, SIZE)
            export.ask(subset, Item([composite.name], [truth], [foil], box, more))
            asked.setdefault(composite, {})[truth] = None


def similarity(pairs: Sequence[Pair]) -> Export:
    """Pairs of captions: one with a paraphrase, with its exchange, with another second phrase, and
    with another caption. Gold is 5 times how much of what they state is the same (`f_score`): two
    phrases, and what is where."""
    rows = []
    for number, pair in enumerate(pairs):
        relation, reverse = Composite(pair.p, pair.q, bool(number % 2)).relations
        (a, b), (c, d) = pair.texts, pairs[(number + 1) % len(pairs)].texts
        for texts, how in (((a, b), reverse), ((b, a), relation), ((a, d), relation),
                           ((c, d), relation)):
            gold = 5 * f_score(frozenset((a, b, (a, b))), frozenset((*texts, texts)))
            rows.append((caption(relation, a, b), caption(how, *texts), gold))
    texts = layouts.similarity(STSB, "test", rows, "Flickr8k")
    return Export("similarity", texts={f"{FOLDER}/{path}": text for path, text in texts.items()},
                  counts={f"{STSB}/test": len(rows)})


def _placed(pictures: Mapping[str, tuple[Pair, Composite]]) -> dict[str, Composite]:
    return {f"pictures/{name}": composite for name, (_, composite) in pictures.items()}


def build(profile: str) -> Path:
    """Write the sets of a profile of photographs side by side, unless they are there; returns their
    folder.

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
        for name in ("pictures", "pretrain", "coco", "aro"):
            (folder / name).mkdir()
        for name in ("pretrain/images", "coco/images", "aro/images"):
            (folder / name).symlink_to("../pictures", target_is_directory=True)
        sets = Sets(splits)
        for export in sets.exports():
            for path, text in export.texts.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text, encoding="utf-8", newline="")
            with Progress(len(export.pictures), f"pictures, {export.name}") as progress:
                for path, composite in export.pictures.items():
                    composite.write(folder / path, source / flickr8k.PICTURES)
                    progress.update()
            counts[export.name] = export.counts
        name_similar(folder)
        content = {"key": key, "version": VERSION, "counts": counts,
                   "seen_in_training": sets.repeated()}
        text = json.dumps(content, indent=1)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return target
