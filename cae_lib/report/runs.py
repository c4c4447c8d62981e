"""The runs of a profile under the names that the paper gives them."""

from __future__ import annotations

from cae_lib.attribution import METHODS
from cae_lib.config import profile
from cae_lib.errors import ConfigError

BASE, TUNED = "base", "clip-ft"

METHOD_LABELS = {
    "attention": "attention",
    "gradcam": "GradCAM",
    "perturbation": "perturbation",
    "gradient": "gradient",
}


def method_label(method: str) -> str:
    """An attribution method as text."""
    return METHOD_LABELS.get(method, method)


def label(run: str) -> str:
    """A run as the paper's tables name it."""
    if run == BASE:
        return "CLIP"
    if run == TUNED:
        return "CLIP-FT"
    return f"CLIP-CAE ({method_label(run.removeprefix('cae-'))})"


def setting(profile_name: str) -> str:
    """Model and data of a profile in a few words."""
    if profile_name == "paper":
        return "ViT-B/32 on the real benchmarks"
    words = "clip-mini on the small world"
    return words if profile_name == "mini" else f"{words}, profile {profile_name}"


def cae_runs(profile_name: str) -> dict[str, str]:
    """The CAE runs of a profile, and the attribution method that each one trains on."""
    rows = profile(profile_name).methods
    return {name: row["method"] for name, row in rows.items() if row.get("method")}


def all_runs(profile_name: str) -> list[str]:
    """Every row of the tables: the base, CLIP-FT, then CAE."""
    return [BASE, TUNED, *cae_runs(profile_name)]


def chosen_methods(methods: str) -> tuple[str, ...]:
    """The attribution methods that a page's parameter `methods` names.

    Args:
        methods: "all", or names with commas between them.

    Raises:
        ConfigError: A name is unknown; the message lists the known ones.
    """
    if methods == "all":
        return tuple(METHODS)
    names = tuple(name.strip() for name in methods.split(","))
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        known = ", ".join(METHODS)
        raise ConfigError(f"unknown method {', '.join(unknown)}: expected 'all' or some of {known}")
    return names
