"""The attribution methods by name, without their code, which a page of tables does not need.

A method is one file of `cae_lib/attribution`, named as the method, and one line of `REGISTRY`. The
file is imported when the method is asked for.
"""

from __future__ import annotations

from typing import NamedTuple


class Method(NamedTuple):
    """How a method is found and shown.

    Attributes:
        class_name: Its class in `cae_lib.attribution.NAME`.
        label: Name in tables and figures.
        color: Of its marks in figures.
    """

    class_name: str
    label: str
    color: str


REGISTRY: dict[str, Method] = {
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
"""All methods by name."""

METHODS = ("attention", "gradcam", "perturbation", "gradient")
"""The paper's four, in its order."""
