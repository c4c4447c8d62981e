"""The command ``cae``: everything that the book's pages and the Makefile do, one step at a time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cae_lib import actions
from cae_lib.cli_data import add_data
from cae_lib.errors import CaeError

Commands = argparse._SubParsersAction
PROFILE_HELP = "smoke (seconds, numbers mean nothing), mini (the book) or paper (one GPU)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 on bad input, 130 when interrupted."""
    parsed = build_parser().parse_args(arguments)
    action: Callable[[argparse.Namespace], int | None] = parsed.action
    try:
        return action(parsed) or 0
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


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="cae", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_data(commands)
    _add_world(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_attribute(commands)
    tune = _command(commands, "tune", actions.tune, "choose lr and lambda on the validation split")
    _profile(tune)
    _add_run(commands)
    reproduce = _command(commands, "reproduce", actions.reproduce, "data, training, pages and book")
    _profile(reproduce)
    book = _command(commands, "book", actions.book, "render the book from the stored pages")
    _profile(book)
    _command(commands, "doctor", actions.doctor, "what is installed, which device, which data")
    return parser


def _command(commands: Commands, name: str, action: Callable, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[:1].upper() + text[1:] + ".")
    parser.set_defaults(action=action)
    return parser


def _profile(parser: argparse.ArgumentParser, default: str | None = "mini") -> None:
    parser.add_argument("--profile", default=default, metavar="P", help=PROFILE_HELP)


def _variant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE",
        help="another setting than the profile's, such as lr=5e-7 (repeatable): the run is "
        "a variant, with files and records of its own",
    )  # fmt: skip


def _allow_missing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-missing", default="", metavar="SETS",
        help="real sets that may be incomplete, with commas between them, or 'all': what is "
        "there is used, and n used stands beside n expected",
    )  # fmt: skip


def _add_world(commands: Commands) -> None:
    parser = commands.add_parser("world", help="the small world of pictures and captions")
    kinds = parser.add_subparsers(required=True, metavar="ACTION")
    build = _command(kinds, "build", actions.world_build, "draw and write all sets of the world")
    _profile(build)
    show = _command(kinds, "show", actions.world_show, "write a sheet of pictures and captions")
    _profile(show)
    show.add_argument("-o", "--output", type=Path, default=Path("world.png"), metavar="FILE")


def _add_train(commands: Commands) -> None:
    parser = _command(commands, "train", actions.train, "train the base model or one experiment")
    parser.add_argument("name", help="'base', or an experiment such as clip-ft, cae-attention")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    _profile(parser)
    _variant(parser)
    _allow_missing(parser)
    speed = parser.add_argument_group("speed and memory, which change numbers by rounding at most")
    speed.add_argument("--checkpointing", action="store_true", help="less memory, more time")
    speed.add_argument("--channels-last", action="store_true", help="picture layout for GPUs")
    speed.add_argument("--compile", nargs="?", const="inductor", metavar="BACKEND",
                       help="compile the image tower")  # fmt: skip
    speed.add_argument("--workers", type=int, metavar="N", help="processes that decode pictures")


def _add_evaluate(commands: Commands) -> None:
    parser = _command(commands, "evaluate", actions.evaluate, "evaluate one run on all benchmarks")
    parser.add_argument(
        "name",
        help="'base', an experiment such as clip-ft or cae-attention, "
        "'blind' (without pictures), or 'caption-load' (what captions state)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    _profile(parser)
    _variant(parser)
    _allow_missing(parser)
    parser.add_argument(
        "--only", default="", metavar="KINDS",
        help="kinds of measurement, with commas between them, such as benchmarks,retrieval",
    )  # fmt: skip


def _add_export(commands: Commands) -> None:
    text = "write a trained run as open_clip weights with a model card"
    parser = _command(commands, "export", actions.export, text)
    parser.add_argument("name", help="'base', or an experiment such as clip-ft, cae-attention")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    parser.add_argument("--format", default="safetensors", choices=("safetensors", "pt"))
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    _profile(parser)
    _variant(parser)


def _add_attribute(commands: Commands) -> None:
    text = "heat map of a picture and scores of its caption's words, as a figure"
    parser = _command(commands, "attribute", actions.attribute, text)
    parser.add_argument("image", type=Path, help="the picture")
    parser.add_argument("caption", help="its caption, in quotes")
    parser.add_argument(
        "--weights", action="append", metavar="W",
        help="a run such as base or clip-ft, a weight file, or a tag of open_clip; repeat it to "
        "compare models on one colour scale (default: base)",
    )  # fmt: skip
    parser.add_argument("--model", metavar="M", help="open_clip model of a file or tag")
    parser.add_argument("--activation", choices=("quickgelu", "gelu"),
                        help="of a file that does not state it")  # fmt: skip
    parser.add_argument("--start-layer", type=int, default=-1, metavar="L",
                        help="first layer of the map's rule: -1 the last, 0 all")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the runs (default 0)")
    parser.add_argument("-o", "--output", type=Path, default=Path("attribution.png"),
                        metavar="FILE")  # fmt: skip
    _profile(parser)


def _add_run(commands: Commands) -> None:
    parser = _command(commands, "run", actions.run, "execute one page of the book")
    parser.add_argument("name", help="the page: its file in book/experiments without ending")
    parser.add_argument(
        "-p", dest="assignments", action="append", default=[], metavar="KEY=VALUE",
        help="set a parameter of the page (repeatable); the outcome goes to runs/",
    )  # fmt: skip
    _profile(parser, default=None)


if __name__ == "__main__":
    sys.exit(main())
