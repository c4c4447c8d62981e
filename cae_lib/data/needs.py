"""Which sets each kind of measurement reads, whether they are here and their entries make sense,
and hashes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from cae_lib.config import paths
from cae_lib.data import benchmarks
from cae_lib.data.benchmarks import BENCHMARKS, FOLDERS, FURTHER
from cae_lib.data.completeness import Report, annotation_files, check, file_digest
from cae_lib.data.sources import load_sources, may_be_incomplete, source
from cae_lib.data.training_set import TRAINING_SOURCE
from cae_lib.errors import DataError
from cae_lib.profiles import find_profile

TRAINING = (TRAINING_SOURCE,)
# Names in `data/sources.yml` of what each family of benchmarks reads.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    name: family.source_names for name, family in benchmarks.FAMILIES.items()
}
RETRIEVAL_SOURCES: Mapping[str, str] = {"coco": "coco-retrieval", "flickr30k": "flickr30k"}
SIMILARITY_SOURCE = "senteval"
OWN_PICTURES = "zero_shot"  # a suite for whatever labelled pictures the user has
OF_CAPTIONS = ("attribution", "bindings", "phrases", "faithfulness", "sensitivity")
# What each suite reads, but for those on benchmarks; heat maps need the world's gold boxes.
SUITES: Mapping[str, tuple[str, ...]] = {
    "retrieval": tuple(RETRIEVAL_SOURCES.values()),
    "similarity": (SIMILARITY_SOURCE,),
    **dict.fromkeys(OF_CAPTIONS, (RETRIEVAL_SOURCES["coco"],)),
    OWN_PICTURES: (),
    "heatmaps": (),
}
VALIDATION = "validation"  # a suite on the validation captions of the training data


def sources_of(suite: str) -> tuple[str, ...]:
    """Names of the sets that a suite reads; families beside the tables count if they are here."""
    extra = [name for name in FURTHER if (paths().raw / FOLDERS[name]).is_dir()]
    if suite == VALIDATION:
        return TRAINING
    if suite == "labels":
        return FAMILIES["cola"] if "cola" in extra else ()
    if suite not in ("benchmarks", "blind"):
        return SUITES[suite]
    return tuple(dict.fromkeys(s for name in (*BENCHMARKS, *extra) for s in FAMILIES[name]))


def may_be_absent(suite: str) -> bool:
    """Whether a suite may be left out: all that it reads may be incomplete."""
    return all(map(may_be_incomplete, sources_of(suite)))


def weights_source(model: str, tag: object) -> tuple[str, ...]:
    """Name of the entry for an open_clip model's weights; empty if the list has none."""
    found = load_sources().values()
    return tuple(s.name for s in found if any(i.open_clip == (model, tag) for i in s.get))


def stock(names: Iterable[str]) -> dict[str, Report]:
    """What is here of the sets of these names; for all benchmarks this takes some seconds."""
    return {name: check(source(name)) for name in dict.fromkeys(names)}


def require(reports: Mapping[str, Report]) -> list[str]:
    """Lines on incomplete sets that may be so; of others a DataError names what is missing."""
    wrong = [report for report in reports.values() if report.state in ("incomplete", "not here")]
    refused = [
        report
        for report in wrong
        if report.source.kind == "weights" or not may_be_incomplete(report.source.name)
    ]
    if not refused:
        return [line for report in wrong for line in report.lines()]
    lines = ["data are missing.", *(line for report in refused for line in report.lines())]
    pictures = dict.fromkeys(name for report in refused for name in report.source.needs)
    wanted = [name for name in pictures if check(source(name)).state != "complete"]
    wanted += [report.source.name for report in refused]
    lines.append(f"Fetch them: cae data get {' '.join(dict.fromkeys(wanted))}")
    optional = [report.source.name for report in refused if report.source.kind != "weights"]
    if optional:
        lines.append(
            "Or go on with what is there, and have n used printed beside n expected: "
            f"--allow-missing {','.join(optional)}"
        )
    raise DataError("\n".join(lines))


def data_digests(
    profile_name: str, suites: Iterable[str], extra: Iterable[str] = ()
) -> dict[str, str]:
    """For each suite the hash of the data that it reads; the small world's is of its manifest.

    What is incomplete of real data, and may be, is printed; else missing data are a DataError, also
    those of `extra`, further entries of `data/sources.yml` such as weights.
    """
    suites = list(suites)
    if not find_profile(profile_name).real:
        return dict.fromkeys(suites, _manifest_digest(profile_name))
    reports = stock((*extra, *(name for suite in suites for name in sources_of(suite))))
    for line in require(reports):
        print(line, flush=True)
    digests = {suite: sources_digest(reports, sources_of(suite)) for suite in suites}
    if OWN_PICTURES in digests:  # which are known by their names
        root = paths().raw / "zero-shot"
        names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        digests[OWN_PICTURES] = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return digests


def training_digest(profile_name: str, train_data: str) -> str:
    """Return the digest of a profile's training data, of which "pretrain" is built apart; DataError
    if they are not here."""
    if find_profile(profile_name).real:
        return sources_digest(stock(TRAINING), TRAINING)
    apart = train_data == "pretrain" and find_profile(profile_name).gold
    return _manifest_digest(profile_name, "pretrain" if apart else "")


def _manifest_digest(profile_name: str, part: str = "") -> str:
    path = find_profile(profile_name).root / part / "manifest.json"
    if not path.is_file():
        kind = "photo" if find_profile(profile_name).photographs else "world"
        raise DataError(
            f"{path}: the data are not built here; run `cae {kind} build --profile {profile_name}`"
        )
    return file_digest(path)


def sources_digest(reports: Mapping[str, Report], names: Iterable[str]) -> str:
    """Hash of the annotations of some sets, and of what is missing from them.

    Pictures are known by their names: one that changes under its name is not noticed.
    """
    known = hashlib.sha256()
    for name in sorted(names):
        source = reports[name].source
        known.update(f"{name}\n".encode())
        for path in annotation_files(source):
            known.update(f"{path.relative_to(source.root)} {file_digest(path)}\n".encode())
        for tally in reports[name].tallies:
            known.update("".join(f"-{thing}\n" for thing in tally.missing).encode())
    return known.hexdigest()
