"""The shorter runs that are compared with each other only: ablations, and other base models.

They take the profile's `short` settings, because a study of many settings has to be cheap; so each
study has reference runs of its own, of the same length. A run that two studies share is one run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cae_lib.config import experiment, paths, profile
from cae_lib.experiments import checkpoint_path, run_training
from cae_lib.measurements import evaluate_run

SUITES = ("benchmarks", "attribution")
"""What is measured on the runs of a study."""

TUNED = "clip-ft"
ABLATED = "cae-gradcam"
"""The run whose settings are varied: its method has all of them, and levels within a short run."""

BASE_STUDY_RUNS = (TUNED, "cae-perturbation")
"""Trained from each base model: the reference, and the method whose scores stay faithful."""

BASE_SEEDS = 2
ABLATION_SEEDS = 1


@dataclass(frozen=True)
class Variant:
    """A run of a profile with other settings.

    Attributes:
        run: Row of the profile, or "base".
        group: The setting that is varied, or "reference".
        value: The setting's value, as text for tables.
        settings: The fields of `Experiment` that differ from the profile's, as `overrides`.
        seeds: Seeds that are trained.
    """

    run: str
    group: str
    value: str
    settings: dict[str, Any]
    seeds: int = ABLATION_SEEDS

    @property
    def label(self) -> str:
        """The setting and its value in a few words."""
        return f"{self.group} {self.value}".strip()


def ablations(profile_name: str) -> list[Variant]:
    """Every setting of the loss that the paper leaves open, varied one at a time.

    The first variants are the references: CLIP-FT and CAE as the profile has them.
    """
    weight = experiment(ABLATED, profile_name).weight
    rows: list[tuple[str, str, str, dict[str, Any]]] = [
        (TUNED, "reference", "", {}),
        (ABLATED, "reference", "", {}),
        (ABLATED, "lambda", f"{weight / 10:g}", {"weight": weight / 10}),
        (ABLATED, "lambda", f"{weight * 10:g}", {"weight": weight * 10}),
        (ABLATED, "eps", "0.05", {"margin": 0.05}),
        (ABLATED, "scope", "caption", {"scope": "caption"}),
        (ABLATED, "scope", "word", {"scope": "word"}),
        (ABLATED, "stop-gradient", "on A_obj", {"stop_gradient": True}),
        (ABLATED, "layers", "last", {"attribution": (("start_layer", -1),)}),
        (ABLATED, "second order", "off", {"attribution": (("second_order", False),)}),
        (ABLATED, "role tagger", "dependency", {"tagger": "dependency"}),
        (ABLATED, "trained", "text tower only", {"lock_image": True}),
        (TUNED, "trained", "text tower only", {"lock_image": True}),
    ]
    short = profile(profile_name).short
    return [Variant(run, group, value, short | settings) for run, group, value, settings in rows]


def base_variants(profile_name: str) -> list[Variant]:
    """Each base model, and CLIP-FT and CAE from it; the group is its number of steps as text."""
    chosen = profile(profile_name)
    if chosen.base is None:
        return []
    starts = [(steps, {"weights": _relative(earlier_base_path(profile_name, steps))})
              for steps in chosen.earlier_bases]  # fmt: skip
    starts.append((chosen.base["steps"], {}))
    variants = []
    for steps, start in starts:
        variants.append(Variant("base", str(steps), "", start, 1))
        variants += [Variant(run, str(steps), "", chosen.short | start, BASE_SEEDS)
                     for run in BASE_STUDY_RUNS]  # fmt: skip
    return variants


def study_runs(profile_name: str) -> list[tuple[Variant, int]]:
    """Every run of the studies with its seed, none twice; base models are not among them."""
    found: dict[Path, tuple[Variant, int]] = {}
    for variant in (*base_variants(profile_name), *ablations(profile_name)):
        for seed in range(min(variant.seeds, profile(profile_name).seeds)):
            if variant.run != "base":
                path = checkpoint_path(variant.run, profile_name, seed, **variant.settings)
                found.setdefault(path, (variant, seed))
    return list(found.values())


def train_variant(variant: Variant, profile_name: str, seed: int) -> Path:
    """Train one run of a study, or find it trained; returns its checkpoint."""
    return run_training(variant.run, profile_name, seed, **variant.settings)


def evaluate_variant(variant: Variant, profile_name: str, seed: int, fresh: bool = False) -> None:
    """Compute what is missing of `SUITES` for one run of a study, or for a base model."""
    evaluate_run(variant.run, profile_name, seed, fresh, SUITES, **variant.settings)


def earlier_base_path(profile_name: str, steps: int) -> Path:
    """Where the weights of a base model of fewer steps lie."""
    base = checkpoint_path("base", profile_name, 0)
    if base.parent == paths().mini:
        return base.with_name(f"base-{steps}.safetensors")
    return base.parent.parent / f"base-{steps}" / base.name


def _relative(path: Path) -> str:
    return path.relative_to(paths().data).as_posix()
