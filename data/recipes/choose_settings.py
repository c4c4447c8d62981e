"""Choose settings of a profile by scores on its validation captions, before any benchmark is asked.

    python -m data.recipes.choose_settings control --profile mini

- `control` looks at CLIP-FT and the positive control alone: learning rate, number of steps, and
  whether the image tower stays locked. The best sum of their scores is chosen.
- `lambda` walks the weight of each method. It weighs a constraint, so the smallest one is chosen
  that enforces it; choosing it by the score as well would choose 0 wherever CAE does not help.
  Where CLIP-FT has no gap by a method there is nothing to close, and nothing is chosen.
- `candidates` chooses, by the score, a loss that is to be hard to satisfy without composition.
- `binding` chooses margin and lambda of the swap-margin loss by the score, which holds the price:
  it is the mean of recall at 1 and of the share of captions preferred to their negatives.
- `footing` gives each loss of `FOOTING`, all of which use the captions' text alone, the same
  search: every learning rate, for losses with a margin every margin and lambda, then at the best of
  these what a swap moves. The score decides. The placebos of a loss, and the same loss on ground
  truth, take over what is chosen for it.
- `equal` gives NegCLIP and the margin loss as many trials as the swap-margin loss had in `footing`:
  NegCLIP more learning rates, each also with batches of twice as many pairs, and the margin loss
  more values of lambda. The swap-margin loss gets none.
- `ranges` then gives the other losses of `FOOTING` what `equal` chose for NegCLIP: its learning
  rate, its doubled batches, and both. The rest stays as configured.

It prints what is chosen, which a person writes into `configs/PROFILE.yaml`, and stores what was
tried as the table `calibration`, `sweep`, `candidates` or `binding`. The page *Sweep* does the same
for one setting of one run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from cae_bench.averages import score_weights, weighted_average
from cae_lab import results, store
from cae_lab.cli import run_reporting_errors
from cae_lab.names import CLIP_FT, NEGCLIP
from cae_lab.profiles import load_profile
from cae_lab.provenance import current_provenance
from cae_lab.selection import GAP_TOLERANCE, TUNING_SEED, choose_row, is_closed
from cae_lib.methods import PAPER_METHODS
from cae_lib.training.inputs import digest

CURVE = ("mean", "ARO-R", "ARO-A")
"""Scores on benchmarks that stand in the table of `control`, and choose nothing."""

BOUND, COUNTERFACTUAL = "cae-binding", "cae-counterfactual"
"""The runs that get the settings chosen by `binding` and by `candidates`."""

CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    **{
        f"counterfactual, stop-gradient, {weight:g}": {"weight": weight, "stop_gradient": True}
        for weight in (0.5, 1.0, 2.0, 4.0)
    },
    "counterfactual, 2": {"weight": 2.0, "stop_gradient": False},
    "counterfactual, log": {"weight": 0.1, "stop_gradient": True, "hinge": "log"},
    "counterfactual, margin": {
        "weight": 2.0,
        "stop_gradient": False,
        "hinge": "margin",
        "margin": 0.1,
    },
    "perturbation, stop-gradient": {
        "method": "perturbation",
        "weight": 2.0,
        "attribution": (),
        "stop_gradient": True,
    },
    "expected gradients": {
        "method": "integrated_gradients",
        "weight": 2.0,
        "stop_gradient": False,
        "attribution": (("expected", True),),
    },
}
"""Settings of `COUNTERFACTUAL` by what tells them apart."""

Row = dict[str, Any]


def score(name: str, profile: str, **settings: Any) -> Row:
    """Train a run with these settings, unless that is done, and score it."""
    config = load_profile(profile).experiment(name, **settings)
    measured = results.load("validation", profile, [name], [TUNING_SEED], compute=True, **settings)
    row = measured.drop(columns=["run", "seed"]).iloc[0].to_dict()
    print(f"{name} {settings}: score {row['score']:.4f}", flush=True)
    # NaN, not 0, stands for a run without an attribution loss.
    return {
        "experiment": name,
        "lr": config.lr,
        "steps": config.steps,
        "lock_image": config.lock_image,
        "weight": config.weight or None,
        "margin": config.margin,
        **row,
    }


def control(profile: str) -> None:
    """Choose learning rate and image tower by the sum of the scores of CLIP-FT and NegCLIP."""
    configured, search = load_profile(profile).experiment(CLIP_FT), load_profile(profile).search
    settings = {"lr": configured.lr, "steps": configured.steps, "lock_image": configured.lock_image}
    changes: list[Row] = [{"lr": lr} for lr in search.rates]
    changes += [{"steps": max(1, int(configured.steps * share))} for share in search.shares]
    changes += [{"lock_image": False}] * configured.lock_image
    asked = benchmark_scores if load_profile(profile).is_synthetic else lambda *_, **__: {}
    rows = [
        score(name, profile, **settings | change) | asked(name, profile, **settings | change)
        for change in changes
        for name in (CLIP_FT, NEGCLIP)
    ]
    # The number of steps is what the profile's time allows; more and fewer are only shown.
    pairs = [
        pair
        for pair in zip(rows[::2], rows[1::2], strict=True)
        if pair[0]["steps"] == configured.steps
    ]
    best = max(pairs, key=lambda pair: pair[0]["score"] + pair[1]["score"])
    chosen_values = ", ".join(f"{name} {best[0][name]}" for name in ("lr", "steps", "lock_image"))
    keep("calibration", profile, rows, best, [chosen_values])


def benchmark_scores(name: str, profile: str, **settings: Any) -> Row:
    """Return the scores of `CURVE`, which are stored and choose nothing."""
    items = results.load("items", profile, [results.DATA_RUN], compute=True)
    answers = results.load("benchmarks", profile, [name], [TUNING_SEED], compute=True, **settings)
    asked = pd.concat([score_weights(items, "family"), score_weights(items, "table")])
    return weighted_average(answers, asked[asked["score"].isin(CURVE)]).to_dict()


def lambdas(profile: str) -> None:
    """Choose λ of each method of the paper, see `cae_lab.selection`."""
    settings, tuned = load_profile(profile), score(CLIP_FT, profile)
    rows, chosen_rows = [], []
    for method in PAPER_METHODS:
        name, gap = f"cae-{method}", f"gap_{method}"
        if name not in settings.runs:
            continue
        # `not >`, so that a gap of NaN is refused, too.
        if not tuned[gap] > 0:
            print(f"{name}: nothing to close, CLIP-FT's gap is {tuned[gap]:g}")
            continue
        walked = walk_weights(
            lambda weight, name=name: score(name, profile, weight=weight),
            tuned[gap],
            gap,
            settings.search.weights,
        )
        rows += walked
        chosen_rows.append(choose_row(walked, tuned[gap], gap))
    keep(
        "sweep",
        profile,
        [tuned, *rows],
        [tuned, *chosen_rows],
        [f"{row['experiment']} {row['weight']:g}" for row in chosen_rows],
    )


def walk_weights(
    measure: Callable[[float], Row], reference_gap: float, gap: str, weights: Sequence[float]
) -> list[Row]:
    """Return the rows, by growing λ, of 1 and of what leads to the smallest λ that closes the gap.

    `weights` are growing, with 1 among them; `gap` is the column with the gap.
    """
    # This takes for granted that a larger λ leaves a smaller gap.
    first = weights.index(1.0)
    rows = [measure(weights[first])]
    goes_down = is_closed(rows[0][gap], reference_gap)
    # Down as long as λ closes the gap, else up until one does.
    for weight in weights[:first][::-1] if goes_down else weights[first + 1 :]:
        rows.append(measure(weight))
        if is_closed(rows[-1][gap], reference_gap) != goes_down:
            break
    return sorted(rows, key=lambda row: row["weight"])


def candidates(profile: str) -> None:
    """Choose one of `CANDIDATES` by the score."""
    rows = [
        score(COUNTERFACTUAL, profile, **settings) | {"candidate": name}
        for name, settings in CANDIDATES.items()
    ]
    best = max(rows, key=lambda row: row["score"])
    keep("candidates", profile, rows, [best], [f"{COUNTERFACTUAL} as {best['candidate']}"])


def binding(profile: str) -> None:
    """Choose margin and λ of `BOUND` by the score."""
    search = load_profile(profile).search
    rows = [
        score(BOUND, profile, margin=margin, weight=weight)
        for margin in search.margins
        for weight in search.binding_weights
    ]
    best = max(rows, key=lambda row: row["score"])
    # CLIP-FT and NegCLIP are scored for comparison.
    keep(
        "binding",
        profile,
        [*rows, *(score(name, profile) for name in (CLIP_FT, NEGCLIP))],
        [best],
        [f"{BOUND} margin {best['margin']:g}, weight {best['weight']:g}"],
    )


FOOTING: Mapping[str, tuple[str, ...]] = {
    "dependency-binding": ("margin", "swap"),
    "spacy-margin": ("margin",),
    "spacy-negclip": (),
    "dependency-softmax": ("swap",),
}
"""Losses that use the captions' text alone, with what is searched in addition to the rate."""

FOOTING_RATES = (3e-4, 1e-3)
SWAPS = ("phrase", "half")
"""What a swap can move, in addition to nouns alone."""


def footing(profile: str) -> None:
    """Search the settings of each loss of `FOOTING`, and of CLIP-FT for comparison."""
    search = load_profile(profile).search
    rows, best_rows = [score(CLIP_FT, profile, lr=lr) for lr in FOOTING_RATES], []
    for name, searched in FOOTING.items():
        hinges: list[dict[str, float]] = [{}]
        if "margin" in searched:
            # Every other λ, as there are learning rates to try, too.
            hinges = [
                {"margin": margin, "weight": weight}
                for margin in search.margins
                for weight in search.binding_weights[1::2]
            ]

        def moving(swap: str, name: str = name) -> dict[str, Any]:
            parameters = dict(load_profile(profile).experiment(name).attribution) | {"swap": swap}
            return {"attribution": tuple(parameters.items())}

        nouns = moving("noun") if "swap" in searched else {}
        scored = [
            (settings, score(name, profile, **settings, **nouns))
            for settings in ({"lr": lr} | hinge for lr in FOOTING_RATES for hinge in hinges)
        ]
        settings, best = max(scored, key=lambda pair: pair[1]["score"])
        # What else a swap moves is tried at the best of the other settings alone.
        swap = {"swap": "noun"} if "swap" in searched else {}
        tried = [row | swap for _, row in scored]
        best |= swap
        for swap in SWAPS if "swap" in searched else ():
            row = score(name, profile, **settings, **moving(swap))
            tried.append(row | {"swap": swap})
            best = max(best, tried[-1], key=lambda row: row["score"])
        rows += tried
        best_rows.append(best)
    keep(
        "footing",
        profile,
        rows,
        best_rows,
        [
            f"{row['experiment']} lr {row['lr']:g}, margin {row['margin']:g}, "
            f"weight {row['weight'] or 0:g}, swap {row.get('swap', '-')}"
            for row in best_rows
        ],
    )


NEGCLIP_RATES = (1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3)
"""Learning rates of NegCLIP in `equal`."""


def equal(profile: str) -> None:
    """Try NegCLIP and the margin loss as often as `footing` tried the swap-margin loss."""
    tried = results.load("footing", profile, ["tuning"])
    rows: list[Row] = tried.drop(columns=["run", "seed", "chosen"]).to_dict("records")
    pairs = load_profile(profile).experiment("spacy-negclip").batch_size
    # `footing` does not vary the batch, so its table has no such column.
    for row in rows:
        row.setdefault("batch_size", load_profile(profile).experiment(row["experiment"]).batch_size)

    def of(name: str) -> list[Row]:
        return [row for row in rows if row["experiment"] == name]

    for size in (pairs, 2 * pairs):
        for lr in NEGCLIP_RATES:
            # not what `footing` has tried
            if (lr, size) not in {(row["lr"], row["batch_size"]) for row in of("spacy-negclip")}:
                row = score("spacy-negclip", profile, lr=lr, batch_size=size)
                rows.append(row | {"batch_size": size})
    best = max(of("spacy-margin"), key=_score)
    for weight in load_profile(profile).search.binding_weights[::2]:
        if weight not in {row["weight"] for row in of("spacy-margin")}:
            settings = {"lr": best["lr"], "margin": best["margin"], "weight": weight}
            size = load_profile(profile).experiment("spacy-margin").batch_size
            rows.append(score("spacy-margin", profile, **settings) | {"batch_size": size})
    chosen = [max(of(name), key=_score) for name in FOOTING]
    _keep_footing(profile, rows, chosen)


RATE = 2e-3
"""The learning rate that `equal` chose for NegCLIP."""


def ranges(profile: str) -> None:
    """Try the other losses of `FOOTING` at NegCLIP's rate and in its doubled batches."""
    stored = results.load("footing", profile, ["tuning"])
    rows: list[Row] = stored.drop(columns=["run", "seed", "chosen"]).to_dict("records")
    for name in FOOTING:
        config = load_profile(profile).experiment(name)
        pairs, swap = config.batch_size, dict(config.attribution).get("swap")
        tried = {(row["lr"], row["batch_size"]) for row in rows if row["experiment"] == name}
        for lr, size in ((RATE, pairs), (config.lr, 2 * pairs), (RATE, 2 * pairs)):
            if name != "spacy-negclip" and (lr, size) not in tried:  # as in an earlier call
                row = score(name, profile, lr=lr, batch_size=size)
                rows.append(row | {"batch_size": size, "swap": swap})
    best = [max((row for row in rows if row["experiment"] == name), key=_score) for name in FOOTING]
    _keep_footing(profile, rows, best)


def _keep_footing(profile: str, rows: Sequence[Row], chosen: Sequence[Row]) -> None:
    keys = ("experiment", "lr", "weight", "batch_size")
    keep("footing", profile, rows, chosen, [str([row[key] for key in keys]) for row in chosen])


def _score(row: Row) -> float:
    return row["score"]


def keep(
    table: str,
    profile: str,
    rows: Sequence[Row],
    chosen_rows: Sequence[Row],
    messages: Iterable[str],
) -> None:
    """Store what was tried, and say what is chosen."""
    frame = pd.DataFrame([row | {"chosen": row in chosen_rows} for row in rows])
    # A search whose losses all have no λ would be stored with a column of objects.
    if "weight" in frame:
        frame = frame.astype({"weight": "float64"})
    found = load_profile(profile)
    store.save(
        table,
        found,
        "tuning",
        TUNING_SEED,
        frame,
        key=digest(frame.to_csv()),
        provenance=current_provenance(profile, TUNING_SEED, left_gap=GAP_TOLERANCE),
    )
    store.pack(found, [("tuning", TUNING_SEED)], [table])
    for text in messages:
        print(f"Chosen: {text}")


CHOICES: Mapping[str, Callable[[str], None]] = {
    "control": control,
    "lambda": lambdas,
    "candidates": candidates,
    "binding": binding,
    "footing": footing,
    "equal": equal,
    "ranges": ranges,
}


def main(words: Sequence[str] | None = None) -> int:
    """Choose, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=CHOICES)
    parser.add_argument("--profile", default="mini")
    parsed = parser.parse_args(words)
    return run_reporting_errors(lambda: CHOICES[parsed.what](parsed.profile), "the same command")


if __name__ == "__main__":
    sys.exit(main())
