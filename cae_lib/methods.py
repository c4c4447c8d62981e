"""Registry of the attribution methods.

A method is one file of `cae_lib/attribution`, named as the method, and one line of `METHODS`.
`cae_lib.attribution.get_method` imports its code when it is used, so that a page that only shows
tables starts without PyTorch.
"""

from __future__ import annotations

from typing import NamedTuple


class Method(NamedTuple):
    """An attribution method.

    Attributes:
        class_name: Name of its class in `cae_lib.attribution.NAME`.
        label: Name in tables and figures.
        color: Color of its marks in figures.
    """

    class_name: str
    label: str
    color: str


METHODS: dict[str, Method] = {
    "attention": Method("AttentionAttribution", "attention", "#0173b2"),
    "gradcam": Method("GradcamAttribution", "GradCAM", "#d55e00"),
    "perturbation": Method("PerturbationAttribution", "perturbation", "#029e73"),
    "gradient": Method("GradientAttribution", "gradient", "#cc78bc"),
    "binding": Method("BindingAttribution", "bindings", "#de8f05"),
    "counterfactual": Method("CounterfactualAttribution", "counterfactual", "#ca9161"),
    "integrated_gradients": Method(
        "IntegratedGradientsAttribution", "integrated gradients", "#949494"
    ),
}
"""All attribution methods, by name: the paper's four (`PAPER_METHODS`) and ours."""

PAPER_METHODS = ("attention", "gradcam", "perturbation", "gradient")
"""Names of the paper's four methods, in its order."""
