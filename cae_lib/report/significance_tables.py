"""The tables of the page on significance, and its sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cae_lib.evaluation.crossed import Components, detectable, pooled
from cae_lib.evaluation.false_alarms import false_alarms
from cae_lib.report.benchmarks import FAMILIES
from cae_lib.report.markup import Table, Text, count, emphasised, listing, number, percent
from cae_lib.report.runs import TUNED, cae_runs, method_label, method_of
from cae_lib.report.significance import LEVEL, Cell, Tested, Verdict, tested
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


def survivors(found: Tested) -> Text:
    """What survives and what does not, by kind of comparison."""
    lines = []
    for kind, cells in found.by_kind().items():
        part = f"{kind}, {count(len(cells), 'difference')}: {_survivors(cells)}"
        split = sum(not cell.seeds_agree for cell in cells)
        lines.append(f"- {part}. The seeds disagree about the sign in {split} of {len(cells)}.")
    return Text("\n".join([*lines, "", *_missing(found)]))


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


def _missing(found: Tested) -> list[str]:
    if not found.missing:
        return []
    names = listing([comparison.label for comparison in found.missing])
    return [f"*Without {names}. {next(iter(found.missing.values()))}*"]


def verdict_table(found: Tested) -> Table | Text:
    """Difference, interval, seeds, tests and verdict of each comparison on each family."""
    if not found.cells:
        return Text("\n".join(_missing(found)))
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
        notes=[*_absent(found), *_missing(found)],
        left=2,
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


def _absent(found: Tested) -> list[str]:
    """Families that a comparison lacks, so that Holm's correction has fewer of them."""
    return [
        f"{comparison.label}: the records have no {listing([f for f in FAMILIES if f not in row])}."
        for comparison, row in found.by_comparison().items()
        if len(row) < len(FAMILIES)
    ]


def steps_table(found: Tested) -> Table | Text:
    """How the count of significant differences changes from step to step."""
    if not found.cells:
        return Text("\n".join(_missing(found)))
    counts = {kind: count_steps(cells) for kind, cells in found.by_kind().items()}
    steps = list(next(iter(counts.values())))
    sizes = {kind: len(cells) for kind, cells in found.by_kind().items()}
    return Table(
        name="tab-steps",
        caption="Differences that are called significant at 5 %, gains and losses, by test; with "
        "one seed: by seed 0, 1, and so on. If nothing differed, about 5 % would be called so "
        "by an exact test of one seed. Holm over all comparisons corrects for "
        f"{count(len(found.cells), 'test')} at once.",
        header=["test", *(f"{kind}, of {sizes[kind]}" for kind in counts)],
        rows=[[step, *(_counted(counts[kind][step]) for kind in counts)] for step in steps],
    )


def _counted(found: Count) -> str:
    return "<br>".join(
        f"{', '.join(map(str, values))} {noun}"
        for noun, values in (("up", found.gains), ("down", found.losses))
    )


def _planning(found: Tested) -> tuple[str, dict[str, list[Cell]]]:
    """The kind of comparison to plan by, CLIP-CAE's where there is one, and its cells by family."""
    kinds = found.by_kind()
    kind = next((name for name, cells in kinds.items()
                 if cells[0].comparison.against == TUNED and method_of(cells[0].comparison.run)),
                next(iter(kinds)))  # fmt: skip
    families: dict[str, list[Cell]] = {}
    for cell in kinds[kind]:
        families.setdefault(cell.family, []).append(cell)
    return kind, families


def power_table(found: Tested) -> Table | Text:
    """What true difference these items and seeds could have shown."""
    if not found.cells:
        return Text("\n".join(_missing(found)))
    kind, families = _planning(found)
    rows = []
    for family, cells in families.items():
        parts = pooled([cell.test.components for cell in cells])
        width = np.mean([(c.interval.high - c.interval.low) / 2 for c in cells])
        sizes = [detectable(parts), detectable(parts, level=LEVEL / len(families)),
                 detectable(parts, n_seeds=10), detectable(parts, more_items=4)]  # fmt: skip
        rows.append([family, f"{cells[0].n_used}", number(100 * parts.seeds**0.5, 2),
                     _share(parts), number(100 * width, 1),
                     *(number(100 * size, 1) for size in sizes)])  # fmt: skip
    return Table(
        name="tab-power",
        caption=f"What could have been found: {kind}, percentage points, variances averaged over "
        f"{count(len(next(iter(families.values()))), 'comparison')} of "
        f"{count(found.seeds, 'seed')}. Spread: standard deviation of the true difference from "
        "seed to seed, without what comes from the items; seeds' share: its part in the variance "
        "of the mean. Half-width of the 95 % bootstrap interval. Then the smallest true difference "
        "that the two-way t test finds with about 80 % probability at 5 %, at the first step of "
        f"Holm's correction ({len(families)} families), and at 5 % with 10 seeds or four times the items.",
        header=["family", "n", "spread", "seeds' share", "half-width", "detectable",
                "after Holm", "10 seeds", "4 × items"],
        rows=rows,
    )  # fmt: skip


def _share(parts: Components) -> str:
    variance = parts.variance()
    return f"{100 * parts.seeds / parts.n_seeds / variance:.0f} %" if variance else "0 %"


def alarm_table(found: Tested) -> Table | Text:
    """How often each test finds a difference between equal methods, by simulation."""
    if not found.cells:
        return Text("\n".join(_missing(found)))
    if found.seeds < 2:
        return Text("*False alarms over seeds are simulated from two seeds on.*")
    kind, families = _planning(found)
    scaled = []
    for cells in families.values():
        parts = pooled([cell.test.components for cell in cells])
        scaled.append(np.array([parts.seeds, parts.items, parts.rest]) / parts.variance())
    ours, items, rest = np.mean(scaled, axis=0)
    scenes = {
        "none": 0.0,
        f"as here ({kind}, mean over families)": ours,
        "as large as the noise of the items": items + rest,
        "ten times as large": 10 * (items + rest),
    }
    rows = []
    for name, seeds in scenes.items():
        rates = false_alarms(seeds, items, rest, found.seeds)
        shares = (rates.one_seed, rates.bootstrap, rates.two_way)
        rows.append([name, *(f"{100 * share:.1f}" for share in shares)])
    return Table(
        name="tab-false-alarms",
        caption="How often a test at 5 % calls two equal methods different, in percent of "
        f"{rates.n} simulated comparisons with {count(found.seeds, 'seed')} each, by the variance "
        "of the true difference from seed to seed. One seed: a paired test on the items, as "
        "McNemar's is.",
        header=["variance between seeds", "one seed", "two-way bootstrap", "two-way t test"],
        rows=rows,
    )


def finding(profile: str, seeds: int) -> str | None:
    """One sentence on how many of CAE's differences survive; None where none is measured."""
    found = tested(profile, seeds)
    cells = [c for c in found.cells if c.comparison.against == TUNED
             and c.comparison.run in cae_runs(profile)]  # fmt: skip
    if not cells:
        return None
    ups = count_steps(cells)["one seed, McNemar on paired items"].gains
    low, high = min(ups), max(ups)
    single = f"{low}" if low == high else f"{low} to {high}"
    sizes = [detectable(pooled([c.test.components for c in group]))
             for group in _planning(found)[1].values()]  # fmt: skip
    ends = " to ".join(number(100 * size, 1) for size in (min(sizes), max(sizes)))
    return (
        f"Of {len(cells)} differences between CAE and plain fine-tuning, a single seed shows "
        f"{single} significant gains; over {count(seeds, 'seed')} and after Holm's correction, "
        f"{_survivors(cells)}; true differences of {ends} points could have been found with about "
        "80 % probability."
    )
