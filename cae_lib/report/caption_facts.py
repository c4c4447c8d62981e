"""What the small world's captions say, measured on the captions themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from cae_lib.data.training_set import data_root
from cae_lib.errors import DataError
from cae_lib.report.markup import Table, number
from cae_lib.world.config import world_config
from cae_lib.world.grammar import captions
from cae_lib.world.scenes import scenes, text_generator
from cae_lib.world.vocabulary import (
    COLORS,
    NOUNS,
    PATTERNS,
    RELATIONS,
    SIZES,
    VAGUE_RELATIONS,
)

PRETRAIN_SAMPLE = 1000


@dataclass(frozen=True)
class Vocabulary:
    """What some captions say, found by their words alone.

    Attributes:
        n: Captions.
        words: Mean number of words.
        nouns: Mean number of nouns.
        attribute: Share with an adjective.
        relation: Share that states one of the twelve relations.
        vague: Share with "with", "near", ... only.
        distinct: Share of distinct captions.
    """

    n: int
    words: float
    nouns: float
    attribute: float
    relation: float
    vague: float
    distinct: float


_ADJECTIVES = {*COLORS, *SIZES, *PATTERNS}
_WORDINGS = [words for kind in RELATIONS.values() for words in kind.wordings]


def _finder(texts: Iterable[str]) -> re.Pattern[str]:
    longest = sorted(texts, key=len, reverse=True)
    return re.compile(r"\b(" + "|".join(map(re.escape, longest)) + r")\b")


_PLACED = re.compile(r"\b(on the (left|right)|at the (top|bottom))\b(?! of)")
_RELATION, _VAGUE = _finder(_WORDINGS), _finder(VAGUE_RELATIONS)


def measure(texts: Sequence[str]) -> Vocabulary:
    """Count what captions say.

    Raises:
        DataError: There are no captions.
    """
    if not texts:
        raise DataError("no captions to measure: build the world anew with `cae world build`")
    split = [text.split() for text in texts]
    bare = [_PLACED.sub("", text) for text in texts]
    stated = [_RELATION.search(text) is not None for text in bare]
    vague = [_VAGUE.search(text) is not None for text in bare]
    return Vocabulary(
        n=len(texts),
        words=float(np.mean([len(words) for words in split])),
        nouns=float(np.mean([sum(word in NOUNS for word in words) for words in split])),
        attribute=float(np.mean([any(w in _ADJECTIVES for w in words) for words in split])),
        relation=float(np.mean(stated)),
        vague=float(np.mean([v and not s for v, s in zip(vague, stated, strict=True)])),
        distinct=len(set(texts)) / len(texts),
    )


def coco_captions(profile: str) -> list[str]:
    """Captions of the COCO test file on disk.

    Raises:
        DataError: The world is not built, or the file is malformed.
    """
    path = data_root(profile) / "coco" / "coco_karpathy_test.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [text for entry in entries for text in entry["caption"]]
    except FileNotFoundError:
        command = f"cae world build --profile {profile}"
        raise DataError(f"{path}: the small world is not built here; run `{command}`") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not a Karpathy test file ({error!r}); build it anew") from error


def pretraining_captions(profile: str, n: int = PRETRAIN_SAMPLE) -> list[str]:
    """Captions of the first pictures of the pretraining corpus, written anew from its seed."""
    config = world_config(profile)
    texts = []
    for index, scene in enumerate(islice(scenes(config.scenes, "pretrain"), n)):
        rng = text_generator(config.scenes, "pretrain", index)
        found = captions(scene, config.web, rng, config.sizes.pretrain_captions)
        texts += [caption.text for caption in found]
    return texts


def statistics_table(profile: str) -> Table:
    """What the captions of both styles say."""
    corpora = [measure(pretraining_captions(profile)), measure(coco_captions(profile))]

    def row(title: str, field: str, share: bool) -> list[str]:
        values = [getattr(corpus, field) for corpus in corpora]
        return [title, *(number(100 * v if share else v, 1) for v in values)]

    return Table(
        name="tab-world",
        caption="What captions say, found by their words alone; means and shares over "
        f"{corpora[0].n} captions of the pretraining corpus and {corpora[1].n} of the test set.",
        header=["", "pretraining corpus", "COCO test"],
        rows=[
            row("words a caption", "words", False),
            row("nouns a caption", "nouns", False),
            row("with an attribute, %", "attribute", True),
            row("that state the relation, %", "relation", True),
            row('with "near", "with", ... instead, %', "vague", True),
            row("distinct captions, %", "distinct", True),
        ],
    )
