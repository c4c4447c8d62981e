"""The live model computes what the library computes, in Node and in a browser."""

import copy
import json
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from browser import find_browser, left_by
from conftest import REPOSITORY
from safetensors import safe_open
from torch.nn.functional import normalize

from book.extension import live
from book.extension.__main__ import main
from cae_lab.profiles import load_profile
from cae_lab.runs import Run
from cae_lib.attribution.word_scores import word_scores
from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models.clip import Clip, load_clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.text_encoder import encode_text
from cae_lib.words.ground_truth import SyntheticSceneTagger
from cae_lib.words.roles import ROLE_NAMES
from data.recipes.measure_swaps import swapped_texts
from data.recipes.synthetic_scenes import corpora
from data.recipes.synthetic_scenes.config import world_config
from data.recipes.synthetic_scenes.draw import render

BASE = REPOSITORY / "data" / "mini" / "base.safetensors"
LIVE = REPOSITORY / "data" / "live"
TOLERANCE = 1e-3
N_CAPTIONS, N_SCENES = 200, 20
LONG = "a photo of a small checkered cat and " * 20
REFUSED = ["a <b>dragon</b> on a bed", "constructor __proto__", "a Cat, ridden", "katze"]

ASK = """
(({ captions, swapped, refused, pixels }) => {
  const { vocabulary, models } = caeLiveIndex, live = caeLive;
  const all = values => [...values];
  const bytes = text => Uint8Array.from(atob(text), sign => sign.charCodeAt());
  const tokenize = caption => live.tokenize(vocabulary, caption), texts = captions.map(tokenize);
  const read = (name, options) => {
    const file = caeLiveTowers[name], { reference } = file;
    return live.readTower(file, { ...options, reference: reference && read(reference, options) });
  };
  const look = options => {
    const tower = read("image-tower", options);
    return pixels.map(own => live.encodeImage(tower, bytes(own)));
  };
  const images = look(), answer = {};
  const ask = (file, options, count) => {
    const tower = read(file, options);
    const explained = texts.slice(0, count).map(text => live.explain(tower, text));
    const features = explained.map(({ feature }) => feature);
    return {
      features: features.map(all),
      together: live.encodeTexts(tower, texts.slice(0, count).map(text => text.tokens)).map(all),
      similarities: features.map(text => images.map(image => live.similarity(text, image))),
      preferences: images.map(image => live.preferences(tower, image, features)),
      perturbation: explained.map((own, i) =>
        live.perturbationScores(own, images[i % images.length])),
      attention: explained.map((own, i) => live.attentionScores(own, texts[i])),
    };
  };
  for (const [run, , file] of models) answer[run] = ask(file, {}, texts.length);
  return {
    models: answer,
    images: images.map(all),
    plain: ask(models[0][2], { plain: true }, 20),
    plainImages: look({ plain: true }).map(all),
    words: texts.map(({ words }) => words.map(word => word.text)),
    truncated: texts.map(({ truncated }) => truncated),
    refused: refused.map(tokenize),
    empty: tokenize(""),
    endless: tokenize("cat ".repeat(10000)).tokens.length,
    parsed: swapped.map(caption => live.parse(vocabulary, caption)),
    swaps: swapped.map(caption => live.swaps(vocabulary, caption)),
  };
})(input)
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Three models in a folder as scripts, and captions and scenes to ask them about."""
    folder = tmp_path_factory.mktemp("live")
    clips = {"base": load_clip("clip-mini", BASE), "clip-ft": load_clip("clip-mini", seed=3)}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for tensor in clips["clip-ft"].model.parameters():  # no bias is 0, no factor 1
            tensor += 0.1 * torch.randn_like(tensor) if tensor.ndim == 1 else 0
        clips["cae-all"] = copy.deepcopy(clips["clip-ft"])
        for tensor in clips["cae-all"].model.parameters():  # as far from CLIP-FT as a loss leads
            tensor += 0.1 * tensor.std() * torch.randn_like(tensor) if tensor.ndim > 1 else 0
    for clip in clips.values():
        clip.model.visual = clips["base"].model.visual
    live.write_models(clips, folder, "mini")
    corpus = corpora.coco_images(world_config("smoke"), "train")
    truth = folder / "captions.json", folder / "graphs.json"
    truth[0].write_text(corpora.captions(corpus), encoding="utf-8")
    truth[1].write_text(corpora.scene_graphs(corpus), encoding="utf-8")
    swapped = list(dict.fromkeys(text for item in corpus for text in item.captions))
    scenes = [render(item.scene).convert("RGBA") for item in corpus[:N_SCENES]]
    content = {
        "captions": [*swapped[:N_CAPTIONS], LONG],
        "swapped": swapped,
        "refused": REFUSED,
        "pixels": [b64encode(scene.tobytes()).decode() for scene in scenes],
    }
    assert len(swapped) >= N_CAPTIONS
    shutil.copy(REPOSITORY / "book" / "_static" / "live-model.js", folder)
    (folder / "input.js").write_text(f"var input = {json.dumps(content)};", encoding="utf-8")
    return SimpleNamespace(
        folder=folder, clips=clips, scenes=scenes, tagger=SyntheticSceneTagger([truth]), **content
    )


def read(file: Path) -> Any:
    """Read what a script sets."""
    return json.loads(file.read_text(encoding="utf-8").partition(" = ")[2].removesuffix(";\n"))


@pytest.fixture(scope="module", params=["node", "browser"])
def answer(request, asked, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What JavaScript answers."""
    files = ["live-model.js", *(p.name for p in asked.folder.glob("live-[!m]*.js")), "input.js"]
    if request.param == "node":
        if shutil.which("node") is None:
            pytest.skip("no Node on this machine: install it to run this")
        run = "require('vm').runInThisContext(require('fs').readFileSync(file, 'utf8'), file)"
        code = f"for (const file of {json.dumps(files)}) {run};\nconst answer = {ASK.strip()};"
        command = ["node", "-e", f"{code}\nconsole.log(JSON.stringify(answer));"]
        done = subprocess.run(command, cwd=asked.folder, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on this machine: install one to run this")
    scripts = "".join(f'<script src="{name}"></script>' for name in files)
    (asked.folder / "page.html").write_text(
        f'<!doctype html><meta charset="utf-8">{scripts}<pre id="result"></pre><script>'
        f'document.getElementById("result").textContent = JSON.stringify({ASK.strip()})</script>',
        encoding="utf-8",
    )
    page = (asked.folder / "page.html").as_uri()
    result, complaints = left_by(page, tmp_path_factory.mktemp("user"))
    assert complaints == []
    return result


@torch.no_grad()
def compute(clip: Clip, captions: list[str], scenes: list[Any]) -> dict[str, Any]:
    """What the library computes of captions and scenes."""
    tokens = clip.tokenizer(captions)
    pixels = torch.stack([clip.preprocess(scene) for scene in scenes])
    images = normalize(encode_image(clip.model, pixels).features, dim=-1)
    texts = normalize(encode_text(clip.model, tokens).features, dim=-1)
    own = images[torch.arange(len(captions)) % len(images)]
    similarities = texts @ images.T
    return {
        "images": images,
        "features": texts,
        "together": texts,
        "similarities": similarities,
        "preferences": (clip.model.logit_scale.exp() * similarities.T).softmax(dim=-1),
        "perturbation": word_scores(clip, tokens, own, "perturbation"),
        "attention": word_scores(clip, tokens, own, "attention"),
    }


def check(answered: dict[str, Any], computed: dict[str, Any]) -> None:
    """Compare answers with tensors, of which scores are padded with 0."""
    for name in ("features", "together", "similarities", "preferences"):
        # The inverse temperature multiplies what rounding changes, here by less than 30.
        most = TOLERANCE * (30 if name == "preferences" else 1)
        np.testing.assert_allclose(answered[name], computed[name], rtol=0, atol=most, err_msg=name)
    for name in ("perturbation", "attention"):
        for row, expected in zip(answered[name], computed[name].tolist(), strict=True):
            assert row == pytest.approx(expected[: len(row)], abs=TOLERANCE), name
            assert not any(expected[len(row) :]), name


@pytest.mark.parametrize("run", ["base", "clip-ft", "cae-all"])
def test_features_and_scores_are_those_of_the_library(asked, answer, run: str):
    computed = compute(asked.clips[run], asked.captions, asked.scenes)
    np.testing.assert_allclose(answer["images"], computed["images"], rtol=0, atol=TOLERANCE)
    check(answer["models"][run], computed)
    texts = [caption.split() for caption in asked.captions]
    assert answer["words"][:-1] == texts[:-1] and answer["words"][-1] == texts[-1][:67]
    assert answer["truncated"] == [False] * (len(texts) - 1) + [True]


def test_without_webassembly_it_computes_the_same(asked, answer):
    images, captions = answer["images"], asked.captions[:20]
    np.testing.assert_allclose(answer["plainImages"], images, rtol=0, atol=1e-5)
    check(answer["plain"], compute(asked.clips["base"], captions, asked.scenes))


def test_swaps_and_roles_are_those_of_the_ground_truth(asked, answer):
    made = {kind: swapped_texts(asked.swapped, asked.tagger, kind) for kind in ("noun", "phrase")}
    assert sum(map(len, made["noun"])) > 50
    for row, swaps in enumerate(answer["swaps"]):
        assert [swap["nouns"] for swap in swaps] == made["noun"][row]
        assert [swap["phrases"] for swap in swaps] == made["phrase"][row]
    for caption, parsed in zip(asked.swapped, answer["parsed"], strict=True):
        (spans,) = asked.tagger.tag([caption])
        roles = {caption[span.start : span.end]: ROLE_NAMES[span.role] for span in spans}
        words = zip(parsed["words"], parsed["roles"], strict=True)
        assert {word: role for word, role in words if role != "other"} == roles, caption


def test_unknown_words_are_refused_and_named(answer):
    unknown = [["<", "b", ">", "dragon", "</"], ["constructor", "__", "proto"], [",", "ridden"]]
    assert [text["unknown"] for text in answer["refused"]] == [*unknown, ["katze"]]
    assert all(text["tokens"] == [] for text in answer["refused"])
    assert answer["empty"]["tokens"] == [0, 1] and answer["endless"] == 77


def test_the_vocabulary_is_that_of_the_base_model():
    with safe_open(BASE, "pt") as file:
        padding, *ids = file.get_tensor("token_embedding.weight.ids").tolist()
    assert padding == 0 and sorted(live.vocabulary()["ids"]) == ids


def test_the_command_writes_what_is_trained(asked, tmp_path, monkeypatch, capsys):
    def open_run(run: Run) -> Clip:
        if run.name not in asked.clips:
            raise CheckpointError("not trained")
        return asked.clips[run.name]

    monkeypatch.setattr(Run, "open", open_run)
    assert main(["live", "-o", str(tmp_path)]) == 0
    assert "base, clip-ft, cae-all" in capsys.readouterr().out
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    towers = {f"live-{name}.js" for name in ("base", "clip-ft", "cae-all", "image-tower")}
    others = {"live-index.js", "live-scenes.js", "live-front.js", "front.html"}
    assert sizes.keys() == towers | others
    assert sizes["live-cae-all.js"] < 0.7e6 < sizes["live-clip-ft.js"] < 1e6, "one is a difference"
    config = load_profile("mini").run("cae-all").config
    weights = [config.weight, *dict(config.further_methods).values()]
    label = f"CAE, all four methods, λ {min(weights):g} to {max(weights):g}"
    assert label in (tmp_path / "live-index.js").read_text(encoding="utf-8")
    assert ">CAE, all four methods<" in (tmp_path / "front.html").read_text(encoding="utf-8")
    assert main(["live", "negclip", "-o", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


def test_the_committed_files_are_those_that_the_command_writes(monkeypatch, tmp_path):
    """In their names, order and labels; `test_playground.py` has their sizes."""
    clip = load_clip("clip-mini", BASE)
    monkeypatch.setattr(Run, "open", lambda run: clip)
    assert main(["live", "-o", str(tmp_path)]) == 0
    written, committed = ({path.name for path in folder.iterdir()} for folder in (tmp_path, LIVE))
    assert written == committed
    for name in ("live-index.js", "live-scenes.js"):
        assert (tmp_path / name).read_text() == (LIVE / name).read_text(), name
    index = read(LIVE / "live-index.js")
    weights = {}
    for run, _, file, _ in [index["models"][1], *index["models"]]:
        tower, same = (read(folder / f"live-{file}.js") for folder in (LIVE, tmp_path))
        assert tower.keys() == same.keys() and tower["shapes"] == same["shapes"]
        assert tower["reference"] == same["reference"] == (None if run == "clip-ft" else "clip-ft")
        weights[run] = live.unpack(tower, weights.get(tower["reference"]))
    expected = live.unpack(live.text_tower(clip, index["vocabulary"]["ids"]))
    for name, values in weights["base"].items():
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=2e-3, err_msg=name)
    features = [own["projection"].tobytes() for own in weights.values()]
    assert len({*features}) == len(features), "all models differ"


def test_numbers_survive_as_text():
    numbers = np.random.default_rng(0).integers(0, 512, 1000)
    text = live._text(numbers, 9)
    assert len(text) == 2 * -(-9000 // 13) and not set('"\\<') & {*text}
    assert live._numbers(text, 9, 1000).tolist() == numbers.tolist()


def test_other_towers_are_refused(asked, tmp_path):
    clips = {"base": asked.clips["base"], "other": load_clip("clip-mini", seed=1)}
    with pytest.raises(ConfigError, match="other has another image tower than base"):
        live.write_models(clips, tmp_path, "mini")
    gelu = load_clip("clip-mini", activation="gelu")
    with pytest.raises(ConfigError, match="not quickgelu"):
        live.write_models({"gelu": gelu}, tmp_path, "mini")
