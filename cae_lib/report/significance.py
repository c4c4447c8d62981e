"""Which differences between runs survive: tests on stored answers, seed by seed and over all seeds.

The primary test is the two-way t test of `cae_lib.evaluation.crossed`, on the family's own weighted
average, over seeds and items. Holm's correction goes over the families within a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cae_lib.config import profile as find_profile
from cae_lib.evaluation.crossed import TwoWay, two_way_test
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.significance import McNemar, holm, mcnemar, unpaired
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.benchmarks import FAMILIES, Score, answers, family_score
from cae_lib.report.markup import Text, listing
from cae_lib.report.runs import BASE, HARD, TUNED, cae_runs, hard_cae_runs, label
from cae_lib.report.stored import NotMeasured, require

LEVEL = 0.05
SUITE = "benchmarks"

Verdict = Literal["gain", "loss", "gain, uncorrected", "loss, uncorrected", "open"]


@dataclass(frozen=True)
class Comparison:
    """A run minus another one."""

    run: str
    against: str

    @property
    def label(self) -> str:
        """Both names, as the tables print them."""
        return f"{label(self.run)} \N{MINUS SIGN} {label(self.against)}"

    @property
    def kind(self) -> str:
        """The same without the attribution method."""
        return f"{label(self.run).split(' (')[0]} \N{MINUS SIGN} {label(self.against)}"


@dataclass(frozen=True)
class Cell:
    """One comparison on one family.

    Attributes:
        comparison: The runs.
        family: Of benchmarks.
        interval: Difference with its bootstrap interval over seeds and items.
        test: Two-way t test, the primary one.
        mcnemar: McNemar's test of each seed; it counts all items alike.
        unpaired: P-value of each seed's unpaired test.
        n_used: Items scored.
        n_expected: Items that there should be.
        holm: P-value of `test` corrected over the families of the comparison.
        holm_all: The same over all cells of the page.
    """

    comparison: Comparison
    family: str
    interval: Interval
    test: TwoWay
    mcnemar: tuple[McNemar, ...]
    unpaired: tuple[float, ...]
    n_used: int
    n_expected: int
    holm: float = 1.0
    holm_all: float = 1.0

    @property
    def verdict(self) -> Verdict:
        """What may be said of the difference at 5 %."""
        if self.test.p_value >= LEVEL:
            return "open"
        name = "gain" if self.test.estimate > 0 else "loss"
        return name if self.holm < LEVEL else f"{name}, uncorrected"

    @property
    def seeds_found(self) -> int:
        """Seeds whose McNemar test is significant in the direction of the difference."""
        up = self.test.estimate > 0
        return sum(found.p_value < LEVEL and (direction(found) > 0) == up for found in self.mcnemar)

    @property
    def seeds_agree(self) -> bool:
        """Whether the difference of every seed has the same sign."""
        return len({np.sign(value) for value in self.test.by_seed}) == 1


@dataclass(frozen=True)
class Significance:
    """All comparisons of a profile that are measured.

    Attributes:
        cells: By comparison, then by family.
        missing: Comparisons that are not measured, with the reason.
        seeds: Seeds of each trained run.
    """

    cells: tuple[Cell, ...]
    missing: Mapping[Comparison, str]
    seeds: int

    def without(self) -> Text:
        """What is not measured, and the command that measures it; empty if everything is."""
        names = listing([comparison.label for comparison in self.missing])
        return Text(f"*Without {names}. {next(iter(self.missing.values()))}*" if names else "")

    def by_kind(self) -> dict[str, list[Cell]]:
        """Cells by what is compared, the attribution methods together."""
        kinds = dict.fromkeys(cell.comparison.kind for cell in self.cells)
        return {kind: [c for c in self.cells if c.comparison.kind == kind] for kind in kinds}

    def by_comparison(self) -> dict[Comparison, dict[str, Cell]]:
        """Cells by comparison, then by family."""
        table: dict[Comparison, dict[str, Cell]] = {}
        for cell in self.cells:
            table.setdefault(cell.comparison, {})[cell.family] = cell
        return table


def comparisons(profile: str) -> list[Comparison]:
    """CLIP-FT against CLIP, CAE and NegCLIP against CLIP-FT, NegCLIP with CAE against NegCLIP."""
    found = [Comparison(TUNED, BASE), *(Comparison(run, TUNED) for run in cae_runs(profile))]
    if HARD in find_profile(profile).methods:
        found.append(Comparison(HARD, TUNED))
        found += [Comparison(run, HARD) for run in hard_cae_runs(profile)]
    return found


def significance(profile: str, seeds: int) -> Significance:
    """Test every comparison of a profile whose records are stored.

    Raises:
        DataError: A record cannot be used.
    """
    cells: list[Cell] = []
    missing: dict[Comparison, str] = {}
    for comparison in comparisons(profile):
        try:
            require([comparison.run, comparison.against], profile, SUITE, seeds)
        except NotMeasured as error:
            missing[comparison] = str(error)
            continue
        pair = (answers(run, profile, seeds) for run in (comparison.run, comparison.against))
        cells += compared(comparison, *pair)
    return Significance(corrected(cells), missing, seeds)


def compared(
    comparison: Comparison,
    ours: Mapping[str, Sequence[ChoiceResult]],
    theirs: Mapping[str, Sequence[ChoiceResult]],
) -> list[Cell]:
    """The cells of a comparison from both runs' answers, not yet corrected.

    Raises:
        DataError: The two runs did not answer the same items.
    """
    scores = {name: (family_score(name, ours), family_score(name, theirs)) for name in FAMILIES}
    return [_cell(comparison, name, first, second)
            for name, (first, second) in scores.items()
            if first is not None and second is not None]  # fmt: skip


def _cell(comparison: Comparison, family: str, first: Score, second: Score) -> Cell:
    seeds = range(max(first.n_seeds, second.n_seeds))
    rows = [(_row(first, seed), _row(second, seed)) for seed in seeds]
    return Cell(
        comparison=comparison,
        family=family,
        interval=first.minus(second),
        test=two_way_test(first.strata, second.strata, first.weights, first.pictures),
        mcnemar=tuple(mcnemar(*map(np.concatenate, (*row, first.pictures))) for row in rows),
        unpaired=tuple(unpaired(a, b, first.weights) for a, b in rows),
        n_used=first.n_used,
        n_expected=first.n_expected,
    )


def _row(score: Score, seed: int) -> list[np.ndarray]:
    """One seed's answers by group; a model without seeds gives the same ones to each."""
    return [part[seed if len(part) > 1 else 0] for part in score.strata]


def corrected(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells with Holm's p-values within each comparison and over all."""
    everywhere = holm([cell.test.p_value for cell in cells])
    within: dict[Comparison, list[float]] = {}
    for cell in cells:
        within.setdefault(cell.comparison, []).append(cell.test.p_value)
    left = {comparison: iter(holm(values)) for comparison, values in within.items()}
    return tuple(
        replace(cell, holm=float(next(left[cell.comparison])), holm_all=float(p))
        for cell, p in zip(cells, everywhere, strict=True)
    )


def direction(found: McNemar) -> int:
    """1 if the first run has more items right, -1 if the second has, else 0."""
    return int(np.sign(found.first_only - found.second_only))
