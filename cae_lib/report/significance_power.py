"""What could have been found with these items and seeds, and how often each test errs."""

from __future__ import annotations

import numpy as np

from cae_lib.evaluation.crossed import Components, detectable, pooled
from cae_lib.evaluation.false_alarms import false_alarms
from cae_lib.report.markup import NONE, Table, Text, count, number
from cae_lib.report.runs import TUNED, method_of
from cae_lib.report.significance import LEVEL, Cell, Significance


def planning(found: Significance) -> tuple[str, dict[str, list[Cell]]]:
    """The kind of comparison to plan by, CLIP-CAE's where there is one, and its cells by family."""
    kinds = found.by_kind()
    kind = next((name for name, cells in kinds.items()
                 if cells[0].comparison.against == TUNED and method_of(cells[0].comparison.run)),
                next(iter(kinds)))  # fmt: skip
    families: dict[str, list[Cell]] = {}
    for cell in kinds[kind]:
        families.setdefault(cell.family, []).append(cell)
    return kind, families


def power_table(found: Significance) -> Table | Text:
    """What true difference these items and seeds could have shown."""
    if not found.cells:
        return found.without()
    kind, families = planning(found)
    rows = []
    for family, cells in families.items():
        parts = pooled([cell.test.components for cell in cells])
        width = np.mean([(c.interval.high - c.interval.low) / 2 for c in cells])
        sizes = [detectable(parts), detectable(parts, level=LEVEL / len(families)),
                 detectable(parts, n_seeds=10), detectable(parts, more_items=4)]  # fmt: skip
        row = [family, f"{cells[0].n_used}", number(100 * parts.seeds**0.5, 2),
               _share(parts), number(100 * width, 1),
               *(number(100 * size, 1) for size in sizes)]  # fmt: skip
        if found.seeds == 1:  # of which no spread can be told
            row = [NONE if place in (2, 3, 7) else cell for place, cell in enumerate(row)]
        rows.append(row)
    return Table(
        name="tab-power",
        caption=f"What could have been found: {kind}, percentage points, variances averaged over "
        f"{count(len(next(iter(families.values()))), 'comparison')} of "
        f"{count(found.seeds, 'seed')}. Spread: standard deviation of the true difference from "
        "seed to seed, without what comes from the items; seeds' share: its part in the variance "
        "of the mean. Half-width of the 95 % bootstrap interval. Then the smallest true difference "
        "that the two-way t test finds with about 80 % probability at 5 %, at the first step of "
        f"Holm's correction ({len(families)} families), and at 5 % with 10 seeds or four times "
        "the items.",
        header=["family", "n", "spread", "seeds' share", "half-width", "detectable",
                "after Holm", "10 seeds", "4 × items"],
        rows=rows,
    )  # fmt: skip


def _share(parts: Components) -> str:
    variance = parts.variance()
    return f"{100 * parts.seeds / parts.n_seeds / variance:.0f} %" if variance else "0 %"


def alarm_table(found: Significance) -> Table | Text:
    """How often each test finds a difference between equal methods, by simulation."""
    if not found.cells:
        return found.without()
    if found.seeds < 2:
        return Text("*False alarms are simulated from two seeds on.*")
    kind, families = planning(found)
    scaled = []
    for cells in families.values():
        parts = pooled([cell.test.components for cell in cells])
        if parts.variance():
            scaled.append(np.array([parts.seeds, parts.items, parts.rest]) / parts.variance())
    if not scaled:
        return Text("*No difference varies from seed to seed or from item to item.*")
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
