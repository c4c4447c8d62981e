"""Load sentence pairs with human similarity scores: STS12 to STS16, STS-B and SICK-R.

The files have the layout of SentEval (Conneau and Kiela 2018). The datasets are by Agirre et al.
2012-2016 (STS12 to STS16), Cer et al. 2017 (STS-B) and Marelli et al. 2014 (SICK-R).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cae_lib.data.incomplete import listed, log_left_out, validate_row_count
from cae_lib.data.rows import MissingFileError, read_text
from cae_lib.errors import ConfigError, DataError, MissingDataError

SENTEVAL_FOLDER = "senteval"
"""Folder with `STS/` and `SICK/`, below the folder of all datasets."""

STS_PARTS: Mapping[str, tuple[str, ...]] = {
    "STS12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    # SentEval omits the part SMT for its licence.
    "STS13": ("FNWN", "headlines", "OnWN"),
    "STS14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "STS15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "STS16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}
"""Parts of STS12 to STS16 in SentEval's order."""

STSB, SICKR = "STS-B", "SICK-R"
SIMILARITY_SETS: tuple[str, ...] = (*STS_PARTS, STSB, SICKR)
"""Names of the datasets."""

OFFICIAL_PAIR_COUNTS = {
    "STS12": 3108,
    "STS13": 1500,
    "STS14": 3750,
    "STS15": 3000,
    "STS16": 1186,
    STSB: 1379,
    SICKR: 4927,
}
"""Published number of scored pairs in SentEval's test split of each dataset."""

SPLIT_FILES = {
    STSB: {name: f"STS/STSBenchmark/sts-{name}.csv" for name in ("train", "dev", "test")},
    SICKR: {
        "train": "SICK/SICK_train.txt",
        "dev": "SICK/SICK_trial.txt",
        "test": "SICK/SICK_test_annotated.txt",
    },
}
"""File of each split of STS-B and SICK-R, below `SENTEVAL_FOLDER`."""

COLUMN_NUMBERS = {STSB: (5, 6, 4), SICKR: (1, 2, 3)}
"""Columns, from 0, of the two sentences and the score; STS12 to STS16 have files of scores."""


SICKR_MIN_SCORE, STS_MIN_SCORE, MAX_SCORE = 1, 0, 5
"""Range of the human scores: 1 to 5 in SICK-R, 0 to 5 in the other datasets."""


@dataclass(frozen=True)
class SentencePairs:
    """Sentence pairs with human similarity scores.

    Attributes:
        human_scores: float64 `(n,)`, from 0 to 5 (SICK-R: 1 to 5); higher is more similar.
        part_sizes: Number of pairs of each part that was found, in the order of the pairs. STS-B
            and SICK-R have one part, "test".
        n_expected: Number of pairs that the dataset should have.
        counts: Numbers of pairs that were left out, by reason; the only reason is "unscored".
    """

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    human_scores: np.ndarray
    part_sizes: Mapping[str, int]
    n_expected: int
    counts: Mapping[str, int]


def load_similarity_set(
    name: str, root: str | Path, *, is_published: bool = False
) -> SentencePairs:
    """Load the test split of a dataset of sentence pairs, in the order of its files.

    With `is_published`, the published number of pairs is expected, and a message says how many are
    missing; otherwise the number of pairs in the files.
    """
    if name not in SIMILARITY_SETS:
        raise ConfigError(f"no similarity set {name!r}. Known: {', '.join(SIMILARITY_SETS)}.")
    files = (
        {"test": Path(root, SPLIT_FILES[name]["test"])}
        if name in SPLIT_FILES
        else {
            part: Path(root, f"STS/{name}-en-test/STS.input.{part}.txt") for part in STS_PARTS[name]
        }
    )
    counts: Counter[str] = Counter()
    parts: dict[str, list[tuple[str, str, float]]] = {}
    absent = []
    for part, path in files.items():
        try:
            parts[part] = _scored_pairs(path, name, counts)
        except MissingFileError as error:
            # The other parts are still of use, and the message below names this one.
            absent.append((part, str(error)))
    pairs = [pair for part in parts.values() for pair in part]
    if not pairs:
        if absent:
            raise MissingDataError(absent[0][1])
        raise DataError(f"{Path(root)}: no pair of {name} has a score.")
    n_expected = OFFICIAL_PAIR_COUNTS[name] if is_published else len(pairs)
    if len(pairs) > n_expected:
        # Raises a DataError: surplus pairs mean another file, such as one of all splits.
        validate_row_count(Path(root, name), len(pairs), n_expected, ())
    if is_published:
        missing = f"Missing parts: {listed([part for part, _ in absent])}" if absent else ""
        log_left_out(name, Path(root), len(pairs), n_expected, (), missing)
    first, second, gold = zip(*pairs, strict=True)
    sizes = {part: len(rows) for part, rows in parts.items()}
    return SentencePairs(name, first, second, np.array(gold), sizes, n_expected, dict(counts))


def available_similarity_sets(root: str | Path) -> tuple[str, ...]:
    """Return the names of the datasets that have test files below `root`."""
    folder = Path(root)
    names = [n for n in STS_PARTS if any((folder / "STS" / f"{n}-en-test").glob("STS.input.*.txt"))]
    names += [name for name, files in SPLIT_FILES.items() if (folder / files["test"]).is_file()]
    if not names:
        raise DataError(
            f"{folder}: no dataset of {', '.join(SIMILARITY_SETS)} is there. Put SentEval's "
            "folders STS/ and SICK/ there, or build the synthetic scenes with `python -m "
            "data.recipes.synthetic_scenes.build`."
        )
    return tuple(names)


def _scored_pairs(path: Path, name: str, counts: Counter[str]) -> list[tuple[str, str, float]]:
    """Return the scored pairs of a file of sentences; `counts["unscored"]` grows by the others."""
    first, second, score = COLUMN_NUMBERS.get(name, (0, 1, 2))
    # Split by hand: quotes mean nothing in these files, and rows of STS-B may have more columns.
    source, lines = path, [line.split("\t") for line in _lines(path)]
    if not lines:
        raise DataError(f"{path}: the file has no pairs, some were expected. Fetch it again.")
    if name in STS_PARTS:
        # The scores of STS12 to STS16 are in a second file, line by line.
        source = path.with_name(path.name.replace("input", "gs", 1))
        scores = _lines(source)
        if len(lines) != len(scores):
            raise DataError(
                f"{source}: {len(scores)} lines, but {path.name} has {len(lines)}. Each pair needs "
                "a line of scores, which may be blank. Fetch both files again."
            )
        lines = [[*cells[:2], gold] for cells, gold in zip(lines, scores, strict=True)]
    pairs = []
    for number, cells in enumerate(lines, start=1):
        if name in STS_PARTS and not cells[-1].strip():
            # A blank line of scores: nobody scored the pair, so it is not expected either.
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
        # Copies of SICK-R with and without this header are in use.
        if number == 1 and name == SICKR and "score" in cells[score]:
            continue
        pairs.append((cells[first], cells[second], _score(cells[score], name, source, number)))
    return pairs


def _lines(path: Path) -> list[str]:
    """Return the lines of a file, split only at LF and CR LF."""
    text = read_text(path).replace("\r\n", "\n")
    # Not `splitlines`, which also splits at separators that sentences may contain, as U+2028.
    return text.removesuffix("\n").split("\n") if text else []


def _score(cell: str, name: str, source: Path, number: int) -> float:
    """Return the human score in a cell."""
    lowest = SICKR_MIN_SCORE if name == SICKR else STS_MIN_SCORE
    try:
        score = float(cell)
    except ValueError:
        # NaN is in no range, so the check below refuses it.
        score = math.nan
    if not lowest <= score <= MAX_SCORE:
        raise DataError(
            f"{source}, line {number}: the score is {cell!r}, a number from {lowest} to "
            f"{MAX_SCORE} was expected. Fetch the file again."
        )
    return score
