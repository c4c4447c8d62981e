"""Tables of attribution by role."""

from __future__ import annotations

from collections.abc import Mapping

from cae_lib.evaluation.attribution import ROLES
from cae_lib.report.attribution import RoleScores
from cae_lib.report.claims import OUTCOMES, levelling, shows_deficiency
from cae_lib.report.markup import Table, count, interval, number
from cae_lib.report.runs import method_label


def sample(scores: RoleScores) -> str:
    """What the numbers rest on, as a phrase."""
    words = ", ".join(f"{scores.n_tokens[role]} {role}" for role in ROLES)
    return f"{scores.n_captions} captions of the COCO test set ({words} tokens)"


def deficiency_table(found: Mapping[str, RoleScores]) -> Table:
    """Means of the three groups and their ratios, one row a method."""
    rows = []
    for method, scores in found.items():
        means = [_mean(scores, role) for role in ROLES]
        ratios = [interval(scores.ratio(role), 2, lines=True) for role in ("attribute", "relation")]
        shown = "yes" if shows_deficiency(scores) else "no"
        rows.append([method_label(method), *means, *ratios, shown])
    first = next(iter(found.values()))
    return Table(
        name="tab-deficiency",
        caption="Attribution by role in CLIP: mean over captions of the mean over a role's "
        f"tokens, in each method's own unit, with 95 % bootstrap intervals over {sample(first)}. "
        "One model, so no spread over seeds.",
        header=["method", *ROLES, "object / attribute", "object / relation", "deficiency"],
        rows=rows,
        notes=["A dash stands where a ratio has no meaning, because the mean below the line is not "
               "certain to be positive."] if any("–" in row for row in rows) else [],
    )  # fmt: skip


def _mean(scores: RoleScores, role: str) -> str:
    return interval(scores.means[role].interval(), scores.decimals, lines=True)


def levelling_table(found: Mapping[str, Mapping[str, RoleScores]], tuned: str) -> Table:
    """Gap of each run by the method that CAE was trained on.

    Args:
        found: For each method, the runs by label: the base, CLIP-FT, CLIP-CAE.
        tuned: Label of CLIP-FT.
    """
    rows = []
    for method, runs in found.items():
        digits = runs[tuned].decimals
        for name, scores in runs.items():
            is_cae = name not in (tuned, next(iter(runs)))
            outcome = OUTCOMES[levelling(runs[tuned], scores)] if is_cae else ""
            closed = runs[tuned].gap.minus(scores.gap).interval() if is_cae else None
            rows.append([
                method_label(method), name,
                number(scores.means["object"].estimate, digits),
                number(scores.means["composition"].estimate, digits),
                interval(scores.gap.interval(), digits, lines=True),
                interval(closed, digits, lines=True) if is_cae else "",
                number(scores.contrast, 2), outcome,
            ])  # fmt: skip
    last = list(next(iter(found.values())).values())[-1]
    return Table(
        name="tab-levelling",
        caption="Gap between object words and composition words (relations and attributes), by "
        f"the method that CAE was trained on; {sample(last)}, "
        f"{count(last.n_seeds, 'seed')} of CLIP-FT and CLIP-CAE averaged, one CLIP. Brackets: "
        "95 % bootstrap intervals over seeds and captions; relative: gap over the sum of the two "
        "means' sizes.",
        header=["method", "model", "object", "composition", "gap", "closed by CAE", "relative",
                "outcome"],
        rows=rows,
        left=2,
    )  # fmt: skip


def transfer_table(found: Mapping[str, Mapping[str, RoleScores]]) -> Table:
    """Relative gap of every run by every method: does levelling one method level the others?

    Args:
        found: For each run's label, its scores by method.
    """
    methods = list(dict.fromkeys(method for scores in found.values() for method in scores))
    rows = [
        [name, *(number(scores[m].contrast, 2) if m in scores else "–" for m in methods)]
        for name, scores in found.items()
    ]
    last = next(iter(next(reversed(found.values())).values()))
    return Table(
        name="tab-transfer",
        caption="Relative gap (A_obj − A_comp) / (|A_obj| + |A_comp|) of every model "
        f"by every method, {sample(last)}; mean over {count(last.n_seeds, 'seed')}, one CLIP.",
        header=["model", *(f"by {method_label(m)}" for m in methods)],
        rows=rows,
    )
