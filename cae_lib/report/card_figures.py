"""What the records say of one run, as tables of its model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cae_lib.errors import DataError
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.retrieval import RetrievalResult
from cae_lib.measurements import record_name, run_label
from cae_lib.overrides import as_options
from cae_lib.records import Record, load_record
from cae_lib.report.benchmarks import COLUMNS, column_score
from cae_lib.report.markup import number, percent
from cae_lib.report.retrieval import DIRECTIONS, SETS
from cae_lib.report.runs import BASE, TUNED, label, setting


@dataclass(frozen=True)
class Run:
    """A run of a profile, and the settings in which it differs from the profile's."""

    name: str
    profile: str
    seed: int
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> str:
        """The part of its records' names that tells the run."""
        return run_label(self.name, self.profile, **self.overrides)

    @property
    def title(self) -> str:
        """Its name with its own settings."""
        return ", ".join([label(self.name), *(f"{k} = {v}" for k, v in self.overrides.items())])


def figures(run: Run, digest: str) -> list[str]:
    """Benchmarks and retrieval with intervals; beside them the base and CLIP-FT where measured.

    Args:
        run: whose figures they are.
        digest: of its weights; records of other weights are not shown.

    Returns:
        Lines of Markdown.
    """
    profile, seed = run.profile, 0 if run.name == BASE else run.seed
    runs = {run.record: seed} | {TUNED: run.seed, BASE: 0}
    own_title = label(run.name) + (", variant" if run.overrides else "")
    titles = {TUNED: label(TUNED), BASE: label(BASE)} | {run.record: own_title}
    own = _stored(run.record, profile, seed, "benchmarks")
    if own is None or own.config.get("weights") != digest[:12]:
        state = "Nothing yet" if own is None else "The records belong to other weights"
        options = f"--profile {profile} --seed {run.seed}{as_options(run.overrides)}"
        return [f"{state}: `cae evaluate {run.name} {options}`."]
    found = {titles[name]: _answers(name, profile, number) for name, number in runs.items()}
    columns = {title: part for title, part in found.items() if part}
    rows = []
    for column in COLUMNS:
        scores = [column_score(column, part) for part in columns.values()]
        if scores[0] is None:
            continue
        n = f"{scores[0].n_used} of {scores[0].n_expected}"
        cells = [percent(s.interval()) if s else "" for s in scores]
        rows.append([column.label, n, f"{100 * scores[0].chance:.1f}", *cells, column.rule])
    header = ["benchmark", "n used", "chance", *columns, "averaging"]
    code = own.provenance.get("code", own.provenance.get("tree", ""))[:12]
    return [
        f"Accuracy in percent with 95 % bootstrap intervals over items, on {setting(profile)}. "
        "Protocol: cosine of float32 features, one text or picture against the others; a tie "
        "counts as wrong; pictures resized by the preprocessing stored here.", "",
        *_table(header, rows), "",
        *_recalls({titles[name]: (name, number) for name, number in runs.items()
                   if titles[name] in columns}, profile), "",
        f"From the records `{record_name(run.record, '*', seed)}`, code `{code}`, data "
        f"`{own.provenance.get('data') or own.config.get('data')}`.",
    ]  # fmt: skip


def _recalls(runs: Mapping[str, tuple[str, int]], profile: str) -> list[str]:
    """Recall at 1 of runs, given by title as their record's name and seed."""
    rows = []
    records = {title: _stored(name, profile, seed, "retrieval")
               for title, (name, seed) in runs.items()}  # fmt: skip
    present = {title: record for title, record in records.items() if record is not None}
    for key, title in SETS.items():
        for direction, words in DIRECTIONS.items():
            values = [RetrievalResult.from_record(r.results[key]).recall(direction, 1)
                      for r in present.values() if key in r.results]  # fmt: skip
            if len(values) == len(present):
                rows.append([f"{title}, {words}", *(number(100 * v, 1) for v in values)])
    if not present or not rows:
        return ["Retrieval was not measured."]
    return _table(["recall at 1, %", *present], rows)


def _answers(name: str, profile: str, seed: int) -> dict[str, tuple[ChoiceResult]]:
    record = _stored(name, profile, seed, "benchmarks")
    if record is None:
        return {}
    return {key: (ChoiceResult.from_record(part),) for key, part in record.results.items()}


def _stored(name: str, profile: str, seed: int, suite: str) -> Record | None:
    try:
        return load_record(record_name(name, suite, seed), profile)
    except DataError:
        return None


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
