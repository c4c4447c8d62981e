"""ARO's VG-Relation and VG-Attribution: which object stands where, which one has which attribute.

Yuksekgonul et al. 2023. The word-order sets of ARO are in `order.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from cae_lib.data.benchmarks import files
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Collector, Policy
from cae_lib.errors import ConfigError

NAME = "aro"
OFFICIAL = {"relation": 23_937, "attribution": 28_748}
ANNOTATIONS = {
    "relation": "visual_genome_relation.json",
    "attribution": "visual_genome_attribution.json",
}
IMAGES_FROM = "those of the official vgr_vga_images.zip, under images/"
AUTHORS_EXTRA = ("pulling", "pulled by", "leaning against")


def symmetric_relations(which: str = "official") -> frozenset[str]:
    """Names of the relations that are left out of VG-Relation's macro average.

    Args:
        which: `"official"`, the 157 names of ARO's notebook; `"authors"`, these and three more,
            as in the evaluation of CAE's authors; `"none"`.

    Raises:
        ConfigError: If `which` is none of these.
    """
    if which == "none":
        return frozenset()
    if which not in ("official", "authors"):
        raise ConfigError(
            f"symmetric={which!r}: expected 'official', 'authors', 'none', or a list of names."
        )
    lines = Path(__file__).with_name("aro_symmetric.txt").read_text(encoding="utf-8").splitlines()
    names = {line for line in lines if line and not line.startswith("#")}
    return frozenset(names.union(AUTHORS_EXTRA if which == "authors" else ()))


def load(
    root: str | Path,
    *,
    symmetric: str | Collection[str] = "official",
    min_pair: int = 25,
    expected: Mapping[str, int] | None = None,
    official: bool = False,
    allow_missing: bool = False,
) -> list[Benchmark]:
    """Read VG-Relation and VG-Attribution as ARO's repository lays them out.

    Each item is one picture, cut to its box before preprocessing, and the texts (false, true).
    The headline of both is a macro average: over relations without the symmetric ones, as in the
    official notebook, and over pairs of attributes with at least `min_pair` items, as in the
    official `evaluate_scores`. Where no group qualifies the headline is the micro average.

    Args:
        root: Folder with the two annotation files and `images/`.
        symmetric: Names of relations to leave out of the macro average, or a list's name, see
            `symmetric_relations`. Their items still count in the micro average.
        min_pair: Smallest number of items for an attribute pair to enter the macro average.
        expected: Number of items by subset (`"relation"`, `"attribution"`).
        official: Expect the published numbers of items.
        allow_missing: Leave out and count what cannot be used instead of raising an error.

    Raises:
        DataError: If a file or picture is missing, or a row is malformed.
    """
    names = symmetric_relations(symmetric) if isinstance(symmetric, str) else frozenset(symmetric)
    policy = Policy.of(expected, official, OFFICIAL, allow_missing)
    relation = _collect(Path(root), "relation", policy)
    attribution = _collect(Path(root), "attribution", policy)
    return [_relation(relation, names), _attribution(attribution, min_pair)]


def _collect(root: Path, subset: str, policy: Policy) -> Collector:
    path = root / ANNOTATIONS[subset]
    group = _relation_group if subset == "relation" else _attribute_group
    collector = Collector(NAME, subset, path, policy, IMAGES_FROM)

    def read(key: str, entry: object) -> Choice:
        crop = files.box(entry, "bbox_x", "bbox_y", "bbox_w", "bbox_h")
        image = ImageRef(root / "images" / files.text(entry, "image_path"), crop)
        texts = (files.text(entry, "false_caption"), files.text(entry, "true_caption"))
        collector.counts["identical"] += texts[0] == texts[1]
        return Choice((image,), texts, truth=1, group=group(entry), id=key)

    collector.rows(files.read_json(path, list), read)
    return collector


def _relation_group(entry: object) -> str:
    return files.text(entry, "relation_name")


def _attribute_group(entry: object) -> str:
    pair = files.value(entry, "attributes")
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(a, str) for a in pair):
        raise files.RowError(f"field 'attributes' is {pair!r}, a list of two texts was expected")
    return f"{pair[0]}_{pair[1]}"


def _relation(collector: Collector, symmetric: frozenset[str]) -> Benchmark:
    sizes = Counter(item.group for item in collector.items)
    kept = tuple(sorted(set(sizes) - symmetric))
    collector.counts["symmetric_items"] = sum(sizes[name] for name in symmetric)
    rule = f"mean over {len(kept)} relations, {len(sizes) - len(kept)} symmetric ones left out"
    return _finish_macro(collector, kept, rule)


def _attribution(collector: Collector, min_pair: int) -> Benchmark:
    sizes = Counter(item.group for item in collector.items)
    kept = tuple(sorted(name for name, n in sizes.items() if n >= min_pair))
    collector.counts["items_of_small_groups"] = sum(n for n in sizes.values() if n < min_pair)
    rule = f"mean over {len(kept)} attribute pairs with at least {min_pair} items"
    return _finish_macro(collector, kept, rule)


def _finish_macro(collector: Collector, kept: tuple[str, ...], rule: str) -> Benchmark:
    if not kept:
        return collector.finish(
            headline="micro", macro_groups=(), rule="mean over items: no group qualifies for macro"
        )
    return collector.finish(headline="macro", macro_groups=kept, rule=rule)
