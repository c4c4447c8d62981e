"""The command ``cae``: everything that the book's pages and the Makefile do, one step at a time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from cae_lib.cli_data import add_data
from cae_lib.errors import CaeError, ConfigError

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
    tune = _command(commands, "tune", _tune, "choose lr and lambda on the validation split")
    _profile(tune)
    _add_run(commands)
    reproduce = _command(commands, "reproduce", _reproduce, "data, training, pages and book")
    _profile(reproduce)
    book = _command(commands, "book", _book, "render the book from the stored pages")
    _profile(book)
    _command(commands, "doctor", _doctor, "what is installed, which device, which data")
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
        help="another setting than the profile's, such as lr=5e-7 (repeatable); the outcome "
        "is a variant, with files and records of its own",
    )  # fmt: skip
    parser.add_argument(
        "--allow-missing", default="", metavar="SETS",
        help="real sets that may be incomplete, with commas between them, or 'all': what is "
        "there is used, and n used stands beside n expected",
    )  # fmt: skip


def _add_world(commands: Commands) -> None:
    parser = commands.add_parser("world", help="the small world of pictures and captions")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    build = _command(actions, "build", _world_build, "draw and write all sets of the small world")
    _profile(build)
    show = _command(actions, "show", _world_show, "write a contact sheet of pictures and captions")
    _profile(show)
    show.add_argument("-o", "--output", type=Path, default=Path("world.png"), metavar="FILE")


def _add_train(commands: Commands) -> None:
    parser = _command(commands, "train", _train, "train the base model or one experiment")
    parser.add_argument("name", help="'base', or an experiment such as clip-ft, cae-attention")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    _profile(parser)
    _variant(parser)
    speed = parser.add_argument_group("speed and memory, which change numbers by rounding at most")
    speed.add_argument("--checkpointing", action="store_true", help="less memory, more time")
    speed.add_argument("--channels-last", action="store_true", help="picture layout for GPUs")
    speed.add_argument("--compile", nargs="?", const="inductor", metavar="BACKEND",
                       help="compile the image tower")  # fmt: skip
    speed.add_argument("--workers", type=int, metavar="N", help="processes that decode pictures")


def _add_evaluate(commands: Commands) -> None:
    parser = _command(commands, "evaluate", _evaluate, "evaluate one run on all benchmarks")
    parser.add_argument("name", help="'base', or an experiment such as clip-ft, cae-attention")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    _profile(parser)
    _variant(parser)
    parser.add_argument(
        "--only", default="", metavar="KINDS",
        help="kinds of measurement, with commas between them, such as benchmarks,retrieval",
    )  # fmt: skip


def _add_export(commands: Commands) -> None:
    text = "write a trained run as open_clip weights with a model card"
    parser = _command(commands, "export", _export, text)
    parser.add_argument("name", help="'base', or an experiment such as clip-ft, cae-attention")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    parser.add_argument("--format", default="safetensors", choices=("safetensors", "pt"))
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    _profile(parser)


def _add_attribute(commands: Commands) -> None:
    text = "heat map of a picture and scores of its caption's words, as a figure"
    parser = _command(commands, "attribute", _attribute, text)
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
    parser = _command(commands, "run", _run, "execute one page of the book")
    parser.add_argument("name", help="the page: its file in book/experiments without ending")
    parser.add_argument(
        "-p", dest="assignments", action="append", default=[], metavar="KEY=VALUE",
        help="set a parameter of the page (repeatable); the outcome goes to runs/",
    )  # fmt: skip
    _profile(parser, default=None)


def _world_build(parsed: argparse.Namespace) -> None:
    from cae_lib.data.world.build import build

    print(f"The small world is {build(parsed.profile)}")


def _world_show(parsed: argparse.Namespace) -> None:
    from cae_lib.data.world.build import contact_sheet

    contact_sheet(parsed.profile, parsed.output)
    print(f"The contact sheet is {parsed.output}")


def _train(parsed: argparse.Namespace) -> None:
    from cae_lib.activation_control import TUNED_UNDER_OTHER, train_under_other
    from cae_lib.base import train_base
    from cae_lib.experiments import run_training
    from cae_lib.overrides import parse_overrides
    from cae_lib.training.execution import Execution

    overrides = parse_overrides(parsed.assignments)
    if parsed.name == "base":
        train_base(parsed.profile)
    elif parsed.name == TUNED_UNDER_OTHER:
        train_under_other(parsed.profile, parsed.seed)
    else:
        execution = Execution(
            parsed.checkpointing, parsed.channels_last, parsed.compile, parsed.workers
        )
        with _allowing(parsed):
            path = run_training(parsed.name, parsed.profile, parsed.seed, execution, **overrides)
        print(f"The weights are {path}")


def _evaluate(parsed: argparse.Namespace) -> None:
    from cae_lib.activation_control import CONTROLS, evaluate_activation_control
    from cae_lib.experiments import evaluate_run
    from cae_lib.overrides import parse_overrides

    if parsed.name in CONTROLS:
        with _allowing(parsed):
            evaluate_activation_control(parsed.profile)
        return
    overrides = parse_overrides(parsed.assignments)
    with _allowing(parsed):
        evaluate_run(
            parsed.name, parsed.profile, parsed.seed, only=_names(parsed.only), **overrides
        )


def _allowing(parsed: argparse.Namespace) -> AbstractContextManager[None]:
    """The sets that the command line lets be incomplete, while its command runs."""
    from cae_lib.data.allowance import allowing
    from cae_lib.experiments import is_real

    names = _names(parsed.allow_missing)
    if names and not is_real(parsed.profile):
        raise ConfigError(
            f"--allow-missing is for real data; those of the profile {parsed.profile} are built "
            f"whole: `cae world build --profile {parsed.profile}`"
        )
    return allowing(names)


def _names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _export(parsed: argparse.Namespace) -> None:
    from cae_lib.export import export_run

    path = export_run(parsed.name, parsed.profile, parsed.seed, parsed.output, parsed.format)
    print(f"The weights are {path}; README.md beside them says how to load them")


def _attribute(parsed: argparse.Namespace) -> None:
    from cae_lib.report.attribute import attribute_image

    text = attribute_image(
        parsed.image, parsed.caption, parsed.weights or ["base"], parsed.output,
        model=parsed.model, activation=parsed.activation, start_layer=parsed.start_layer,
        profile=parsed.profile, seed=parsed.seed,
    )  # fmt: skip
    print(f"{text}\nThe figure is {parsed.output}")


def _tune(parsed: argparse.Namespace) -> None:
    from cae_lib.tuning import tune

    chosen = tune(parsed.profile)["chosen"]
    print("Chosen: " + ", ".join(f"{name} {value:g}" for name, value in chosen.items()))


def _run(parsed: argparse.Namespace) -> None:
    from cae_lib.run import parse_assignments, run_page

    path = run_page(parsed.name, parse_assignments(parsed.assignments), parsed.profile)
    print(f"The page's notebook is {path}")


def _reproduce(parsed: argparse.Namespace) -> None:
    from cae_lib.reproduce import reproduce

    reproduce(parsed.profile)


def _book(parsed: argparse.Namespace) -> None:
    from cae_lib.pages.build import build_book

    print("Rendering the book (some 10 s)", flush=True)
    print(f"The book is {build_book(parsed.profile)}")


def _doctor(parsed: argparse.Namespace) -> None:
    from cae_lib.doctor import report

    print(report())


if __name__ == "__main__":
    sys.exit(main())
