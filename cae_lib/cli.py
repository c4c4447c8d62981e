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
"""For each command, the function `MODULE.FUNCTION` of `cae_lib.commands` and a description. The
options of the command are declared beside that function."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see `guarded`."""
    words = sys.argv[1:] if arguments is None else arguments

    def act() -> int | None:
        parsed = parse(words)
        with ExitStack() as stack:
            stack.callback(_collect)
            return parsed.action(parsed)

    return guarded(act, f"cae {shlex.join(words)}")


def guarded(action: Callable[[], int | None], command: str) -> int:
    """Call a function, and report errors that the user can correct in one line.

    Args:
        action: The function, which returns an exit code; None counts as 0.
        command: The command line that resumes the work after an interruption.

    Returns:
        The exit code: that of `action`, 2 on bad input, 130 after an interruption, and 143 after a
        SIGTERM.
    """
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
    """Raise Terminated on SIGTERM, so that the signal ends a command as Ctrl-C does.

    The signal often arrives twice, so only the first one raises. Outside of the main thread, which
    is the only one that receives signals, nothing is changed.
    """

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
    """Move all staged results into the tables."""
    for place in (paths().cache / "staged").glob("*/"):
        importlib.import_module("cae_lib.results").collect(place.name)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; `action` of the result is the function that executes the command.

    Only the module of the command that is named is imported.
    """
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
    """Return the function of a command from its `MODULE.FUNCTION`."""
    module, _, function = place.partition(".")
    return getattr(importlib.import_module(f"cae_lib.commands.{module}"), function)


def add_options(
    parser: argparse.ArgumentParser, function: Callable[[argparse.Namespace], int | None]
) -> None:
    """Add the options of a function to a parser.

    The options are those that `cae_lib.commands.options.add_arguments` attached to the function.
    """
    parser.set_defaults(action=function)
    groups = {"": parser}
    for names, settings, group in getattr(function, "options", ()):
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        groups[group].add_argument(*names, **settings)


if __name__ == "__main__":
    sys.exit(main())
