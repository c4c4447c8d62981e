"""Registry of the attribution methods.

Each attribution method has a file in `cae_lib/attribution` with the method's name, and an entry in
`METHODS`. `cae_lib.attribution.get_method` imports that file when the method is used, so that the
registry can be read without importing PyTorch.
"""

from __future__ import annotations

from typing import NamedTuple


class Method(NamedTuple):
    """Registry entry of an attribution method.

    Attributes:
        class_name: Name of its class in the module `cae_lib.attribution.NAME`, where NAME is the
            method's key in `METHODS`.
        label: Name in tables and figures.
        color: Colour in figures, as a hexadecimal RGB code.
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
"""All attribution methods, by name: the paper's four (`PAPER_METHODS`) and further ones."""

PAPER_METHODS = ("attention", "gradcam", "perturbation", "gradient")
"""Names of the paper's four methods, in the paper's order."""
