"""What survives, in sentences: for the page, and for the book's first page."""

from __future__ import annotations

from collections.abc import Sequence

from cae_lib.evaluation.crossed import detectable, pooled
from cae_lib.report.markup import Text, count, listing, number, show
from cae_lib.report.runs import TUNED, cae_runs, method_label, method_of
from cae_lib.report.significance import Cell, Significance, significance
from cae_lib.report.significance_power import planning
from cae_lib.report.significance_steps import count_steps


def survivors(found: Significance) -> Text:
    """What survives and what does not, by kind of comparison."""
    lines = []
    for kind, cells in found.by_kind().items():
        part = f"{kind}, {count(len(cells), 'difference')}: {_survivors(cells)}"
        split = sum(not cell.seeds_agree for cell in cells)
        lines.append(f"- {part}. The seeds disagree about the sign in {split} of {len(cells)}.")
    if found.cells and found.seeds == 1:
        lines.append("\n*With one seed the tests speak of items alone, not of another training.*")
    return show(Text("\n".join(lines)), found.without())


def _survivors(cells: Sequence[Cell]) -> str:
    parts = []
    for name in ("gain", "loss"):
        chosen = [cell for cell in cells if cell.verdict == name]
        before = sum(cell.verdict == f"{name}, uncorrected" for cell in cells)
        noun = count(len(chosen), name, "losses" if name == "loss" else None)
        named = f" ({listing([_named(cell) for cell in chosen])})" if chosen else ""
        lost = f", {before} more before Holm's correction only" if before else ""
        parts.append(f"{noun} survive{'s' if len(chosen) == 1 else ''}{named}{lost}")
    return "; ".join(parts)


def _named(cell: Cell) -> str:
    method = method_of(cell.comparison.run)
    size = number(100 * cell.test.estimate, 1, sign=True)
    return f"{f'{method_label(method)} on ' if method else ''}{cell.family} {size}"


def finding(profile: str, seeds: int) -> str | None:
    """One sentence on how many of CAE's differences survive; None where none is measured."""
    found = significance(profile, seeds)
    cells = [c for c in found.cells if c.comparison.against == TUNED
             and c.comparison.run in cae_runs(profile)]  # fmt: skip
    if not cells:
        return None
    single = count_steps(cells)["one seed, McNemar on paired items"]
    sizes = [detectable(pooled([c.test.components for c in group]))
             for group in planning(found)[1].values()]  # fmt: skip
    ends = " to ".join(number(100 * size, 1) for size in (min(sizes), max(sizes)))
    return (
        f"Of {len(cells)} differences between CAE and plain fine-tuning, a single seed shows "
        f"{_span(single.gains)} significant gains and {_span(single.losses)} losses; over "
        f"{count(seeds, 'seed')} and after Holm's correction, {_survivors(cells)}; true "
        f"differences of {ends} points could have been found with about 80 % probability."
    )


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
