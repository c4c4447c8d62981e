"""The way to the paper's own setting: what to fetch, what it costs, which numbers to expect."""

from __future__ import annotations

from collections.abc import Mapping

from cae_lib.config import profile
from cae_lib.data.catalogue import place, ways
from cae_lib.data.disk import format_size
from cae_lib.data.needs import BENCHMARKS, FAMILIES, FURTHER, SUITES, TRAINING, weights_source
from cae_lib.data.source_list import load_sources
from cae_lib.data.sources import Source
from cae_lib.evaluation.registry import SUITES as MEASURED
from cae_lib.measurements import record_name
from cae_lib.records import record_path
from cae_lib.report.markup import NONE, Table, Text, count, listing, number
from cae_lib.report.paper import NEGCLIP, TABLE1, TABLE4
from cae_lib.report.runs import BASE, hard_runs, label
from cae_lib.reproduce import HARD_SUITES

PROFILE = "paper"
HOURS = 0.8
"""Of CLIP-FT on one A100, as the paper's authors report it."""


FURTHER_USE = "beside the tables"


def uses() -> dict[str, list[str]]:
    """What each source serves, by its name; shared pictures serve what those serve that need them.

    Returns:
        Some of "start", "training", "Table 1", "Table 3", "Table 4" and "beside the tables", in
        this order; empty for what no command of the profile reads.
    """
    kinds: Mapping[str, tuple[str, ...]] = {
        "start": weights_source("ViT-B-32", "openai"),
        "training": TRAINING,
        "Table 1": tuple(s for name in BENCHMARKS for s in FAMILIES[name]),
        "Table 3": SUITES["retrieval"],
        "Table 4": SUITES["similarity"],
        FURTHER_USE: tuple(s for name in FURTHER for s in FAMILIES[name]),
    }
    sources = load_sources()
    found: dict[str, list[str]] = {name: [] for name in sources}
    for use, names in kinds.items():
        needed = [need for name in names for need in (name, *_needs(sources, name))]
        for name in dict.fromkeys(needed):
            found[name].append(use)
    return {name: _without_further(served) for name, served in found.items()}


def _needs(sources: Mapping[str, Source], name: str) -> list[str]:
    """What a source shows pictures of, and what these need in turn."""
    direct = sources[name].needs
    return [*direct, *(further for need in direct for further in _needs(sources, need))]


def _without_further(served: list[str]) -> list[str]:
    """A set that a table needs is no extra."""
    return served if len(served) < 2 else [use for use in served if use != FURTHER_USE]


def downloads_table() -> Table:
    """Everything that can be fetched: what for, how large, where it goes, how it is got."""
    served = uses()
    rows = [
        [f"`{s.name}`", s.title, listing(served[s.name]) or "comparison only",
         format_size(s.gb * 1e9) if s.gb else NONE, f"`{place(s)}`",
         ways(s) + (", after accepting terms" if s.gated else "")]
        for s in load_sources().values()
    ]  # fmt: skip
    return Table(
        name="tab-downloads",
        caption="What `cae data get NAME` fetches. Sizes are rough and those of the downloads; a "
        "dash where nobody has noted one.",
        header=["name", "what", "for", "download", "place", "how"],
        rows=rows,
        left=6,
        collapsed="All downloads",
    )


def disk_text() -> Text:
    """The disk space that the downloads take, as far as it is known."""
    served = uses()
    needed = [s for s in load_sources().values() if served[s.name] not in ([], [FURTHER_USE])]
    known = [s for s in needed if s.gb]
    training = [s for s in known if "training" in served[s.name]]
    largest = max(known, key=lambda s: s.gb or 0)
    return Text(
        f"The tables need {len(needed)} sets and weight files."
        f" The sizes of {len(known)} of them are known and sum to {_gb(known)}, of which training "
        f"takes {_gb(training)}; those of the others, SWiG's and HAKE's pictures among them, are "
        "not. Photographs take as much room unpacked as packed, and `cae data get` removes "
        f"each archive once it is unpacked: allow the largest one, of `{largest.name}`, twice. The "
        "command asks before each download whether the disk has room."
    )


def _gb(sources: list[Source]) -> str:
    return f"{sum(s.gb or 0 for s in sources):.0f} GB"


def hours_text() -> Text:
    """How many runs there are, and what they would take at the price of the paper's CLIP-FT."""
    chosen = profile(PROFILE)
    runs = len(chosen.methods) * chosen.seeds
    return Text(
        f"The profile has {count(len(chosen.methods), 'run')} ({listing(_names())}) with "
        f"{count(chosen.seeds, 'seed')} each, {runs} trainings. The paper's authors give "
        f"{HOURS:g} hours for CLIP-FT on one A100, so {runs} trainings at that price are about "
        f"{runs * HOURS:.0f} hours. **This is an estimate, not a measurement**: nothing here was "
        "timed on a GPU. A step with hard negatives has twice the pictures and four times the "
        "texts, so those trainings take longer. What CAE adds to a step was measured on a CPU, "
        "see [what it costs](cost.md)."
    )


def _names() -> list[str]:
    return [label(name) for name in profile(PROFILE).methods]


def expected_table() -> Table:
    """The paper's numbers and those of its authors' later run, row by row as in Table 1."""
    rows = [
        [name, *(number(value, 1) for value in (row.clip, row.tuned)), number(row.spread, 2),
         number(row.cae, 1), number(NEGCLIP.get(name), 1)]
        for name, row in TABLE1.items()
    ]  # fmt: skip
    notes = [f"{name}: {row.note}." for name, row in TABLE1.items() if row.note]
    return Table(
        name="tab-expected",
        caption="Expected accuracy in percent. CLIP and CLIP-CAE (mean over the four attribution "
        "methods): the paper's, as its authors quote it later; CLIP-FT: mean of the authors' later "
        "runs, with its standard deviation over four seeds; NegCLIP: as the same authors quote it. "
        "SC: SugarCrepe, VLC: VL-CheckList.",
        header=["benchmark", "CLIP", "CLIP-FT", "± seeds", "CLIP-CAE", "NegCLIP"],
        rows=rows,
        notes=notes,
    )


def expected_similarity_table() -> Table:
    """The paper's correlations of text similarity."""
    rows = [[name, kind.title(), *(number(value, 1) for value in values)]
            for (name, kind), values in TABLE4.items()]  # fmt: skip
    return Table(
        name="tab-expected-similarity",
        caption="Expected correlations with human scores, times 100, as the paper prints them.",
        header=["set", "correlation", "CLIP", "CLIP-FT", "CLIP-CAE"],
        rows=rows,
        left=2,
    )


def progress_table() -> Table:
    """How many seeds of each run are measured here, by kind of measurement."""
    chosen = profile(PROFILE)
    rows = []
    for run in (BASE, *chosen.methods):
        seeds = range(1 if run == BASE else chosen.seeds)
        cells = []
        for suite in MEASURED:
            paths = [record_path(record_name(run, suite, seed), PROFILE) for seed in seeds]
            n = sum(path.is_file() for path in paths)
            asked = run not in hard_runs(PROFILE) or suite in HARD_SUITES
            cells.append(f"{n} of {len(paths)}" if n or asked else NONE)
        rows.append([label(run), *cells])
    return Table(
        name="tab-progress",
        caption="Stored records of the profile `paper`: seeds measured, of those that there are; a "
        "dash where no page asks for any.",
        header=["model", *(name.replace("_", " ") for name in MEASURED)],
        rows=rows,
        collapsed="What is measured so far",
    )


def progress_text() -> Text:
    """Whether anything of the profile is measured, in a sentence."""
    folder = record_path("any", PROFILE).parent
    n = len(list(folder.rglob("*.json"))) if folder.is_dir() else 0
    if not n:
        return Text(
            "**Nothing of the profile `paper` has been measured for this copy of the book.** What "
            "has been checked is the way: a test trains, measures and makes the tables with the "
            "commands below, with a ViT-B/32 of full size and random weights, on a few drawn "
            "scenes laid out as the real sets."
        )
    return Text(f"{count(n, 'record')} of the profile `paper` {'is' if n == 1 else 'are'} stored.")
