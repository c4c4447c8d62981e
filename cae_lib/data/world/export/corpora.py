"""Pictures with their captions and gold scene graphs, as the corpora of captions need them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cae_lib.data.world.draw import IMAGE_SIZE
from cae_lib.data.world.export.files import Picture
from cae_lib.data.world.export.sampling import text_generator
from cae_lib.data.world.grammar import Caption, CaptionStyle, captions
from cae_lib.data.world.scenes import Scene, SceneConfig, sample_scene


@dataclass(frozen=True)
class Described:
    """A picture of a corpus.

    Attributes:
        number: Its id.
        folder: Folder of the file, in the world's folder.
        filename: Name of the file.
        scene: What it shows.
        captions: Its captions with their gold roles.
    """

    number: int
    folder: str
    filename: str
    scene: Scene
    captions: tuple[Caption, ...]

    @property
    def path(self) -> str:
        """Place of the file in the world's folder."""
        return f"{self.folder}/{self.filename}"

    @property
    def picture(self) -> Picture:
        """The file to draw."""
        return Picture(self.path, (self.scene,))

    @property
    def texts(self) -> list[str]:
        """The captions alone."""
        return [caption.text for caption in self.captions]


def describe_split(config: SceneConfig, split: str, style: CaptionStyle, n_captions: int,
                   places: Iterable[tuple[int, str, str]], drawing: str = "plain",
                   ) -> list[Described]:  # fmt: skip
    """The scenes of a split with captions, one for each `(id, folder, file name)` of `places`."""
    described = []
    for index, (number, folder, filename) in enumerate(places):
        scene = sample_scene(config, split, index, drawing)
        rng = text_generator(config, split, index)
        texts = tuple(captions(scene, style, rng, n_captions))
        described.append(Described(number, folder, filename, scene, texts))
    return described


def coco_captions(corpus: Sequence[Described], graphs: bool = False) -> dict[str, Any]:
    """COCO's layout of captions; with `graphs` instead the gold beside it, under the same ids.

    The gold of a picture is its things, its main relation (between things 0 and 1) and its
    placements; that of a caption its roles as `[start, end, role]` and the facts it states.
    """
    images, annotations = [], []
    for item in corpus:
        images.append({"id": item.number, "file_name": item.filename})
        images[-1] |= _graph(item.scene) if graphs else {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        for caption in item.captions:
            entry = {"id": len(annotations) + 1, "image_id": item.number}
            annotations.append(entry | (_gold(caption) if graphs else {"caption": caption.text}))
    return {"images": images, "annotations": annotations}


def karpathy(name: str, corpus: Sequence[tuple[Described, str]], folders: bool) -> dict[str, Any]:
    """Karpathy's layout for pictures and their splits; `folders` adds COCO's `filepath`."""
    images = []
    number = 0
    for position, (item, split) in enumerate(corpus):
        numbers = list(range(number, number + len(item.captions)))
        number += len(numbers)
        sentences = [
            {"raw": text, "tokens": text.split(), "imgid": position, "sentid": sentence}
            for text, sentence in zip(item.texts, numbers, strict=True)
        ]
        entry = {"filename": item.filename, "imgid": position, "split": split,
                 "sentids": numbers, "sentences": sentences}  # fmt: skip
        if folders:
            entry |= {"filepath": item.folder.rpartition("/")[2], "cocoid": item.number}
        images.append(entry)
    return {"dataset": name, "images": images}


def caption_list(corpus: Sequence[Described], root: str) -> list[dict[str, Any]]:
    """The list of `{image, caption}` that BLIP and ARO read, pictures relative to `root`."""
    return [{"image": item.path.removeprefix(f"{root}/"), "caption": item.texts} for item in corpus]


def _graph(scene: Scene) -> dict[str, Any]:
    places = [
        {key: round(value, 4) if isinstance(value, float) else value
         for key, value in asdict(place).items()}
        for place in scene.placements
    ]  # fmt: skip
    return {
        "things": [asdict(thing) for thing in scene.content.things],
        "relation": scene.content.relation,
        "placements": places,
    }


def _gold(caption: Caption) -> dict[str, Any]:
    return {
        "spans": [[span.start, span.end, span.role] for span in caption.spans],
        "objects": caption.objects,
        "attributes": caption.attributes,
        "relations": caption.relations,
    }
