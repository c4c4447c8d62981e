"""Find what of data and weights is missing on this machine, and hash what is here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from cae_bench.completeness import SourceReport, annotation_files, checksum_of, source_report
from cae_bench.sources import fetch_command, find_source, load_sources
from cae_lib.errors import DataError

MISSING_STATES = ("incomplete", "not here")  # `SourceReport.state` if data are missing


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
