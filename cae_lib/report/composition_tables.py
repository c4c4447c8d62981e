"""Tables and sentences of the composition curve."""

from __future__ import annotations

from collections.abc import Sequence

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.attribution import Draws
from cae_lib.report.benchmarks import FAMILIES
from cae_lib.report.composition_curve import RECALL, Curve, composition, opponent
from cae_lib.report.composition_items import BOTH, LENGTH, OBJECTS, TOPS, WORLD
from cae_lib.report.markup import NONE, Table, count, emphasised, listing, number, percent
from cae_lib.report.runs import BASE, TUNED, cae_runs, label, method_label, method_of
from cae_lib.report.stored import if_measured

LEAST_DIFFERING = 50
BRACKETS = "Brackets: 95 % bootstrap intervals over seeds and items; bold: zero lies outside."
TERMS = (
    ("relations and attributes together", (BOTH,), 0),
    ("words", (LENGTH,), 0),
    ("relations and attributes, length held fixed", (BOTH, LENGTH), 0),
    ("words, relations and attributes held fixed", (BOTH, LENGTH), 1),
    ("relations, attributes held fixed", ("relations", "attributes"), 0),
    ("attributes, relations held fixed", ("relations", "attributes"), 1),
    ("relations, attributes and length held fixed", ("relations", "attributes", LENGTH), 0),
    ("attributes, relations and length held fixed", ("relations", "attributes", LENGTH), 1),
)
WORLD_TERMS = (
    ("attributes by the world's own words", (WORLD,), 0),
    ("the same, length held fixed", (WORLD, LENGTH), 0),
)
COUNTED = {
    "relations": "relations",
    "attributes": "attributes",
    BOTH: "relations + attributes",
    WORLD: "attributes, world's words",
}


def compared(curve: Curve) -> list[str]:
    """The runs with CAE of which the run that they are compared with is there, too."""
    return [run for run in curve.runs if method_of(run) and opponent(run) in curve.runs]


def class_label(name: str, k: int) -> str:
    """A class of a count: "0", "1", and "3+" for the last one."""
    return f"{k}+" if k == TOPS[name] else str(k)


@if_measured
def run_table(profile: str, seeds: int) -> Table:
    """Slope of every run with and without length held fixed, and the difference by CAE."""
    curve = composition(profile, seeds)
    rows = []
    for run in curve.runs:
        plain, fixed = curve.slopes(run, BOTH)[0], curve.slopes(run, BOTH, LENGTH)[0]
        gaps: list[Interval | None] = [None, None]
        if run in compared(curve):
            other = opponent(run)
            gaps = [curve.slope_gap(run, other, BOTH)[0],
                    curve.slope_gap(run, other, BOTH, LENGTH)[0]]  # fmt: skip
        cells = [_shown(plain), _difference(gaps[0]), _shown(fixed), _difference(gaps[1])]
        rows.append([label(run), *cells])
    return Table(
        name="tab-composition-slopes",
        caption="Slope of the accuracy in percentage points per relation or attribute more in the "
        f"true caption, subset held fixed; {_basis(curve, seeds)}.",
        header=["model", "slope", "minus that without CAE", "slope, length held fixed",
                "minus that without CAE"],
        rows=rows,
        notes=[BRACKETS],
    )  # fmt: skip


@if_measured
def term_table(profile: str, seeds: int) -> Table:
    """Rival explanations: each term's slope in CLIP-FT, and what CAE changes in it."""
    curve = composition(profile, seeds)
    runs = _plain_runs(curve)
    terms = TERMS + (WORLD_TERMS if WORLD in curve.columns else ())
    rows = []
    for title, properties, place in terms:
        gaps = [curve.slope_gap(run, TUNED, *properties)[place] for run in runs]
        shown = [_shown(curve.slopes(run, *properties)[place]) for run in (BASE, TUNED)]
        rows.append([title, *shown, *map(_difference, gaps)])
    return Table(
        name="tab-composition-terms",
        caption="Slopes in percentage points for one more of what the first column names, and "
        f"CLIP-CAE minus CLIP-FT in them, subset held fixed; {_basis(curve, seeds)}.",
        header=["one more of", "CLIP", "CLIP-FT", *_minus(runs)],
        rows=rows,
        notes=[BRACKETS],
    )


@if_measured
def family_table(profile: str, seeds: int) -> Table:
    """The slope within each family, in object questions and in retrieval."""
    curve = composition(profile, seeds)
    runs, rows, left_out = _plain_runs(curve), [], []
    for name in (*FAMILIES, OBJECTS, RECALL):
        if name not in curve.groups:
            continue
        differing = curve.differing.get(name)
        if differing is not None and differing < LEAST_DIFFERING:
            left_out.append(f"{name} ({differing})")
            continue
        gaps = [curve.slope_gap(run, TUNED, BOTH, group=name)[0] for run in runs]
        sizes = [str(curve.groups[name].n), NONE if differing is None else str(differing)]
        rows.append([name, *sizes, _shown(curve.slopes(TUNED, BOTH, group=name)[0]),
                     *map(_difference, gaps)])  # fmt: skip
    missing = f" Left out, since fewer items differ: {listing(left_out)}." if left_out else ""
    return Table(
        name="tab-composition-families",
        caption="The slope per relation or attribute within each family in percentage points; "
        f"{count(seeds, 'seed')}. Object questions and text-to-image recall (queries: the test "
        "captions of COCO) are not part of the other tables.",
        header=["family", "n", "differ", "CLIP-FT", *_minus(runs)],
        rows=rows,
        notes=[f"{BRACKETS} *differ*: items whose count is not the most frequent one of their "
               f"subset; only they can tell; at least {LEAST_DIFFERING} are asked for.{missing}"],
    )  # fmt: skip


@if_measured
def level_table(profile: str, seeds: int) -> Table:
    """Adjusted accuracy by number stated, and the gain of each CAE run."""
    curve = composition(profile, seeds)
    runs, rows = _plain_runs(curve), []
    for name in curve.sizes:
        levels = [curve.levels(run, name) for run in (BASE, TUNED)]
        gains = [curve.gains(run, TUNED, name) for run in runs]
        for k, size in enumerate(curve.sizes[name]):
            shown = [percent(part[k].interval(), lines=True) if part[k] else NONE
                     for part in levels]  # fmt: skip
            rows.append([f"{COUNTED[name]}: {class_label(name, k)}", str(size), *shown,
                         *(_difference(part[k]) for part in gains)])  # fmt: skip
    return Table(
        name="tab-composition-levels",
        caption="Accuracy in percent by what the true caption states, subset held fixed, and "
        f"CLIP-CAE minus CLIP-FT in points; {_basis(curve, seeds)}; n of each row: its items.",
        header=["stated", "n", "CLIP", "CLIP-FT", *_minus(runs)],
        rows=rows,
        notes=[f"{BRACKETS} A row is the accuracy that the model would have if all items were "
               "of that row and each subset kept its level."],
    )  # fmt: skip


def _plain_runs(curve: Curve) -> list[str]:
    return [run for run in compared(curve) if opponent(run) == TUNED]


def _minus(runs: Sequence[str]) -> list[str]:
    return [f"CAE ({method_label(method_of(run) or run)}) \N{MINUS SIGN} CLIP-FT" for run in runs]


def _basis(curve: Curve, seeds: int) -> str:
    return (f"n = {curve.pooled.n} of {curve.n_expected} items in {curve.n_subsets} subsets of "
            f"the seven families, {count(seeds, 'seed')}")  # fmt: skip


def _shown(found: Draws | None) -> str:
    return _difference(found.interval() if found else None)


def _difference(found: Interval | None) -> str:
    strong = found is not None and found.excludes_zero
    return emphasised(percent(found, sign=True, lines=True), strong)


def main_slopes(profile: str, seeds: int) -> tuple[Interval | None, dict[str, Interval]]:
    """Slope of CLIP-FT per relation or attribute, and what each CAE run changes in it, by method.

    Raises:
        NotMeasured: A record is missing.
    """
    curve = composition(profile, seeds)
    (own,) = curve.slopes(TUNED, BOTH)
    gaps = {m: curve.slope_gap(run, TUNED, BOTH)[0] for run, m in cae_runs(profile).items()}
    return own.interval() if own else None, {m: gap for m, gap in gaps.items() if gap}


def finding(profile: str, seeds: int) -> str | None:
    """One sentence for the index; None where the slope is not defined.

    Raises:
        NotMeasured: A record is missing.
    """
    own, gaps = main_slopes(profile, seeds)
    if own is None or not gaps:
        return None
    flatter, steeper = (sum(test) for test in ([g.low > 0 for g in gaps.values()],
                                               [g.high < 0 for g in gaps.values()]))  # fmt: skip
    values = sorted(100 * gap.estimate for gap in gaps.values())
    return (
        "With the benchmark held fixed, each relation or attribute more in the caption changes the "
        f"accuracy of CLIP-FT by {percent(own, sign=True)} points; CAE changes that slope by "
        f"{number(values[0], 1, sign=True)} to {number(values[-1], 1, sign=True)} points (for "
        f"certain up with {flatter}, down with {steeper} of {count(len(gaps), 'method')})."
    )
