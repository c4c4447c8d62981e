"""The four attribution methods side by side: what they read, cost and leave open."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from cae_lib.attribution import METHODS
from cae_lib.report.markup import Table
from cae_lib.report.runs import method_label


@dataclass(frozen=True)
class Facts:
    """What can be said of a method without running it.

    Attributes:
        score: The definition in short.
        reads: What the score is a function of.
        image: Whether the picture matters.
        passes: Passes of the text tower that score a caption of n words.
        order: Order of the derivative of S when CAE trains through the score.
        unit: Of the score.
        sign: Whether a score can be negative.
    """

    score: str
    reads: str
    image: bool
    passes: str
    order: str
    unit: str
    sign: bool


FACTS: Mapping[str, Facts] = {
    "attention": Facts(
        "attention of the end token to the word, mean over layers and heads",
        "attention maps", False, "1 forward", "first", "share of attention", False,
    ),
    "gradcam": Facts(
        "attention weighted by its gradient, propagated through the layers",
        "attention maps and their gradients", True, "1 forward, 1 backward", "second",
        "change of S/τ, accumulated over layers", False,
    ),
    "perturbation": Facts(
        "drop of S when the word is masked",
        "the similarity alone", True, "1 + n forward, as one batch", "first", "cosine", True,
    ),
    "gradient": Facts(
        "norm of the gradient of S at the token embedding",
        "the gradient at the input", True, "1 forward, 1 backward", "second",
        "cosine per unit of the embedding", False,
    ),
}  # fmt: skip

SUPPORT: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "attention": {
        "layers": ("stated", "all layers and heads"),
        "renormalise": ("unknown", "ours; scales a caption's scores, no rank changes"),
    },
    "gradcam": {
        "start_layer": ("stated as a rule over layers", "the notebook it builds on: last only"),
        "second_order": ("inferred", "else the gradient is a constant in training"),
        "temperature": ("by others", "S/τ in the notebook it builds on"),
        "train_temperature": ("unknown", "else a smaller 1/τ would level any two scores"),
    },
    "perturbation": {
        "replacement": ("unknown", "mean embedding, zero, a token, a random token"),
        "unit": ("unknown", "all tokens of a word at once, or one token"),
        "clamp": ("unknown", "negative drops to 0"),
        "temperature": ("unknown", "scales all scores, no rank changes"),
        "token_id": ("ours", "for the replacement `token`; 265 is *"),
        "seed": ("ours", "for the replacement `random`"),
    },
    "gradient": {
        "reduction": ("inferred", "l2, l1, or the product with the embedding"),
        "temperature": ("unknown", "scales all scores, no rank changes"),
    },
}


def comparison_table() -> Table:
    """What each method reads and takes, one column a method."""
    rows = [
        ["score of a word", *(FACTS[m].score for m in METHODS)],
        ["read from", *(FACTS[m].reads for m in METHODS)],
        ["depends on the picture", *("yes" if FACTS[m].image else "**no**" for m in METHODS)],
        ["scores a caption of n words with", *(FACTS[m].passes for m in METHODS)],
        ["order of derivatives in training", *(FACTS[m].order for m in METHODS)],
        ["unit", *(FACTS[m].unit for m in METHODS)],
        ["can be negative", *("yes" if FACTS[m].sign else "no" for m in METHODS)],
    ]
    return Table(
        name="tab-methods",
        caption="The four attribution methods as CAE uses them, with their default parameters. S "
        "is the similarity of a matched pair. The score of a word is the mean over its tokens.",
        header=["", *(method_label(m) for m in METHODS)],
        rows=rows,
        left=1 + len(METHODS),
    )


def parameter_table() -> Table:
    """Every parameter of every method with its default, and how well that is supported."""
    rows = []
    for method, cls in METHODS.items():
        for field in dataclasses.fields(cls):
            support, remark = SUPPORT[method][field.name]
            rows.append([method_label(method), f"`{field.name}`", f"`{field.default!r}`",
                         support, remark])  # fmt: skip
    return Table(
        name="tab-parameters",
        caption="Parameters of the methods, and whether the default is stated by the paper, taken "
        "from the code that it builds on (by others), inferred from the context, or unknown.",
        header=["method", "parameter", "default", "support", "remark"],
        rows=rows,
        left=5,
    )
