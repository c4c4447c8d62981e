"""The tables of verdicts and of steps."""

from __future__ import annotations

from cae_lib.report.benchmarks import FAMILIES
from cae_lib.report.markup import Table, Text, count, emphasised, listing, number, percent
from cae_lib.report.significance import LEVEL, Cell, Significance, Verdict
from cae_lib.report.significance_steps import Count, count_steps

WORDS: dict[Verdict, str] = {
    "gain": "**gain**",
    "loss": "**loss**",
    "gain, uncorrected": "gain before Holm only",
    "loss, uncorrected": "loss before Holm only",
    "open": "not told apart",
}


def p_text(value: float) -> str:
    """A p-value with three decimals, the smallest as "< 0.001"."""
    return "<\N{NO-BREAK SPACE}0.001" if value < 0.0005 else number(value, 3)


def verdict_table(found: Significance) -> Table | Text:
    """Difference, interval, seeds, tests and verdict of each comparison on each family."""
    if not found.cells:
        return found.without()
    rows = []
    for cells in found.by_comparison().values():
        for place, cell in enumerate(cells.values()):
            rows.append(["" if place else cell.comparison.label, *_verdict_row(cell)])
    return Table(
        name="tab-significance",
        caption="What survives. Difference in percentage points with its 95 % bootstrap interval "
        f"over items and {count(found.seeds, 'seed')}; the smallest and the largest difference of "
        "a seed; in how many seeds McNemar's exact test finds it at 5 % in the same direction "
        "(p of each seed); p of the two-way t test, and the same after Holm's correction over the "
        "families of the comparison. A family's number is the unweighted mean of its benchmarks, "
        "each averaged as on the page of Table 1; McNemar's test counts its items alike.",
        header=["comparison", "family", "n", "difference", "seeds", "McNemar", "p", "Holm p",
                "verdict"],
        rows=rows,
        notes=_absent(found),
        left=2,
        collapsed="Every difference with its tests",
    )  # fmt: skip


def _verdict_row(cell: Cell) -> list[str]:
    seeds = [number(100 * value, 1, sign=True) for value in sorted(cell.test.by_seed)]
    tests = ", ".join(p_text(found.p_value) for found in cell.mcnemar)
    amount = f"{cell.n_used}"
    if cell.n_used != cell.n_expected:
        amount = f"**{cell.n_used}** of {cell.n_expected}"
    return [
        cell.family,
        amount,
        emphasised(percent(cell.interval, sign=True, lines=True), cell.holm < LEVEL),
        f"{seeds[0]} to {seeds[-1]}",
        f"{cell.seeds_found} of {len(cell.mcnemar)}<br>({tests})",
        p_text(cell.test.p_value),
        p_text(cell.holm),
        WORDS[cell.verdict],
    ]


def _absent(found: Significance) -> list[str]:
    """Families that a comparison lacks, so that Holm's correction has fewer of them."""
    return [
        f"{comparison.label}: the records have no {listing([f for f in FAMILIES if f not in row])}."
        for comparison, row in found.by_comparison().items()
        if len(row) < len(FAMILIES)
    ]


def steps_table(found: Significance) -> Table | Text:
    """How the count of significant differences changes from step to step."""
    if not found.cells:
        return found.without()
    counts = {kind: count_steps(cells) for kind, cells in found.by_kind().items()}
    steps = list(next(iter(counts.values())))
    sizes = {kind: len(cells) for kind, cells in found.by_kind().items()}
    return Table(
        name="tab-significance-steps",
        caption="Differences that are called significant at 5 %, gains and losses, by test; with "
        "one seed: by seed 0, 1, and so on. Between equally good trained models a test of "
        "one seed finds up to 5 % by chance. Holm over all comparisons corrects for "
        f"{count(len(found.cells), 'test')} at once.",
        header=["test", *(f"{kind}, of {sizes[kind]}" for kind in counts)],
        rows=[[step, *(_counted(counts[kind][step]) for kind in counts)] for step in steps],
    )


def _counted(found: Count) -> str:
    return "<br>".join(
        f"{', '.join(map(str, values))} {noun}"
        for noun, values in (("up", found.gains), ("down", found.losses))
    )
