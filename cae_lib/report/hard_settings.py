"""What a step with hard negatives is made of, beside a step without, and whether CAE still levels.

Numbers of the first table come from the configuration, so they hold before anything is measured.
"""

from __future__ import annotations

from cae_lib.config import experiment
from cae_lib.config import profile as find_profile
from cae_lib.report.attribution import role_scores
from cae_lib.report.attribution_tables import sample
from cae_lib.report.claims import OUTCOMES, levelling
from cae_lib.report.markup import NONE, Table, Text, count, interval, listing, number
from cae_lib.report.runs import HARD, TUNED, cae_runs, hard_cae_runs, label, method_label
from cae_lib.report.stored import NotMeasured, require


def step_table(profile: str) -> Table:
    """Rows, pictures and texts of a step of CLIP-FT and of NegCLIP, and what a run sees in all."""
    known = find_profile(profile).methods
    rows = []
    for run in (TUNED, HARD):
        if run not in known:
            continue
        config = experiment(run, profile)
        pairs = config.batch_size * (2 if config.negatives else 1)
        false = pairs if config.negatives else 0
        numbers = (config.batch_size, pairs, pairs, false, pairs + false, config.steps,
                   config.steps * pairs)  # fmt: skip
        rows.append([label(run), *(f"{value:,}" for value in numbers)])
    return Table(
        name="tab-hard-step",
        caption="What a step is made of, and the pairs of a picture with its true caption that a "
        f"run of the profile `{profile}` sees in all (each as often as it is drawn). CAE changes "
        "none of this.",
        header=["model", "rows", "pictures", "true captions", "false captions", "texts", "steps",
                "pairs in all"],
        rows=rows,
    )  # fmt: skip


def weight_text(profile: str) -> Text:
    """lambda of each method, which the runs with hard negatives take over from those without."""
    plain = {method: experiment(run, profile).weight for run, method in cae_runs(profile).items()}
    hard = {m: experiment(run, profile).weight for run, m in hard_cae_runs(profile).items()}
    listed = listing([f"{weight:g} by {method_label(m)}" for m, weight in plain.items()])
    same = all(plain[method] == weight for method, weight in hard.items() if method in plain)
    taken = ("NegCLIP-CAE takes over the λ of CLIP-CAE of the same method" if same
             else "NegCLIP-CAE has another λ than CLIP-CAE")  # fmt: skip
    return Text(f"{taken}: {listed}." if hard else f"λ of CLIP-CAE: {listed}.")


def levelling_with_negatives(profile: str, seeds: int) -> Table | Text:
    """Gap between object words and composition words in NegCLIP and in NegCLIP with CAE."""
    runs = hard_cae_runs(profile)
    try:
        if not runs:
            raise NotMeasured
        require([HARD, *runs], profile, "attribution", seeds)
    except NotMeasured:
        return Text("*Not measured yet: the attribution of the runs with hard negatives.*")
    rows, basis = [], ""
    for run, method in runs.items():
        before, after = (role_scores(name, profile, method, seeds) for name in (HARD, run))
        start, end = (scores.gap.interval() for scores in (before, after))
        share = number(100 * end.estimate / start.estimate, 0) if start.low > 0 else NONE
        outcome = OUTCOMES[levelling(before, after)].replace(label(TUNED), label(HARD))
        rows.append([method_label(method), *(interval(gap, before.decimals, lines=True)
                     for gap in (start, end)), share, outcome])  # fmt: skip
        basis = f"{sample(after)}, {count(seeds, 'seed')}"
    return Table(
        name="tab-hard-levelling",
        caption="Gap between object words and composition words (relations and attributes), by "
        "the method that CAE was trained on, with 95 % bootstrap intervals over seeds and "
        f"captions; {basis}.",
        header=["by", "NegCLIP", "NegCLIP-CAE", "gap left, %", "by the rule of C2"],
        rows=rows,
    )
