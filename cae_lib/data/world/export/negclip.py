"""NegCLIP's tab separated files: false captions made by exchanging parts, and similar pictures.

Yuksekgonul et al. 2023 found the parts with a parser; here they come from the gold roles, and only
those exchanges are kept that are false of the picture.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cae_lib.data.world.export.corpora import Described
from cae_lib.data.world.foils import certainly_false, exchanges
from cae_lib.data.world.scenes import generator
from cae_lib.data.world.statements import read

MAX_NEGATIVES = 5
N_SIMILAR = 3
HEADER = ("", "title", "filepath", "neg_caption", "neg_image")


@dataclass(frozen=True)
class NegClipRow:
    """One caption, its picture, its false captions, and rows whose pictures are similar."""

    title: str
    filepath: str
    negatives: tuple[str, ...]
    similar: tuple[int, ...]


def negclip_rows(corpus: Sequence[Described], seed: int) -> list[NegClipRow]:
    """One row for each caption of a corpus whose pictures all have equally many captions."""
    rows = []
    index = _Index(corpus)
    for position, item in enumerate(corpus):
        rng = generator(seed, "similar", item.number)
        similar = index.similar(position, rng)
        for caption in item.captions:
            statement = read(caption, item.scene.content)
            swaps = exchanges(statement)
            false = certainly_false(swaps, item.scene, caption.text, MAX_NEGATIVES)
            size = len(item.captions)
            numbers = (other * size + int(rng.integers(size)) for other in similar)
            negatives = tuple(candidate.text for candidate in false)
            rows.append(NegClipRow(caption.text, item.path, negatives, tuple(numbers)))
    return rows


def negclip_tsv(rows: Sequence[NegClipRow]) -> str:
    """The rows as NegCLIP's tab separated file."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(HEADER)
    for number, row in enumerate(rows):
        cells = (list(row.negatives), list(row.similar))
        writer.writerow((number, row.title, row.filepath, *cells))
    return stream.getvalue()


class _Index:
    """Finds pictures with the same main nouns, else with one of them, else any others."""

    def __init__(self, corpus: Sequence[Described]) -> None:
        self.nouns = [[thing.noun for thing in item.scene.content.things[:2]] for item in corpus]
        self.by_pair: dict[frozenset[str], list[int]] = defaultdict(list)
        self.by_noun: dict[str, list[int]] = defaultdict(list)
        for position, pair in enumerate(self.nouns):
            self.by_pair[frozenset(pair)].append(position)
            for noun in pair:
                self.by_noun[noun].append(position)

    def similar(self, position: int, rng: np.random.Generator) -> list[int]:
        """Positions of three similar pictures (fewer in a corpus of fewer than four)."""
        pair = self.nouns[position]
        groups = [self.by_pair[frozenset(pair)], *(self.by_noun[noun] for noun in pair)]
        found: list[int] = []
        for group in (*groups, range(len(self.nouns))):
            fresh = [other for other in group if other != position and other not in found]
            wanted = min(N_SIMILAR - len(found), len(fresh))
            found += [int(other) for other in rng.choice(fresh, wanted, replace=False)]
            if len(found) == N_SIMILAR:
                break
        return found
