"""`cae rehearse`: the paper's scale from data to pages, in minutes on a laptop and with numbers
that mean nothing: all rows and suites, one seed, two steps of four pairs. What would fail in the
hour 23 of a GPU fails here. The sets are a few drawn scenes in the official layouts, the weights
random ones of a ViT-B/32 in OpenAI's own file format; `--real DIR` puts real files in their place,
laid out as `data/raw`, as far as there are any. `--model clip-mini` trains a small model instead:
tables of the same shape in a fraction of the time, which is enough to try every page on them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from unittest.mock import patch

import pandas as pd

from cae_lib import results
from cae_lib.commands import reproduce
from cae_lib.commands.options import ON, chosen, option, takes
from cae_lib.commands.stamps import stamp_path
from cae_lib.config import paths
from cae_lib.errors import DataError
from cae_lib.grid import grid
from cae_lib.profiles import MARKER, experiment
from cae_lib.runtime import stamp
from cae_lib.variants import TUNED
from cae_lib.world.build import MANIFEST, build_world
from cae_lib.world.config import Sizes, WorldConfig

PROFILE = "paper"
SETS = WorldConfig(sizes=Sizes(
    train=24, val=8, test=4, flickr_test=4, captions=2, aro_relation=6, aro_attribution=6,
    winoground=3, sugarcrepe=3, vl_checklist=2, valse=3, svo_probes=2, half_truths=3, crepe=6,
    similarity=8))
"""So little of each set that a ViT-B/32 measures all of it on a CPU in seconds."""

SEED = 7
"""Of the random weights."""


@takes(option("--real", type=Path, metavar="DIR", help="real files, laid out as data/raw, that "
              "take the place of the drawn ones"),
       option("--model", default="", metavar="M", help="train another model than the paper's, in "
              "a home of its own, such as clip-mini, which takes a few minutes"),
       option("--record", action="store_true", help="store what each job took, for the book"), ON)
def run(parsed: argparse.Namespace) -> None:
    """Lay everything out in a home of its own and go through the grid. DataError if `--real` is no
    folder. What is done already is not done again."""
    if parsed.real and not parsed.real.is_dir():
        raise DataError(f"--real {parsed.real}: no such folder; expected one laid out as data/raw")
    folder = f"rehearsal-{parsed.model}" if parsed.model else "rehearsal"
    root, home = paths().root, paths().build / folder
    os.environ["CAE_HOME"] = str(home)
    lay_out(home, parsed.real, parsed.model)
    choice = argparse.Namespace(profile=PROFILE, all=False, rows="", released="",
                                seeds=None, allow_missing="all", on=parsed.on)
    reproduce.run(choice)
    if parsed.record:
        stamps = {job: stamp_path(PROFILE, job) for job in grid(PROFILE, chosen(choice))}
        took = pd.DataFrame({"job": [*stamps], "seconds": [
            float(path.read_text().partition(" ")[2]) for path in stamps.values()]})
        with patch.dict(os.environ, CAE_HOME=str(root)):
            results.save("rehearsal", "rehearsal", 0, took, "mini", key="",
                         provenance=stamp("mini", None))
    print(f"The rehearsal went through; its numbers mean nothing. All of it is in {home}")


def lay_out(home: Path, real: Path | None = None, model: str = "") -> None:
    """Write sets and weights, unless they are there, and links to real files over them. `model`
    takes the place of the profile's."""
    from cae_lib.models.clip import load_clip
    from cae_lib.models.weight_files import write_archive

    home.mkdir(parents=True, exist_ok=True)
    (home / MARKER).write_text(model, encoding="utf-8")
    raw = home / "data" / "raw"
    if not raw.is_dir():
        made = build_world(SETS, home / "sets")
        for manifest in made.rglob(MANIFEST):  # which would say that the sets are a small world's
            manifest.unlink()
        raw.parent.mkdir(parents=True, exist_ok=True)
        made.rename(raw)
    model = experiment(TUNED, PROFILE).model
    archive = raw / "weights" / "openai" / f"{model}.pt"
    if not archive.is_file():
        write_archive(load_clip(model, activation="quickgelu", seed=SEED).model, archive)
    if real:
        link(real.resolve(), raw)


def link(source: Path, target: Path) -> None:
    """Put links to the files of a folder in the place of those of the same names in another."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        if path.is_dir() and place.is_dir() and not place.is_symlink():
            link(path, place)
            continue
        if place.is_symlink() or place.is_file():
            place.unlink()
        place.symlink_to(path, target_is_directory=path.is_dir())
