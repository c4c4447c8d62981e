"""The limits that the costs of CAE were to keep, set before anything was measured."""

from __future__ import annotations

from dataclasses import dataclass

from cae_lib.records import Record
from cae_lib.report.cost import STEP, Spread, labels, memory_ratio, notice, ratio
from cae_lib.report.markup import NONE, Text, count, listing, number


@dataclass(frozen=True)
class Target:
    """A limit on a ratio.

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
    Target("clip-ft", "open_clip", 0.65),
    Target("attention", "clip-ft", 1.03),
    Target("gradcam", "clip-ft", 1.20),
    Target("perturbation", "clip-ft", 1.40),
    Target("gradient", "clip-ft", 1.20),
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


def verdict(record: Record | None, name: str) -> Text:
    """How many targets are met and which are not, in a sentence or two."""
    if record is None:
        return notice(name)
    every = targets_of(record)
    n_judged = sum(target.found(record) is not None for target in every)
    failures = missed(record)
    text = f"Of {count(n_judged, 'target')} set beforehand, {n_judged - len(failures)} are met."
    if failures:
        listed = [f"{_words(record, target)} ({number(found.median, 2)}, {_limit(target)})"
                  for target, found in failures]  # fmt: skip
        text += f" Missed: {listing(listed)}."
    if n_judged < len(every):
        text += f" {count(len(every) - n_judged, 'target')} could not be judged: not measured."
    return Text(text)


def missed(record: Record) -> list[tuple[Target, Spread]]:
    """The targets that were measured and not met, with what was found."""
    judged = [(target, target.found(record)) for target in targets_of(record)]
    return [(target, found) for target, found in judged if found and not target.met(found)]


def target_rows(record: Record) -> list[list[str]]:
    """Comparison, limit, what was found, and whether the limit is kept."""
    rows = []
    for target in targets_of(record):
        found = target.found(record)
        if found is None:
            rows.append([_words(record, target), _limit(target), "not measured", NONE])
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
