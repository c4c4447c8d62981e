"""Sentence pairs with human scores of similarity, in SentEval's layout: STS12-16, STS-B, SICK-R
(Conneau and Kiela 2018; Agirre et al. 2012-2016, Cer et al. 2017, Marelli et al. 2014)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cae_lib.data import rows
from cae_lib.data.incomplete import settle
from cae_lib.errors import ConfigError, DataError

FOLDER = "senteval"
"""Folder of the sets among all data sets; it holds `STS/` and `SICK/`."""

YEARS: Mapping[str, tuple[str, ...]] = {
    "STS12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "STS13": ("FNWN", "headlines", "OnWN"),
    "STS14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "STS15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "STS16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}
"""Parts of each year in SentEval's order; STS13 without SMT, whose licence forbids it."""

STSB, SICKR = "STS-B", "SICK-R"
SIMILARITY_SETS: tuple[str, ...] = (*YEARS, STSB, SICKR)
OFFICIAL = {
    "STS12": 3108,
    "STS13": 1500,
    "STS14": 3750,
    "STS15": 3000,
    "STS16": 1186,
    STSB: 1379,
    SICKR: 4927,
}
FILES = {
    STSB: {name: f"STS/STSBenchmark/sts-{name}.csv" for name in ("train", "dev", "test")},
    SICKR: {
        "train": "SICK/SICK_train.txt",
        "dev": "SICK/SICK_trial.txt",
        "test": "SICK/SICK_test_annotated.txt",
    },
}
COLUMNS = {STSB: (5, 6, 4), SICKR: (1, 2, 3)}  # of first sentence, second sentence and score


@dataclass(frozen=True)
class SentencePairs:
    """Sentences `first` and `second`, n each, with `gold` scores `(n,)`, 0 to 5 (SICK: 1 to 5).
    `sizes` is the number of pairs of each part, in order; `n_expected` that which there should be;
    `counts` further facts, for example `{"unscored": 5500}` for blank lines of scores."""

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    gold: np.ndarray
    sizes: Mapping[str, int]
    n_expected: int
    counts: Mapping[str, int]


def load_similarity(name: str, root: str | Path, *, official: bool = False) -> SentencePairs:
    """Read the test split of one of `SIMILARITY_SETS`; pairs keep the order of their files.

    Pairs of STS12-16 whose line of scores is blank were never scored: they are left out, counted as
    `unscored`, and not expected. Tabs divide columns and quotes mean nothing; further columns are
    allowed; a first line of SICK that holds no score is a header. `root` holds `STS/` and `SICK/`;
    `official` expects the official parts and the published number of pairs.

    ConfigError for an unknown set; DataError if a file is missing or malformed, or the number of
    pairs is another one.
    """
    if name not in SIMILARITY_SETS:
        raise ConfigError(f"no similarity set {name!r}. Known: {', '.join(SIMILARITY_SETS)}.")
    files = (
        {"test": Path(root, FILES[name]["test"])}
        if name in FILES
        else {part: Path(root, f"STS/{name}-en-test/STS.input.{part}.txt") for part in YEARS[name]}
    )
    counts: Counter[str] = Counter()
    parts = {
        part: _scored(path, name, counts)
        for part, path in files.items()
        if official or name in FILES or path.is_file()
    }
    found = [row for part in parts.values() for row in part]
    n_expected = OFFICIAL[name] if official else max(1, len(found))
    settle(name, Path(root, name), len(found), len(found), n_expected, (), allowed=False)
    first, second, gold = zip(*found, strict=True)
    sizes = {part: len(pairs) for part, pairs in parts.items()}
    return SentencePairs(name, first, second, np.array(gold), sizes, n_expected, dict(counts))


def present_sets(root: str | Path) -> tuple[str, ...]:
    """Names of the sets whose test files, or a part of them, are below `root`; DataError if none
    is."""
    folder = Path(root)
    found = [n for n in YEARS if any((folder / "STS" / f"{n}-en-test").glob("STS.input.*.txt"))]
    found += [name for name, files in FILES.items() if (folder / files["test"]).is_file()]
    if not found:
        raise DataError(
            f"{folder}: no set of {', '.join(SIMILARITY_SETS)} is there. Put SentEval's folders "
            "STS/ and SICK/ there, or build the small world with `cae world build`."
        )
    return tuple(found)


def _scored(path: Path, name: str, counts: Counter[str]) -> list[tuple[str, str, float]]:
    """The scored pairs of a file; those of a year have their scores in another one."""
    first, second, score = COLUMNS.get(name, (0, 1, 2))
    source, lines = path, [line.split("\t") for line in _lines(path)]
    if name in YEARS:
        source = path.with_name(path.name.replace("input", "gs", 1))
        golds = _lines(source)
        if len(lines) != len(golds):
            raise DataError(
                f"{source}: {len(golds)} lines, but {path.name} has {len(lines)}. Each pair needs "
                "a line of scores, which may be blank. Fetch both files again."
            )
        lines = [[*cells[:2], gold] for cells, gold in zip(lines, golds, strict=True)]
    found = []
    for number, cells in enumerate(lines, start=1):
        if name in YEARS and not cells[-1].strip():
            counts["unscored"] += 1
            continue
        if len(cells) <= max(first, second, score) or not all(
            cells[column].strip() for column in (first, second)
        ):
            raise DataError(
                f"{path}, line {number}: {len(cells)} columns, two sentences and a score were "
                f"expected, with tabs between, in columns {first + 1}, {second + 1} and "
                f"{score + 1}. Fetch it again."
            )
        if number == 1 and name == SICKR and not _is_number(cells[score]):
            continue
        if not _is_number(cells[score]):
            raise DataError(
                f"{source}, line {number}: the score is {cells[score]!r}, a number was expected."
            )
        found.append((cells[first], cells[second], float(cells[score])))
    return found


def _lines(path: Path) -> list[str]:
    """Lines as the newlines of the file divide them; other marks of line ends stay in the text."""
    text = rows.read_text(path).replace("\r\n", "\n")
    return text.removesuffix("\n").split("\n") if text else []


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
