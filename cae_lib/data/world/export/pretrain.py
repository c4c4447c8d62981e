"""The pretraining corpus: many pictures with sparse captions, in COCO's layout of captions."""

from __future__ import annotations

from cae_lib.data.world.config import WorldConfig
from cae_lib.data.world.export.corpora import coco_captions, describe_split
from cae_lib.data.world.export.files import Export


def export_pretrain(config: WorldConfig) -> Export:
    """Write annotations/captions_pretrain.json and images/, relative to the corpus's own folder."""
    n, captions = config.sizes.pretrain, config.sizes.pretrain_captions
    places = ((number, "images", f"{number:012d}.jpg") for number in range(1, n + 1))
    corpus = describe_split(config.scenes, "pretrain", config.web, captions, places)
    export = Export("pretrain", [item.picture for item in corpus])
    export.add_json("annotations/captions_pretrain.json", coco_captions(corpus))
    export.counts = {"pictures": n, "captions": n * captions}
    return export
