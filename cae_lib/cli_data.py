"""The commands `cae data list`, `cae data get` and `cae data check`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cae_lib.config import paths
from cae_lib.data.sources import Source


def add_data(commands: argparse._SubParsersAction) -> None:
    """Describe the command `data` and its actions."""
    parser = commands.add_parser("data", help="real data sets and weights: what, where, missing")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what there is, how large, and where it goes")
    listing.set_defaults(action=_list)
    fetching = actions.add_parser("get", help="fetch, check and unpack")
    fetching.add_argument("names", nargs="+", metavar="NAME", help="a name of `cae data list`")
    fetching.set_defaults(action=_get)
    checking = actions.add_parser("check", help="count what is here, and name what is missing")
    checking.add_argument("names", nargs="*", metavar="NAME", help="all of them by default")
    checking.set_defaults(action=_check)


def _sources(names: Sequence[str]) -> list[Source]:
    from cae_lib.data.source_list import load_sources, source

    return [source(name) for name in names] if names else list(load_sources().values())


def _list(parsed: argparse.Namespace) -> None:
    from cae_lib.data.catalogue import describe

    for source in _sources(()):
        print("\n".join(describe(source)))
    print(f"All of it goes into {paths().raw}")


def _get(parsed: argparse.Namespace) -> int:
    from cae_lib.data.completeness import check
    from cae_lib.data.fetch import get

    complete = True
    for source in _sources(parsed.names):
        if check(source).state != "complete":
            print(f"{source.title}. Licence: {source.licence}. {source.terms}", flush=True)
            for line in get(source):
                print(f"Left to you: {line}")
        report = check(source)
        print("\n".join(report.lines()))
        if source.needs and report.state != "complete":
            print(f"  its pictures also come with: cae data get {' '.join(source.needs)}")
        complete = complete and report.state in ("complete", "unknown")
    return 0 if complete else 1


def _check(parsed: argparse.Namespace) -> int:
    from cae_lib.data.completeness import check

    reports = [check(source) for source in _sources(parsed.names)]
    for report in reports:
        print("\n".join(report.lines()))
    states = [report.state for report in reports]
    print(f"{states.count('complete')} of {len(states)} complete")
    wrong = "incomplete" in states or (parsed.names and "not here" in states)
    return 1 if wrong else 0
