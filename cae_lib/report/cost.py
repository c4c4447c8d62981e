"""What CAE costs: stored timings as ratios, and the targets they were to meet.

The measurements are scripts of the folder `benchmarks`, which no page runs: they need a machine
that does nothing else. Ratios are taken within a round and then summarised over rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from cae_lib.errors import DataError
from cae_lib.records import Record, load_record, record_path
from cae_lib.report.markup import Text, count, listing, number

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


@dataclass(frozen=True)
class Target:
    """A limit on a ratio, set before anything was measured.

    Attributes:
        subject: numerator.
        reference: denominator.
        limit: the ratio's limit.
        quantity: "seconds", or "bytes" for peak memory.
        at_least: the ratio must not be below the limit, else not above it.
    """

    subject: str
    reference: str
    limit: float
    quantity: str = "seconds"
    at_least: bool = False

    def found(self, record: Record) -> Spread | None:
        """The ratio; None when one of the two was not measured."""
        if self.quantity == "bytes":
            return memory_ratio(record, self.subject, self.reference)
        return ratio(record, self.subject, self.reference)

    def met(self, found: Spread) -> bool:
        """Whether the median keeps the limit."""
        return found.median >= self.limit if self.at_least else found.median <= self.limit


_CAE = ("attention", "gradcam", "perturbation", "gradient")
STEP_TARGETS = (
    Target("clip-ft", "open_clip", 0.75),
    Target("attention", "clip-ft", 1.06),
    Target("gradcam", "clip-ft", 1.50),
    Target("perturbation", "clip-ft", 2.0),
    Target("gradient", "clip-ft", 1.40),
    Target("attention", "open_clip", 1.0),
    Target("gradcam", "open_clip", 1.0),
    Target("gradient", "open_clip", 1.0),
    Target("plain-gradcam", "gradcam", 2.5, at_least=True),
    Target("plain-perturbation", "perturbation", 2.5, at_least=True),
    *(Target(name, "clip-ft", 1.5, "bytes") for name in _CAE),
)
SCORE_TARGETS = (
    Target("captum", "perturbation", 5.0, at_least=True),
    Target("captum-all-words", "perturbation", 5.0, at_least=True),
    Target("captum-by-caption", "perturbation", 5.0, at_least=True),
)


def targets_of(record: Record) -> tuple[Target, ...]:
    """The targets that a record is held to."""
    return STEP_TARGETS if record.name == STEP else SCORE_TARGETS


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
    return _spread([r[name] for r in record.results["rounds"] if name in r])


def ratio(record: Record, subject: str, reference: str) -> Spread | None:
    """Seconds of one candidate over another's in the same round; None if there is no such round."""
    both = [r for r in record.results["rounds"] if subject in r and reference in r]
    return _spread([r[subject] / r[reference] for r in both]) if both else None


def step_bytes(record: Record, name: str) -> int:
    """Peak memory of a step beyond weights and optimiser state."""
    return record.results["profiles"][name]["bytes"]


def memory_ratio(record: Record, subject: str, reference: str) -> Spread | None:
    """Peak memory of a step, weights and optimiser state included, over another's."""
    profiles, fixed = record.results["profiles"], record.results["fixed_bytes"]
    if subject not in profiles or reference not in profiles:
        return None
    parts = [fixed + step_bytes(record, name) for name in (subject, reference)]
    return _spread([parts[0] / parts[1]])


def verdict(record: Record | None, name: str) -> Text:
    """How many targets are met and which are not, in a sentence or two."""
    if record is None:
        return notice(name)
    judged = [(t, t.found(record)) for t in targets_of(record)]
    known = [(target, found) for target, found in judged if found is not None]
    missed = [f"{_words(record, t)} ({number(f.median, 2)}, {_limit(t)})"
              for t, f in known if not t.met(f)]  # fmt: skip
    total = count(len(known), "target")
    text = f"Of {total} set beforehand, {len(known) - len(missed)} are met."
    if missed:
        text += f" Missed: {listing(missed)}."
    if len(known) < len(judged):
        text += f" {count(len(judged) - len(known), 'target')} could not be judged: not measured."
    return Text(text)


def target_rows(record: Record) -> list[list[str]]:
    """Comparison, limit, what was found, and whether the limit is kept."""
    rows = []
    for target in targets_of(record):
        found = target.found(record)
        if found is None:
            rows.append([_words(record, target), _limit(target), "not measured", "–"])
            continue
        shown = found.text() if found.n > 1 else number(found.median, 2)
        met = "yes" if target.met(found) else "**no**"
        rows.append([_words(record, target), _limit(target), shown, met])
    return rows


def _words(record: Record, target: Target) -> str:
    names = labels(record)
    what = "memory, " if target.quantity == "bytes" else ""
    return f"{what}{names[target.subject]} ÷ {names[target.reference]}"


def _limit(target: Target) -> str:
    return f"at {'least' if target.at_least else 'most'} {target.limit:g}"


def _spread(values: list[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values), len(values))
