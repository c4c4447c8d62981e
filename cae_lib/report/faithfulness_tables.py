"""Tables of faithfulness: areas, agreement, the randomisation check, before and after training."""

from __future__ import annotations

from collections.abc import Mapping

from cae_lib.attribution import METHODS
from cae_lib.evaluation.faithfulness import INTEGRATED
from cae_lib.report.attribution import Draws, mean_draws
from cae_lib.report.faithfulness import SCORERS, Faithfulness, faithfulness, scorer_label
from cae_lib.report.faithfulness_claims import (
    CHANGES,
    absolute_change,
    change,
    half_stage,
    relative_change,
)
from cae_lib.report.markup import NONE, Table, Text, count, emphasised, interval, number
from cae_lib.report.runs import BASE, TUNED, all_runs, label

BRACKETS = "Brackets: 95 % bootstrap intervals over captions"


def shown(draws: Draws | None, digits: int = 2, sign: bool = False) -> str:
    """A statistic with its interval; a dash where it is not defined."""
    return NONE if draws is None else interval(draws.interval(), digits, sign=sign)


def _lines(draws: Draws | None, sign: bool = False) -> str:
    """The same, with the interval in a second line."""
    return NONE if draws is None else interval(draws.interval(), 2, sign=sign, lines=True)


def area_table(base: Faithfulness) -> Table:
    """Areas under the curves of the base model, by method."""
    first = base.areas(SCORERS[0])
    rows = []
    for scorer in SCORERS:
        areas = base.areas(scorer)
        rows.append([
            scorer_label(scorer),
            *(shown(mean_draws(part), 3) for part in (areas.deletion, areas.insertion)),
            *(shown(part) for part in (areas.deletion_lead, areas.insertion_lead,
                                       areas.faithfulness)),
        ])  # fmt: skip
    chance = mean_draws(first.random)
    rows.append(["random order", shown(chance, 3), shown(chance, 3), "0", "0", "0"])
    whole, empty = mean_draws(first.whole), mean_draws(first.empty)
    return Table(
        name="tab-areas",
        caption="Areas under the deletion curve (lower is better) and the insertion curve (higher "
        f"is better) in CLIP, in units of the cosine, {base.n_captions} captions. The cosine is "
        f"{shown(whole)} with all words and {shown(empty)} with none; the next columns are shares "
        "of that drop: the lead over random orders, and faithfulness, the insertion area minus the "
        f"deletion area. {BRACKETS}; one model, so no spread over seeds.",
        header=["order by", "deletion", "insertion", "lead, deletion", "lead, insertion",
                "faithfulness"],
        rows=rows,
    )  # fmt: skip


def _estimate(draws: Draws | None) -> str:
    return NONE if draws is None else number(draws.interval().estimate, 2)


def training_table(profile: str, seeds: int) -> Table:
    """Faithfulness of every method's scores in every run."""
    tuned = faithfulness(TUNED, profile, seeds)
    rows = []
    for name in all_runs(profile):
        run, cells = faithfulness(name, profile, seeds), []
        for scorer in SCORERS:
            difference = absolute_change(tuned, run, scorer) if name not in (BASE, TUNED) else None
            told = difference is not None and difference.interval().excludes_zero
            cells.append(emphasised(_lines(run.areas(scorer).faithfulness), told))
        rows.append([label(name), *cells])
    return Table(
        name="tab-faithfulness",
        caption="Faithfulness of the scores by each method in each model: insertion area minus "
        "deletion area, as a share of what all words together are worth; 0 for a random order. "
        f"{tuned.n_captions} captions, {count(tuned.n_seeds, 'seed')} averaged, one CLIP. "
        f"{BRACKETS} and seeds. Bold: told apart from CLIP-FT by the paired difference.",
        header=["model", *(f"by {scorer_label(s)}" for s in SCORERS)],
        rows=rows,
    )


def own_table(pairs: Mapping[str, tuple[Faithfulness, Faithfulness]]) -> Table:
    """What training on a method did to that method's own scores."""
    rows = []
    for method, (tuned, cae) in pairs.items():
        agreed = [run.agreement(method, INTEGRATED) for run in (tuned, cae)]
        rows.append([
            scorer_label(method),
            _lines(absolute_change(tuned, cae, method), sign=True),
            _lines(absolute_change(tuned, cae, INTEGRATED), sign=True),
            " → ".join(_estimate(run.relative(method)) for run in (tuned, cae)),
            _lines(relative_change(tuned, cae, method), sign=True),
            CHANGES[change(tuned, cae, method)],
            _lines(agreed[1].minus(agreed[0]), sign=True),
        ])  # fmt: skip
    captions = next((run.n_captions for run, _ in pairs.values()), 0)
    seeds = next((run.n_seeds for run, _ in pairs.values()), 0)
    return Table(
        name="tab-own-faithfulness",
        caption="What training on a method does to its own scores, CLIP-CAE against CLIP-FT: the "
        "change of their faithfulness; the change of that of integrated gradients; the first as a "
        "share of the second in each model, with its change, which decides; and the change of the "
        f"rank correlation of the two. The same {captions} captions and "
        f"{count(seeds, 'seed')}. {BRACKETS} and seeds.",
        header=["trained on", "own, change", "reference, change", "share",
                "share, change", "scores are", "agreement, change"],
        rows=rows,
    )  # fmt: skip


def agreement_table(run: Faithfulness) -> Table:
    """Rank correlations of word scores between methods: a triangle."""
    rows = []
    for i, first in enumerate(SCORERS[1:], start=1):
        cells = [_lines(run.agreement(first, second)) for second in SCORERS[:i]]
        rows.append([scorer_label(first), *cells, *[""] * (len(SCORERS) - 1 - i)])
    return Table(
        name="tab-agreement",
        caption="Agreement in CLIP: Spearman's rank correlation between two methods' scores of a "
        f"caption's words, mean over {run.n_captions} captions (those of fewer than three words "
        f"left out). {BRACKETS}.",
        header=["", *(scorer_label(s) for s in SCORERS[:-1])],
        rows=rows,
    )


def reference_table(profile: str, seeds: int) -> Table:
    """Agreement of every method with integrated gradients in every run."""
    rows, n = [], 0
    for name in all_runs(profile):
        run = faithfulness(name, profile, seeds)
        n = run.n_captions
        rows.append([label(name), *(shown(run.agreement(m, INTEGRATED)) for m in METHODS)])
    return Table(
        name="tab-reference",
        caption="Rank correlation of each method's word scores with integrated gradients, by "
        f"model; mean over {n} captions and {count(seeds, 'seed')} (one CLIP). {BRACKETS} and "
        "seeds.",
        header=["model", *(f"by {scorer_label(m)}" for m in METHODS)],
        rows=rows,
        collapsed="Agreement with integrated gradients in every model",
    )


def randomisation_table(profile: str, seeds: int) -> Table:
    """What is left of every run's rankings, half-way and with every block random."""
    rows, captions = [], 0
    for name in all_runs(profile):
        run = faithfulness(name, profile, seeds)
        captions = run.records[0]["randomisation"]["n_captions"]
        for stage in dict.fromkeys((half_stage(run), run.block_stages[-1])):
            cells = [shown(run.randomised(m, stage)) for m in METHODS]
            rows.append([label(name), f"projection, {stage}", *cells])
    return Table(
        name="tab-randomisation",
        caption="Rank correlation of the word scores with those of the model itself after its text "
        f"tower was randomised, {captions} captions, {count(seeds, 'seed')} (one CLIP), one draw "
        f"of the random weights. {BRACKETS} and seeds.",
        header=["model", "random", *(f"by {scorer_label(m)}" for m in METHODS)],
        rows=rows,
        left=2,
        collapsed="The randomisation check for every model",
    )


def convergence_note(run: Faithfulness) -> Text:
    """How exact the integral behind integrated gradients is, in words."""
    parts = [record["integrated"] for record in run.records]
    mean = sum(part["mean_delta"] for part in parts) / len(parts)
    largest = max(part["largest_delta"] for part in parts)
    steps = max(part["most_steps"] for part in parts)
    return Text(
        f"The integral is computed with as many steps as a caption needs, here up to {steps}; the "
        f"scores then add up to the drop of the cosine but for {mean:.4f} on average and "
        f"{largest:.4f} at most."
    )
