"""The command ``cae``: everything that the book's pages and the Makefile do, one step at a time."""

from __future__ import annotations

import argparse
import errno
import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cae_lib.config import paths
from cae_lib.errors import CaeError

Option = tuple[tuple[str, ...], dict[str, Any]]


def option(*names: str, **settings: Any) -> Option:
    """An argument of a command, as argparse takes it."""
    return names, settings


def assignment(text: str) -> tuple[str, str]:
    """Key and value of a text ``KEY=VALUE``."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, not {text!r}")
    return key.strip(), value.strip()


ASSIGNMENTS = {"dest": "assignments", "action": "append", "default": [], "metavar": "KEY=VALUE",
               "type": assignment}
PROFILE_HELP = "smoke (numbers mean nothing), mini (drawn), photo (Flickr8k), side-by-side (two "\
    "photographs in a picture), paper (one GPU)"
PROFILE = option("--profile", default="mini", metavar="P", help=PROFILE_HELP)
ONE_RUN = option("name", help="'base', or an experiment such as clip-ft, cae-attention")
SETTINGS = (
    option("--seed", type=int, default=0, help="seed of the run (default 0)"),
    PROFILE,
    option("--set", **ASSIGNMENTS, help="another setting than the profile's, such as lr=5e-7 "
           "(repeatable): the run is a variant, with files and tables of its own"),
)
ALLOW_MISSING = option(
    "--allow-missing", default="", metavar="SETS", help="real sets that may be incomplete, with "
    "commas between them, or 'all': what is there is used, and n used stands beside n expected",
)
SPEED_TITLE = "speed and memory, which change numbers by rounding at most"
SPEED = (
    option("--checkpointing", action="store_true", help="less memory, more time"),
    option("--channels-last", action="store_true", help="picture layout for GPUs"),
    option("--compile", nargs="?", const="inductor", metavar="BACKEND",
           help="compile the image tower"),
    option("--workers", type=int, metavar="N", help="processes that decode pictures"),
)

GROUPS = {
    "data": "real data sets and weights: what, where, missing",
    "world": "the small world of pictures and captions",
    "photo": "photographs with human captions (Flickr8k)",
}
ON = option("--on", choices=("pool", "local", "slurm"), help="what goes through the jobs: a few "
            "processes of this machine (pool), or Snakemake on it (local) or on a cluster (slurm); "
            "by default pool, and local for runs on real data")
GRID = (
    PROFILE,
    option("--all", action="store_true", help="also the rows, measurements and pages beside the "
           "paper"),
    option("--rows", default="", metavar="NAMES", help="some rows alone, with commas between them"),
    option("--seeds", type=int, metavar="N", help="so many seeds of each row at most"),
    option("--released", default="", metavar="NAMES", help="released models and their page alone, "
           "in place of rows"),
    ALLOW_MISSING,
)
COMMANDS: tuple[tuple[str, str, str, tuple[Option, ...]], ...] = (
    ("data list", "data.list_sources", "what there is, how large, and where it goes", ()),
    ("data get", "data.get_sources", "fetch, check and unpack",
     (option("names", nargs="+", metavar="NAME", help="a name of `cae data list`"),)),
    ("data check", "data.check_sources", "count what is here, and name what is missing",
     (option("names", nargs="*", metavar="NAME", help="all of them by default"),)),
    ("world build", "data.build_world", "draw and write all sets of the world", (PROFILE,)),
    ("world show", "data.show_world", "write a sheet of pictures and captions",
     (PROFILE, option("-o", "--output", type=Path, default=Path("world.png"), metavar="FILE"))),
    ("photo build", "data.build_photo", "write captions and choices in official layouts",
     (option("--profile", default="photo", metavar="P",
             help="photo (default), or side-by-side, two photographs in a picture"),)),
    ("train", "train.train", "train the base model or one experiment",
     (ONE_RUN, *SETTINGS, ALLOW_MISSING, *SPEED)),
    ("evaluate", "evaluate.run", "measure a run or any CLIP-like model, and print its scores", (
        option("name", help="'base', an experiment such as clip-ft or cae-attention, one of these "
               "read with GELU (base-gelu, clip-ft-gelu), 'data' (what needs no model: items, "
               "captions, blind), a released model such as released-negclip, a tag "
               "MODEL:TAG of open_clip, hf-hub:OWNER/NAME or local-dir:FOLDER in its format, "
               "hf:OWNER/NAME or a folder of transformers, or a weight file"),
        option("--seed", type=int, default=0, help="seed of the run (default 0)"),
        option("--profile", metavar="P", help="by default mini, and paper for other models: "
               f"{PROFILE_HELP}"),
        SETTINGS[2],
        ALLOW_MISSING,
        option("--only", default="", metavar="KINDS", help="kinds of measurement, with commas "
               "between them, such as benchmarks,retrieval; or benchmarks, such as winoground, "
               "which are then printed and not stored"),
        option("--model", metavar="M", help="open_clip's architecture of a weight file"),
        option("--activation", choices=("quickgelu", "gelu"), help="of a weight file; of others "
               "their own by default"),
        option("--processor", metavar="P", help="folder or hub repository of the tokenizer and the "
               "preprocessing of a model of transformers; by default its own, or OpenAI's"),
        option("-o", "--output", type=Path, metavar="DIR", help="write the scores there, as "
               "CLIP_benchmark's CSV and as evaluation results of the Hugging Face hub"),
    )),
    ("released", "evaluate.measure_all", "measure the released models whose weights are here",
     (option("--only", default="", metavar="NAMES", help="models with commas between them"),
      option("--fetch", action="store_true", help="first get the weights that are free, and "
             "SugarCrepe, SugarCrepe++ and their pictures"), ON)),
    ("compare", "compare.run", "how the stored tables differ from those of a commit or archive",
     (option("other", nargs="?", default="HEAD", metavar="COMMIT|FILE", help="a commit, by default "
             "the last one, or a file of `cae pack`"), PROFILE)),
    ("pack", "compare.pack", "write all stored tables of a profile as one file for others",
     (option("-o", "--output", type=Path, required=True, metavar="FILE.tar.gz"), PROFILE)),
    ("export", "export.run", "write a trained run as open_clip weights with a model card", (
        ONE_RUN,
        *SETTINGS,
        option("--format", default="safetensors", choices=("safetensors", "pt")),
        option("-o", "--output", type=Path, required=True, metavar="DIR"),
        option("--push", metavar="OWNER/NAME", help="upload them to this repository of the Hugging "
               "Face hub too; it is made, a private one, if it is not there"),
        option("--public", action="store_true", help="make the repository a public one"),
        option("--dry-run", action="store_true", help="tell what would be uploaded, and ask no "
               "server"),
    )),
    ("attribute", "attribute.run",
     "heat map of a picture and scores of its caption's words, as a figure", (
         option("image", type=Path, help="the picture"),
         option("caption", help="its caption, in quotes"),
         option("--weights", action="append", metavar="W",
                help="a run such as base or clip-ft, a weight file, or a tag of open_clip; repeat "
                "it to compare models on one colour scale (default: base)"),
         option("--model", metavar="M", help="open_clip model of a file or tag"),
         option("--activation", choices=("quickgelu", "gelu"),
                help="of a file that does not state it"),
         option("--start-layer", type=int, default=-1, metavar="L",
                help="first layer of the map's rule: -1 the last, 0 all"),
         option("--seed", type=int, default=0, help="seed of the runs (default 0)"),
         option("-o", "--output", type=Path, default=Path("attribution.png"), metavar="FILE"),
         option("--profile", default="photo", metavar="P",
                help="whose runs: photo (default), or mini, whose pictures are drawn, ..."),
     )),
    ("tune", "tune.run", "choose lr and lambda on the validation split", (
        PROFILE,
        option("--what", default="control", choices=("control", "lambda", "candidates", "binding"),
               help="learning rate, steps and what is locked, by CLIP-FT and the positive control "
               "(default); lambda of each method; or the settings of CAE on counterfactuals or on "
               "bindings"),
    )),
    ("run", "book.run", "execute one page of the book", (
        option("name", help="the page: its file in book/experiments without ending"),
        option("-p", **ASSIGNMENTS,
               help="set a parameter of the page (repeatable); the outcome goes to runs/"),
        option("--profile", metavar="P", help=PROFILE_HELP),
    )),
    ("reproduce", "reproduce.run", "data, training, pages and book", (
        *GRID,
        ON,
    )),
    ("rehearse", "rehearse.run", "the paper's scale from data to pages, with numbers that mean "
     "nothing", (
         option("--real", type=Path, metavar="DIR", help="real files, laid out as data/raw, that "
                "take the place of the drawn ones"),
         option("--record", action="store_true", help="store what each job took, for the book"),
         ON,
     )),
    ("plan", "plan.run", "what the paper's scale takes, what is done and what is "
     "missing", (option("--profile", default="paper", metavar="P", help="paper, or another one, of "
                        "which jobs are counted"), *GRID[1:])),
    ("job", "workflow.run_job", "one job of a reproduction, by the name that the plan counts",
     (option("name", metavar="STAGE/NAME", help="such as run/clip-ft/0"), *GRID)),
    ("book", "book.book", "render the book from the stored pages",
     (option("--pdf", action="store_true", help="one PDF file, printed by Chromium"), PROFILE)),
    ("doctor", "book.doctor", "what is installed, which device, which data", ()),
)
"""Name, function `MODULE.FUNCTION` of `cae_lib.commands`, description and arguments."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 on bad input, 130 when interrupted."""
    parsed = build_parser().parse_args(arguments)
    try:
        with ExitStack() as stack:
            stack.callback(_collect, parsed.action)
            return action(parsed.action)(parsed) or 0
    except CaeError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("cae_lib"):
            raise
        message = (f"this command needs {error.name}, which is not installed: "
                   'pip install "cae-lib[lab]"')
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise
        message = (f"cannot use {error.filename or 'the disk'} ({error.strerror}): free some space "
                   "or make it yours to read and write, or set CAE_HOME to a folder of your own")
    except KeyboardInterrupt:
        print("\ncae: interrupted; the same command goes on", file=sys.stderr)
        return 130
    print(f"cae: {message}", file=sys.stderr)
    return 2


def _collect(name: str) -> None:
    """Put what was measured into the tables, but for a job of a grid, which others run beside."""
    for place in (paths().cache / "staged").glob("*/") if name != "workflow.run_job" else ():
        importlib.import_module("cae_lib.results").collect(place.name)


def action(name: str) -> Callable[[argparse.Namespace], int | None]:
    """The function of a command, imported when the command needs it."""
    module, _, function = name.partition(".")
    return getattr(importlib.import_module(f"cae_lib.commands.{module}"), function)


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="cae", description=__doc__)
    top = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    groups = {"": top}
    for words, function, text, options in COMMANDS:
        group, _, name = words.rpartition(" ")
        if group not in groups:
            within = top.add_parser(group, help=GROUPS[group])
            groups[group] = within.add_subparsers(required=True, metavar="ACTION")
        sentence = f"{text[:1].upper()}{text[1:]}."
        command = groups[group].add_parser(name, help=text, description=sentence)
        command.set_defaults(action=function)
        speed = command.add_argument_group(SPEED_TITLE)
        for each in options:
            names, settings = each
            (speed if each in SPEED else command).add_argument(*names, **settings)
    return parser


if __name__ == "__main__":
    sys.exit(main())
