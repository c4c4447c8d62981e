"""Whatever is printed of items that share a picture: five copies of an item tell no more than one.

Numbers of five copies of each item, all of one picture, are compared with those of one copy.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from report.conftest import choice, forget, save

from cae_lib.evaluation import knowledge
from cae_lib.evaluation.caption_load import COUNTS, pack_loads
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.retrieval import KS, RetrievalResult
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.benchmarks import mean_score, subset_score
from cae_lib.report.blind_gains import difference
from cae_lib.report.composition_curve import _recall_sums, _sums
from cae_lib.report.retrieval import recall, recall_difference
from cae_lib.report.significance import Comparison, compared
from cae_lib.report.when_it_helps import kind_score

KEYS = ("aro/relation", "aro/attribution")
RUNS = ("clip-ft", "cae-attention")


def answers(seed: int, copies: int, key: str = KEYS[0]) -> list[ChoiceResult]:
    """Two seeds' answers to 60 items in two groups, each item so many times over."""
    marks = np.random.default_rng(seed).random((2, 60)) < 0.6
    found = []
    for row in marks:
        result = ChoiceResult.from_record(choice(key, np.repeat(row, copies)))
        found.append(replace(result, pictures=np.repeat(np.arange(60), copies)))
    return found


def same(first: Interval, second: Interval) -> bool:
    """Equal but for the draws; five independent copies would more than halve the width."""
    ends, others = ((i.estimate, i.low, i.high) for i in (first, second))
    return first.low < first.high and ends == pytest.approx(others, abs=0.1 * np.ptp(ends))


def test_scores_and_their_differences():
    for make in (subset_score, lambda parts: mean_score([subset_score(parts)] * 2)):
        (once, other), (five, another) = (
            [make(answers(seed, copies)) for seed in (1, 2)] for copies in (1, 5)
        )
        assert same(once.interval(), five.interval())
        assert same(once.minus(other), five.minus(another))
        assert same(difference([once], [other]), difference([five], [another]))


def test_pictures_go_along_into_means_over_subsets():
    found = {key: answers(3, 5, key) for key in (*KEYS, "sugarcrepe/replace_rel")}
    score = kind_score("relation", found)
    assert [len(part) for part in score.pictures] == [300, 300]
    alone = replace(score, pictures=[np.arange(300), np.arange(300, 600)])
    assert np.ptp([score.interval().low, score.interval().high]) > 2 * np.ptp(
        [alone.interval().low, alone.interval().high]
    )


def test_tests_of_a_family():
    comparison = Comparison("cae-gradient", "clip-ft")
    (once,), (five,) = (
        compared(comparison, *({key: answers(seed, n, key) for key in KEYS} for seed in (1, 2)))
        for n in (1, 5)
    )
    assert five.test.p_value == pytest.approx(once.test.p_value)
    assert [m.p_value for m in five.mcnemar] == pytest.approx([m.p_value for m in once.mcnemar])
    assert same(once.interval, five.interval)


def save_hits(run: str, **copies: int) -> None:
    """Hits of three seeds on sets of 50 pictures with so many equal captions each."""
    forget()
    for seed in range(3):
        draws = np.random.default_rng([seed, len(run)]).random(50)
        hits = {k: draws < 0.4 + k / 50 for k in KS}
        parts = {}
        for name, n in copies.items():
            texts = {k: np.repeat(part, n) for k, part in hits.items()}
            parts[name] = RetrievalResult(hits, texts, np.repeat(np.arange(50), n)).to_record()
        save(f"{run}/{seed}/retrieval", parts)


def test_recalls_and_their_differences(home):
    for run in RUNS:
        save_hits(run, coco=1, flickr30k=5)
    once, five = (recall(RUNS[0], "smoke", name, "image", 1, 3) for name in ("coco", "flickr30k"))
    assert same(once, five) and (once.n_items, five.n_items) == (50, 250)
    assert same(once, recall(RUNS[0], "smoke", "flickr30k", "text", 1, 3))
    once, five = (
        recall_difference(*RUNS, "smoke", name, "image", 1, 3) for name in ("coco", "flickr30k")
    )
    assert same(once, five)
    forget()


def test_slopes_of_answers():
    words = np.random.default_rng(0).integers(0, 4, 60)
    once, five = (
        _sums({"words": np.repeat(words, n)}, ["words"], [answers(1, n)], KEYS[0]) for n in (1, 5)
    )
    np.testing.assert_allclose(once.slopes([0]), five.slopes([0]))


def test_slopes_of_recalls(home):
    loads, spread = np.random.default_rng(0).integers(0, 4, (50, 4)), []
    for n in (1, 5):
        save_hits(RUNS[0], coco=n)
        rows, (digits,) = pack_loads([np.repeat(loads, n, axis=0)])
        content = {"counts": list(COUNTS), "rows": rows,
                   "retrieval": {"n_used": 50 * n, "loads": digits}}  # fmt: skip
        sums = _recall_sums(content, ["words"], RUNS[:1], "smoke", 3)
        spread.append(sums.slopes([0])[1:].std())
    assert spread[1] == pytest.approx(spread[0], rel=0.15)
    forget()


def test_what_the_base_knows(monkeypatch):
    found = []
    for n in (1, 5):
        names = [name for part in knowledge.KINDS.values() for name in part]
        records = {name: answers(1, n, name)[0].to_record() for name in names}
        roles = {role: {"captions": [0.1, 0.2]} for role in knowledge.KINDS}
        recalls = {way: {"recall": {"1": 0.5}} for way in ("text", "image")}
        pairs = SimpleNamespace(image_paths=(), n_used=0)
        for name, value in {
            "Encoder": None,
            "choices": records,
            "retrieval_pairs": pairs,
            "attributions": {"attention": roles},
            "retrieve": recalls,
        }.items():
            monkeypatch.setattr(knowledge, name, lambda *_, value=value: value)
        found.append(Interval(**knowledge.summary(None, "smoke")["relation"]))
    assert same(*found)
