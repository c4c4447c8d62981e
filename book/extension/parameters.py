"""Check the parameters of a page, and load tables of runs with the settings that they make.

Parameters are `profile` and some of `methods`, `seeds`, `weight`, `margin`, `steps`, `hours`. Pages
call `check_parameters` and `select` before they import anything else: this module imports neither
pandas nor PyTorch at its top, so that a wrong value is refused at once.
"""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cae_lab.names import CLIP_FT, DATA_RUN, parse_setting
from cae_lab.profiles import load_profile
from cae_lib.errors import ConfigError, check_type
from cae_lib.methods import METHODS, PAPER_METHODS

if TYPE_CHECKING:
    import pandas as pd

    from cae_lab.plots import CellOutput

# tqdm.auto, which libraries import, misses ipywidgets; it then prints plain bars, as we want it to
warnings.filterwarnings("ignore", message="IProgress not found")

INJECTED = "# Parameters"
"""First words of the cell that papermill injects."""

OF_LOSS = ("weight", "margin")
"""Settings of the attribution loss; other settings are those of every training."""


def check_parameters(names: Mapping[str, Any], profiles: Sequence[str]) -> None:
    """Raise a ConfigError for parameters that a page, with these `globals()`, does not have.

    A rerun with other parameters says so. A profile has to be one of `profiles`, or `like` one of
    them.
    """
    if not {names["profile"], load_profile(names["profile"]).like} & {*profiles}:
        raise ConfigError(
            f"this page does not describe the profile {names['profile']!r}: expected "
            f"one of {', '.join(profiles)}"
        )
    declared = names.get("__annotations__", {})
    # Papermill only warns of an unknown parameter. The cell that it injects is among those that the
    # kernel has run, `In`.
    injected = [cell for cell in names.get("In", ()) if cell.startswith(INJECTED)]
    injected_names = {
        name for cell in injected for name in re.findall(r"^(\w+) = ", cell, re.MULTILINE)
    }
    if unknown := sorted(injected_names - set(declared)):
        raise ConfigError(
            f"this page has no parameter {', '.join(unknown)}; it has {', '.join(declared)}"
        )
    for name, kind in declared.items():
        if kind in (int, float):
            check_type(name, names[name], kind)
    if injected_names:
        settings = ", ".join(
            f"{name}={names[name]!r}" for name in declared if name in injected_names
        )
        print(f"Rerun with {settings}. The text describes the published runs.")


@dataclass(frozen=True)
class PageSelection:
    """What a page shows: a profile, attribution methods, seeds, and settings of runs.

    Attributes:
        seeds: Number of seeds of each trained run.
        methods: Labels by method.
        settings: Settings that differ from the profile's.
        hours: Longest training that is not refused.
        is_part: The page was asked for some of its methods only.
    """

    profile: str
    seeds: int
    methods: Mapping[str, str]
    settings: Mapping[str, Any]
    hours: float | None
    is_part: bool

    def load(
        self, table: str, runs: Iterable[str], seeds: int | Collection[int] | None = None
    ) -> pd.DataFrame:
        """Read a table of runs with the page's settings, and compute it where it is not stored.

        Rows bear the names in `runs`, without the settings. `seeds` are as for `results.load`; None
        takes the page's.
        """
        from book.extension.plan import load

        names = {self._name(run): run for run in runs}
        seeds = self.seeds if seeds is None else seeds
        rows = load(table, self.profile, names, seeds, self.hours)
        return rows.assign(run=rows["run"].map(names)) if self.settings else rows

    def _name(self, run: str) -> str:
        """Return the name of a run with the settings that act on it."""
        settings, profile = dict(self.settings), load_profile(self.profile)
        if settings and run in profile.runs:
            config = profile.experiment(run)
            has_loss = config.method in self.methods
            # The margin loss has weight and margin, too, and stands beside the swap-margin loss.
            if not has_loss and not (config.foil_hinge and "binding" in self.methods):
                settings = {key: settings[key] for key in settings if key not in OF_LOSS}
        return profile.run(run, **settings).name if settings else run

    @property
    def number(self) -> str:
        """The number of methods, at most four, as a word."""
        return ("one", "two", "three", "four")[len(self.methods) - 1]

    def has(self, table: str, runs: Iterable[str]) -> bool:
        """Return whether a table of runs is stored, or its data can be built."""
        from book.studies import ALL_SUITES
        from cae_lab import results

        # Recipes make the data of all profiles but the real ones.
        can_be_built = not load_profile(self.profile).is_real
        return can_be_built or not results.missing_runs(table, runs, self.profile, ALL_SUITES)

    def complete(self, suite: str, families: Collection[str] | None = None) -> bool:
        """Return whether a suite used all items of these families, or of all; verdicts need it."""
        subsets = self.load("subsets", [DATA_RUN])
        subsets = subsets[subsets["suite"] == suite]
        if families is not None:
            subsets = subsets[subsets["family"].isin(list(families))]
        return len(subsets) > 0 and bool((subsets["n_used"] == subsets["n_expected"]).all())

    def measured(self, runs: list[str]) -> list[str]:
        """Return these runs, or none if the profile lacks the answers of one of them."""
        from cae_lab import results

        return [] if results.missing_runs("benchmarks", runs, self.profile) else runs

    def shown(self) -> CellOutput:
        """Describe what the page shows in one line."""
        from cae_lab.plots import CellOutput

        text = f"{describe(self.profile)}, {self.seeds} seed{'' if self.seeds == 1 else 's'}"
        if self.is_part:
            text += f"; methods: {', '.join(self.methods.values())}"
        text += "".join(f"; {key} {value}" for key, value in self.settings.items())
        return CellOutput(f'<p class="cae-shown">{html.escape(text)}.</p>', f"{text}.")


def describe(profile_name: str) -> str:
    """Describe a profile's images and name it, with a capital at the beginning."""
    title = load_profile(profile_name).title or "profile"
    return f"{title[:1].upper()}{title[1:]} (profile {profile_name})"


def select(names: Mapping[str, Any], known: Collection[str] = PAPER_METHODS) -> PageSelection:
    """Return what the parameters in a page's `globals()` select; `known` are its methods.

    `methods` is a text such as "gradcam, attention" or a list, and "" stands for all. A setting is
    a number or its text, and "" stands for that of each run. A wrong value raises a ConfigError.
    """
    asked = names.get("methods", "")
    asked = asked.replace(",", " ").split() if isinstance(asked, str) else list(asked)
    if unknown := [method for method in asked if method not in known]:
        raise ConfigError(f"methods: {unknown} are unknown: expected some of {', '.join(known)}")
    methods = [method for method in known if method in asked] or list(known)
    seeds = names["seeds"]
    if not isinstance(seeds, int) or seeds < 1:
        raise ConfigError(f"seeds is {seeds!r}: expected a number of seeds, 1 or more")
    hours = names.get("hours")
    check_type("hours", hours, float | None)
    if hours is not None and hours <= 0:
        raise ConfigError(f"hours is {hours}: expected a number above 0")
    setting_texts = {key: str(names.get(key, "")) for key in (*OF_LOSS, "steps")}
    settings = {key: parse_setting(key, text) for key, text in setting_texts.items() if text}
    labels = {method: METHODS[method].label for method in methods}
    selection = PageSelection(
        names["profile"], seeds, labels, settings, hours, is_part=len(methods) < len(known)
    )
    # A name is resolved here for its errors: a value that is not allowed is refused at once.
    for run in [CLIP_FT, *(f"cae-{method}" for method in methods)]:
        if run in load_profile(selection.profile).runs:
            selection._name(run)
    return selection
