"""Export trained models for the reader's browser, where `book/_static/live-model.js` runs them.

`write_files` writes `live-index.js`, which has the vocabulary and names the models, and a script
for the image tower and for each text tower. They are scripts, because a page that is opened from a
disk cannot fetch files. Matrices of the image tower and of CLIP-FT have 12 bits a weight. The other
text towers start from the same base model: their matrices are differences from CLIP-FT's, with 9
bits a weight. Each file says in `format` how its text is read. Features, similarities and scores of
words differ from PyTorch's by less than 1e-3.
`live-scenes.js` has what the playground draws, `live-front.js` the scenes of the front page, and
`front.html` what this page shows of the first without scripts.
The folder `data/live` holds the set that the published book shows.
"""

from __future__ import annotations

import html
import io
import math
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
from cae_lib.attribution.word_scores import word_scores
from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models.clip import Clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.text_encoder import encode_text, text_encoder
from cae_lib.runtime import write_atomic
from cae_lib.words.articles import indefinite_article

RUNS = {
    "Baselines": ("base", "clip-ft"),
    "CAE": (
        "cae-attention",
        "cae-gradcam",
        "cae-gradcam+weight=1",
        "cae-perturbation",
        "cae-gradient",
        "cae-all",
    ),
    "Training on swaps": (
        "negclip",
        "spacy-negclip",
        "dependency-binding",
        "spacy-margin",
        "relations-binding",
        "attributes-binding",
    ),
}
"""Runs that are exported by default, as far as they are trained, by group: 12 MB."""

REFERENCE = "clip-ft"
"""The run that other text towers are stored as differences from."""

IMAGE_TOWER = "image-tower"
"""Name of the image tower among the files, which is the same for all runs."""

WHOLE_BITS, DIFFERENCE_BITS, FLOAT_BITS = 12, 9, 16
"""Bits of a weight, of its difference from another tower's, and of half a float32."""

MOST_DISTANCE = 0.2
"""Of a tower from the reference, see `_distance`: beyond, 9 bits a weight would be too few."""

SIGNS = "".join(chr(code) for code in range(33, 127) if chr(code) not in '"\\<')
PAIR_BITS = 13
"""Bits that two of the 91 `SIGNS` hold, which have a place in scripts without being escaped."""

FORMAT = (
    "`floats` and `matrices` are numbers in the order of `shapes`, high bits first. Two signs hold "
    f"{PAIR_BITS} bits, {len(SIGNS)} * first + second; the signs are printable ASCII, from the "
    "exclamation mark on, without quotation mark, backslash and less-than sign. `floats`: float32, "
    f"two numbers of {FLOAT_BITS} bits, the low one first; all of a vector, and a scale for each "
    "row of a matrix. `matrices`: numbers of `bits` bits. A weight is scale * (number - 2 ** (bits "
    "- 1)), added to the weight of the tower `reference` if there is one."
)
"""How the text of a tower is read, which `unpack` and `readTower` of `live-model.js` do."""

FUNCTION_WORDS = tuple("a an and at in is it no not of that the there this to true we".split())
POSITIONS = ("on the left", "on the right", "at the top", "at the bottom")
"""Phrases for the position of a thing, as `position_phrase` of the recipe writes them."""

SPRITE_SIDE, SPRITE_WEIGHT, SPRITE_COLUMNS = 128, 450, 6
N_SCENES = 60
FRONT_SCENES = range(16, 24)
"""Indices, among the exported scenes, of those on the front page."""

Weights = dict[str, np.ndarray]
"""Vectors and matrices of a tower by name."""

PLAYGROUND_RUNS = (
    "cae-attention",
    "cae-gradcam+weight=1",
    "cae-gradient",
    "negclip",
    "relations-binding",
    "attributes-binding",
)
"""Runs that the front page does not offer."""

WORDS_CAPTION = "How much masking a word of the true caption lowers the similarity, × 100"


def write_files(profile: str, folder: Path, runs: Sequence[str] = ()) -> dict[str, Any]:
    """Write runs of a profile, seed 0, into a folder; by default those of `RUNS` that are trained.

    Returns:
        What `live-index.js` sets: vocabulary, and names, labels, files and groups of the models.

    Raises:
        CheckpointError: If no run is trained.
        ConfigError: If a run is unknown, or not a model that the browser can run.
    """
    settings = load_profile(profile)
    clips = {}
    for run in runs or sum(RUNS.values(), ()):
        try:
            clips[run] = settings.run(run).open()
        except CheckpointError:  # not trained here
            continue
    index = write_models(clips, folder, profile)
    write_scenes(profile, clips, folder)
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
    groups = {run: group for group, runs in RUNS.items() for run in runs}
    index = {
        "profile": profile,
        "vocabulary": words,
        "models": [
            [run, _label(run, profile), files[run], groups.get(run, "Others")] for run in clips
        ],
    }
    _write(folder, "index", "caeLiveIndex", index)
    _write(folder, IMAGE_TOWER, f'caeLiveTowers["{IMAGE_TOWER}"]', shared)
    reference = None
    if REFERENCE in clips:
        reference = files[REFERENCE], unpack(text_tower(clips[REFERENCE], words["ids"]))
    for run, clip in clips.items():
        content = text_tower(clip, words["ids"], None if run == REFERENCE else reference)
        _write(folder, files[run], f'caeLiveTowers["{files[run]}"]', content)
    return index


def _label(run: str, profile: str) -> str:
    """Return the label of a run with its settings, and with λ if CAE trained it."""
    entry, *settings = run.split("+")
    if entry.startswith("cae-"):
        config = load_profile(profile).run(run).config
        weights = sorted({config.weight, *dict(config.further_methods).values()})
        ends = dict.fromkeys((weights[0], weights[-1]))
        settings = [f"λ {' to '.join(f'{weight:g}' for weight in ends)}"]
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


def write_scenes(profile: str, clips: Mapping[str, Clip], folder: Path) -> None:
    """Write what the playground draws, and the form of the front page."""
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
            "sprites": _url(sprite_sheet(), lossless=True, quality=100, method=6),
            "scenes": [drawn(scene) | {"caption": caption} for scene, caption in scenes],
        },
    )
    write_front([scene for scene, _ in scenes], profile, clips, folder)


def write_front(
    scenes: Sequence[Any], profile: str, clips: Mapping[str, Clip], folder: Path
) -> None:
    """Write the form of the front page: some of the scenes, and what CLIP-FT answers to the first.

    Without CLIP-FT, the first model answers. What the form shows at first is HTML, so that it is
    seen without scripts and before any is loaded. Beside each model stands whether it prefers the
    true caption of the scene that is shown, and of how many of all scenes.
    """
    from data.recipes.synthetic_scenes.draw import render

    run = next((run for run in clips if run.split("+")[0] == "clip-ft"), next(iter(clips)))
    clip = clips[run]
    captions = [_captions(scene) for scene in scenes]
    images = [render(scene) for scene in scenes]
    with torch.no_grad():
        pixels = torch.stack([clip.preprocess(image.convert("RGBA")) for image in images])
        features = normalize(encode_image(clip.model, pixels).features, dim=-1)
    offered = {name: model for name, model in clips.items() if name not in PLAYGROUND_RUNS}
    similarities = {
        name: _similarities(model, captions, features) for name, model in offered.items()
    }
    wins = {name: (values[:, 0] > values[:, 1]).tolist() for name, values in similarities.items()}
    shown = [
        {
            "captions": captions[i],
            "image": _url(images[i].resize((336, 336), Image.Resampling.LANCZOS), quality=90),
            "feature": [float(f"{value:.6g}") for value in features[i].tolist()],
            "prefersTrue": {name: values[i] for name, values in wins.items()},
        }
        for i in FRONT_SCENES
    ]
    _write(folder, "front", "caeLiveFront", {"scenes": shown})
    first = FRONT_SCENES[0]
    tokens, feature = clip.tokenizer(captions[first][:1]), features[first : first + 1]
    scores = word_scores(clip, tokens, feature, "perturbation")[0].tolist()
    # Short where each name stands for one model.
    names = {name: _label(name, profile) if "+" in name else label(name) for name in wins}
    radios = "".join(
        f'<label><input type="radio" name="model" value="{html.escape(name)}"'
        f"{' checked' if name == run else ''}> <span>{html.escape(names[name])}</span> "
        f'<span class="tick">{"✓" if values[first] else "✗"}</span> '
        f'<span class="number">{sum(values)}</span></label>'
        for name, values in wins.items()
    )
    answer = _answer_html(captions[first], similarities[run][first].tolist(), scores)
    write_atomic(
        folder / "front.html",
        f'<form class="live" aria-label="A caption and its swap"><div><img src="{shown[0]["image"]}'
        f'" alt="The scene: {html.escape(captions[first][0])}"><button type="button" hidden>Another'
        f" scene</button><fieldset hidden><legend>Prefers the true caption <small>here</small> "
        f"<small>of {len(scenes)}</small></legend>{radios}"
        f'</fieldset></div><div class="answer" data-run="{html.escape(run)}">{answer}</div></form>'
        "\n",
    )


def _captions(scene: Any) -> list[str]:
    """Return the caption of a scene and the swapped one."""
    from data.recipes.synthetic_scenes.grammar import stated

    contents = (scene.content, scene.content.swapped())
    return [stated(c, [t.attributes for t in c.things[:2]]).text for c in contents]


def _similarities(clip: Clip, captions: Sequence[Sequence[str]], features: Tensor) -> Tensor:
    """Return the similarities of scenes and their two captions: scenes, 2."""
    with torch.no_grad():
        texts = encode_text(clip.model, clip.tokenizer(sum(map(list, captions), []))).features
    texts = normalize(texts, dim=-1).reshape(len(captions), 2, -1)
    return (texts * features[:, None]).sum(dim=-1)


def _answer_html(
    captions: Sequence[str], similarities: Sequence[float], scores: list[float]
) -> str:
    """Return what `answerHtml` of `live-form.js` returns."""
    words, wins = captions[0].split(), similarities[0] > similarities[1]
    roles = [_role(word) for word in words]
    scores = scores[: len(words)]
    least, most = min(0.0, *scores), max(scores)
    lines = "".join(
        f'<tr class="{"wins" if is_first == wins else ""}"><th scope="row"><small>{name}</small> '
        f'{caption}</th><td class="number">{_points(value)}</td><td class="bar" '
        f'aria-hidden="true"><span style="width:{100 * value / max(similarities):.1f}%"></span>'
        "</td></tr>"
        for is_first, name, caption, value in zip(
            (True, False), ("true", "swapped"), captions, similarities, strict=True
        )
    )
    bars = "".join(
        f'<tr class="{role}"><th scope="row">{word}</th><td class="number">{_points(score)}</td>'
        f'<td class="bar" aria-hidden="true"><span style="left:'
        f"{100 * (min(0, score) - least) / (most - least):.1f}%;width:"
        f'{100 * abs(score) / (most - least):.1f}%"></span></td></tr>'
        for word, role, score in zip(words, roles, scores, strict=True)
    )
    objects = [s for s, role in zip(scores, roles, strict=True) if role == "object"]
    others = [s for s, role in zip(scores, roles, strict=True) if role in ("attribute", "relation")]
    return (
        f'<table class="sims"><caption>Similarity × 100</caption><tbody>{lines}</tbody></table>'
        f'<p class="verdict {"caption" if wins else "swap"}">Prefers <b>'
        f"{'the true caption' if wins else 'the swapped caption'}</b> by "
        f"{_points(abs(similarities[0] - similarities[1]))}</p>"
        f'<table class="words"><caption>{WORDS_CAPTION}</caption><tbody>{bars}</tbody></table>'
        f'<p class="gap"><b class="object">Objects</b> {_points(np.mean(objects))}, '
        f'<b class="attribute">attributes</b> and <b class="relation">relations</b> '
        f"{_points(np.mean(others))} on average</p>"
    )


def _role(word: str) -> str:
    """Return the role of a word of a caption that `stated` wrote."""
    from data.recipes.synthetic_scenes.vocabulary import KIND_OF, NOUNS

    if word in ("a", "an", "is"):
        return "other"
    return "object" if word in NOUNS else "attribute" if word in KIND_OF else "relation"


def _points(value: Any) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


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


def _url(image: Image.Image, **options: Any) -> str:
    """Return an image as a WebP in an address; `options` are those of Pillow."""
    stream = io.BytesIO()
    image.save(stream, "WEBP", **options)
    return f"data:image/webp;base64,{b64encode(stream.getvalue()).decode()}"


def text_tower(
    clip: Clip, ids: Sequence[int], reference: tuple[str, Weights] | None = None
) -> dict[str, Any]:
    """Return a text tower with the embeddings of some tokens, and the one that masks a word.

    Its matrices are differences from those of `reference`, the file of a tower and what `unpack`
    returns of it.
    """
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
        **_packed(tensors, reference),
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
        block_tensors = {
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
        tensors |= {f"{number}.{name}": tensor for name, tensor in block_tensors.items()}
    return tensors


def _packed(
    tensors: Mapping[str, Tensor], reference: tuple[str, Weights] | None = None
) -> dict[str, Any]:
    """Return tensors as `FORMAT` says; whole, if they are far from the reference."""
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}
    if reference is not None and _distance(arrays, reference[1]) > MOST_DISTANCE:
        reference = None
    file, weights = reference or (None, {})
    bits = WHOLE_BITS if reference is None else DIFFERENCE_BITS
    zero = 2 ** (bits - 1)
    numbers, floats = [], []
    for name, values in arrays.items():
        if values.ndim == 1:
            floats.append(values)
            continue
        values = values - weights.get(name, np.float32(0))
        scales = np.maximum(np.abs(values).max(axis=1), np.finfo(np.float32).tiny) / (zero - 1)
        numbers.append(zero + np.rint(values / scales[:, None]).astype(np.int64).ravel())
        floats.append(scales)
    halves = np.concatenate(floats).astype("<f4").view("<u2")
    return {
        "format": FORMAT,
        "reference": file,
        "bits": bits,
        "shapes": {name: list(values.shape) for name, values in arrays.items()},
        "floats": _text(halves, FLOAT_BITS),
        "matrices": _text(np.concatenate(numbers), bits),
    }


def _distance(arrays: Mapping[str, np.ndarray], reference: Weights) -> float:
    """Return the norm of the difference of all matrices, as a share of their norm."""
    names = [name for name, values in arrays.items() if values.ndim == 2]
    squares = [
        np.sum([np.square(array).sum() for array in which])
        for which in (
            [arrays[name] - reference[name] for name in names],
            [arrays[name] for name in names],
        )
    ]
    return math.sqrt(squares[0] / squares[1])


def unpack(tower: Mapping[str, Any], reference: Weights | None = None) -> Weights:
    """Return the tensors of a tower by name, as `live-model.js` reads them.

    Args:
        tower: What `text_tower` or `image_tower` returns.
        reference: The tensors of the tower that it names as its reference.
    """
    shapes = {name: tuple(shape) for name, shape in tower["shapes"].items()}
    sizes = [math.prod(shape) for shape in shapes.values() if len(shape) == 2]
    numbers = _numbers(tower["matrices"], tower["bits"], sum(sizes))
    steps = np.split(numbers - 2 ** (tower["bits"] - 1), np.cumsum(sizes)[:-1])
    rows = [shape[0] for shape in shapes.values()]
    halves = _numbers(tower["floats"], FLOAT_BITS, 2 * sum(rows)).astype("<u2")
    floats = dict(zip(shapes, np.split(halves.view("<f4"), np.cumsum(rows)[:-1]), strict=True))
    weights, rest = {}, iter(steps)
    for name, shape in shapes.items():
        weights[name] = floats[name]
        if len(shape) == 2:
            weights[name] = floats[name][:, None] * next(rest).reshape(shape).astype(np.float32)
            weights[name] += 0 if reference is None else reference[name]
    return weights


def _text(numbers: np.ndarray, bits: int) -> str:
    """Return numbers of so many bits as `SIGNS`."""
    flat = (numbers[:, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).ravel()
    flat = np.pad(flat, (0, -len(flat) % PAIR_BITS)).reshape(-1, PAIR_BITS)
    pairs = np.divmod(flat @ (1 << np.arange(PAIR_BITS)[::-1]), len(SIGNS))
    return np.frombuffer(SIGNS.encode(), np.uint8)[np.stack(pairs, axis=-1)].tobytes().decode()


def _numbers(text: str, bits: int, count: int) -> np.ndarray:
    """Return the numbers that `_text` wrote."""
    places = np.zeros(128, np.int64)
    places[np.frombuffer(SIGNS.encode(), np.uint8)] = np.arange(len(SIGNS))
    high, low = places[np.frombuffer(text.encode(), np.uint8)].reshape(-1, 2).T
    flat = (len(SIGNS) * high + low)[:, None] >> np.arange(PAIR_BITS)[::-1] & 1
    return flat.ravel()[: count * bits].reshape(count, bits) @ (1 << np.arange(bits)[::-1])
