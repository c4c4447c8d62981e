"""Configure the synthetic scenes: statistics, styles of captions, and the sizes of datasets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from cae_lab.profiles import load_profile
from cae_lib.errors import ConfigError
from data.recipes.synthetic_scenes import layout, vocabulary
from data.recipes.synthetic_scenes.grammar import CaptionStyle
from data.recipes.synthetic_scenes.scenes import SceneConfig

# Raise when code that decides images, captions or files changes: old folders are rebuilt.
VERSION = 3
# Raise when the code that pairs sentences changes: that folder alone is rebuilt.
SIMILARITY_VERSION = 1

# Sparse captions as on the web: the base model is pretrained on them.
WEB = CaptionStyle(attribute=0.15, second=0.9, relation=0.08, vague=0.5, extra=0.6)
# Richer captions as in COCO: models are fine-tuned and retrieval is tested on them.
COCO = CaptionStyle(attribute=0.55, second=0.95, relation=0.8)
# Rich captions, paired for text similarity: what they state is all that they say.
SENTENCES = CaptionStyle(attribute=0.7, second=1.0, relation=0.9, extra=0.6, position=0.0)

# What is built apart, under keys of their own, and the style of its captions.
WORLD, PRETRAIN, SIMILARITY = "world", "pretrain", "similarity"
PARTS = {WORLD: "coco", PRETRAIN: "web", SIMILARITY: "sentences"}


@dataclass(frozen=True)
class Sizes:
    """Number of images, captions or items of each dataset."""

    pretrain: int = 20_000  # images of the pretraining corpus
    pretrain_captions: int = 5  # captions of each of them
    train: int = 12_000  # images of Karpathy's splits; a quarter of "train" is "restval"
    val: int = 500
    test: int = 1000
    flickr_test: int = 500  # images of Flickr30k's test split
    captions: int = 5  # captions of each image of COCO and Flickr30k
    aro_relation: int = 1000  # items of ARO's sets
    aro_attribution: int = 1000
    winoground: int = 600  # items, each of two images and two captions
    sugarcrepe: int = 800  # items of each of the seven files, at most
    vl_checklist: int = 600  # items of each corpus, at most
    valse: int = 600  # items of each instrument
    svo_probes: int = 250  # sentences; each has up to three negative images
    half_truths: int = 1200  # images, of which a third each has a false noun, adjective, relation
    crepe: int = 800  # images; each has one item of each kind where five false captions exist
    similarity: int = 500  # scored pairs of each test set of text similarity


@dataclass(frozen=True)
class WorldConfig:
    """Everything that decides the files of the synthetic scenes; equal keys mean equal files."""

    scenes: SceneConfig = field(default_factory=SceneConfig)
    web: CaptionStyle = WEB
    coco: CaptionStyle = COCO
    sentences: CaptionStyle = SENTENCES
    sizes: Sizes = field(default_factory=Sizes)

    def content(self, part: str = WORLD) -> dict[str, Any]:
        """Return all that decides the files of a part, as values of JSON."""
        content: dict[str, Any] = {
            "version": VERSION,
            "scenes": asdict(self.scenes),
            # What the code fixes decides the files, too.
            "words": [getattr(vocabulary, n) for n in ("GLYPHS", "COLORS", "SIZES", "PATTERNS")],
            "relations": [asdict(kind) for kind in vocabulary.RELATIONS.values()],
            "layout": [layout.BASE_SCALE, [[s or "", f] for s, f in layout.SIZE_FACTOR.items()]],
            "sizes": {},
            PARTS[part]: asdict(getattr(self, PARTS[part])),
        }
        # Sizes count for their own part alone, so that the others need not be built again.
        for name, size in asdict(self.sizes).items():
            first = name.partition("_")[0]
            if part == (first if first in PARTS else WORLD):
                content["sizes"][name] = size
        return content | ({"similarity_version": SIMILARITY_VERSION} if part == SIMILARITY else {})

    def key(self, part: str = WORLD) -> str:
        """Return the hash of `content`, 12 hexadecimal digits."""
        text = json.dumps(self.content(part), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_SMOKE = Sizes(
    pretrain=64,
    pretrain_captions=2,
    train=48,
    val=16,
    test=24,
    flickr_test=16,
    aro_relation=12,
    aro_attribution=12,
    winoground=20,
    sugarcrepe=8,
    vl_checklist=8,
    valse=8,
    svo_probes=4,
    crepe=18,
    half_truths=12,
    similarity=24,
)
WORLDS: dict[str, WorldConfig] = {"smoke": WorldConfig(sizes=_SMOKE), "mini": WorldConfig()}


def world_config(profile: str) -> WorldConfig:
    """Return the configuration of a profile's synthetic scenes."""
    name = load_profile(profile).datasets_profile or profile
    if name not in WORLDS:
        raise ConfigError(
            f"profile {profile!r} has no synthetic scenes: expected one of {', '.join(WORLDS)}"
        )
    return WORLDS[name]
