"""The runs of a profile under the names that the paper gives them."""

from __future__ import annotations

from cae_lib.attribution import METHODS
from cae_lib.config import profile
from cae_lib.errors import ConfigError

BASE, TUNED, HARD = "base", "clip-ft", "negclip"
CAE, HARD_CAE = "cae-", "negclip-cae-"

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
    """A run as the paper's tables name it; a name that they do not have stays as it is."""
    names = {BASE: "CLIP", TUNED: "CLIP-FT", HARD: "NegCLIP"}
    if run in names:
        return names[run]
    for prefix, family in ((HARD_CAE, "NegCLIP-CAE"), (CAE, "CLIP-CAE")):
        if run.startswith(prefix):
            return f"{family} ({method_label(run.removeprefix(prefix))})"
    return run


def method_of(run: str) -> str | None:
    """The attribution method in the name of a CAE run, with or without hard negatives."""
    for prefix in (HARD_CAE, CAE):
        if run.startswith(prefix):
            return run.removeprefix(prefix)
    return None


def setting(profile_name: str) -> str:
    """Model and data of a profile in a few words."""
    if profile_name == "paper":
        return "ViT-B/32 on the real benchmarks"
    words = "clip-mini on the small world"
    return words if profile_name == "mini" else f"{words}, profile {profile_name}"


def cae_runs(profile_name: str) -> dict[str, str]:
    """The CAE runs without hard negatives, and the attribution method that each one trains on."""
    return _runs_on_methods(profile_name, CAE)


def hard_cae_runs(profile_name: str) -> dict[str, str]:
    """The runs of NegCLIP with CAE, and the attribution method that each one trains on."""
    return _runs_on_methods(profile_name, HARD_CAE)


def _runs_on_methods(profile_name: str, prefix: str) -> dict[str, str]:
    rows = profile(profile_name).methods
    return {name: row["method"] for name, row in rows.items()
            if row.get("method") and name == f"{prefix}{row['method']}"}  # fmt: skip


def all_runs(profile_name: str) -> list[str]:
    """Every row of Table 1: the base, CLIP-FT, then CAE."""
    return [BASE, TUNED, *cae_runs(profile_name)]


def hard_runs(profile_name: str) -> list[str]:
    """NegCLIP and NegCLIP with CAE, as far as the profile has them."""
    known = [HARD] if HARD in profile(profile_name).methods else []
    return [*known, *hard_cae_runs(profile_name)]


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
