"""`cae tune`: choosing settings on the validation split, before any benchmark.

`--what control` looks at CLIP-FT and the positive control alone: learning rate, number of steps,
and whether the image tower stays locked. `--what lambda` then walks the weight of each method: it
weighs a constraint, so the smallest one is chosen that enforces it; choosing it by the score as
well would choose 0 wherever CAE does not help. Where CLIP-FT has no gap by a method there is
nothing to close, and no lambda of it is chosen. `--what candidates` chooses a loss that is to be
hard to satisfy without composition of `CANDIDATES`, by the score. `--what binding` chooses margin
and lambda of CAE on bindings, by the score, which holds the price: it is the mean of recall at 1
and of the share of captions preferred to their negatives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from cae_lib import results
from cae_lib.commands.jobs import run_jobs
from cae_lib.config import paths
from cae_lib.data.training_set import training_set
from cae_lib.evaluation.averages import average, weights
from cae_lib.evaluation.choice import answers
from cae_lib.evaluation.datasets import benchmarks
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.selection import LEFT_GAP, smallest_closing, walk
from cae_lib.evaluation.validation import validation_row
from cae_lib.grid import BOUND, TUNING_SEED, trials
from cae_lib.measuring import measure_data
from cae_lib.models.clip import load_clip
from cae_lib.profiles import choose, experiment, find_profile
from cae_lib.runs import train_run
from cae_lib.runtime import pick_device, stamp
from cae_lib.variants import CONTROL, TUNED, Variant

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


def run(what: str, profile_name: str) -> None:
    """Train the settings, score them on the validation split, store and print what is chosen, as
    the table `calibration`, `sweep`, `candidates` or `binding`. Each has rows with `experiment`,
    what was set (`lr`, `weight`, ...), `score` and its parts, `gap_METHOD`, and whether it was
    `chosen`."""
    training_set(profile_name)  # parses the captions once, before several processes need them
    CHOOSERS[what](profile_name)


def _control(profile_name: str) -> None:
    """The setting with the best mean score of CLIP-FT and of the positive control is chosen, and
    kept for every CAE run. The number of steps is what the profile's time allows; more and fewer
    are measured beside it."""
    if find_profile(profile_name).gold:
        measure_data(profile_name)
    rows = _tried("control", profile_name)
    steps = experiment(TUNED, profile_name).steps
    best = max((pair for pair in zip(rows[::2], rows[1::2], strict=True)
                if pair[0]["steps"] == steps), key=lambda pair: pair[0]["score"] + pair[1]["score"])
    told = ", ".join(f"{name} {best[0][name]}" for name in ("lr", "steps", "lock_image"))
    _choose("calibration", profile_name, rows, best, [told], lr=best[0]["lr"])


def _weights(profile_name: str) -> None:
    """Of each method the smallest lambda that levels attribution, if CLIP-FT has a gap by it."""
    tuned = _row(TUNED, profile_name)
    walks = [walked for walked in _tried("lambda", profile_name) if walked]
    gaps = [_gap_of(walked[0]["experiment"]) for walked in walks]
    chosen = [smallest_closing(walked, tuned[gap], gap)
              for walked, gap in zip(walks, gaps, strict=True)]
    _choose("sweep", profile_name, [tuned, *(row for walked in walks for row in walked)],
            [tuned, *chosen], [f"{row['experiment']} {row['weight']:g}" for row in chosen],
            weights={row["experiment"].removeprefix("cae-"): row["weight"] for row in chosen})
    walked = {walked[0]["experiment"] for walked in walks}
    for name in (variant.run for variant in trials("lambda", profile_name)):
        if name not in walked:
            print(f"{name}: nothing to close, CLIP-FT's gap is {tuned[_gap_of(name)]:g}; no lambda "
                  "is chosen")


def _candidates(profile_name: str) -> None:
    """The candidate with the best score."""
    found = run_jobs({name: partial(_row, CHOSEN, profile_name, **settings)
                      for name, settings in CANDIDATES.items()})
    rows = [outcome.value | {"candidate": name} for name, outcome in found.items()]
    best = max(rows, key=lambda row: row["score"])
    _choose("candidates", profile_name, rows, [best], [f"{CHOSEN} as {best['candidate']}"])


def _binding(profile_name: str) -> None:
    """The margin and lambda with the best score."""
    rows = _tried("binding", profile_name, *BESIDE)
    best = max((row for row in rows if row["experiment"] == BOUND), key=lambda row: row["score"])
    _choose("binding", profile_name, rows, [best],
            [f"{BOUND} margin {best['margin']:g}, weight {best['weight']:g}"],
            margin=best["margin"], binding=best["weight"])


def _tried(what: str, profile_name: str, *beside: str) -> list[Any]:
    """What `trial` returns of each of `grid.trials`, and the rows of runs `beside` them."""
    jobs: dict[str, Callable[[], Any]] = {
        variant.name(profile_name): partial(trial, what, variant, profile_name)
        for variant in trials(what, profile_name)}
    jobs |= {name: partial(_row, name, profile_name) for name in beside}
    return [outcome.value for outcome in run_jobs(jobs).values()]


def trial(what: str, variant: Variant, profile_name: str) -> Any:
    """Train and score what `grid.trials` names: one setting, or a walk of lambdas, whose rows are
    a list; it is empty where CLIP-FT has no gap that a lambda could close."""
    if what != "lambda":
        asked = what == "control" and find_profile(profile_name).gold
        return _row(variant.run, profile_name, asked=asked, **variant.settings)
    tuned = _row(TUNED, profile_name)
    gap = _gap_of(variant.run)
    if not tuned[gap] > 0:
        return []
    return walk(lambda weight: _row(variant.run, profile_name, weight=weight), tuned[gap], gap,
                find_profile(profile_name).search.weights)


def _choose(table: str, profile_name: str, rows: list[dict[str, Any]],
            chosen: Sequence[dict[str, Any]], told: Iterable[str], **kept: Any) -> None:
    """Store the rows, and tell what is chosen. Where data are real, later runs take what is `kept`;
    elsewhere a person writes it into the configuration, which a test holds against the tables."""
    frame = pd.DataFrame([row | {"chosen": row in chosen} for row in rows])
    if "weight" in frame:
        frame = frame.astype({"weight": "float64"})
    key = hashlib.sha256(frame.to_csv().encode()).hexdigest()[:12]
    provenance = stamp(profile_name, TUNING_SEED, left_gap=LEFT_GAP)
    results.save(table, "tuning", TUNING_SEED, frame, profile_name, key=key, provenance=provenance)
    for text in told:
        print(f"Chosen: {text}")
    if find_profile(profile_name).real and kept:
        choose(profile_name, **kept)


def _row(name: str, profile_name: str, asked: bool = False, **settings: Any) -> dict[str, Any]:
    """Train one setting and score it, in a small world with benchmarks if they are `asked`; the run
    is kept, so an interrupted sweep goes on."""
    config = experiment(name, profile_name, **settings)
    checkpoint = train_run(name, profile_name, TUNING_SEED, **settings)
    encoder = Encoder(load_clip(config.model, checkpoint, device=pick_device()), profile_name)
    row = validation_row(encoder, profile_name)
    place = checkpoint.relative_to(paths().root)
    print(f"{name} {settings}: score {row['score']:.4f} ({place})", flush=True)
    return {"experiment": name, "lr": config.lr, "steps": config.steps,
            "lock_image": config.lock_image, "weight": config.weight if config.method else None,
            "margin": config.margin, **row, **(_asked(encoder, profile_name) if asked else {})}


def _asked(encoder: Encoder, profile_name: str) -> dict[str, float]:
    """The mean of the families, ARO-R and ARO-A. They choose nothing: they are for the curve of the
    control, which is no run of CAE."""
    items = results.load("items", profile_name, [results.DATA])
    asked = pd.concat([weights(items, "family"), weights(items, "table")])
    asked = asked[asked["score"].isin(CURVE)]
    return average(answers(benchmarks(profile_name), encoder), asked).to_dict()


def _gap_of(name: str) -> str:
    """The column with the gap by the method that a CAE run is trained with."""
    return f"gap_{experiment(name, 'mini').method}"


CHOOSERS: Mapping[str, Callable[[str], None]] = {
    "control": _control, "lambda": _weights, "candidates": _candidates, "binding": _binding,
}
