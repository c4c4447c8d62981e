"""The command `cae`, whose subcommands import most modules only when they run."""

from __future__ import annotations

import errno
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from cae_lib.config import install_command, paths, repository_root
from cae_lib.errors import CaeError, CheckpointError, ConfigError, DataError, Terminated
from cae_lib.methods import PAPER_METHODS

try:
    import click
except ModuleNotFoundError:  # installed without the extra
    sys.exit(f"cae: this command needs click, which is not installed: {install_command('lab')}")

if TYPE_CHECKING:
    from cae_bench.sources import Source

MAX_MODELS = 5  # in one figure of `cae attribute`
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
PATH_TYPE = click.Path(path_type=Path)
ACTIVATION_TYPE = click.Choice(["quickgelu", "gelu"])


class NameList(click.ParamType):
    """Type of options that list names with commas between them."""

    name = "names"

    def convert(self, value: Any, *_: object) -> list[str]:
        """Split the text at its commas; drop empty names."""
        return [name.strip() for name in value.split(",") if name.strip()]


class Assignment(click.ParamType):
    """Type of options KEY=VALUE that set a setting of a run."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Return the name of the setting and its parsed value."""
        from cae_lab.names import parse_setting

        key, equals, text = value.partition("=")
        if not equals:
            self.fail(f"expected KEY=VALUE, not {value!r}", param, ctx)
        return key.strip(), parse_setting(key.strip(), text.strip())


PROFILES_HELP = (
    "smoke (numbers mean nothing), mini (synthetic scenes), photo (Flickr8k), paired (two "
    "photographs in an image), redrawn (the same, other test items), paper (one GPU), rehearsal "
    "(paper in minutes, numbers mean nothing)"
)


def profile_option(
    default: str | None = "mini", help_text: str = f"One of {PROFILES_HELP}."
) -> Callable[[Callable], Callable]:
    """Return a decorator that adds the option `--profile`."""
    return click.option("--profile", default=default, show_default=True, help=help_text)


seed_option = click.option("--seed", default=0, show_default=True, help="Seed of the run.")
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    type=Assignment(),
    help="Another setting than the profile's, such as lr=5e-7 (repeatable). The run is a variant, "
    "with files and tables of its own.",
)
model_option = click.option("--model", help="open_clip's architecture of a weight file.")
activation_option = click.option("--activation", type=ACTIVATION_TYPE, help="Of a weight file.")


@click.group(context_settings=CONTEXT_SETTINGS)
def cae() -> None:
    """Reproduce composition attribution enhancement for CLIP, and use it on data of your own."""


@cae.group()
def data() -> None:
    """List, download and check real datasets and weights."""


@data.command("list")
def list_sources() -> None:
    """Print the data sources: their size, their licence, and where they are stored."""
    for entry in _sources(()):
        print("\n".join(_describe_source(entry)))
    print(f"All of it goes into {paths().raw}")


@data.command("get")
@click.argument("names", nargs=-1, required=True)
def fetch_sources(names: tuple[str, ...]) -> int:
    """Fetch, check and unpack data sources, named as in `cae data list`.

    The exit code is 1 if one of them is incomplete or not here afterwards.
    """
    from cae_bench.completeness import source_report
    from cae_bench.fetch import fetch_source

    complete = True
    for entry in _sources(names):
        if source_report(entry).state != "complete":
            # Flushed, so that licence and terms are on screen before a long download starts.
            print(f"{entry.title}. Licence: {entry.licence}. {entry.terms}", flush=True)
            for line in fetch_source(entry):
                print(f"Left to you: {line}")
        report = source_report(entry)
        print("\n".join(report.lines()))
        if entry.needs and report.state != "complete":
            print(f"  its images also come with: cae data get {' '.join(entry.needs)}")
        # "unknown": nothing is known to be missing, as no number of items was published.
        complete = complete and report.state in ("complete", "unknown")
    return 0 if complete else 1


@data.command("check")
@click.argument("names", nargs=-1)
def check_sources(names: tuple[str, ...]) -> int:
    """Count the files, rows and images of each data source, and name those that are missing.

    Without NAMES, all sources are checked. The exit code is 1 if a source is incomplete, or if a
    source in NAMES is not here at all.
    """
    from cae_bench.completeness import source_report

    reports = [source_report(entry) for entry in _sources(names)]
    for report in reports:
        print("\n".join(report.lines()))
    states = [report.state for report in reports]
    print(f"{states.count('complete')} of {len(states)} complete")
    return 1 if "incomplete" in states or (names and "not here" in states) else 0


def _sources(names: Sequence[str]) -> list[Source]:
    from cae_bench.sources import find_source, load_sources

    return [find_source(name) for name in names] if names else list(load_sources().values())


def _describe_source(entry: Source) -> list[str]:
    from cae_bench.sources import DOWNLOAD_METHODS

    size = "size not known" if entry.gb is None else f"about {entry.gb:g} GB"
    counts = Counter(
        text for item in entry.files for way, text in DOWNLOAD_METHODS.items() if getattr(item, way)
    )
    ways = [f"{n} file{'s' * (n > 1)} {text}" for text, n in counts.items()]
    # The hub's library keeps open_clip's weights in a cache of its own, not below data/raw.
    cached = entry.files and all(item.open_clip for item in entry.files)
    location = "the hub's own cache" if cached else f"data/raw/{entry.folder}"
    lines = [
        f"{entry.name}: {entry.title}",
        f"  {size}, {entry.licence}",
        f"  goes to {location}; {', '.join(ways) or 'put it there'}",
    ]
    lines += [f"  accept the terms first: {entry.gated}"] if entry.gated else []
    return lines + [f"  shows images of {', '.join(entry.needs)}"] * bool(entry.needs)


@cae.command("runs")
@profile_option()
def list_runs(profile: str) -> None:
    """List the runs of a profile, and the settings in which each run differs from clip-ft."""
    from cae_lab.names import CLIP_FT
    from cae_lab.plots import label
    from cae_lab.profiles import load_profile

    loaded_profile = load_profile(profile)
    reference = vars(loaded_profile.experiment(CLIP_FT))
    for name in loaded_profile.runs:
        differing = [
            f"{key}={value}"
            for key, value in vars(loaded_profile.experiment(name)).items()
            if key != "name" and value != reference[key]
        ]
        print(f"{name}: {label(name)}; {', '.join(differing) or 'the reference'}")


@cae.command()
@click.argument("name")
@seed_option
@profile_option()
@set_option
@click.option("--checkpointing", is_flag=True, help="Less memory, more time.")
@click.option("--workers", type=int, help="Processes that decode images.")
def train(
    name: str,
    seed: int,
    profile: str,
    overrides: tuple[tuple[str, Any], ...],
    checkpointing: bool,
    workers: int | None,
) -> None:
    """Train a run such as clip-ft or cae-attention.

    `cae runs --profile PROFILE` lists the runs; those with steps=0 are not trained. An interrupted
    training is resumed, and a finished one is not repeated. But if its settings, its data, its
    first weights or the version of the training code have changed, it starts anew. The options
    --checkpointing and --workers change the results only by rounding.
    """
    from cae_lab.names import BASE
    from cae_lab.profiles import load_profile
    from cae_lib.runtime import ExecutionOptions

    run = load_profile(profile).run(name, seed, **dict(overrides))
    if run.entry == BASE:
        raise ConfigError(
            f"a recipe trains the base model: `python -m data.recipes.base --profile {profile}`, "
            "in a clone of the repository"
        )
    path = run.train(ExecutionOptions(checkpointing, workers))
    print(f"The weights are {path}")


@cae.command()
@click.argument("name")
@seed_option
@profile_option(None, f"By default mini, and paper for models of others. One of {PROFILES_HELP}.")
@set_option
@click.option(
    "--only",
    type=NameList(),
    default="",
    help="Suites such as benchmarks,retrieval; or benchmarks such as winoground, which are then "
    "printed and not stored.",
)
@model_option
@activation_option
@click.option(
    "--processor",
    help="Folder or hub repository of the tokenizer and the preprocessing of a model of "
    "transformers; by default its own, or OpenAI's.",
)
@click.option(
    "--data",
    "file",
    type=PATH_TYPE,
    help="A file of your own in place of published sets: a row for each item with the columns "
    "image, caption and negative, or image and caption for retrieval.",
)
@click.option("--images", type=PATH_TYPE, help="Folder of its images; by default that of the file.")
@click.option(
    "-o",
    "--output",
    type=PATH_TYPE,
    help="Folder for the scores as CLIP_benchmark's CSV and as evaluation results of the Hugging "
    "Face hub.",
)
def evaluate(
    name: str,
    seed: int,
    profile: str | None,
    overrides: tuple[tuple[str, Any], ...],
    only: list[str],
    model: str | None,
    activation: str | None,
    processor: str | None,
    file: Path | None,
    images: Path | None,
    output: Path | None,
) -> None:
    """Measure a run or any other CLIP-like model, and print its scores.

    NAME is a run such as base, clip-ft or cae-attention; base or clip-ft read with GELU (base-gelu,
    clip-ft-gelu); a released model of configs/paper.yaml; a tag MODEL:TAG of open_clip;
    hf-hub:OWNER/NAME or local-dir:FOLDER in open_clip's format; hf:OWNER/NAME or a folder of
    transformers; or a weight file. The name "data" measures the datasets, which needs no model.
    """
    suites, families = split_suites_and_benchmarks(only)
    from cae_bench import scores
    from cae_lab import measuring, stored_scores
    from cae_lab.names import DATA_RUN
    from cae_lab.opening import find_model, model_opener
    from cae_lab.profiles import load_profile
    from cae_lab.runs import is_run
    from cae_lab.suites import SUITES

    # A name that mini lacks is by default a released or foreign model, measured on real data.
    is_ours = name == DATA_RUN or is_run(name, load_profile("mini"))
    loaded_profile = load_profile(profile or ("mini" if is_ours else stored_scores.REAL_PROFILE))
    if name == DATA_RUN:
        measuring.measure_data(loaded_profile)
        print("\n".join(stored_scores.describe_dataset_sizes(loaded_profile)))
        return
    requested = find_model(
        name, loaded_profile, seed, model, activation, processor, **dict(overrides)
    )
    # Results of what is not trained here are stored with seed 0, whatever --seed says.
    title, seed = requested.name, requested.seed
    if file or families:
        load = model_opener(requested)  # refused before data are read
    if file:
        from cae_bench.own import evaluate_file

        table = evaluate_file(load, file, images)
    elif families:
        table = scores.evaluate(load, *families, datasets=loaded_profile.datasets)
    else:
        measuring.measure_model(requested, [SUITES[suite] for suite in suites])
        table = stored_scores.stored_scores(title, loaded_profile, seed, suites)
    # An empty table is no failure for suites without scores, such as attribution.
    if table.empty and (
        file or families or not stored_scores.is_measured(title, loaded_profile, suites)
    ):
        raise DataError(
            "nothing could be measured, see above: none of the datasets is here. `cae data list` "
            "names them, and `cae data get NAME` fetches one"
        )
    if not file:
        table["dataset"] = stored_scores.qualified_dataset_names(table["dataset"], loaded_profile)
    if not table.empty:
        print(scores.format_scores(table))
    is_stored = not (file or families)
    describe = stored_scores.describe_family_means
    if is_stored and (means := describe(title, loaded_profile, seed, suites)):
        print(means)
    if output:
        for path in scores.write_scores(table, title, output, name.partition(":")[2]):
            print(f"Written: {path}")


def split_suites_and_benchmarks(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the suites and the benchmarks in `--only`; at most one of the lists has entries."""
    # No import here may load PyTorch: a misspelt name has to be refused at once.
    from cae_bench.benchmarks import FOLDER_OF_FAMILY

    typed = list(names)
    names = [name.replace("-", "_") for name in typed]
    families = [name for name in names if name in FOLDER_OF_FAMILY]
    # Also true without names, which stand for all suites.
    if len(families) == len(names):
        return [], families
    from cae_lab.suites import SUITES

    known_names = {*families, *SUITES}
    unknown = {name for name, plain in zip(typed, names, strict=True) if plain not in known_names}
    if families or unknown:
        fault = f"unknown: {', '.join(sorted(unknown))}" if unknown else "both kinds are mixed"
        raise ConfigError(
            f"--only {','.join(typed)}: {fault}. Expected kinds of measurement "
            f"({', '.join(SUITES)}) or benchmarks ({', '.join(FOLDER_OF_FAMILY)})"
        )
    return names, []


@cae.command()
@click.argument("image", type=PATH_TYPE)
@click.argument("caption")
@click.option(
    "--weights",
    multiple=True,
    default=["base"],
    show_default=True,
    help="A run such as base or clip-ft, a weight file, or a tag of open_clip; repeat it to "
    "compare models on one colour scale.",
)
@model_option
@activation_option
@click.option(
    "--start-layer",
    default=-1,
    show_default=True,
    help="First layer of the heat map's rule: -1 is the last, 0 takes all.",
)
@click.option(
    "--methods",
    type=NameList(),
    default=",".join(PAPER_METHODS),
    show_default=True,
    help="Attribution methods with commas between them.",
)
@seed_option
@click.option("-o", "--output", type=PATH_TYPE, default=Path("attribution.png"), show_default=True)
@profile_option("photo", "Whose runs: photo, or mini, whose images are drawn, and others.")
def attribute(
    image: Path,
    caption: str,
    weights: tuple[str, ...],
    model: str | None,
    activation: str | None,
    start_layer: int,
    methods: list[str],
    seed: int,
    output: Path,
    profile: str,
) -> None:
    """Draw the heat map of an image and the scores of its caption's words in one figure.

    The scores are also printed.
    """
    from cae_lab.opening import find_model, model_opener
    from cae_lab.pair_figure import draw_attributions
    from cae_lab.plots import METHOD_LABELS, format_number, label
    from cae_lab.profiles import load_profile
    from cae_lab.runs import is_run
    from cae_lib.attribution.pair import attribute
    from cae_lib.data.images import read_image
    from cae_lib.runtime import atomic_file

    if len(weights) > MAX_MODELS or len(set(weights)) < len(weights):
        raise ConfigError(f"--weights: expected up to {MAX_MODELS} different ones")
    pixels, pairs, loaded_profile = read_image(image), {}, load_profile(profile)
    for name in weights:
        try:
            clip = model_opener(find_model(name, loaded_profile, seed, model, activation))()
        except CheckpointError as error:
            # Base models come with a clone, so there the plain message is the right one.
            if repository_root() is not None or not is_run(name, loaded_profile):
                raise
            raise CheckpointError(
                f"{error} The weights of base models come with a clone of the repository and not "
                "with the package. Set CAE_HOME to a clone, or name other --weights, such as "
                "ViT-B-32-quickgelu:openai or a weight file"
            ) from error
        title = clip.name if name == "base" else label(name)
        # A weight file has no label, so its stem is the title, unless another file has it, too.
        title = Path(name).stem if title == name else title
        title = name if title in pairs else title
        pairs[title] = attribute(clip, pixels, caption, start_layer, methods)
    figure = draw_attributions(pairs, caption, start_layer)
    with atomic_file(output) as path:
        figure.savefig(path, format="png", dpi=200)
    for title, pair in pairs.items():
        print(f"{title}: cosine {format_number(pair.cosine, 2)}; score (share of the words)")
        cells = pair.scores.map("{:.4f} (".format) + pair.shares.map("{:.2f})".format)
        print(cells.rename(columns=METHOD_LABELS).to_string())
    print(f"The figure is {output}")


@cae.command()
@click.argument("other", metavar="[COMMIT|FOLDER]", default="HEAD")
@profile_option()
def compare(other: str, profile: str) -> None:
    """Print how a profile's stored tables differ from those of a commit or a folder.

    The default is the commit HEAD. A folder contains the Parquet files of the profile's tables, as
    data/records/PROFILE does.
    """
    from cae_lab.commands.compare import compare_tables
    from cae_lab.profiles import load_profile

    compare_tables(load_profile(profile), other)


@cae.command()
@profile_option()
@click.option("--all", "studies", is_flag=True, help="Also the studies beside the paper.")
@click.option("--runs", default="", help="Only these runs, with commas between them; no pages.")
@click.option("--seeds", type=click.IntRange(min=1), help="At most so many seeds of each run.")
@click.option(
    "--real",
    type=click.Path(path_type=Path, resolve_path=True),
    help="For a rehearsal: a folder laid out as data/raw, whose files replace drawn ones.",
)
@click.option(
    "--on",
    "executor",
    type=click.Choice(["local", "slurm"]),
    default="local",
    show_default=True,
    help="Where the jobs run: on this machine or on a Slurm cluster.",
)
def reproduce(
    profile: str,
    studies: bool,
    runs: str,
    seeds: int | None,
    real: Path | None,
    executor: str,
) -> None:
    """Make everything that is missing: data, trained and measured runs, pages and the book.

    It is safe to interrupt the command and to call it again.
    """
    from cae_lab.commands.reproduce import reproduce_profile

    config = {
        "profile": profile,
        "all": studies,
        "runs": runs,
        "seeds": seeds,
        "real": real,
    }
    reproduce_profile(config, executor)


# Commands of `book/extension` with their help texts; they need a clone of the repository.
BOOK_COMMANDS = {
    "run": "Execute one page of the book and store its notebook.",
    "book": "Render the book from the stored pages.",
    "explore": "Write the explorer of items as a page of its own.",
    "live": "Write trained models for the reader's browser.",
}


def run_book_command(name: str, arguments: Sequence[str]) -> int:
    """Run one of `BOOK_COMMANDS` and return its exit code; after Ctrl-C, wait for its end."""
    clone = repository_root()
    if clone is None:
        raise CaeError(f"`cae {name}` needs a clone of the repository, not the package alone")
    # A process of its own, because `cae_lab` may not import `book`, which is above it. A wheel does
    # not contain `book`, so the clone is put on the path.
    path = os.pathsep.join(filter(None, [str(clone), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "book.extension", name, *arguments]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path})
    try:
        return process.wait()
    except KeyboardInterrupt as interrupt:
        # Ctrl-C has reached the child, too; SIGTERM may have reached this process alone.
        if isinstance(interrupt, Terminated):
            process.terminate()
        return process.wait()


def _add_book_command(name: str, help_text: str) -> None:
    # `book/extension` declares the options, so all of them, even --help, are passed on unparsed.
    @cae.command(
        name,
        short_help=help_text,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def call(arguments: tuple[str, ...]) -> int:
        return run_book_command(name, arguments)


for _name, _help_text in BOOK_COMMANDS.items():
    _add_book_command(_name, _help_text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of `cae`, by default that of `sys.argv`, and return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)

    return run_reporting_errors(lambda: invoke(cae, "cae", words), f"cae {shlex.join(words)}")


def invoke(command: click.Command, name: str, arguments: Sequence[str]) -> int | None:
    """Parse a command line and run the command, and return its exit code; print usage errors."""
    # Not `command.main`, which would replace KeyboardInterrupt by click's `Abort`.
    try:
        with command.make_context(name, list(arguments)) as context:
            return command.invoke(context)
    except click.exceptions.Exit as end:  # after --help
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code


def run_reporting_errors(action: Callable[[], int | None], resume_command: str) -> int:
    """Call a function; print a message, not a traceback, for errors that the user can correct.

    The exit code is that of `action`, 2 after an error that was printed, 130 after Ctrl-C, 143
    after SIGTERM, and 141 if the reader of the output has ended.
    """
    try:
        code = _run_printing_errors(action, resume_command)
        # At exit, Python would print the error of a flush.
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # As in `cae data list | head`. A broken pipe elsewhere is an error to be seen.
        if not _silence_outputs_without_reader():
            raise
        return 141


def _silence_outputs_without_reader() -> bool:
    """Redirect standard output and error to nowhere if no one reads them; return whether so."""
    unread = []
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        # With an empty mask, poll reports only errors, among them a closed reading end.
        poll.register(stream, 0)
        unread += [stream] if poll.poll(0) else []
    for stream in unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(unread)


def _run_printing_errors(action: Callable[[], int | None], resume_command: str) -> int:
    try:
        with raise_on_sigterm():
            return action() or 0
    except CaeError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        # A missing module of ours is a mistake and no missing extra.
        if str(error.name).startswith(("cae_lib", "cae_bench", "cae_lab")):
            raise
        message = (
            f"this command needs {error.name}, which is not installed: {install_command('lab')}"
        )
    except OSError as error:
        # Only faults of permission and of space can be corrected by the user.
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise
        message = (
            f"cannot use {error.filename or 'the disk'} ({error.strerror}): free some space "
            "or make it yours to read and write, or set CAE_HOME to a folder of your own"
        )
    except KeyboardInterrupt as interrupt:
        print(f"\ncae: interrupted; the same command goes on: {resume_command}", file=sys.stderr)
        return 143 if isinstance(interrupt, Terminated) else 130
    print(f"cae: {message}", file=sys.stderr)
    return 2


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise Terminated on SIGTERM in a `with` block, so that it ends a command as Ctrl-C does."""

    def terminate(number: int, frame: FrameType | None) -> None:
        # `timeout` sends the signal to the process and to its group. The second one must not
        # interrupt the clean-up that the first one starts.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    # Python lets only the main thread set handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
