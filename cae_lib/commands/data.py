"""`cae data list`, `cae data get`, `cae data check`, `cae world`, `cae photo`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cae_lib.commands.options import PROFILE, add_arguments, option
from cae_lib.config import paths
from cae_lib.data.completeness import check
from cae_lib.data.fetch import get
from cae_lib.data.sources import WAYS, Source, load_sources, source


def list_sources(_: argparse.Namespace) -> None:
    """Print what there is, how large, and where it goes."""
    for entry in _selected(()):
        print("\n".join(_description(entry)))
    print(f"All of it goes into {paths().raw}")


@add_arguments(option("names", nargs="+", metavar="NAME", help="a name of `cae data list`"))
def get_sources(parsed: argparse.Namespace) -> int:
    """Fetch, check and unpack; returns 1 if something is left to do."""
    complete = True
    for entry in _selected(parsed.names):
        if check(entry).state != "complete":
            print(f"{entry.title}. Licence: {entry.licence}. {entry.terms}", flush=True)
            for line in get(entry):
                print(f"Left to you: {line}")
        report = check(entry)
        print("\n".join(report.lines()))
        if entry.needs and report.state != "complete":
            print(f"  its images also come with: cae data get {' '.join(entry.needs)}")
        complete = complete and report.state in ("complete", "unknown")
    return 0 if complete else 1


@add_arguments(option("names", nargs="*", metavar="NAME", help="all of them by default"))
def check_sources(parsed: argparse.Namespace) -> int:
    """Count what is here, and name what is missing; returns 1 if something is."""
    reports = [check(entry) for entry in _selected(parsed.names)]
    for report in reports:
        print("\n".join(report.lines()))
    states = [report.state for report in reports]
    print(f"{states.count('complete')} of {len(states)} complete")
    return 1 if "incomplete" in states or (parsed.names and "not here" in states) else 0


@add_arguments(PROFILE)
def build_world(parsed: argparse.Namespace) -> None:
    """Build the synthetic scenes."""
    from cae_lib.world.build import build

    print(f"The synthetic scenes are {build(parsed.profile)}")


@add_arguments(
    PROFILE, option("-o", "--output", type=Path, default=Path("world.png"), metavar="FILE")
)
def show_world(parsed: argparse.Namespace) -> None:
    """Write a contact sheet of the synthetic scenes."""
    from cae_lib.world.build import contact_sheet

    contact_sheet(parsed.profile, parsed.output)
    print(f"The contact sheet is {parsed.output}")


@add_arguments(
    option(
        "--profile",
        default="photo",
        metavar="P",
        help="photo (default), or paired, two photographs in a picture",
    )
)
def build_photo(parsed: argparse.Namespace) -> None:
    """Write the datasets of photographs."""
    from cae_lib.commands.base import build_sets

    print(f"The datasets of photographs are {build_sets(parsed.profile)}")


def _selected(names: Sequence[str]) -> list[Source]:
    return [source(name) for name in names] if names else list(load_sources().values())


def _description(entry: Source) -> list[str]:
    """Return name, title, size, licence, place and ways to get a source, as lines."""
    size = "size not known" if entry.gb is None else f"about {entry.gb:g} GB"
    counts = Counter(text for item in entry.get for way, text in WAYS.items() if getattr(item, way))
    ways = [f"{n} file{'s' * (n > 1)} {text}" for text, n in counts.items()]
    cached = entry.get and all(item.open_clip for item in entry.get)
    place = "the hub's own cache" if cached else f"data/raw/{entry.folder}"
    lines = [
        f"{entry.name}: {entry.title}",
        f"  {size}, {entry.licence}",
        f"  goes to {place}; {', '.join(ways) or 'put it there'}",
    ]
    lines += [f"  accept the terms first: {entry.gated}"] if entry.gated else []
    return lines + [f"  shows images of {', '.join(entry.needs)}"] * bool(entry.needs)
