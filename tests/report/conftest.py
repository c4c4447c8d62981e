"""Records made up by hand, under a home of the test's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cae_lib import measurements
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.retrieval import KS, RetrievalResult
from cae_lib.evaluation.similarity import SimilarityResult
from cae_lib.evaluation.zero_shot import ZeroShotResult
from cae_lib.records import Record, save_record
from cae_lib.report.attribution import role_scores
from cae_lib.report.benchmarks import answers
from cae_lib.report.phrases import cosines
from cae_lib.report.similarity import correlations

PROFILE = "smoke"
SEEDS = 3
METHODS = ("attention", "gradcam", "perturbation", "gradient")
KEYS = (
    "aro/relation", "aro/attribution", "order/coco", "order/flickr30k", "winoground/text",
    "winoground/image", "winoground/group", "sugarcrepe/replace_rel", "sugarcrepe/add_att",
    "sugarcrepe/replace_att", "sugarcrepe/swap_att", "sugarcrepe/add_obj",
    "sugarcrepe/replace_obj", "sugarcrepe/swap_obj", "vl_checklist/Relation/swig_action",
    "vl_checklist/Relation/vg/action", "vl_checklist/Relation/vg/spatial",
    "vl_checklist/Attribute/vg/color", "vl_checklist/Attribute/vaw/size", "valse/actant-swap",
    "valse/action-replacement", "valse/relations", "svo_probes/all", "crepe/atom",
    "crepe/negate", "crepe/swap",
)  # fmt: skip
MACRO = ("aro", "crepe")


def forget() -> None:
    """Drop what was read from the records of another test."""
    for cached in (measurements._load, answers, role_scores, correlations, cosines):
        cached.cache_clear()


def save(name: str, results: dict, profile: str = PROFILE) -> None:
    """Store a record."""
    save_record(Record(name, "0" * 12, {}, results, {"tree": "0" * 40}), profile)


def choice(key: str, correct: np.ndarray, n_expected: int | None = None) -> dict:
    """The record of a subset; two groups of equal size."""
    name, _, subset = key.partition("/")
    n = len(correct)
    return ChoiceResult(
        name, subset, np.asarray(correct, bool), {"a": n // 2, "b": n - n // 2},
        n if n_expected is None else n_expected, "macro" if name in MACRO else "micro",
        "mean over items", None, 0.5, "strict", "abc", {}, {}, np.arange(n),
    ).to_record()  # fmt: skip


def attribution(means: dict[str, float], rng: np.random.Generator, n: int = 60) -> dict:
    """The record of one method: normal scores about a mean for each role, attributes rarer."""
    content: dict = {"n_captions": n}
    for role, mean in means.items():
        values = rng.normal(mean, 0.03, n).round(6)
        captions = values.tolist()
        if role == "attribute":
            captions[::3] = [None] * len(captions[::3])
        scores = np.array([v for v in captions if v is not None])
        content[role] = {
            "n_tokens": len(scores), "mean": float(scores.mean()), "captions": captions,
            "percentiles": np.percentile(scores, range(101)).round(6).tolist(),
        }  # fmt: skip
    return content


LEVELS = {
    "base": {"object": 0.20, "attribute": 0.10, "relation": 0.12},
    "clip-ft": {"object": 0.18, "attribute": 0.11, "relation": 0.12},
    "cae": {"object": 0.14, "attribute": 0.14, "relation": 0.14},
}


class Store:
    """Writes the records of a whole profile; tests then change single ones."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, name: str, results: dict) -> None:
        """Store one record in the place of another."""
        forget()
        save(name, results)

    def attribution(self, run: str, levels: dict[str, float], methods=METHODS) -> None:
        """The attribution of a run, the same means by every method."""
        forget()
        for seed in range(1 if run == "base" else SEEDS):
            rng = np.random.default_rng([seed, len(run)])
            parts = {method: attribution(levels, rng) for method in methods}
            save(f"{run}/{seed}/attribution", parts)

    def benchmarks(self, run: str, accuracy: dict[str, float] | float, n: int = 200) -> None:
        """Answers of a run; `accuracy` for all keys, or by key with "*" for the others."""
        forget()
        for seed in range(1 if run == "base" else SEEDS):
            parts = {}
            for place, key in enumerate(KEYS):
                share = accuracy.get(key, accuracy["*"]) if isinstance(accuracy, dict) else accuracy
                draws = np.random.default_rng([7, place]).random(n)
                noise = np.random.default_rng([seed, place]).random(n) * 0.02
                parts[key] = choice(key, draws + noise < share)
            save(f"{run}/{seed}/benchmarks", parts)

    def retrieval(self, run: str, shares: tuple[float, float, float] = (0.4, 0.6, 0.8)) -> None:
        """Recall at 1, 5, 10, the same on both sets and both ways."""
        forget()
        for seed in range(1 if run == "base" else SEEDS):
            draws = np.random.default_rng(seed).random(50)
            found = {k: draws < share for k, share in zip(KS, shares, strict=True)}
            parts = {name: RetrievalResult(found, found, np.arange(50)).to_record() | {"n_used": 50,
                     "n_expected": 50} for name in ("coco", "flickr30k")}  # fmt: skip
            save(f"{run}/{seed}/retrieval", parts)

    def zero_shot(self, run: str, share: float, n: int = 80) -> None:
        """Pictures of two classes each, of which a share is found, on both sets."""
        forget()
        for seed in range(1 if run == "base" else SEEDS):
            draws = np.random.default_rng([3, seed]).random(2 * n)
            hits = {1: draws < share, 5: draws < share + 0.1}
            result = ZeroShotResult(hits, np.full(n, 2), 34, n).to_record()
            save(f"{run}/{seed}/zero_shot", {"coco": result, "flickr30k": result})

    def similarity(self, run: str, noise: float, sets=("STS-B", "SICK-R"), n: int = 120) -> None:
        """Cosines that follow the gold scores but for noise; more noise, lower correlation."""
        forget()
        for seed in range(1 if run == "base" else SEEDS):
            found = {}
            for place, name in enumerate(sets):
                gold = np.random.default_rng([5, place]).random(n) * 4 + 1
                wave = np.random.default_rng([seed, place]).normal(0, 1, n)
                cosine = np.clip(gold / 10 + noise * wave, -1, 1)
                found[name] = SimilarityResult(name, cosine, gold, {"all": n}, n).to_record()
            save(f"{run}/{seed}/similarity", found)

    def phrases(self, run: str, own: dict[str, float], other: float = 0.3, n: int = 60) -> None:
        """Cosines about a mean for each kind of phrase; no relation in every third caption."""
        forget()
        for seed in range(1 if run == "base" else SEEDS):
            kinds = {}
            for place, kind in enumerate(("object", "attribute", "relation")):
                waves = np.random.default_rng([seed, place, len(run)]).normal(0, 0.02, (2, n))
                waves += np.random.default_rng([9, place]).normal(0, 0.05, n)
                columns = [(own[kind] + waves[0]).tolist(), (other + waves[1]).tolist()]
                if kind == "relation":
                    columns = [[None if i % 3 == 0 else v for i, v in enumerate(column)]
                               for column in columns]  # fmt: skip
                kinds[kind] = {"n_phrases": n, "own": columns[0], "other": columns[1]}
            content = {"source": "gold scene graph", "n_used": n, "n_expected": n, "kinds": kinds}
            save(f"{run}/{seed}/phrases", content)

    def heatmaps(self, run: str, picture: float, words: float, n: int = 40) -> None:
        """Shares of the relation about a mean, in the pictures and in the words by GradCAM."""
        forget()
        for seed in range(1 if run == "base" else SEEDS):
            waves = np.random.default_rng([seed, 4]).normal(0, 0.01, n)
            content = {
                "n_used": n, "regions": {"last layer": {"relation": (picture + waves).tolist()}},
                "words": {"gradcam": {"relation": (words + waves).tolist()}},
            }  # fmt: skip
            save(f"{run}/{seed}/heatmaps", content)


@pytest.fixture
def store(home: Path) -> Store:
    """A home with the records of base, CLIP-FT and CLIP-CAE by each of the four methods."""
    found = Store(home)
    levels = {"base": "base", "clip-ft": "clip-ft"} | {f"cae-{m}": "cae" for m in METHODS}
    for run, level in levels.items():
        found.attribution(run, LEVELS[level])
        found.benchmarks(run, {"base": 0.6, "clip-ft": 0.65, "cae": 0.75}[level])
        found.retrieval(run)
    yield found
    forget()
