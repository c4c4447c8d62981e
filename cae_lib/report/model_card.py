"""The model card of a trained run for the Hugging Face hub, every figure from the run's records."""

from __future__ import annotations

from cae_lib.config import Experiment
from cae_lib.models.checkpoint import CheckpointMeta
from cae_lib.models.clip import Clip
from cae_lib.models.export import open_clip_name
from cae_lib.report.card_figures import Run, figures
from cae_lib.report.runs import setting

PAPER = "https://doi.org/10.18653/v1/2024.emnlp-main.810"


def card(run: Run, clip: Clip, meta: CheckpointMeta, config: Experiment | None,
         digest: str, file: str) -> str:  # fmt: skip
    """The model card in Markdown, with the front matter that the hub reads."""
    profile = run.profile
    title = f"{run.title}, {setting(profile)}, seed {run.seed}"
    return "\n".join([
        *_front_matter(profile, clip), "",
        f"# {title}", "",
        *_training(profile, clip, meta, config), "",
        "## Load it", "",
        *_loading(clip, file), "",
        "## What was measured", "",
        *figures(run, digest), "",
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
    negatives, unit = "", "pairs"
    if config.negatives:
        negatives = ", with NegCLIP's hard negatives"
        unit = "rows, each with a similar picture, its caption, and two false captions"
    towers = "The text tower alone was" if config.lock_image else "Both towers were"
    return [
        *lines,
        f"Fine-tuned from `{config.weights}` on `{config.train_data}` with {loss}{negatives}: "
        f"{config.steps} steps of {config.batch_size} {unit}, AdamW at lr {config.lr:g} with "
        f"{config.warmup} steps of warm-up and cosine decay to 0, weight decay "
        f"{config.weight_decay:g} on matrices, betas {config.betas}, eps {config.eps:g}, "
        f"{config.precision}, seed {config.seed}. {towers} trained.",
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
