"""Find which data each suite of measurements reads, check that they are here, and hash them.

A suite is a set of measurements of a model, such as "retrieval"; a source is a dataset or a set of
weights that `sources.yml` lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from cae_lib.config import paths
from cae_lib.data import benchmarks
from cae_lib.data.benchmarks import FOLDER_OF_FAMILY, FURTHER_BENCHMARKS, PAPER_BENCHMARKS
from cae_lib.data.completeness import SourceReport, annotation_files, checksum_of, source_report
from cae_lib.data.sources import fetch_command, find_source, load_sources
from cae_lib.data.training_set import TRAINING_SOURCE
from cae_lib.errors import DataError, MissingDataError
from cae_lib.profiles import find_profile

TRAINING_SOURCES = (TRAINING_SOURCE,)  # sources that training on real data reads
# Sources that each family of benchmarks reads, by the name of the family.
SOURCES_OF_FAMILY: Mapping[str, tuple[str, ...]] = {
    name: family.source_names for name, family in benchmarks.BENCHMARK_FAMILIES.items()
}
# Source of each retrieval set, by the name of the set.
RETRIEVAL_SOURCES: Mapping[str, str] = {"coco": "coco-retrieval", "flickr30k": "flickr30k"}
TEXT_SIMILARITY_SOURCE = "senteval"  # source of the sentence pairs with human scores
ZERO_SHOT_SUITE = "zero_shot"  # the suite that classifies any labelled images that the user has
# Suites whose only source is COCO's retrieval set. They measure its captions.
COCO_CAPTION_SUITES = ("attribution", "bindings", "phrases", "faithfulness", "sensitivity")
# Sources that each suite reads; `sources_of` adds the suites on benchmarks and `VALIDATION_SUITE`.
# "heatmaps" reads none because it needs the ground-truth boxes of the synthetic scenes.
SOURCES_OF_SUITE: Mapping[str, tuple[str, ...]] = {
    "retrieval": tuple(RETRIEVAL_SOURCES.values()),
    "similarity": (TEXT_SIMILARITY_SOURCE,),
    **dict.fromkeys(COCO_CAPTION_SUITES, (RETRIEVAL_SOURCES["coco"],)),
    ZERO_SHOT_SUITE: (),
    "heatmaps": (),
}
MISSING_STATES = ("incomplete", "not here")  # `SourceReport.state` if data are missing
VALIDATION_SUITE = "validation"  # the suite on the validation captions of the training data


def sources_of(suite: str) -> tuple[str, ...]:
    """Return the names of the sources that a suite reads if its data are real.

    Sources that these need for their images (`Source.needs`) are not included. For the suites
    "benchmarks" and "blind", benchmarks that are not in the paper count only if their folder is on
    this machine.

    Raises:
        KeyError: If the suite is unknown.
    """
    extra = [name for name in FURTHER_BENCHMARKS if (paths().raw / FOLDER_OF_FAMILY[name]).is_dir()]
    if suite == VALIDATION_SUITE:
        return TRAINING_SOURCES
    if suite not in ("benchmarks", "blind"):
        return SOURCES_OF_SUITE[suite]
    return tuple(
        dict.fromkeys(s for name in (*PAPER_BENCHMARKS, *extra) for s in SOURCES_OF_FAMILY[name])
    )


def sources_of_weights(model: str, weights: object) -> tuple[str, ...]:
    """Return the name of the source that weights belong to, as a tuple.

    Args:
        model: Name of the model in open_clip, such as "ViT-B-32".
        weights: A tag of the model in open_clip, the `Path` of a file or folder, or None for random
            weights.

    Returns:
        One name, or no name if no source in `sources.yml` has this tag of this model or contains
        this path.
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


def source_reports(names: Iterable[str]) -> dict[str, SourceReport]:
    """Count how much of each named source is on this machine, and return the reports by name.

    For all benchmarks this takes seconds. Images that an annotation file contains may be written to
    files; see `source_report`.

    Raises:
        ConfigError: If a name is not in `sources.yml`.
    """
    return {name: source_report(find_source(name)) for name in dict.fromkeys(names)}


def describe_missing_data(reports: Mapping[str, SourceReport]) -> list[str]:
    """Return lines of text that say what is missing from sources and how to get it.

    Args:
        reports: Reports of the sources by name, as from `source_reports`.

    Returns:
        The lines of the reports whose state is one of `MISSING_STATES`, then the command that
        fetches these sources; an empty list if there is no such report.
    """
    missing = [report for report in reports.values() if report.state in MISSING_STATES]
    lines = [line for report in missing for line in report.lines()]
    command = fetch_command(report.source.name for report in missing)
    return [*lines, f"Fetch them: {command}"] if missing else []


def require_weights(model: str, weights: object) -> None:
    """Check that the source in `sources.yml` that weights belong to is complete.

    All files that are expected of the source are checked, not the given weights alone. Weights of
    no source are not checked.

    Args:
        model: Name of the model in open_clip, such as "ViT-B-32".
        weights: A tag of the model in open_clip, the `Path` of a file or folder, or None for random
            weights.

    Raises:
        DataError: If files of the source are missing; the message says how to get them.
    """
    if lines := describe_missing_data(source_reports(sources_of_weights(model, weights))):
        raise DataError("\n".join(["weights are missing.", *lines]))


def require_some_data(profile_name: str, suites: Iterable[str]) -> None:
    """Check that each suite of a profile with real data has at least one annotation file to read.

    This is faster than counting all data. Profiles whose data are generated on this machine, and
    suites that read no source, are not checked.

    Args:
        profile_name: Name of the profile.
        suites: Names of the suites.

    Raises:
        MissingDataError: If none of the annotation files (see `annotation_files`) of the sources
            that a suite reads is here; the message says how to get them.
    """
    for suite in suites if find_profile(profile_name).is_real else ():
        names = sources_of(suite)
        if names and not any(annotation_files(find_source(name)) for name in names):
            raise MissingDataError(
                f"{suite}: its data are not here. Get them: {fetch_command(names)}"
            )


def data_digests(profile_name: str, suites: Iterable[str]) -> dict[str, str]:
    """Return a digest of the data that each suite reads, by the name of the suite.

    For real data, the digest covers the annotation files and the names of what is missing. For the
    user's own images (`ZERO_SHOT_SUITE`) it covers the paths of the files, which contain the
    classes, but not their content. Generated data are identified by their manifest, so all suites
    have the same digest.

    Args:
        profile_name: Name of the profile whose data are read.
        suites: Names of the suites.

    Raises:
        DataError: If the data have to be generated on this machine first.
    """
    suites = list(suites)
    if not find_profile(profile_name).is_real:
        return dict.fromkeys(suites, checksum_of(require_built_data(profile_name)))
    reports = source_reports(name for suite in suites for name in sources_of(suite))
    digests = {suite: sources_digest(reports, sources_of(suite)) for suite in suites}
    if ZERO_SHOT_SUITE in digests:  # the user's images are identified by their names
        root = paths().raw / "zero-shot"
        names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        digests[ZERO_SHOT_SUITE] = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return digests


def training_digest(profile_name: str, train_data: str) -> str:
    """Return a digest of the data that a run of a profile is trained on.

    For real data it is the digest of the training sources, whatever `train_data` is. Generated data
    are identified by their manifest; the training set "pretrain" of the synthetic scenes has a
    manifest of its own.

    Args:
        profile_name: Name of the profile.
        train_data: Name of the training set: "coco", "kept", "spacy" or "pretrain".

    Raises:
        DataError: If the data have to be generated on this machine first.
    """
    if find_profile(profile_name).is_real:
        return sources_digest(source_reports(TRAINING_SOURCES), TRAINING_SOURCES)
    apart = train_data == "pretrain" and find_profile(profile_name).is_synthetic
    return checksum_of(require_built_data(profile_name, "pretrain" if apart else ""))


def require_built_data(profile_name: str, folder: str = "") -> Path:
    """Return the path of the manifest of generated data, which is written last.

    Args:
        profile_name: Name of a profile whose data are generated.
        folder: Folder of the manifest below that of the profile's data.

    Raises:
        DataError: If the data are not built yet; the message names the command that builds them.
    """
    path = find_profile(profile_name).root / folder / "manifest.json"
    if not path.is_file():
        command = find_profile(profile_name).build_command
        raise DataError(f"{path}: the data are not built here; run `{command}` in a clone")
    return path


def sources_digest(reports: Mapping[str, SourceReport], names: Iterable[str]) -> str:
    """Return a digest of sources: annotation files, and names of missing files and images.

    The content of images is not hashed, so the digest stays the same if an image file is replaced
    by another one of the same name.

    Args:
        reports: Reports of at least the named sources, by name.
        names: Names of the sources; their order has no effect.

    Returns:
        A SHA-256 digest in hexadecimal.
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
