"""Tell which sources each suite reads and whether they are here, and hash them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from cae_lib.config import paths
from cae_lib.data import benchmarks
from cae_lib.data.benchmarks import BENCHMARKS, FOLDERS, FURTHER_BENCHMARKS
from cae_lib.data.completeness import Report, annotation_files, checksum_of, source_report
from cae_lib.data.sources import fetch_command, load_sources, source
from cae_lib.data.training_set import TRAINING_SOURCE
from cae_lib.errors import DataError, MissingDataError
from cae_lib.profiles import find_profile

TRAINING_SOURCES = (TRAINING_SOURCE,)
# Names in `cae_lib/data/sources.yml` of what each family of benchmarks reads.
SOURCES_OF_FAMILY: Mapping[str, tuple[str, ...]] = {
    name: family.source_names for name, family in benchmarks.BENCHMARK_FAMILIES.items()
}
RETRIEVAL_SOURCES: Mapping[str, str] = {"coco": "coco-retrieval", "flickr30k": "flickr30k"}
SIMILARITY_SOURCE = "senteval"
OWN_IMAGES_SUITE = "zero_shot"  # a suite for whatever labelled images the user has
CAPTION_SUITES = ("attribution", "bindings", "phrases", "faithfulness", "sensitivity")
# What each suite reads, but for those on benchmarks; heat maps need the world's gold boxes.
SOURCES_OF_SUITE: Mapping[str, tuple[str, ...]] = {
    "retrieval": tuple(RETRIEVAL_SOURCES.values()),
    "similarity": (SIMILARITY_SOURCE,),
    **dict.fromkeys(CAPTION_SUITES, (RETRIEVAL_SOURCES["coco"],)),
    OWN_IMAGES_SUITE: (),
    "heatmaps": (),
}
MISSING_STATES = ("incomplete", "not here")  # states of a report
VALIDATION_SUITE = "validation"  # a suite on the validation captions of the training data


def sources_of(suite: str) -> tuple[str, ...]:
    """Return the names of the sources that a suite reads.

    Benchmarks that are not in the paper count only if they are on this machine.
    """
    extra = [name for name in FURTHER_BENCHMARKS if (paths().raw / FOLDERS[name]).is_dir()]
    if suite == VALIDATION_SUITE:
        return TRAINING_SOURCES
    if suite not in ("benchmarks", "blind"):
        return SOURCES_OF_SUITE[suite]
    return tuple(
        dict.fromkeys(s for name in (*BENCHMARKS, *extra) for s in SOURCES_OF_FAMILY[name])
    )


def source_of_weights(model: str, weights: object) -> tuple[str, ...]:
    """Return the name of the source of some weights; empty if `sources.yml` does not list it.

    Args:
        model: Name in open_clip.
        weights: A tag of the model, or the path of a file or folder of a source.
    """
    return tuple(
        source.name
        for source in load_sources().values()
        if source.kind == "weights"
        and (
            any(item.open_clip == (model, weights) for item in source.files)
            or (isinstance(weights, Path) and weights.is_relative_to(source.root))
        )
    )


def source_reports(names: Iterable[str]) -> dict[str, Report]:
    """Count how much of the named sources is here; for all benchmarks this takes seconds."""
    return {name: source_report(source(name)) for name in dict.fromkeys(names)}


def missing_data(reports: Mapping[str, Report]) -> list[str]:
    """Return lines that say what is missing from some sources and how to get it."""
    missing = [report for report in reports.values() if report.state in MISSING_STATES]
    lines = [line for report in missing for line in report.lines()]
    command = fetch_command(report.source.name for report in missing)
    return [*lines, f"Fetch them: {command}"] if missing else []


def require_weights(model: str, weights: object) -> None:
    """Check that weights are here if `sources.yml` lists them.

    Args:
        model: Name in open_clip.
        weights: As in `source_of_weights`.

    Raises:
        DataError: If they are missing; the message says how to get them.
    """
    if lines := missing_data(source_reports(source_of_weights(model, weights))):
        raise DataError("\n".join(["weights are missing.", *lines]))


def require_some_data(profile_name: str, suites: Iterable[str]) -> None:
    """Check that each suite has at least one file to read, which is faster than counting all.

    Raises:
        MissingDataError: If none of the files that a suite reads is here; the message says how to
            get them.
    """
    for suite in suites if find_profile(profile_name).real else ():
        names = sources_of(suite)
        if names and not any(annotation_files(source(name)) for name in names):
            raise MissingDataError(
                f"{suite}: its data are not here. Get them: {fetch_command(names)}"
            )


def data_digests(profile_name: str, suites: Iterable[str]) -> dict[str, str]:
    """Hash, for each suite, the data that it reads; for real data also which parts are missing.

    Raises:
        DataError: If the data have to be generated on this machine first.
    """
    suites = list(suites)
    if not find_profile(profile_name).real:
        return dict.fromkeys(suites, _manifest_digest(profile_name))
    reports = source_reports(name for suite in suites for name in sources_of(suite))
    digests = {suite: sources_digest(reports, sources_of(suite)) for suite in suites}
    if OWN_IMAGES_SUITE in digests:  # which are known by their names
        root = paths().raw / "zero-shot"
        names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        digests[OWN_IMAGES_SUITE] = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return digests


def training_digest(profile_name: str, train_data: str) -> str:
    """Return the digest of the data that a run of a profile is trained on.

    The synthetic scenes have two training sets with a manifest each, of which "pretrain" is one.

    Args:
        profile_name: Name of the profile.
        train_data: Name of the training set, as `training_set` takes it.

    Raises:
        DataError: If the data have to be generated on this machine first.
    """
    if find_profile(profile_name).real:
        return sources_digest(source_reports(TRAINING_SOURCES), TRAINING_SOURCES)
    apart = train_data == "pretrain" and find_profile(profile_name).synthetic
    return _manifest_digest(profile_name, "pretrain" if apart else "")


def _manifest_digest(profile_name: str, folder: str = "") -> str:
    path = find_profile(profile_name).root / folder / "manifest.json"
    if not path.is_file():
        command = find_profile(profile_name).build_command
        raise DataError(f"{path}: the data are not built here; run `{command}` in a clone")
    return checksum_of(path)


def sources_digest(reports: Mapping[str, Report], names: Iterable[str]) -> str:
    """Hash the annotations of some sources, and what is missing from them.

    Images enter by their names alone, so an image that is replaced under its name is not noticed.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        source = reports[name].source
        digest.update(f"{name}\n".encode())
        for path in annotation_files(source):
            digest.update(f"{path.relative_to(source.root)} {checksum_of(path)}\n".encode())
        for tally in reports[name].tallies:
            digest.update("".join(f"-{missing}\n" for missing in tally.missing).encode())
    return digest.hexdigest()
