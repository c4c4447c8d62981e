"""The model card of a trained run for the Hugging Face hub, every figure from the run's records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cae_lib.config import Experiment
from cae_lib.errors import DataError
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.retrieval import RetrievalResult
from cae_lib.experiments import record_name
from cae_lib.models.checkpoint import CheckpointMeta
from cae_lib.models.clip import Clip
from cae_lib.models.export import open_clip_name
from cae_lib.records import Record, load_record
from cae_lib.report.benchmarks import COLUMNS, column_score
from cae_lib.report.markup import number, percent
from cae_lib.report.retrieval import DIRECTIONS, SETS
from cae_lib.report.runs import BASE, label, setting

PAPER = "https://doi.org/10.18653/v1/2024.emnlp-main.810"


def card(name: str, profile: str, seed: int, clip: Clip, meta: CheckpointMeta,
         config: Experiment | None, digest: str, file: str) -> str:  # fmt: skip
    """The model card in Markdown, with the front matter that the hub reads."""
    title = f"{label(name)}, {setting(profile)}, seed {seed}"
    return "\n".join([
        *_front_matter(profile, clip), "",
        f"# {title}", "",
        *_training(profile, clip, meta, config), "",
        "## Load it", "",
        *_loading(clip, file), "",
        "## What was measured", "",
        *_figures(name, profile, seed, digest), "",
        "## Use and limits", "",
        *_limits(profile), "",
        "## Licence and citation", "",
        *_licence(profile), "",
    ])  # fmt: skip


def _front_matter(profile: str, clip: Clip) -> list[str]:
    licence = ["license: mit"]
    if profile == "paper":
        licence = ["license: other", "license_name: that-of-the-starting-weights",
                   "license_link: README.md#licence-and-citation"]  # fmt: skip
    return ["---", *licence, "library_name: open_clip",
            "pipeline_tag: zero-shot-image-classification", "language: en",
            "tags:", "- clip", "- compositionality", f"- {clip.activation}", "---"]  # fmt: skip


def _training(profile: str, clip: Clip, meta: CheckpointMeta,
              config: Experiment | None) -> list[str]:  # fmt: skip
    lines = [f"Architecture {clip.name}, activation **{clip.activation}**, {meta.step} optimiser "
             f"steps, configuration `{meta.config_key or 'unknown'}`."]  # fmt: skip
    if config is None:
        return [*lines, f"The model that every run of the profile `{profile}` starts from."]
    loss = "the contrastive loss alone"
    if config.method:
        options = "".join(f", {key} = {value}" for key, value in config.attribution)
        loss = (
            f"the contrastive loss and {config.weight:g} times the attribution loss of "
            f"[CAE]({PAPER}), attribution by {config.method} (margin {config.margin:g}, averaged "
            f"over the {config.scope}, A_obj {'constant' if config.stop_gradient else 'trained'}"
            f"{options})"
        )
    negatives = ", with NegCLIP's hard negatives" if config.negatives else ""
    return [
        *lines,
        f"Fine-tuned from `{config.weights}` on `{config.train_data}` with {loss}{negatives}: "
        f"{config.steps} steps of {config.batch_size} pairs, AdamW at lr {config.lr:g} with "
        f"{config.warmup} steps of warm-up and cosine decay to 0, weight decay "
        f"{config.weight_decay:g} on matrices, betas {config.betas}, eps {config.eps:g}, "
        f"{config.precision}, seed {config.seed}. Both towers were trained.",
    ]


def _loading(clip: Clip, file: str) -> list[str]:
    name = open_clip_name(clip.name, clip.activation)
    folder = ("From this folder, or from the hub with `hf-hub:OWNER/NAME` in place of "
              "`local-dir:.`; the activation is part of `open_clip_config.json`:")  # fmt: skip
    lines = [] if file.endswith(".pt") else [folder, "", *_code("local-dir:."), ""]
    if name is not None:
        lines += ["By the path of the weights:", "", *_code(name, file), ""]
    elif not lines:
        lines += [f"open_clip has no architecture of the name {clip.name}: add this folder's "
                  "`model_cfg` with `open_clip.add_model_config`, then:", "",
                  *_code(clip.name, file), ""]  # fmt: skip
    other = "gelu" if clip.activation == "quickgelu" else "quickgelu"
    return [*lines, f"With {other} the same weights load without an error and give other scores."]


def _code(name: str, weights: str = "") -> list[str]:
    given = f', pretrained="{weights}"' if weights else ""
    return ["```python", "import open_clip", "",
            f'model, _, preprocess = open_clip.create_model_and_transforms("{name}"{given})',
            "model.eval()",
            f'tokenizer = open_clip.get_tokenizer("{name}")', "```"]  # fmt: skip


def _figures(name: str, profile: str, seed: int, digest: str) -> list[str]:
    """Benchmarks and retrieval with intervals; beside them the base and CLIP-FT where measured."""
    runs = {run: (0 if run == BASE else seed) for run in dict.fromkeys([name, "clip-ft", BASE])}
    found = {run: _answers(run, profile, number) for run, number in runs.items()}
    own = _stored(name, profile, seed, "benchmarks")
    if own is None or own.config.get("weights") != digest[:12]:
        state = "Nothing yet" if own is None else "The records belong to other weights"
        return [f"{state}: `cae evaluate {name} --profile {profile} --seed {seed}`."]
    columns = {run: part for run, part in found.items() if part}
    rows = []
    for column in COLUMNS:
        scores = [column_score(column, part) for part in columns.values()]
        if scores[0] is None:
            continue
        n = f"{scores[0].n_used} of {scores[0].n_expected}"
        cells = [percent(s.interval()) if s else "" for s in scores]
        rows.append([column.label, n, f"{100 * scores[0].chance:.1f}", *cells, column.rule])
    header = ["benchmark", "n used", "chance", *(label(run) for run in columns), "averaging"]
    code = own.provenance.get("code", own.provenance.get("tree", ""))[:12]
    return [
        f"Accuracy in percent with 95 % bootstrap intervals over items, on {setting(profile)}. "
        "Protocol: cosine of float32 features, one text or picture against the others; a tie "
        "counts as wrong; pictures resized by the preprocessing stored here.", "",
        *_table(header, rows), "",
        *_recalls(list(columns), runs, profile), "",
        f"From the records `{record_name(name, '*', seed)}`, code `{code}`, data "
        f"`{own.provenance.get('data') or own.config.get('data')}`.",
    ]  # fmt: skip


def _recalls(names: Sequence[str], seeds: Mapping[str, int], profile: str) -> list[str]:
    rows = []
    records = {run: _stored(run, profile, seeds[run], "retrieval") for run in names}
    present = {run: record for run, record in records.items() if record is not None}
    for key, title in SETS.items():
        for direction, words in DIRECTIONS.items():
            values = [RetrievalResult.from_record(r.results[key]).recall(direction, 1)
                      for r in present.values() if key in r.results]  # fmt: skip
            if len(values) == len(present):
                rows.append([f"{title}, {words}", *(number(100 * v, 1) for v in values)])
    if not present or not rows:
        return ["Retrieval was not measured."]
    return _table(["recall at 1, %", *(label(run) for run in present)], rows)


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


def _limits(profile: str) -> list[str]:
    if profile == "paper":
        return ["For research on what CLIP understands of composition. It inherits the data and "
                "the biases of the weights that it started from. Compare its numbers only under "
                "the same protocol."]  # fmt: skip
    return ["For research: it knows nothing but the drawn pictures of a small world of some thirty "
            "nouns, and is of no use on photographs."]  # fmt: skip


def _licence(profile: str) -> list[str]:
    terms = "MIT."
    if profile == "paper":
        terms = ("Code: MIT. These weights derive from the weights named above and from the "
                 "captions and pictures of the training set: the terms of both hold for them.")
    return [
        terms, "",
        f"The method is that of Li et al., EMNLP 2024 ({PAPER}); these weights are an independent "
        "reproduction, not the authors' own. Please cite the paper.",
    ]  # fmt: skip
