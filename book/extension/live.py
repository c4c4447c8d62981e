"""Export trained models for the reader's browser, where `book/_static/live-model.js` runs them.

`write_files` writes `live-index.js`, which has the vocabulary and names the models, and a script
for the image tower and for each text tower. They are scripts, because a page that is opened from a
disk cannot fetch files. A matrix is stored with 12 bits a weight, which are two characters of
base64, and a scale for each row; vectors are float32. So a text tower takes as many characters as
it would take bytes in float16, and its features differ from PyTorch's by less than 1e-3.
`live-scenes.js` has what the playground draws, and `live-front.js` the scene of the front page.
The folder `data/live` holds the set that the published book shows.
"""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import SimpleTokenizer
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from cae_lab.plots import label, script_json
from cae_lab.profiles import load_profile
from cae_lib.attribution.base import mask_embedding
from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models.clip import Clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.text_encoder import text_encoder
from cae_lib.runtime import write_atomic
from cae_lib.words.articles import indefinite_article

RUNS = (
    "base",
    "clip-ft",
    "cae-gradcam",
    "cae-all",
    "negclip",
    "dependency-binding",
    "hinge-swaps",
    "relations-binding",
    "attributes-binding",
)
"""Runs that are exported by default, as far as they are trained: 11 MB."""

IMAGE_TOWER = "image-tower"
"""Name of the image tower among the files, which is the same for all runs."""

DIGITS = np.frombuffer(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8
)
LARGEST = 2047
"""The largest weight of a row, as a signed integer of 12 bits."""

FUNCTION_WORDS = tuple("a an and at in is it no not of that the there this to true we".split())
POSITIONS = ("on the left", "on the right", "at the top", "at the bottom")
"""Phrases for the position of a thing, as `position_phrase` of the recipe writes them."""

SPRITE_SIDE, SPRITE_WEIGHT, SPRITE_COLUMNS = 128, 450, 6
N_SCENES = 60
FRONT_SCENE = 16
"""Index, among the exported scenes, of the one on the front page."""


def write_files(profile: str, folder: Path, runs: Sequence[str] = RUNS) -> dict[str, Any]:
    """Write runs of a profile, seed 0, into a folder; runs that are not trained are left out.

    Returns:
        What `live-index.js` sets: the vocabulary, and names, labels and files of the models.

    Raises:
        CheckpointError: If no run is trained.
        ConfigError: If a run is unknown, or not a model that the browser can run.
    """
    settings = load_profile(profile)
    clips = {}
    for run in runs:
        try:
            clips[run] = settings.run(run).open()
        except CheckpointError:  # not trained here
            continue
    index = write_models(clips, folder, profile)
    write_scenes(profile, next(iter(clips.values())), folder)
    return index


def write_models(clips: Mapping[str, Clip], folder: Path, profile: str) -> dict[str, Any]:
    """Write models by their names, which have one image tower, into a folder; see `write_files`."""
    if not clips:
        raise CheckpointError("no run is trained here: call `cae train`, or name other runs.")
    images = {run: image_tower(clip) for run, clip in clips.items()}
    (first, shared), *others = images.items()
    for run, tower in others:
        if tower != shared:
            raise ConfigError(f"{run} has another image tower than {first}: export it apart.")
    words = vocabulary()
    files = {run: re.sub(r"[^\w-]+", "-", run) for run in clips}
    index = {
        "profile": profile,
        "vocabulary": words,
        "models": [[run, _label(run), files[run]] for run in clips],
    }
    _write(folder, "index", "caeLiveIndex", index)
    _write(folder, IMAGE_TOWER, f'caeLiveTowers["{IMAGE_TOWER}"]', shared)
    for run, clip in clips.items():
        content = text_tower(clip, words["ids"])
        _write(folder, files[run], f'caeLiveTowers["{files[run]}"]', content)
    return index


def _label(run: str) -> str:
    entry, *settings = run.split("+")
    return ", ".join([label(entry), *settings])


def _write(folder: Path, name: str, variable: str, content: Any) -> None:
    write_atomic(folder / f"live-{name}.js", f"{variable} = {script_json(content)};\n")


def vocabulary() -> dict[str, Any]:
    """Return the words of the recipe's captions, with their tokens and what swaps need to know.

    Returns:
        `ids`: the tokens of CLIP's vocabulary, of which the first begins a text and the second ends
        it. `words`: for each word the rows of its tokens in `ids`. `an`: words that take "an".
        `nouns`, `adjectives` (of each kind), `relations` (their wordings), `vague` (relations that
        hold in both directions), `prefixes` and `positions`: the recipe's own. `colors`: what
        colours look like.
    """
    from data.recipes.synthetic_scenes import vocabulary as recipe
    from data.recipes.synthetic_scenes.grammar import PREFIXES

    wordings = {name: kind.wordings for name, kind in recipe.RELATIONS.items()}
    phrases = (*PREFIXES, *POSITIONS, *recipe.VAGUE_RELATIONS, *sum(wordings.values(), ()))
    known = {*FUNCTION_WORDS, *recipe.NOUNS, *recipe.KIND_OF, *" ".join(phrases).split()}
    tokenizer = SimpleTokenizer()
    tokens = {word: tokenizer.encode(word) for word in sorted(known)}
    special = [tokenizer.sot_token_id, tokenizer.eot_token_id]
    ids = [*special, *sorted({token for of_word in tokens.values() for token in of_word})]
    return {
        "ids": ids,
        "words": {word: [ids.index(token) for token in own] for word, own in tokens.items()},
        "an": [word for word in tokens if indefinite_article(word) == "an"],
        "nouns": recipe.NOUNS,
        "adjectives": recipe.ADJECTIVES,
        "relations": wordings,
        "vague": recipe.VAGUE_RELATIONS,
        "prefixes": PREFIXES,
        "positions": POSITIONS,
        "colors": recipe.COLORS,
    }


def write_scenes(profile: str, clip: Clip, folder: Path) -> None:
    """Write `live-scenes.js`, what the playground draws, and `live-front.js`.

    `clip` has the image tower of all models, which encodes the scene of the front page.
    """
    from data.recipes.synthetic_scenes.draw import render
    from data.recipes.synthetic_scenes.vocabulary import NOUNS

    scenes = test_scenes(profile)
    _write(
        folder,
        "scenes",
        "caeLiveScenes",
        {
            "nouns": NOUNS,
            "side": SPRITE_SIDE,
            "columns": SPRITE_COLUMNS,
            "sprites": _url(sprite_sheet(), "PNG"),
            "scenes": [drawn(scene) | {"caption": caption} for scene, caption in scenes],
        },
    )
    scene, caption = scenes[FRONT_SCENE]
    image = render(scene)
    with torch.no_grad():
        pixels = clip.preprocess(image.convert("RGBA"))[None]
        feature = normalize(encode_image(clip.model, pixels).features, dim=-1)[0]
    front = {
        "caption": caption,
        "image": _url(image.resize((336, 336), Image.Resampling.LANCZOS), "WEBP"),
        "feature": [float(f"{value:.6g}") for value in feature.tolist()],
    }
    _write(folder, "front", "caeLiveFront", front)


def test_scenes(profile: str) -> list[tuple[Any, str]]:
    """Return scenes of the test split that remain possible when swapped, with their captions.

    A caption states all attributes of the first two things, and how they are related.
    """
    from data.recipes.synthetic_scenes.config import world_config
    from data.recipes.synthetic_scenes.corpora import coco_images
    from data.recipes.synthetic_scenes.grammar import stated

    found = []
    for item in coco_images(world_config(profile), "test"):
        content = item.scene.content
        words = [thing.attributes for thing in content.things[:2]]
        if content.swappable() and len(content.things) < 4 and sum(map(len, words)) < 5:
            found.append((item.scene, stated(content, words).text))
    return found[:N_SCENES]


def sprite_sheet() -> Image.Image:
    """Return the glyphs of all nouns: silhouettes in the red channel, outlines in the green one."""
    from data.recipes.synthetic_scenes.draw import glyph
    from data.recipes.synthetic_scenes.vocabulary import NOUNS

    side, rows = SPRITE_SIDE, -(-len(NOUNS) // SPRITE_COLUMNS)
    sheet = Image.new("RGB", (SPRITE_COLUMNS * side, rows * side))
    empty = Image.new("L", (side, side))
    for number, noun in enumerate(NOUNS):
        row, column = divmod(number, SPRITE_COLUMNS)
        sprite = Image.merge("RGB", [*glyph(noun, SPRITE_WEIGHT), empty])
        sheet.paste(sprite, (column * side, row * side))
    return sheet


def drawn(scene: Any) -> dict[str, Any]:
    """Return what the recipe's `render` draws of a scene, its random draws among it."""
    from data.recipes.synthetic_scenes.draw import draw_plan

    plan = draw_plan(scene)
    things = [
        {
            "noun": thing.noun,
            "color": thing.color,
            "pattern": thing.pattern or "",
            "x": round(place.x, 4),
            "y": round(place.y, 4),
            "scale": round(place.scale, 4),
            "tilt": round(place.tilt + sum(paint.tilts) / 2, 2),
            "flip": place.flip,
            "depth": place.depth,
            "motion": place.motion,
            "contact": place.contact,
            "rgb": [round(float(value)) for value in paint.color],
            "phase": paint.phase,
        }
        for thing, place, paint in zip(
            scene.content.things, scene.placements, plan.paints, strict=True
        )
    ]
    colors = {"top": plan.top, "bottom": plan.bottom}
    return {"things": things} | {
        name: [round(float(v), 1) for v in color] for name, color in colors.items()
    }


def _url(image: Image.Image, kind: str) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **({"optimize": True} if kind == "PNG" else {"quality": 90}))
    return f"data:image/{kind.lower()};base64,{b64encode(stream.getvalue()).decode()}"


def text_tower(clip: Clip, ids: Sequence[int]) -> dict[str, Any]:
    """Return a text tower with the embeddings of some tokens, and the one that masks a word."""
    model: Any = clip.model
    tensors = {
        "tokens": model.token_embedding.weight[list(ids)],
        "mask": mask_embedding(text_encoder(model)),
        "positions": model.positional_embedding,
        **_blocks(model.transformer),
        **_norm("ln_last", model.ln_final),
        "projection": model.text_projection.T,
    }
    return {
        "heads": _heads(clip, model.transformer),
        "logitScale": model.logit_scale.exp().item(),
        **_packed(tensors),
    }


def image_tower(clip: Clip) -> dict[str, Any]:
    """Return an image tower, with the mean and deviation of pixels that it expects."""
    tower: Any = clip.model.visual
    tensors = {
        "patches": tower.conv1.weight.flatten(1),
        "class": tower.class_embedding,
        "positions": tower.positional_embedding,
        **_norm("ln_first", tower.ln_pre),
        **_blocks(tower.transformer),
        **_norm("ln_last", tower.ln_post),
        "projection": tower.proj.T,
    }
    return {
        "heads": _heads(clip, tower.transformer),
        "imageSize": clip.image_size,
        "patchSize": tower.conv1.kernel_size[0],
        "mean": list(tower.image_mean),
        "std": list(tower.image_std),
        **_packed(tensors),
    }


def _heads(clip: Clip, transformer: Any) -> int:
    if clip.activation != "quickgelu":
        raise ConfigError(f"{clip.name} has the activation {clip.activation}, not quickgelu.")
    return transformer.resblocks[0].attn.num_heads


def _norm(name: str, norm: Any) -> dict[str, Tensor]:
    return {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}


def _blocks(transformer: Any) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for number, block in enumerate(transformer.resblocks):
        attention, mlp = block.attn, block.mlp
        width = attention.embed_dim  # queries are apart: the last block has them for one position
        own = {
            **_norm("ln_1", block.ln_1),
            "query.weight": attention.in_proj_weight[:width],
            "query.bias": attention.in_proj_bias[:width],
            "keys.weight": attention.in_proj_weight[width:],
            "keys.bias": attention.in_proj_bias[width:],
            "out.weight": attention.out_proj.weight,
            "out.bias": attention.out_proj.bias,
            **_norm("ln_2", block.ln_2),
            "hidden.weight": mlp.c_fc.weight,
            "hidden.bias": mlp.c_fc.bias,
            "mlp.weight": mlp.c_proj.weight,
            "mlp.bias": mlp.c_proj.bias,
        }
        tensors |= {f"{number}.{name}": tensor for name, tensor in own.items()}
    return tensors


def _packed(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return shapes by name, the matrices' weights, and vectors and matrices' scales as float32."""
    matrices, floats = [], []
    for tensor in tensors.values():
        values = tensor.detach().float().cpu().numpy()
        if values.ndim == 1:
            floats.append(values)
            continue
        scales = np.maximum(np.abs(values).max(axis=1), np.finfo(np.float32).tiny) / LARGEST
        steps = np.rint(values / scales[:, None]).astype(np.int16) + LARGEST + 1
        matrices.append(np.stack([DIGITS[steps >> 6], DIGITS[steps & 63]], axis=-1).tobytes())
        floats.append(scales)
    return {
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "matrices": b"".join(matrices).decode(),
        "floats": b64encode(np.concatenate(floats).astype("<f4").tobytes()).decode(),
    }
