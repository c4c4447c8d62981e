"""Find which data each suite of measurements reads, check that they are here, and hash them.

A suite is a set of measurements of a model, such as "retrieval"; a source is a dataset or a set of
weights that `sources.yml` lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from cae_bench import benchmarks
from cae_bench.benchmarks import FOLDER_OF_FAMILY, FURTHER_BENCHMARKS, PAPER_BENCHMARKS
from cae_bench.completeness import annotation_files
from cae_bench.datasets import LABELLED_FOLDER
from cae_bench.missing import (
    describe_missing_data,
    source_reports,
    sources_digest,
    sources_of_weights,
)
from cae_bench.sources import fetch_command, find_source, load_sources
from cae_lab.names import BASE
from cae_lab.runs import TRAINING_SOURCES, Profile, initial_weights
from cae_lab.suites import SUITES, Suite
from cae_lib.config import paths
from cae_lib.errors import DataError, MissingDataError
from cae_lib.runtime import file_hash

# Sources that each family of benchmarks reads, by the name of the family.
SOURCES_OF_FAMILY: Mapping[str, tuple[str, ...]] = {
    name: family.source_names for name, family in benchmarks.BENCHMARK_FAMILIES.items()
}
# Sources of what a suite reads (see `Suite.reads`); `sources_of` adds those of "benchmarks". The
# images that a user has labelled, and the boxes of the synthetic scenes, belong to no source.
READS: Mapping[str, tuple[str, ...]] = {
    "benchmarks": (),
    "retrieval": ("coco-retrieval", "flickr30k"),
    "similarity": ("senteval",),
    "captions": ("coco-retrieval",),
    "labelled": (),
    "scenes": (),
    "validation": TRAINING_SOURCES,
}
# Names under which `all_data_digest` lists the kinds of data; stored keys contain them.
DATA_NAMES: Mapping[str, str] = {
    "benchmarks": "benchmarks",
    "retrieval": "retrieval",
    "similarity": "similarity",
    **dict.fromkeys(
        ("attribution", "bindings", "phrases", "faithfulness", "sensitivity"), "captions"
    ),
    "zero_shot": "labelled",
    "heatmaps": "scenes",
}


def sources_of(reads: str) -> tuple[str, ...]:
    """Return the names of the sources of one of `READS` of real data, without `Source.needs`."""
    if reads != "benchmarks":
        return READS[reads]
    # Benchmarks that are not in the paper are optional.
    extra = [name for name in FURTHER_BENCHMARKS if (paths().raw / FOLDER_OF_FAMILY[name]).is_dir()]
    return tuple(
        dict.fromkeys(s for name in (*PAPER_BENCHMARKS, *extra) for s in SOURCES_OF_FAMILY[name])
    )


def require_some_data(profile: Profile, suites: Iterable[Suite]) -> None:
    """Raise MissingDataError if a suite has no annotation file of real data; count nothing."""
    for suite in suites if profile.is_real else ():
        names = sources_of(suite.reads)
        if names and not any(annotation_files(find_source(name)) for name in names):
            raise MissingDataError(
                f"{suite.name}: its data are not here. Get them: {fetch_command(names)}"
            )


def data_digests(profile: Profile, reads: Iterable[str]) -> dict[str, str]:
    """Return a digest of each kind of data (`READS`) that suites read."""
    reads = [*dict.fromkeys(reads)]
    # Generated data are identified by their manifest, which is one for all kinds.
    if not profile.is_real:
        return dict.fromkeys(reads, file_hash(profile.datasets.manifest()))
    reports = source_reports(name for kind in reads for name in sources_of(kind))
    digests = {kind: sources_digest(reports, sources_of(kind)) for kind in reads}
    if "labelled" in digests:
        # The folders are the classes, so the paths hold the labels. As in `sources_digest`, the
        # content of images is not hashed.
        root = paths().raw / LABELLED_FOLDER
        names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        digests["labelled"] = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return digests


def all_data_digest(profile: Profile) -> str:
    """Return a digest of all data of a profile, as `data_digests` sees them."""
    of_kind = data_digests(profile, READS.keys() - {"validation"})
    named = sorted((name, of_kind[kind]) for name, kind in DATA_NAMES.items())
    if profile.is_real:
        named.append(("", sources_digest(source_reports(TRAINING_SOURCES), TRAINING_SOURCES)))
    return hashlib.sha256(repr(named).encode()).hexdigest()


def required_sources(profile: Profile) -> list[str]:
    """Return the names of all sources of weights and data that a profile with real data reads."""
    if not profile.is_real:
        return []
    names = [
        *_needed_to_train(profile),
        *(name for suite in SUITES.values() if suite.of for name in sources_of(suite.reads)),
    ]
    sources = load_sources()
    # A source may show images that belong to another one, which it names in `needs`.
    return list(dict.fromkeys(each for name in names for each in (*sources[name].needs, name)))


def _needed_to_train(profile: Profile) -> list[str]:
    # Without `Run.start`, which imports PyTorch.
    config = profile.run(BASE).config
    return [*sources_of_weights(config.model, initial_weights(config)), *TRAINING_SOURCES]


def check_real_data(profile: Profile) -> None:
    """Raise DataError if real data do not suffice for training; print what else is missing."""
    if not profile.is_real or profile.is_rehearsal:
        return
    reports = source_reports(required_sources(profile))
    required = {name: reports.pop(name) for name in _needed_to_train(profile)}
    # Models are measured on whatever test data are present, but trained on all training data.
    for line in describe_missing_data(reports):
        print(line, flush=True)
    if lines := describe_missing_data(required):
        raise DataError("\n".join(["data that training needs are missing.", *lines]))
    if faults := [fault for report in reports.values() for fault in report.faults]:
        raise DataError("\n".join(faults))
