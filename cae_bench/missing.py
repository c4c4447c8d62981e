"""Find what of data and weights is missing on this machine, and hash what is here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from cae_bench.completeness import SourceReport, annotation_files, source_report
from cae_bench.sources import fetch_command, find_source, load_sources
from cae_lib.errors import DataError
from cae_lib.runtime import file_hash

# "unknown" is no missing state: nothing is known to be absent.
MISSING_STATES = ("incomplete", "not here")  # `SourceReport.state` if data are missing


def sources_of_weights(model: str, weights: object) -> tuple[str, ...]:
    """Return the name of the source in `sources.yml` that weights belong to, or ().

    Args:
        model: Name of the model in open_clip, such as "ViT-B-32".
        weights: A tag of open_clip, the `Path` of a file or folder, or None for random weights.
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
    """Count how much of each source is on this machine; for all benchmarks this takes seconds."""
    return {name: source_report(find_source(name)) for name in dict.fromkeys(names)}


def describe_missing_data(reports: Mapping[str, SourceReport]) -> list[str]:
    """Return lines of text that say what is missing and how to get it, or []."""
    missing = [report for report in reports.values() if report.state in MISSING_STATES]
    lines = [line for report in missing for line in report.lines()]
    command = fetch_command(report.source.name for report in missing)
    return [*lines, f"Fetch them: {command}"] if missing else []


def require_weights(model: str, weights: object) -> None:
    """Raise a DataError if files of the source that weights belong to are missing."""
    if lines := describe_missing_data(source_reports(sources_of_weights(model, weights))):
        raise DataError("\n".join(["weights are missing.", *lines]))


def sources_digest(reports: Mapping[str, SourceReport], names: Iterable[str]) -> str:
    """Return a SHA-256 of annotation files, and of the names of missing files and images."""
    # Images are not hashed: that would take long. An image replaced under its name goes unnoticed.
    digest = hashlib.sha256()
    for name in sorted(names):
        source = reports[name].source
        digest.update(f"{name}\n".encode())
        for path in annotation_files(source):
            digest.update(f"{path.relative_to(source.root)} {file_hash(path)}\n".encode())
        # An image that is added or removed changes which items are used, and so the scores.
        for tally in reports[name].tallies:
            digest.update("".join(f"-{missing}\n" for missing in tally.missing).encode())
    return digest.hexdigest()
