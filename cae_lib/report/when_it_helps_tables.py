"""Text and tables of the base study: what follows, what each base knows, what CAE gains."""

from __future__ import annotations

from collections.abc import Sequence

from cae_lib.base import KINDS
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.ablation_tables import SHORT
from cae_lib.report.attribution_tables import sample
from cae_lib.report.claims import levelling
from cae_lib.report.markup import (
    Table,
    Text,
    count,
    emphasised,
    interval,
    number,
    percent,
)
from cae_lib.report.runs import method_label
from cae_lib.report.stored import if_measured
from cae_lib.report.variants import commands_text, length
from cae_lib.report.when_it_helps import (
    DEPENDENCES,
    MEASURES,
    Start,
    dependence,
    ends,
    gain_difference,
    knowledge_apart,
    starts,
)
from cae_lib.studies import base_variants


@if_measured
def judge_dependence(profile: str, seeds: int) -> Text:
    """Whether CAE's gain depends on the base, measure by measure."""
    found = starts(profile, seeds)
    weakest, strongest = ends(found)
    apart = knowledge_apart(found)
    lines = [_ends(weakest, strongest, apart), ""]
    for measure, name in MEASURES.items():
        gains = [percent(start.gains[measure], sign=True) for start in (weakest, strongest)]
        difference = percent(gain_difference(found, measure), sign=True)
        lines.append(
            f"- In the {name}: **{DEPENDENCES[dependence(found, measure)]}**. The gain is "
            f"{gains[0]} points from the weakest base and {gains[1]} from the strongest; weakest "
            f"minus strongest {difference}."
        )
    if not apart.low > 0:
        lines += ["", "The two bases are not told apart in what they know of relations, so none "
                      "of this speaks to that knowledge."]  # fmt: skip
    return Text("\n".join(lines))


def _ends(weakest: Start, strongest: Start, apart: Interval) -> str:
    least, most = (percent(s.knowledge["relation"].interval()) for s in (weakest, strongest))
    return (
        f"Of relations, the base of {weakest.steps} steps knows least ({least} % of the choices "
        f"right) and that of {strongest.steps} steps most ({most} %; difference "
        f"{percent(apart, sign=True)} points)."
    )


@if_measured
def base_table(profile: str, seeds: int) -> Table:
    """What each base knows, and how it spreads its attribution."""
    found = starts(profile, seeds)
    first = found[0]
    rows = []
    for start in found:
        known = [percent(start.knowledge[kind].interval(), lines=True) for kind in KINDS]
        gap = interval(start.base.gap.interval(), start.base.decimals, lines=True)
        rows.append([str(start.steps), *known, gap, number(start.base.contrast, 2)])
    items = ", ".join(f"{kind} {first.knowledge[kind].n_used}" for kind in KINDS)
    chance = ", ".join(f"{kind} {number(100 * first.knowledge[kind].chance, 1)}" for kind in KINDS)
    return Table(
        name="tab-bases",
        caption="The base models, one each: choices right, in percent, mean over subsets (n: "
        f"{items}; chance: {chance}), and the gap A_obj − A_comp by {method_label(first.method)}, "
        f"absolute and relative to |A_obj| + |A_comp|, over {sample(first.base)}. Brackets: 95 % "
        "bootstrap intervals over items or captions.",
        header=["steps of the base", *(f"{kind} choices" for kind in KINDS), "gap", "relative gap"],
        rows=rows,
    )


@if_measured
def gain_table(profile: str, seeds: int) -> Table:
    """CLIP-CAE minus CLIP-FT from each base, and what became of the gap."""
    found = starts(profile, seeds)
    rows = []
    for start in found:
        before = number(start.tuned.gap.estimate, start.tuned.decimals)
        after = interval(start.cae.gap.interval(), start.tuned.decimals, lines=True)
        gains = [_cell(start.gains[measure]) for measure in MEASURES]
        rows.append(
            [str(start.steps), *gains, before, after, SHORT[levelling(start.tuned, start.cae)]]
        )
    last = [_cell(gain_difference(found, measure)) for measure in MEASURES]
    rows.append(["*weakest minus strongest*", *last, "", "", ""])
    return Table(
        name="tab-base-gains",
        caption=f"CLIP-CAE ({method_label(found[0].method)}) minus CLIP-FT in percentage points "
        f"from each base, after {length(profile)}, {count(_seeds(found), 'seed')}; n: "
        f"{_items(found[0])}. Gap: A_obj − A_comp by the same method on "
        f"{found[0].cae.n_captions} captions of the COCO test set; groups: by the rule of C2. "
        "Brackets: 95 % bootstrap intervals over seeds and items or captions, paired. Bold: the "
        "interval excludes zero.",
        header=["steps of the base", *MEASURES.values(), "gap in CLIP-FT", "gap in CLIP-CAE",
                "groups"],
        rows=rows,
    )  # fmt: skip


def _cell(found: Interval) -> str:
    return emphasised(percent(found, sign=True, lines=True), found.excludes_zero)


def _seeds(found: Sequence[Start]) -> int:
    return found[0].cae.n_seeds


def _items(start: Start) -> str:
    return ", ".join(f"{name} {start.scores[key][0].n_used}" for key, name in MEASURES.items())


def repeat(profile: str) -> Text:
    """The commands of every run of the first seed, folded; empty where there are none."""
    variants = base_variants(profile)
    return commands_text(variants, profile) if variants else Text("")
