"""Tables of attribution by role."""

from __future__ import annotations

from collections.abc import Mapping

from cae_lib.evaluation.attribution import ROLES
from cae_lib.report.attribution import RoleScores
from cae_lib.report.claims import OUTCOMES, levelling, shows_deficiency
from cae_lib.report.markup import NONE, Table, count, interval, number
from cae_lib.report.runs import method_label


def sample(scores: RoleScores) -> str:
    """What the numbers rest on, as a phrase."""
    words = ", ".join(f"{scores.n_tokens[role]} {role}" for role in ROLES)
    return f"{scores.n_captions} captions of the COCO test set ({words} tokens)"


def deficiency_table(found: Mapping[str, RoleScores]) -> Table:
    """Means of the three groups and their ratios, one column a method."""
    rows = [
        [f"{role} words", *(_mean(scores, role) for scores in found.values())] for role in ROLES
    ]
    for role in ("attribute", "relation"):
        ratios = [interval(scores.ratio(role), 2, lines=True) for scores in found.values()]
        rows.append([f"object / {role}", *ratios])
    shown = ["yes" if shows_deficiency(scores) else "no" for scores in found.values()]
    rows.append(["shows the deficiency", *shown])
    first = next(iter(found.values()))
    dash = "A dash stands where a ratio has no meaning, because the mean below the line is not "
    return Table(
        name="tab-deficiency",
        caption="Attribution by role in CLIP: mean over captions of the mean over a role's "
        f"tokens, in each method's own unit, with 95 % bootstrap intervals over {sample(first)}. "
        "One model, so no spread over seeds.",
        header=["", *(method_label(method) for method in found)],
        rows=rows,
        notes=[f"{dash}certain to be positive."] if any(NONE in row for row in rows) else [],
    )


def _mean(scores: RoleScores, role: str) -> str:
    return interval(scores.means[role].interval(), scores.decimals, lines=True)


def levelling_table(found: Mapping[str, Mapping[str, RoleScores]]) -> Table:
    """Means and gap of each run by the method that CAE was trained on.

    Args:
        found: For each method, the runs by label: the base, CLIP-FT, CLIP-CAE.
    """
    rows = []
    for method, runs in found.items():
        for name, scores in runs.items():
            means = [scores.means[group].estimate for group in ("object", "composition")]
            rows.append([
                method_label(method), name, *(number(mean, scores.decimals) for mean in means),
                interval(scores.gap.interval(), scores.decimals), number(scores.contrast, 2),
            ])  # fmt: skip
    last = list(next(iter(found.values())).values())[-1]
    return Table(
        name="tab-levelling",
        caption="Gap between object words and composition words (relations and attributes), by "
        f"the method that CAE was trained on; {sample(last)}, "
        f"{count(last.n_seeds, 'seed')} of CLIP-FT and CLIP-CAE averaged, one CLIP. Brackets: "
        "95 % bootstrap intervals over seeds and captions. Relative: the gap over the sum of the "
        "two means' sizes.",
        header=["by", "model", "object", "composition", "gap", "relative"],
        rows=rows,
        left=2,
    )


def outcome_table(pairs: Mapping[str, tuple[RoleScores, RoleScores]]) -> Table:
    """What CAE made of CLIP-FT's gap, by the method that it was trained on.

    Args:
        pairs: For each method, the scores of CLIP-FT and of CLIP-CAE.
    """
    rows = []
    for method, (tuned, cae) in pairs.items():
        closed = tuned.gap.minus(cae.gap).interval()
        left = cae.gap.estimate / tuned.gap.estimate if tuned.gap.estimate else None
        share = number(None if left is None else 100 * left, 0)
        outcome = OUTCOMES[levelling(tuned, cae)]
        rows.append([method_label(method), interval(closed, tuned.decimals), share, outcome])
    return Table(
        name="tab-outcome",
        caption="What CAE made of CLIP-FT's gap, on the same captions and seeds, with 95 % "
        "bootstrap intervals over both.",
        header=["by", "reduction of the gap", "gap left, %", "by the rule"],
        rows=rows,
    )


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
