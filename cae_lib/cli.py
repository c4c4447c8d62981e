"""The command ``cae``: everything that the book's pages and the Makefile do, one step at a time."""

from __future__ import annotations

import argparse
import errno
import importlib
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

from cae_lib.config import paths
from cae_lib.errors import CaeError, Terminated

GROUPS = {
    "data": "real data sets and weights: what, where, missing",
    "world": "the small world of pictures and captions",
    "photo": "photographs with human captions (Flickr8k)",
}
COMMANDS: Mapping[str, tuple[str, str]] = {
    "data list": ("data.list_sources", "what there is, how large, and where it goes"),
    "data get": ("data.get_sources", "fetch, check and unpack"),
    "data check": ("data.check_sources", "count what is here, and name what is missing"),
    "world build": ("data.build_world", "draw and write all sets of the world"),
    "world show": ("data.show_world", "write a sheet of pictures and captions"),
    "photo build": ("data.build_photo", "write captions and choices in official layouts"),
    "train": ("train.run", "train the base model or one experiment"),
    "evaluate": ("evaluate.run", "measure a run or any CLIP-like model, and print its scores"),
    "compare": ("compare.run", "how the stored tables differ from those of a commit or archive"),
    "pack": ("compare.pack", "write all stored tables of a profile as one file for others"),
    "attribute": (
        "attribute.run",
        "heat map of a picture and scores of its caption's words, as a figure",
    ),
    "explore": ("explore.run", "items with pictures, choices and words, as a page of its own"),
    "run": ("book.run", "execute one page of the book"),
    "reproduce": ("reproduce.run", "data, training, pages and book"),
    "book": ("book.book", "render the book from the stored pages"),
    "report": ("report.run", "write the reproduction as a paper, in LaTeX"),
}
"""Of each command the function `MODULE.FUNCTION` of `cae_lib.commands`, beside which its options
stand, and what it is for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, see `guarded`."""
    words = sys.argv[1:] if arguments is None else arguments

    def act() -> int | None:
        parsed = parse(words)
        with ExitStack() as stack:
            stack.callback(_collect)
            return parsed.action(parsed)

    return guarded(act, f"cae {shlex.join(words)}")


def guarded(action: Callable[[], int | None], command: str) -> int:
    """Do something, and tell the errors that a user can mend in a line; returns the exit code: 0,
    2 on bad input, 130 when interrupted, 143 when ended by SIGTERM. `command` goes on then."""
    try:
        with sigterm_raises():
            return action() or 0
    except CaeError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("cae_lib"):
            raise
        message = (
            f'this command needs {error.name}, which is not installed: pip install "cae-lib[lab]"'
        )
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise
        message = (
            f"cannot use {error.filename or 'the disk'} ({error.strerror}): free some space "
            "or make it yours to read and write, or set CAE_HOME to a folder of your own"
        )
    except KeyboardInterrupt as interrupt:
        print(f"\ncae: interrupted; the same command goes on: {command}", file=sys.stderr)
        return 143 if isinstance(interrupt, Terminated) else 130
    print(f"cae: {message}", file=sys.stderr)
    return 2


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise Terminated on SIGTERM, so that it ends a command as Ctrl-C does; once, since it often
    comes twice. Nothing is done outside of the main thread, which alone gets signals."""

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _collect() -> None:
    """Put what was measured into the tables."""
    for place in (paths().cache / "staged").glob("*/"):
        importlib.import_module("cae_lib.results").collect(place.name)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """What a command line says, with the function that does it as `action`. The module of the
    command that it names is imported, and no other."""
    parser = argparse.ArgumentParser(prog="cae", description=__doc__)
    top = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    groups = {"": top}
    for name, (place, text) in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group not in groups:
            within = top.add_parser(group, help=GROUPS[group])
            groups[group] = within.add_subparsers(required=True, metavar="ACTION")
        sentence = f"{text[:1].upper()}{text[1:]}."
        command = groups[group].add_parser(last, help=text, description=sentence)
        if name.split() == list(words[: len(name.split())]):
            add_options(command, action(place))
    return parser.parse_args(words)


def action(place: str) -> Callable[[argparse.Namespace], int | None]:
    """The function of a command."""
    module, _, function = place.partition(".")
    return getattr(importlib.import_module(f"cae_lib.commands.{module}"), function)


def add_options(
    parser: argparse.ArgumentParser, function: Callable[[argparse.Namespace], int | None]
) -> None:
    """Let a parser take what `cae_lib.commands.options.add_arguments` says of the function."""
    parser.set_defaults(action=function)
    groups = {"": parser}
    for names, settings, group in getattr(function, "options", ()):
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        groups[group].add_argument(*names, **settings)


if __name__ == "__main__":
    sys.exit(main())
