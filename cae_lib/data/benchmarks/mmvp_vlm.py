"""MMVP-VLM (Tong et al. 2024): pairs of pictures that CLIP's image tower sees alike, of nine visual
patterns such as orientation or number, with a statement for each."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice, Task
from cae_lib.data.benchmarks.collect import Collector, Family, Options
from cae_lib.errors import DataError

TASKS: tuple[Task, ...] = ("image", "text", "group")
OFFICIAL = {task: 135 for task in TASKS}
FAMILY = Family("mmvp_vlm", OFFICIAL, "those of the official repository, in MLLM_VLM Images/")
NUMBER, KIND, STATEMENT = COLUMNS = ("Question ID", "Type", "Statement")
IMAGES, PROMPT = "MLLM_VLM Images", "a photo of {}"


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read `Questions.csv` into three benchmarks of the same pairs. The official score is `image`:
    each statement is closer to its own picture than to the other one.

    Two rows that follow one another are a pair, the first with an odd number; a statement is shown
    as "a photo of ...". Groups are the patterns, 15 pairs each; the headline is the mean over them.
    Comparisons are strict; of two equally close pictures the official script takes the second.
    `root` holds `Questions.csv` and `MLLM_VLM Images/{pattern}/{number}.jpg`.
    """
    path = Path(root, "Questions.csv")
    scores = FAMILY.parts(dict.fromkeys(OFFICIAL, path), **options)
    found = list(rows.read_csv(path, COLUMNS))
    if len(found) % 2:
        raise DataError(f"{path}: {len(found)} rows, pairs were expected. Fetch the file again.")
    pairs = [(line, (first, second))
             for (_, first), (line, second) in zip(found[::2], found[1::2], strict=True)]
    return [_score(collector, pairs) for collector in scores]


def _score(collector: Collector, pairs: list[tuple[int, tuple[object, object]]]) -> Benchmark:
    folder = collector.source.parent / IMAGES

    def read(_: str, pair: tuple[object, object]) -> Choice:
        first, second = (rows.number(row, NUMBER) for row in pair)
        kind, other = (rows.text(row, KIND) for row in pair)
        if first % 2 != 1 or second != first + 1 or kind != other:
            raise rows.RowError(
                f"{first:g} of {kind!r} and {second:g} of {other!r} are no pair: an odd number and "
                "the next one of the same type were expected"
            )
        images = [collector.picture(folder / kind / f"{n:.0f}.jpg") for n in (first, second)]
        texts = [PROMPT.format(rows.text(row, STATEMENT)) for row in pair]
        return Choice(tuple(images), tuple(texts), truth=0, group=kind, id=f"{first:g}")

    collector.rows(pairs, read, where="pair ending at line {}")
    return collector.finish(task=collector.subset, headline="macro", rule="mean over patterns")
