"""One job of a grid, by its name: what `cae reproduce` and `cae job` do. Each imports its own: most
jobs are runs, in processes of their own where Snakemake starts them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cae_lib import grid, measuring, results, runs
from cae_lib.config import paths
from cae_lib.data.training_set import training_set
from cae_lib.grid import Choice, Job
from cae_lib.pages.build import build_book
from cae_lib.pages.run import run_page
from cae_lib.pages.source import experiments_folder, page_parameters, read_page
from cae_lib.profiles import PROFILES, experiment, find_profile
from cae_lib.runtime import file_hash, write_atomic
from cae_lib.variants import BASE, TUNED, base_variants


def perform(profile_name: str, choice: Choice, label: str, job: Job) -> Any:
    """Do one job of a grid."""
    stage, _, name = label.partition("/")
    studies = choice.studies
    if label == grid.SETS:
        return _sets(profile_name, studies)
    if label == grid.TABLES:
        return measuring.measure_data(profile_name, True)
    if label == grid.BOOK:
        return build_book(profile_name)
    if label == f"run/{BASE}/0":
        return _measure_base(profile_name, studies)
    if stage == "captions":
        return _captions(profile_name, *name.split("+"))
    if stage in ("tune", "chosen"):
        from cae_lib.commands import tune

        if stage == "chosen":
            return tune.CHOOSERS[name](profile_name)
        return tune.trial(name.partition("/")[0], job.variant, profile_name)
    if stage == "released":
        from cae_lib.commands import released

        return released.measure_one(name)
    if stage == "page":
        return _page(profile_name, name, grid.seeds_of(profile_name, choice))
    return _train_and_measure(profile_name, job, studies)


def _captions(profile_name: str, data: str, tagger: str) -> None:
    """Parse the captions of training once, before several processes need them; not again for the
    same file, since a run finds what is missing."""
    model, root = experiment(TUNED, profile_name).model, find_profile(profile_name).root
    files = [root / "manifest.json", root / "coco" / "train_neg_clip.tsv"]
    state = repr([model, *(file.stat().st_mtime_ns for file in files if file.is_file())])
    marker = paths().cache / profile_name / "done" / f"captions-{data}+{tagger}.key"
    if not marker.is_file() or marker.read_text(encoding="utf-8") != state:
        training_set(profile_name, data, model, tagger)  # as a run asks for it
        write_atomic(marker, state)


def _page(profile_name: str, name: str, seeds: int) -> Path:
    """A page of the book, or with the results of a profile that has a copy of the book: run once a
    clone, and again when anything that it shows has changed."""
    given, own = {}, None
    if find_profile(profile_name).own_book is not None and name != grid.RELEASED_PAGE:
        known = page_parameters(read_page(experiments_folder() / f"{name}.md"), name)
        given, own = {"seeds": str(seeds)} if "seeds" in known else {}, profile_name
    marker = paths().cache / profile_name / "done" / f"page-{name}.json"
    if marker.is_file():
        path, before = json.loads(marker.read_text(encoding="utf-8"))
        if before == _shown(Path(path), given):
            return Path(path)
    path = run_page(name, given, own)
    write_atomic(marker, json.dumps([str(path), _shown(path, given)]))
    return path


def _shown(path: Path, given: dict[str, str]) -> str:
    """Hash a stored page and all that it shows: its text and parameters, and how each stored table
    was made. The last page shows the others."""
    pages = path.parent.glob("*.ipynb") if path.stem == grid.LAST_PAGE else [path]
    files = [experiments_folder() / f"{path.stem}.md", *pages]
    known = [file_hash(file) for file in sorted(files) if file.is_file()]
    tables = [results.tables(profile) for profile in PROFILES]
    made = [(name, *which, rows.key, rows.provenance) for found in tables
            for name, index in found.items() for which, rows in index.items()]
    return hashlib.sha256(json.dumps([given, known, made]).encode()).hexdigest()


def _train_and_measure(profile_name: str, job: Job, studies: bool) -> None:
    """A run, and for the studies the control of CLIP-FT."""
    run, settings, _ = job.variant
    runs.train_run(run, profile_name, job.seed, **settings)
    measuring.measure_run(
        run, profile_name, job.seed, True, job.suites, _left_out(studies), **settings)
    if studies and run == TUNED and not settings:
        measuring.measure_run(f"{TUNED}-gelu", profile_name, job.seed, True)


def _left_out(studies: bool) -> tuple[str, ...]:
    return () if studies else grid.OF_STUDIES


def _measure_base(profile_name: str, studies: bool) -> None:
    """The base, and for the studies its control and the bases of fewer steps."""
    for name in (BASE, f"{BASE}-gelu") if studies else (BASE,):
        measuring.measure_run(name, profile_name, 0, True, (), _left_out(studies))
    for variant in base_variants(profile_name):
        if studies and variant.run == BASE:
            measuring.measure_run(
                BASE, profile_name, 0, True, grid.STUDY_SUITES, **variant.settings)


def _sets(profile_name: str, studies: bool = True) -> None:
    """Build the sets; where no base models are shipped (smoke), train them. Real data were found
    before any job began."""
    if find_profile(profile_name).real:
        return
    from cae_lib.commands.base import build_sets, train_base

    build_sets(profile_name)
    if not runs.checkpoint_path(BASE, profile_name).is_file():
        train_base(profile_name)
    for steps in find_profile(profile_name).earlier_bases if studies else ():
        train_base(profile_name, steps=steps)
