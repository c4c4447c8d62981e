"""What each command of ``cae`` does; modules are imported when a command needs them."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager

from cae_lib.errors import ConfigError


def world_build(parsed: argparse.Namespace) -> None:
    """Build the small world."""
    from cae_lib.data.world.build import build

    print(f"The small world is {build(parsed.profile)}")


def world_show(parsed: argparse.Namespace) -> None:
    """Write the contact sheet of the small world."""
    from cae_lib.data.world.build import contact_sheet

    contact_sheet(parsed.profile, parsed.output)
    print(f"The contact sheet is {parsed.output}")


def train(parsed: argparse.Namespace) -> None:
    """Train a run."""
    from cae_lib.activation_control import TUNED_UNDER_OTHER, train_under_other
    from cae_lib.base import train_base_as
    from cae_lib.experiments import run_training
    from cae_lib.overrides import parse_overrides
    from cae_lib.training.execution import Execution

    overrides = parse_overrides(parsed.assignments)
    if parsed.name == "base":
        train_base_as(parsed.profile, overrides)
    elif parsed.name == TUNED_UNDER_OTHER:
        train_under_other(parsed.profile, parsed.seed)
    else:
        execution = Execution(
            parsed.checkpointing, parsed.channels_last, parsed.compile, parsed.workers
        )
        with _allowing(parsed):
            path = run_training(parsed.name, parsed.profile, parsed.seed, execution, **overrides)
        print(f"The weights are {path}")


def evaluate(parsed: argparse.Namespace) -> None:
    """Measure a run."""
    from cae_lib.activation_control import CONTROLS, evaluate_activation_control
    from cae_lib.evaluation.blind_record import RECORD as BLIND
    from cae_lib.evaluation.blind_record import blind_record
    from cae_lib.evaluation.caption_load import RECORD as CAPTION_LOAD
    from cae_lib.evaluation.caption_load import caption_load_record
    from cae_lib.measurements import evaluate_run
    from cae_lib.overrides import parse_overrides

    alone = {BLIND: blind_record, CAPTION_LOAD: caption_load_record}
    alone |= dict.fromkeys(CONTROLS, evaluate_activation_control)
    if parsed.name in alone:
        with _allowing(parsed):
            alone[parsed.name](parsed.profile)
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


def export(parsed: argparse.Namespace) -> None:
    """Write a run as open_clip weights."""
    from cae_lib.export import export_run
    from cae_lib.overrides import parse_overrides

    overrides = parse_overrides(parsed.assignments)
    path = export_run(
        parsed.name, parsed.profile, parsed.seed, parsed.output, parsed.format, **overrides
    )
    print(f"The weights are {path}; README.md beside them says how to load them")


def attribute(parsed: argparse.Namespace) -> None:
    """Draw a heat map and the scores of words."""
    from cae_lib.report.attribute import attribute_image

    text = attribute_image(
        parsed.image, parsed.caption, parsed.weights or ["base"], parsed.output,
        model=parsed.model, activation=parsed.activation, start_layer=parsed.start_layer,
        profile=parsed.profile, seed=parsed.seed,
    )  # fmt: skip
    print(f"{text}\nThe figure is {parsed.output}")


def tune(parsed: argparse.Namespace) -> None:
    """Choose the learning rate and lambda."""
    from cae_lib.tuning import tune

    chosen = tune(parsed.profile)["chosen"]
    print("Chosen: " + ", ".join(f"{name} {value:g}" for name, value in chosen.items()))


def run(parsed: argparse.Namespace) -> None:
    """Run a page."""
    from cae_lib.run import parse_assignments, run_page

    path = run_page(parsed.name, parse_assignments(parsed.assignments), parsed.profile)
    print(f"The page's notebook is {path}")


def reproduce(parsed: argparse.Namespace) -> None:
    """Run everything."""
    from cae_lib.reproduce import reproduce

    reproduce(parsed.profile)


def book(parsed: argparse.Namespace) -> None:
    """Render the book."""
    from cae_lib.pages.build import build_book

    print("Rendering the book (some 10 s)", flush=True)
    print(f"The book is {build_book(parsed.profile)}")


def doctor(parsed: argparse.Namespace) -> None:
    """Print what is installed and what is there."""
    from cae_lib.doctor import report

    print(report())
