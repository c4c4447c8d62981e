"""What CAE costs: stored timings, and ratios between them.

The measurements are scripts of the folder `benchmarks`, which no page runs: they need a machine
that does nothing else. Ratios are taken within a round and then summarised over rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from cae_lib.errors import DataError
from cae_lib.records import Record, load_record, record_path
from cae_lib.report.markup import Text, number

PROFILE = "mini"
"""Where the records lie, whatever the profile of the page: they depend on none."""

STEP, SCORES = "cost/step", "cost/attribution"
COMMANDS = {
    STEP: ".venv/bin/python -m benchmarks.step_cost --threads 1",
    SCORES: ".venv/bin/python -m benchmarks.attribution_cost --threads 1",
}
LABELS = {
    "open_clip": "(a) open_clip",
    "clip-ft": "(b) CLIP-FT",
    "attention": "(c) CAE, attention",
    "gradcam": "(d) CAE, GradCAM",
    "perturbation": "(e) CAE, perturbation",
    "gradient": "(f) CAE, gradient",
    "plain-gradcam": "(g) plain CAE, GradCAM",
    "plain-perturbation": "(g) plain CAE, perturbation",
    "reference-attention": "(h) CAE by the model's own code, attention",
    "reference-gradcam": "(h) CAE by the model's own code, GradCAM",
    "reference-perturbation": "(h) CAE by the model's own code, perturbation",
    "reference-gradient": "(h) CAE by the model's own code, gradient",
    "images": "image encoder alone, in (b) to (f), (h)",
    "images-open_clip": "image encoder alone, in (a) and (g)",
}
SCORE_LABELS = {
    "perturbation": "perturbation",
    "captum": "captum, one word a pass",
    "captum-all-words": "captum, all words in one pass",
    "captum-by-caption": "captum, caption by caption",
    "gradcam": "GradCAM",
    "plain-gradcam": "the T × T rule, 77 tokens",
}


@dataclass(frozen=True)
class Spread:
    """Median, least and largest value over rounds."""

    median: float
    low: float
    high: float
    n: int

    def text(self, digits: int = 2) -> str:
        """ "1.20 [1.10, 1.30]"."""
        middle, low, high = (number(v, digits) for v in (self.median, self.low, self.high))
        return f"{middle} [{low},\N{NO-BREAK SPACE}{high}]"


def stored(name: str) -> Record | None:
    """The record `STEP` or `SCORES`; None when it has not been made.

    Raises:
        DataError: it is malformed.
    """
    path = record_path(name, PROFILE)
    if not path.is_file():
        return None
    record = load_record(name, PROFILE)
    missing = [key for key in ("rounds", "lengths", "equal") if not record.results.get(key)]
    missing += ["profiles"] if name == STEP and not record.results.get("profiles") else []
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: make it with `{COMMANDS[name]}`")
    return record


def notice(name: str) -> Text:
    """What a page shows in place of a measurement that is not stored."""
    return Text(f"This measurement is not stored here. Make it with `{COMMANDS[name]}`.")


def candidates(record: Record) -> list[str]:
    """What was measured, in the order of the tables."""
    return [name for name in labels(record) if name in record.results["rounds"][0]]


def labels(record: Record) -> Mapping[str, str]:
    """Names of all candidates as the tables print them."""
    return LABELS if record.name == STEP else SCORE_LABELS


def seconds(record: Record, name: str) -> Spread:
    """Seconds of a candidate over the rounds it took part in."""
    return spread([r[name] for r in record.results["rounds"] if name in r])


def ratio(record: Record, subject: str, reference: str) -> Spread | None:
    """Seconds of one candidate over another's in the same round; None if there is no such round."""
    both = [r for r in record.results["rounds"] if subject in r and reference in r]
    return spread([r[subject] / r[reference] for r in both]) if both else None


def images_of(name: str) -> str:
    """The candidate that is the image encoder of a step, and nothing else."""
    theirs = name == "open_clip" or name.startswith("plain-")
    return "images-open_clip" if theirs else "images"


def text_seconds(record: Record, name: str) -> Spread | None:
    """Seconds of a step without its image encoder's, each round by itself."""
    images = images_of(name)
    both = [r for r in record.results["rounds"] if name in r and images in r]
    return spread([r[name] - r[images] for r in both]) if both else None


def step_bytes(record: Record, name: str) -> int:
    """Peak memory of a step beyond weights and optimiser state."""
    return record.results["profiles"][name]["bytes"]


def memory_ratio(
    record: Record, subject: str, reference: str, fixed: bool = True
) -> Spread | None:
    """Peak memory of a step over another's; `fixed`: with weights and optimiser state."""
    profiles = record.results["profiles"]
    if subject not in profiles or reference not in profiles:
        return None
    more = record.results["fixed_bytes"] if fixed else 0
    parts = [more + step_bytes(record, name) for name in (subject, reference)]
    return spread([parts[0] / parts[1]])


def spread(values: list[float]) -> Spread:
    """Median and range of values."""
    return Spread(statistics.median(values), min(values), max(values), len(values))
