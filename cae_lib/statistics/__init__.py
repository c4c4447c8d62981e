"""One test for every mean and every difference, with two sources of chance: items and seeds; and
what its intervals say for a claim."""

from cae_lib.statistics.crossed import Components, crossed, detectable, summary
from cae_lib.statistics.estimates import ANSWERS, contrasts, correlations, levels, ratios
from cae_lib.statistics.verdicts import FEWEST, holm, reasons, verdict, words

__all__ = [
    "ANSWERS",
    "FEWEST",
    "Components",
    "contrasts",
    "correlations",
    "crossed",
    "detectable",
    "holm",
    "levels",
    "ratios",
    "reasons",
    "summary",
    "verdict",
    "words",
]
