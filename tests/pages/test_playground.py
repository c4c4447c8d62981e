"""The playground draws what the recipe draws, and its prepared states show what they say."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from browser import LIVE, PLAYGROUND, REPOSITORY, STATIC, Browser, write_playground
from torch.nn.functional import cosine_similarity

from book.extension import live, web
from cae_lib.models.clip import load_clip
from cae_lib.models.image_tower import encode_image
from data.recipes.synthetic_scenes.config import world_config
from data.recipes.synthetic_scenes.corpora import coco_images
from data.recipes.synthetic_scenes.draw import render

N_SCENES = 20
MOST_BYTES, MOST_BYTES_FIRST = 12e6, 2e6  # of all models, and of the first one on the front page
SLOW = 250  # milliseconds for an answer on a busy machine: five times `LIMIT` of `live_answer.py`
READY = "document.querySelectorAll('.answer > .words').length"

# Of a state: by model, the similarity of caption and swaps by their keys, and scores of words.
COMPUTE = """
(async state => {
  const { vocabulary, models } = caeLiveIndex, live = caeLive, page = caePlayground;
  const scene = caeLiveScenes.scenes[state.scene], caption = state.caption ?? scene.caption;
  const tower = await live.load("image-tower"), text = live.tokenize(vocabulary, caption);
  const image = live.encodeImage(tower, page.compose(scene, 112, vocabulary.colors));
  const { roles } = live.parse(vocabulary, caption), answers = {};
  for (const [run, , file] of models) {
    const textTower = await live.load(file), explained = live.explain(textTower, text);
    const similarity = caption => live.similarity(image,
      live.encodeText(textTower, live.tokenize(vocabulary, caption).tokens).feature);
    answers[run] = {
      loss: Object.fromEntries(page.swapsOf(vocabulary, caption).map(swap =>
        [swap.key, 100 * (similarity(caption) - similarity(swap.text))])),
      words: text.words.map(word => word.text),
      roles,
      scores: live.perturbationScores(explained, image).map(score => 100 * score),
    };
  }
  return answers;
})(%s)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_playground(tmp_path_factory.mktemp("playground"))


def open_page(browser: Browser, page: Path | str, address: str = "", answers: int = 2) -> None:
    browser.open("about:blank", 1400)
    browser.complaints.clear()
    browser.open((page if isinstance(page, str) else page.as_uri()) + address, 1400)
    browser.wait(f"{READY} === {answers}")


def text(browser: Browser, selector: str) -> str:
    return browser.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def frames(browser: Browser) -> None:
    """Wait until what was changed is drawn."""
    browser.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")


def write(browser: Browser, caption: str) -> None:
    browser.evaluate(
        f"""(() => {{ const field = document.querySelector("[name=caption]");
        field.value = {json.dumps(caption)};
        field.dispatchEvent(new Event("input", {{ bubbles: true }})); }})()"""
    )
    frames(browser)


def test_the_committed_models_are_small_and_complete():
    assert sum(path.stat().st_size for path in LIVE.iterdir()) < MOST_BYTES
    index = json.loads((LIVE / "live-index.js").read_text().partition(" = ")[2].rstrip(";\n"))
    names = {file for _, _, file, _ in index["models"]} | {
        "index",
        "image-tower",
        "scenes",
        "front",
    }
    assert {path.name for path in LIVE.glob("*.js")} == {f"live-{name}.js" for name in names}
    assert [run for run, *_ in index["models"]] == list(sum(live.RUNS.values(), ()))
    first = ("index", "front", "clip-ft", "cae-all")  # and what it is a difference from
    files = [*(LIVE / f"live-{name}.js" for name in first), STATIC / "live-model.js"]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES_FIRST
    assert index["vocabulary"] == json.loads(json.dumps(live.vocabulary()))


def test_a_scene_gives_the_features_that_the_recipe_gives(browser, page):
    items = coco_images(world_config("mini"), "test")[:N_SCENES]
    scenes = json.dumps([live.drawn(item.scene) for item in items])
    open_page(browser, page)
    features = browser.evaluate(
        f"""caeLive.load("image-tower").then(tower => {scenes}.map(scene => [...caeLive.encodeImage(
        tower, caePlayground.compose(scene, 112, caeLiveIndex.vocabulary.colors))]))"""
    )
    clip = load_clip("clip-mini", REPOSITORY / "data" / "mini" / "base.safetensors")
    pixels = [clip.preprocess(render(item.scene).convert("RGBA")) for item in items]
    with torch.no_grad():
        expected = encode_image(clip.model, torch.stack(pixels)).features
    assert cosine_similarity(torch.tensor(features), expected).min() > 0.99


@pytest.fixture(scope="module")
def states(browser, page) -> list[dict[str, Any]]:
    """The prepared states, and in `first` and `second` what their two models answer."""
    open_page(browser, page)
    states = browser.evaluate("caePlayground.STATES")
    for state in states:
        answers = browser.evaluate(COMPUTE % json.dumps(state))
        state["first"], state["second"] = (answers[name] for name in state["models"])
        state["answers"] = answers
    return states


def role_means(answer: dict[str, Any]) -> tuple[float, float]:
    """Mean score of object words, and of attributes and relations."""
    scores, roles = np.array(answer["scores"]), np.array(answer["roles"])
    return scores[roles == "object"].mean(), scores[
        np.isin(roles, ["attribute", "relation"])
    ].mean()


def test_prepared_states_show_what_they_say(states):
    levels, chooses, attributes, unused, breaks, learns = states
    objects, others = role_means(levels["first"])
    assert objects > 1.5 * others, "plain fine-tuning has a gap"
    objects, others = role_means(levels["second"])
    assert others > objects, "CAE has none"
    score = dict(zip(levels["second"]["words"], levels["second"]["scores"], strict=True))
    assert min(score["red"], score["left"], score["green"]) > score["dog"]
    assert 1.75 < score["red"] / score["cow"] < 2.25, "twice as much"
    for model in ("first", "second"):
        assert levels[model]["loss"]["cow dog"] < -1, "the false caption is preferred"

    assert chooses["first"]["loss"]["cow dog"] < 0 and chooses["second"]["loss"]["cow dog"] > 5
    objects, others = role_means(chooses["second"])
    assert objects > 1.5 * others
    assert chooses["second"]["loss"]["red green"] < chooses["second"]["loss"]["cow dog"] / 2

    assert attributes["second"]["loss"]["purple blue"] > attributes["first"]["loss"]["purple blue"]
    assert attributes["second"]["loss"]["purple blue"] > 3
    assert attributes["second"]["loss"]["umbrella chair"] < 0

    for run, answer in unused["answers"].items():
        assert abs(answer["scores"][answer["words"].index("there")]) < 1, run
    score = dict(zip(unused["second"]["words"], unused["second"]["scores"], strict=True))
    assert score["is"] > score["chair"]
    assert min(unused[model]["loss"]["umbrella chair"] for model in ("first", "second")) > 0

    assert abs(breaks["first"]["loss"]["apple ball"]) < 0.5
    assert breaks["second"]["loss"]["apple ball"] < -1
    assert breaks["second"]["scores"][breaks["second"]["words"].index("red")] < 0

    relations, colors = (learns[model]["loss"] for model in ("first", "second"))
    assert relations["umbrella chair"] > 10 and colors["umbrella chair"] < 3
    assert colors["red blue"] > 10 and relations["red blue"] < 3


def test_each_state_opens_and_its_address_brings_it_back(browser, page, states):
    open_page(browser, page)
    assert browser.evaluate("document.querySelectorAll('[name=state]').length") == len(states)
    for number, state in enumerate(states):
        browser.evaluate(f"document.querySelectorAll('[name=state]')[{number}].click()")
        assert state["text"] == text(browser, ".about")
        frames(browser)  # until then, the answers of the state before are still there
        browser.wait(f"{READY} === 2")
        frames(browser)
        shown = [text(browser, f".answering:nth-child({i}) .verdict") for i in (1, 2)]
        for model, verdict in zip(("first", "second"), shown, strict=True):
            loss = state[model]["loss"][state["swap"]]
            assert ("your caption" in verdict) == (loss > 0)
            assert verdict.endswith(f"by {abs(loss):.1f}")
        address = browser.evaluate("location.hash")
    open_page(browser, page, address)
    assert [text(browser, f".answering:nth-child({i}) .verdict") for i in (1, 2)] == shown
    assert browser.evaluate("location.hash") == address
    assert browser.complaints == []


def test_objects_move_by_keyboard_and_by_pointer(browser, page):
    open_page(browser, page)

    def place() -> dict[str, float]:
        return browser.evaluate(
            """(() => { const { style } = document.querySelector(".handles button");
            return { left: parseFloat(style.left), top: parseFloat(style.top) }; })()"""
        )

    before, verdict = place(), text(browser, ".verdict")
    browser.evaluate("document.querySelector('.handles button').focus()")
    browser("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    assert place()["left"] == pytest.approx(before["left"] + 2)
    box = browser.evaluate(
        """(() => { const box = document.querySelector(".handles button").getBoundingClientRect();
        return [box.left + box.width / 2, box.top + box.height / 2]; })()"""
    )
    mouse = {"button": "left", "buttons": 1, "clickCount": 1}
    browser("Input.dispatchMouseEvent", type="mousePressed", x=box[0], y=box[1], **mouse)
    for step in (20, 60):
        browser("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1] + step, **mouse)
    browser("Input.dispatchMouseEvent", type="mouseReleased", x=box[0], y=box[1] + 60, **mouse)
    frames(browser)
    assert place()["top"] > before["top"] + 10
    assert text(browser, ".verdict") != verdict
    browser.evaluate("document.querySelector('[name=color][value=blue]').click()")
    frames(browser)
    assert "blue cow" in browser.evaluate("document.querySelector('canvas').ariaLabel")
    for _ in range(2):
        browser.evaluate("document.querySelector('.handles button').focus()")
        browser("Input.dispatchKeyEvent", type="keyDown", key="Delete")
    frames(browser)
    assert browser.evaluate("document.querySelector('canvas').ariaLabel") == "An empty scene"
    assert "the models see the background alone" in text(browser, ".thing")
    assert browser.evaluate(READY) == 2


@pytest.mark.parametrize(
    ("caption", "help_text"),
    [
        ("a <img src=x onerror=alert(1)> cat", "do not know “<”, “img”"),
        ("cat " * 10_000, "Only the first"),
        ("a red cat and a blue dog " * 400, "Only the first"),
        ("", "Write a caption"),
        ("constructor __proto__", "do not know"),
    ],
)
def test_hostile_captions_are_harmless_and_explained(browser, page, caption, help_text):
    open_page(browser, page)
    begun = time.monotonic()
    write(browser, caption)
    assert time.monotonic() - begun < 10
    assert help_text in text(browser, "#cae-caption-help")
    assert browser.evaluate("document.querySelectorAll('#cae-playground img').length") == 0
    assert browser.complaints == []


@pytest.mark.parametrize(
    "scene",
    [
        "%3Cscript%3Ealert(1)%3C/script%3E",
        "eeeeee-eeeeee~cat.red..1e9.0.0.0.0.0.0.0.0.",
        "eeeeee-eeeeee~__proto__.red..500.500.400.0.0.0.0.0.0.",
        "eeeeee-eeeeee~cat.constructor..500.500.400.0.0.0.0.0.0.",
        "eeeeee-eeeeee" + "~cat.red..500.500.400.0.0.0.0.0.0." * 50,
    ],
)
def test_addresses_that_hold_no_scene_say_so(browser, page, scene):
    open_page(browser, page, f"#c=a+red+cat+left+of+a+dog&m=%3Cb%3E,x&by=constructor&s={scene}")
    assert "The address holds no scene" in text(browser, ".about")
    assert browser.evaluate("document.querySelector('canvas').ariaLabel").endswith(
        "red cat, blue dog"
    )
    assert browser.complaints == []


def test_all_models_answer_quickly(browser, page):
    open_page(browser, page)
    browser.evaluate("document.querySelector('.all').open = true")
    browser.wait("document.querySelectorAll('.all .both').length === caeLiveIndex.models.length")
    taken = []
    for color in ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"):
        write(browser, f"a small {color} cow is left of a large striped green dog")
        taken.append(float(browser.evaluate("document.querySelector('form').dataset.milliseconds")))
    assert min(taken) < SLOW, taken


def test_models_are_offered_in_groups(browser, page):
    open_page(browser, page)
    groups = browser.evaluate(
        """[...document.querySelectorAll("[name=model0] optgroup")].map(group =>
        [group.label, [...group.children].map(option => option.value)])"""
    )
    assert groups == [[name, list(runs)] for name, runs in live.RUNS.items()]


def pick(browser: Browser, number: int, run: str) -> None:
    """Choose one of the two models."""
    browser.evaluate(
        f"""(() => {{ const control = document.querySelector("[name=model{number}]");
        control.value = {json.dumps(run)};
        control.dispatchEvent(new Event("change", {{ bubbles: true }})); }})()"""
    )


@pytest.mark.parametrize("lost", ["cae-attention", "clip-ft"])
def test_a_model_that_cannot_be_loaded_is_named(browser, tmp_path, address_of, lost):
    """CLIP-FT is needed by the other models, too, which are stored as differences from it."""
    page = write_playground(tmp_path)
    file = tmp_path / f"live-{lost}.js"
    content = file.read_text(encoding="utf-8")
    file.unlink()
    kept = "clip-ft,base" if lost == "cae-attention" else "clip-ft,cae-attention"
    open_page(browser, address_of(page), f"#c=a+cat+on+a+bed&m={kept}", 2 * (lost != "clip-ft"))
    pick(browser, 1, "cae-attention")
    browser.wait("document.querySelectorAll('.answer')[1].innerText.includes('could not')")
    shown = text(browser, ".answering:nth-child(2) .answer")
    assert shown.startswith("CLIP-CAE (attention), λ 0.3 could not be loaded.")
    file.write_text(content, encoding="utf-8")  # the connection is back
    pick(browser, 1, "cae-attention")
    pick(browser, 0, "clip-ft")
    browser.wait(f"{READY} === 2")
    assert "could not be loaded" not in text(browser, ".cards")


def test_without_the_models_of_any_state_a_scene_and_its_caption_are_shown(browser, tmp_path):
    page, file = write_playground(tmp_path), tmp_path / "live-index.js"
    index = json.loads(file.read_text(encoding="utf-8").partition(" = ")[2].rstrip(";\n"))
    index["models"] = index["models"][:1]  # CLIP alone
    file.write_text(f"caeLiveIndex = {json.dumps(index)};\n", encoding="utf-8")
    open_page(browser, page.as_uri())
    assert not browser.evaluate("document.querySelectorAll('[name=state]').length")
    assert "Prefers" in text(browser, ".cards")
    assert browser.complaints == []


def test_answers_come_from_a_disk_and_from_a_server(browser, tmp_path, address_of, states):
    open_page(browser, address_of(write_playground(tmp_path)))
    first = states[0]
    for model, number in (("first", 1), ("second", 2)):
        verdict = text(browser, f".answering:nth-child({number}) .verdict")
        assert verdict.endswith(f"by {abs(first[model]['loss'][first['swap']]):.1f}")
    assert browser.complaints == []


@pytest.mark.parametrize(("name", "has_models"), [("book", True), ("smoke-book", False)])
def test_the_published_book_alone_has_the_models(tmp_path, name: str, has_models: bool):
    app = SimpleNamespace(
        srcdir=tmp_path / name,
        builder=SimpleNamespace(name="html"),
        config=SimpleNamespace(html_static_path=[]),
        add_js_file=lambda file: added.append(file),
    )
    added: list[str] = []
    (tmp_path / name).mkdir()
    (tmp_path / name / "playground.md").touch()
    web._with_models(app)
    assert app.config.html_static_path == [str(LIVE)] * has_models
    context: dict[str, Any] = {
        "body": '<div id="cae-live-form"><p>In the book</p></div>',
        "script_files": [*added, "explorer.js", "live-form.js"],
        "css_files": [],
    }
    web._with_own_files(app, "index", "", context, None)
    assert context["script_files"] == ["live-form.js"], "the models are loaded on demand"
    assert ("<form" in context["body"]) == has_models
    assert ("In the book" in context["body"]) != has_models


def test_without_models_the_page_says_what_it_needs(browser, tmp_path):
    for name in ("live-model.js", "playground.js"):
        shutil.copy(STATIC / name, tmp_path)
    page = PLAYGROUND.replace("</div>", "It needs the models</div>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    browser.open((tmp_path / "page.html").as_uri(), 1400)
    assert text(browser, "#cae-playground") == "It needs the models"
