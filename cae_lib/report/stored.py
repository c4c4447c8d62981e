"""What a page says in the place of results that nobody has computed yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

from cae_lib.config import profile as find_profile
from cae_lib.errors import DataError
from cae_lib.measurements import record_name
from cae_lib.records import record_path
from cae_lib.report.markup import Text, count
from cae_lib.report.runs import BASE

Arguments = ParamSpec("Arguments")
Shown = TypeVar("Shown")


class NotMeasured(DataError):
    """Records that are needed are not there."""


def missing_records(runs: Iterable[str], profile: str, suite: str, seeds: int) -> list[str]:
    """Names of the records of a kind of measurement that are not stored."""
    names = [
        record_name(run, suite, seed) for run in runs for seed in range(1 if run == BASE else seeds)
    ]
    return [name for name in names if not record_path(name, profile).is_file()]


def require(runs: Iterable[str], profile: str, suite: str, seeds: int) -> None:
    """Go on only if all records of a kind of measurement are stored.

    Raises:
        NotMeasured: One is missing; the message names the commands that compute it.
    """
    missing = missing_records(runs, profile, suite, seeds)
    if not missing:
        return
    run, seed, _ = missing[0].split("/")
    option = f" --profile {profile}"
    commands = [f"`cae evaluate {run} --seed {seed}{option}`"]
    if run != BASE:
        commands.insert(0, f"`cae train {run} --seed {seed}{option}`")
    everything = (
        f"`cae reproduce{option}` computes all of them; " if find_profile(profile).base else ""
    )
    raise NotMeasured(
        f"Not measured yet in the profile {profile}: {count(len(missing), 'record')} of the kind "
        f"`{suite}` missing, the first is `{missing[0]}`. {everything}this one alone comes from "
        f"{' and '.join(commands)}."
    )


def if_measured(make: Callable[Arguments, Shown]) -> Callable[Arguments, Shown | Text]:
    """Turn a missing record into a text for the page; any other fault stays an error."""

    @wraps(make)
    def shown(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Shown | Text:
        try:
            return make(*args, **kwargs)
        except NotMeasured as error:
            return Text(f"*{error}*")

    return shown
