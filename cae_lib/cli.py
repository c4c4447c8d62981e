"""The command ``cae``: everything that the book's pages and the Makefile do, one step at a time."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cae_lib.errors import CaeError

Commands = argparse._SubParsersAction
PROFILE_HELP = "smoke (seconds, numbers mean nothing), mini (the book) or paper (one GPU)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 on bad input, 130 when interrupted."""
    parsed = build_parser().parse_args(arguments)
    try:
        return action(parsed.action)(parsed) or 0
    except CaeError as error:
        print(f"cae: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("cae_lib"):
            raise
        needed = f'{error.name}, which is not installed: pip install "cae-lib[lab]"'
        print(f"cae: this command needs {needed}", file=sys.stderr)
    except PermissionError as error:
        print(
            f"cae: no permission to use {error.filename}: make it readable and writable for you, "
            "or set CAE_HOME to a folder of your own",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print("\ncae: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 2


def action(name: str) -> Callable[[argparse.Namespace], int | None]:
    """The function `MODULE.FUNCTION` of `cae_lib.commands`, imported when a command needs it."""
    module, _, function = name.partition(".")
    return getattr(importlib.import_module(f"cae_lib.commands.{module}"), function)


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="cae", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_data(commands)
    _add_world(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    _add_export(commands)
    _add_attribute(commands)
    _profile(_command(commands, "tune", "tune.run", "choose lr and lambda on the validation split"))
    _add_run(commands)
    _profile(_command(commands, "reproduce", "reproduce.run", "data, training, pages and book"))
    book = _command(commands, "book", "pages.book", "render the book from the stored pages")
    book.add_argument("--pdf", action="store_true", help="one PDF file, printed by Chromium")
    _profile(book)
    _command(commands, "doctor", "doctor.run", "what is installed, which device, which data")
    return parser


def _command(commands: Commands, name: str, action: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[:1].upper() + text[1:] + ".")
    parser.set_defaults(action=action)
    return parser


def _group(commands: Commands, name: str, text: str) -> Commands:
    return commands.add_parser(name, help=text).add_subparsers(required=True, metavar="ACTION")


def _profile(parser: argparse.ArgumentParser, default: str | None = "mini") -> None:
    parser.add_argument("--profile", default=default, metavar="P", help=PROFILE_HELP)


def _run(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("name", help=text)
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    _profile(parser)
    parser.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE",
        help="another setting than the profile's, such as lr=5e-7 (repeatable): the run is "
        "a variant, with files and tables of its own",
    )


def _allow_missing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-missing", default="", metavar="SETS",
        help="real sets that may be incomplete, with commas between them, or 'all': what is "
        "there is used, and n used stands beside n expected",
    )


def _add_data(commands: Commands) -> None:
    kinds = _group(commands, "data", "real data sets and weights: what, where, missing")
    _command(kinds, "list", "data.list_sources", "what there is, how large, and where it goes")
    fetching = _command(kinds, "get", "data.get_sources", "fetch, check and unpack")
    fetching.add_argument("names", nargs="+", metavar="NAME", help="a name of `cae data list`")
    text = "count what is here, and name what is missing"
    checking = _command(kinds, "check", "data.check_sources", text)
    checking.add_argument("names", nargs="*", metavar="NAME", help="all of them by default")


def _add_world(commands: Commands) -> None:
    kinds = _group(commands, "world", "the small world of pictures and captions")
    _profile(_command(kinds, "build", "data.build_world", "draw and write all sets of the world"))
    show = _command(kinds, "show", "data.show_world", "write a sheet of pictures and captions")
    _profile(show)
    show.add_argument("-o", "--output", type=Path, default=Path("world.png"), metavar="FILE")


def _add_train(commands: Commands) -> None:
    parser = _command(commands, "train", "train.train", "train the base model or one experiment")
    _run(parser, "'base', or an experiment such as clip-ft, cae-attention")
    _allow_missing(parser)
    speed = parser.add_argument_group("speed and memory, which change numbers by rounding at most")
    speed.add_argument("--checkpointing", action="store_true", help="less memory, more time")
    speed.add_argument("--channels-last", action="store_true", help="picture layout for GPUs")
    speed.add_argument("--compile", nargs="?", const="inductor", metavar="BACKEND",
                       help="compile the image tower")
    speed.add_argument("--workers", type=int, metavar="N", help="processes that decode pictures")


def _add_evaluate(commands: Commands) -> None:
    parser = _command(commands, "evaluate", "train.evaluate", "evaluate one run on all benchmarks")
    _run(
        parser,
        "'base', an experiment such as clip-ft or cae-attention, one of these read with GELU "
        "(base-gelu, clip-ft-gelu), or 'data' (what needs no model: items, captions, blind)",
    )
    _allow_missing(parser)
    parser.add_argument(
        "--only", default="", metavar="KINDS",
        help="kinds of measurement, with commas between them, such as benchmarks,retrieval",
    )


def _add_compare(commands: Commands) -> None:
    text = "how the stored tables differ from those of a commit"
    parser = _command(commands, "compare", "compare.run", text)
    parser.add_argument("commit", nargs="?", default="HEAD", help="by default the last one")
    _profile(parser)


def _add_export(commands: Commands) -> None:
    text = "write a trained run as open_clip weights with a model card"
    parser = _command(commands, "export", "export.run", text)
    _run(parser, "'base', or an experiment such as clip-ft, cae-attention")
    parser.add_argument("--format", default="safetensors", choices=("safetensors", "pt"))
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")


def _add_attribute(commands: Commands) -> None:
    text = "heat map of a picture and scores of its caption's words, as a figure"
    parser = _command(commands, "attribute", "attribute.run", text)
    parser.add_argument("image", type=Path, help="the picture")
    parser.add_argument("caption", help="its caption, in quotes")
    parser.add_argument(
        "--weights", action="append", metavar="W",
        help="a run such as base or clip-ft, a weight file, or a tag of open_clip; repeat it to "
        "compare models on one colour scale (default: base)",
    )
    parser.add_argument("--model", metavar="M", help="open_clip model of a file or tag")
    parser.add_argument("--activation", choices=("quickgelu", "gelu"),
                        help="of a file that does not state it")
    parser.add_argument("--start-layer", type=int, default=-1, metavar="L",
                        help="first layer of the map's rule: -1 the last, 0 all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the runs (default 0)")
    parser.add_argument("-o", "--output", type=Path, default=Path("attribution.png"),
                        metavar="FILE")
    _profile(parser)


def _add_run(commands: Commands) -> None:
    parser = _command(commands, "run", "pages.run", "execute one page of the book")
    parser.add_argument("name", help="the page: its file in book/experiments without ending")
    parser.add_argument(
        "-p", dest="assignments", action="append", default=[], metavar="KEY=VALUE",
        help="set a parameter of the page (repeatable); the outcome goes to runs/",
    )
    _profile(parser, default=None)


if __name__ == "__main__":
    sys.exit(main())
