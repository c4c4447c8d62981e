"""`cae tune`: choosing settings on the validation split, before any benchmark.

`--what control` looks at CLIP-FT and the positive control alone: learning rate, number of steps,
and whether the image tower stays locked. `--what lambda` then walks the weight of each method: it
weighs a constraint, so the smallest one is chosen that enforces it; choosing it by the score as
well would choose 0 wherever CAE does not help. `--what candidates` chooses a loss that is to be
hard to satisfy without composition of `CANDIDATES`, by the score. `--what binding` chooses margin
and lambda of CAE on bindings, by the score, which holds the price: it is the mean of recall at 1
and of the share of captions preferred to their negatives.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from cae_lib import results
from cae_lib.commands.jobs import run_jobs
from cae_lib.config import METHODS, choose, experiment, paths, profile
from cae_lib.data.captions import Pairs, load_negclip_tsv
from cae_lib.data.needs import is_real
from cae_lib.data.sources import may_be_incomplete
from cae_lib.data.training_set import (
    TRAINING_SOURCE,
    data_root,
    default_tagger,
    training_set,
)
from cae_lib.evaluation.attribution import attribution_table
from cae_lib.evaluation.averages import average, weights
from cae_lib.evaluation.choice import answers
from cae_lib.evaluation.datasets import benchmarks, is_world
from cae_lib.evaluation.encoder import Encoder, ImageRef
from cae_lib.evaluation.retrieval import retrieval_ranks
from cae_lib.grid import BOUND, CONTROL, TUNED, TUNING_SEED, Variant, trials
from cae_lib.models.clip import load_clip
from cae_lib.runs import measure_data, train_run
from cae_lib.runtime import pick_device, stamp
from cae_lib.words.alignment import token_roles

LEFT_GAP = 0.1
"""Share of CLIP-FT's gap A_obj - A_comp that the chosen lambda may leave."""

CURVE = ("mean", "ARO-R", "ARO-A")
"""What the calibration stores of the benchmarks."""

CHOSEN = "cae-counterfactual"
"""The row that gets the settings of the best candidate."""

BESIDE = (TUNED, CONTROL)
"""What stands beside the settings of `BOUND`, and is not chosen."""

CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    **{f"counterfactual, stop-gradient, {weight:g}": {"weight": weight, "stop_gradient": True}
       for weight in (0.5, 1.0, 2.0, 4.0)},
    "counterfactual, 2": {"weight": 2.0, "stop_gradient": False},
    "counterfactual, log": {"weight": 0.1, "stop_gradient": True, "hinge": "log"},
    "counterfactual, margin": {"weight": 2.0, "stop_gradient": False, "hinge": "margin",
                               "margin": 0.1},
    "perturbation, stop-gradient": {"method": "perturbation", "weight": 2.0, "attribution": (),
                                    "stop_gradient": True},
    "perturbation, masked captions": {"method": "perturbation", "weight": 2.0, "attribution": (),
                                      "stop_gradient": False, "masked": 0.3},
    "expected gradients": {"method": "integrated_gradients", "weight": 2.0, "stop_gradient": False,
                           "attribution": (("expected", True),)},
}
"""Settings of `CHOSEN` by what tells them apart."""


def run(parsed: argparse.Namespace) -> None:
    """Train the settings, score them on the validation split, store and print what is chosen, as
    the table `calibration`, `sweep`, `candidates` or `binding`. Each has rows with `experiment`,
    what was set (`lr`, `weight`, ...), `score` and its parts, `gap_METHOD`, and whether it was
    `chosen`."""
    training_set(parsed.profile)  # parses the captions once, before several processes need them
    CHOOSERS[parsed.what](parsed.profile)


def _control(profile_name: str) -> None:
    """The setting with the best mean score of CLIP-FT and of the positive control is chosen, and
    kept for every CAE run. The number of steps is what the profile's time allows; more and fewer
    are measured beside it."""
    kept = experiment(TUNED, profile_name)
    if is_world(data_root(profile_name)):
        measure_data(profile_name)
    found = run_jobs({variant.name(profile_name): partial(trial, "control", variant, profile_name)
                      for variant in trials("control", profile_name)})
    rows = [outcome.value for outcome in found.values()]
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    best = max((pair for pair in pairs if pair[0]["steps"] == kept.steps),
               key=lambda pair: pair[0]["score"] + pair[1]["score"])
    _store("calibration", profile_name, rows, [*best])
    chosen = ", ".join(f"{name} {best[0][name]}" for name in ("lr", "steps", "lock_image"))
    print(f"Chosen: {chosen}")
    _keep(profile_name, lr=best[0]["lr"])


def _asked(encoder: Encoder, profile_name: str) -> dict[str, float]:
    """The mean of the families, ARO-R and ARO-A. They choose nothing: they are for the curve of the
    control, which is no run of CAE."""
    items = results.load("items", profile_name, [results.DATA])
    asked = pd.concat([weights(items, "family"), weights(items, "table")])
    asked = asked[asked["score"].isin(CURVE)]
    return average(answers(benchmarks(profile_name), encoder), asked).to_dict()


def _weights(profile_name: str) -> None:
    """Of each method the smallest lambda that levels attribution."""
    tuned = _row(TUNED, profile_name)
    walks = run_jobs({variant.run: partial(trial, "lambda", variant, profile_name)
                      for variant in trials("lambda", profile_name)})
    rows, chosen = [tuned], [tuned]
    for walked in walks.values():
        rows += walked.value
        chosen.append(levelling(walked.value, tuned))
    _store("sweep", profile_name, rows, chosen)
    for row in chosen[1:]:
        print(f"Chosen: {row['experiment']} {row['weight']:g}")
    _keep(profile_name, weights={row["experiment"].removeprefix("cae-"): row["weight"]
                                 for row in chosen[1:]})


def trial(what: str, variant: Variant, profile_name: str) -> Any:
    """Train and score what `grid.trials` names: one setting, or a walk of lambdas, whose rows are
    a list."""
    if what == "control":
        world = is_world(data_root(profile_name))
        return _row(variant.run, profile_name, world, **variant.settings)
    if what == "binding":
        return _row(variant.run, profile_name, **variant.settings)
    return walk(partial(_weighed, variant.run, profile_name), _row(TUNED, profile_name),
                profile(profile_name).search.weights)


def _weighed(name: str, profile_name: str, weight: float) -> dict[str, Any]:
    return _row(name, profile_name, weight=weight)


def _keep(profile_name: str, **found: Any) -> None:
    """Where data are real, later runs take what was chosen; elsewhere a person writes it into the
    configuration, which a test holds against the tables."""
    if is_real(profile_name):
        choose(profile_name, **found)


def _candidates(profile_name: str) -> None:
    """The candidate with the best score."""
    found = run_jobs({name: partial(_row, CHOSEN, profile_name, **settings)
                      for name, settings in CANDIDATES.items()})
    rows = [outcome.value | {"candidate": name} for name, outcome in found.items()]
    best = max(rows, key=lambda row: row["score"])
    _store("candidates", profile_name, rows, [best])
    print(f"Chosen: {CHOSEN} as {best['candidate']}")


def _binding(profile_name: str) -> None:
    """The margin and lambda with the best score."""
    jobs = {variant.name(profile_name): partial(trial, "binding", variant, profile_name)
            for variant in trials("binding", profile_name)}
    jobs |= {name: partial(_row, name, profile_name) for name in BESIDE}
    rows = [outcome.value for outcome in run_jobs(jobs).values()]
    best = max((row for row in rows if row["experiment"] == BOUND), key=lambda row: row["score"])
    _store("binding", profile_name, rows, [best])
    print(f"Chosen: {BOUND} margin {best['margin']:g}, weight {best['weight']:g}")
    _keep(profile_name, margin=best["margin"], binding=best["weight"])


def _store(name: str, profile_name: str, rows: list[dict[str, Any]],
           chosen: list[dict[str, Any]]) -> None:
    table = pd.DataFrame([row | {"chosen": row in chosen} for row in rows])
    if "weight" in table:
        table = table.astype({"weight": "float64"})
    key = hashlib.sha256(table.to_csv().encode()).hexdigest()[:12]
    provenance = stamp(profile_name, TUNING_SEED, left_gap=LEFT_GAP)
    results.save(name, "tuning", TUNING_SEED, table, profile_name, key=key, provenance=provenance)


def walk(measure: Callable[[float], dict[str, Any]], fine_tuned: Mapping[str, Any],
         weights: Sequence[float]) -> list[dict[str, Any]]:
    """Measure lambdas of growing `weights` from 1 down while they level the gap, else up until one
    does. So the neighbours of the smallest lambda that is enough are measured, and no others; this
    takes for granted that a larger lambda leaves a smaller gap."""
    first = weights.index(1.0)
    rows = [measure(weights[first])]
    down = is_level(rows[0], fine_tuned)
    for weight in weights[:first][::-1] if down else weights[first + 1 :]:
        rows.append(measure(weight))
        if is_level(rows[-1], fine_tuned) != down:
            break
    return sorted(rows, key=lambda row: row["weight"])


def levelling(rows: list[dict[str, Any]], fine_tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Of rows by growing lambda, the first that leaves a level gap; if none does, the last."""
    return next((row for row in rows if is_level(row, fine_tuned)), rows[-1])


def is_level(row: Mapping[str, Any], fine_tuned: Mapping[str, Any]) -> bool:
    """Whether a CAE run leaves at most `LEFT_GAP` of CLIP-FT's gap by its own method."""
    gap = f"gap_{experiment(row['experiment'], 'mini').method}"
    return row[gap] <= LEFT_GAP * fine_tuned[gap]


def validation_gaps(encoder: Encoder, pairs: Pairs, methods: Iterable[str]) -> dict[str, float]:
    """A_obj - A_comp on validation captions, by attribution method."""
    cache = paths().cache / "roles"
    alignment = token_roles(pairs.captions, default_tagger(), encoder.clip.tokenizer, cache)
    table = attribution_table(encoder, pairs, alignment, methods)
    table["kind"] = table["role"].replace({"attribute": "composition", "relation": "composition"})
    means = table.groupby(["method", "kind"])["score"].mean().unstack()
    return (means["object"] - means["composition"]).to_dict()


def validation_scores(encoder: Encoder, pairs: Pairs) -> dict[str, float | int]:
    """Recall at 1 (both ways) and the share of captions that are preferred to each of their own
    hard negatives, of a NegCLIP file, and their mean."""
    ranks = retrieval_ranks(encoder, pairs, "validation")
    pictures = encoder.images([ImageRef(pairs.image_paths[i]) for i in pairs.image_index])
    right = encoder.texts(pairs.captions)
    negatives = pairs.negatives or []
    owners = [row for row, wrong in enumerate(negatives) for _ in wrong]
    wrong = encoder.texts([text for texts in negatives for text in texts])
    ahead = (pictures * right).sum(1)[owners] > (pictures[owners] * wrong).sum(1)
    r1 = (ranks["rank"] == 1).groupby(ranks["direction"]).mean().mean()
    return {
        "recall_at_1": float(r1), "against_negatives": float(ahead.mean()),
        "n_captions": pairs.n_used, "n_negatives": len(owners),
        "score": float((r1 + ahead.mean()) / 2),
    }


def _plain_cae(profile_name: str) -> dict[str, str]:
    """Method of each row whose lambda is chosen; NegCLIP with CAE takes over the lambda of CAE."""
    names = {f"cae-{method}": method for method in METHODS}
    return {name: names[name] for name in profile(profile_name).methods if name in names}


def _row(name: str, profile_name: str, asked: bool = False, **settings: Any) -> dict[str, Any]:
    """Train one setting and score it, in a small world with benchmarks if they are `asked`; the run
    is kept, so an interrupted sweep goes on."""
    checkpoint = train_run(name, profile_name, TUNING_SEED, **settings)
    config = experiment(name, profile_name, **settings)
    encoder = Encoder(load_clip(config.model, checkpoint, device=pick_device()), profile_name)
    root = data_root(profile_name)
    missing = "drop" if is_real(profile_name) and may_be_incomplete(TRAINING_SOURCE) else "raise"
    pairs = load_negclip_tsv(root / "coco" / "valid_neg_clip.tsv", root, missing)
    scores = validation_scores(encoder, pairs)
    gaps = validation_gaps(encoder, pairs, _plain_cae(profile_name).values())
    place = checkpoint.relative_to(paths().root)
    print(f"{name} {settings}: score {scores['score']:.4f}, gaps {gaps} ({place})", flush=True)
    gaps = {f"gap_{method}": gap for method, gap in gaps.items()}
    told = {"lr": config.lr, "steps": config.steps, "lock_image": config.lock_image}
    told |= {"weight": config.weight if config.method else None, "margin": config.margin}
    asked_for = _asked(encoder, profile_name) if asked else {}
    return {"experiment": name, **told, **scores, **gaps, **asked_for}


CHOOSERS: Mapping[str, Callable[[str], None]] = {
    "control": _control, "lambda": _weights, "candidates": _candidates, "binding": _binding,
}
