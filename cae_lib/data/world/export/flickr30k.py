"""Flickr30k: Karpathy's test split, in a style of drawing that no training picture has."""

from __future__ import annotations

from cae_lib.data.world.config import WorldConfig
from cae_lib.data.world.export.corpora import (
    caption_list,
    coco_captions,
    describe_split,
    karpathy,
)
from cae_lib.data.world.export.files import Export

FOLDER = "flickr30k/flickr30k-images"
STYLE = "poster"


def export_flickr30k(config: WorldConfig) -> Export:
    """Write flickr30k_test.json, dataset_flickr30k.json and the gold scene graphs."""
    places = ((n, FOLDER, f"{n}.jpg") for n in range(1, config.sizes.flickr_test + 1))
    corpus = describe_split(
        config.scenes, "flickr30k", config.coco, config.sizes.captions, places, STYLE
    )
    export = Export("flickr30k", [item.picture for item in corpus])
    export.add_json("flickr30k/flickr30k_test.json", caption_list(corpus, "flickr30k"))
    splits = [(item, "test") for item in corpus]
    export.add_json("flickr30k/dataset_flickr30k.json", karpathy("flickr30k", splits, False))
    export.add_json("flickr30k/scene_graphs_test.json", coco_captions(corpus, graphs=True))
    n_captions = sum(len(item.captions) for item in corpus)
    export.counts = {"test": {"pictures": len(corpus), "captions": n_captions}}
    return export
