"""Registry of the attribution methods, which can be read without importing PyTorch.

The method NAME has an entry in `METHODS` and the file `cae_lib/attribution/NAME.py`, which
`cae_lib.attribution.get_method` imports when the method is used.
"""

from __future__ import annotations

from typing import NamedTuple


class MethodInfo(NamedTuple):
    """Registry entry of an attribution method: its class, and its label and colour in figures."""

    class_name: str
    label: str
    color: str


# The paper's four methods (`PAPER_METHODS`), then further ones.
METHODS: dict[str, MethodInfo] = {
    "attention": MethodInfo("AttentionAttribution", "attention", "#0173b2"),
    "gradcam": MethodInfo("GradcamAttribution", "GradCAM", "#d55e00"),
    "perturbation": MethodInfo("PerturbationAttribution", "perturbation", "#029e73"),
    "gradient": MethodInfo("GradientAttribution", "gradient", "#cc78bc"),
    "binding": MethodInfo("BindingAttribution", "bindings", "#d62728"),
    "counterfactual": MethodInfo("CounterfactualAttribution", "counterfactual", "#ca9161"),
    "integrated_gradients": MethodInfo(
        "IntegratedGradientsAttribution", "integrated gradients", "#949494"
    ),
}

PAPER_METHODS = ("attention", "gradcam", "perturbation", "gradient")
"""Names of the paper's four methods, in the paper's order."""
