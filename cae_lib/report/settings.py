"""How the hyperparameters were chosen, and what each run was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cae_lib.config import experiment, profile
from cae_lib.errors import DataError
from cae_lib.records import load_record, record_path
from cae_lib.report.markup import NONE, Table, Text, number
from cae_lib.report.runs import TUNED, label, method_label


def training_table(profile_name: str) -> Table:
    """One row a run: everything that tells the runs apart, and the common settings above."""
    rows = []
    runs = {name: experiment(name, profile_name) for name in profile(profile_name).methods}
    for name, run in runs.items():
        method = method_label(run.method) if run.method else NONE
        weight = number(run.weight, 1) if run.method else NONE
        settings = [f"{run.lr:g}", str(run.steps), str(run.batch_size), run.scope]
        rows.append([label(name), method, weight, *settings])
    first = runs[TUNED]
    return Table(
        name=f"tab-training-{profile_name}",
        caption=f"What the runs were trained with. Common to all: {first.model} from "
        f"`{first.weights}`, AdamW with betas {first.betas}, "
        f"weight decay {first.weight_decay:g}, {first.warmup} steps of warm-up and a cosine to "
        f"zero, {first.precision}, {profile(profile_name).seeds} seeds. A row is a picture with "
        "its caption; with hard negatives it brings a similar picture, its caption, and a false "
        "caption of each.",
        header=[
            "model",
            "attribution",
            "λ",
            "learning rate",
            "steps",
            "rows a step",
            "averaging of A",
        ],
        rows=rows,
        left=2,
        collapsed="What each run was trained with",
    )


def sweep_table(profile_name: str) -> Table | Text:
    """Validation scores of the learning rates and of each lambda; a sentence if there are none.

    Raises:
        DataError: The record is there, but does not hold a sweep.
    """
    if not record_path("sweep", profile_name).is_file():
        return Text(
            f"No sweep is stored for the profile `{profile_name}`: its learning rate and λ are "
            "those of the configuration, not chosen on a validation split."
        )
    content = load_record("sweep", profile_name).results
    try:
        rows = [_row(TUNED, row, "lr", content["chosen"]["lr"]) for row in content["lr"]]
        rows += [
            _row(row["run"], row, "weight", content["chosen"][row["run"]])
            for row in content["weight"]
        ]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"record sweep of profile {profile_name} does not hold a sweep ({error!r}): restore it "
            "from version control"
        ) from error
    return Table(
        name="tab-sweep",
        caption="Choice of the learning rate (the best score of CLIP-FT, then kept for every CAE "
        "run) and of λ (the smallest that leaves at most a tenth of CLIP-FT's gap A_obj − A_comp) "
        "on the validation split, with a seed that no reported run uses; no benchmark was read. "
        "Percent, the gap in units of the attribution; score: the mean of the two columns before "
        "it. Bold: chosen.",
        header=[
            "model",
            "setting",
            "R@1, mean of both ways",
            "against hard negatives",
            "score",
            "gap A_obj − A_comp",
        ],
        rows=rows,
        left=2,
        collapsed="How the learning rate and λ were chosen",
    )


def _gaps(run: str, row: Mapping[str, Any]) -> Mapping[str, float]:
    """The gap of a CAE run by its own method; of CLIP-FT by all."""
    gaps = row.get("gaps", {})
    own = run.removeprefix("cae-")
    return {own: gaps[own]} if own in gaps else gaps


def _row(run: str, row: Mapping[str, Any], setting: str, chosen: float) -> list[str]:
    value = f"{'learning rate' if setting == 'lr' else 'λ'} {row[setting]:g}"
    scores = [
        number(100 * row[key], 1) if key in row else NONE
        for key in ("recall_at_1", "against_negatives", "score")
    ]
    mark = "**" if row[setting] == chosen else ""
    gaps = [f"{method_label(method)} {number(gap, 3)}" for method, gap in _gaps(run, row).items()]
    return [label(run), f"{mark}{value}{mark}", *scores, ", ".join(gaps) or NONE]
