"""The front page's form shows the same with and without scripts, and other models on demand."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from browser import Browser
from conftest import REPOSITORY

from book.extension import live
from cae_lib.models.clip import load_clip
from data.recipes.synthetic_scenes.draw import render

LIVE = REPOSITORY / "data" / "live"
TEXT = "document.querySelector('.answer').innerText.replace(/\\s+/g, ' ').trim()"
MARKS = "[...document.querySelectorAll('label .tick')].map(mark => mark.textContent)"
NUMBER = re.compile(r"−?\d+\.\d")

# In how many scenes each model prefers the first caption.
COUNT = """async (captions, features, names) => {
  const counts = [];
  for (const name of names) {
    const tower = await caeLive.load(caeLiveIndex.models.find(([run]) => run === name)[2]);
    const similarity = (caption, feature) => {
      const { tokens } = caeLive.tokenize(caeLiveIndex.vocabulary, caption);
      return caeLive.similarity(caeLive.encodeText(tower, tokens).feature, feature);
    };
    counts.push(captions.filter(([caption, swapped], i) =>
      similarity(caption, features[i]) > similarity(swapped, features[i])).length);
  }
  return counts;
}"""


def choose(browser: Browser, number: int) -> str:
    """Choose a model, wait for its answer and return it."""
    browser.evaluate("document.querySelector('.answer').replaceChildren()")
    browser.evaluate(f"document.querySelectorAll('[name=model]')[{number}].click()")
    for _ in range(600):
        if answer := browser.evaluate(TEXT):
            return answer
        time.sleep(0.05)
    raise AssertionError(browser.complaints)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The form, beside all its files."""
    for source in (*LIVE.iterdir(), *(REPOSITORY / "book" / "_static").glob("live*")):
        shutil.copy(source, tmp_path)
    form = (LIVE / "front.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Front</title>'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="live.css">'
        '<script src="live-form.js"></script><div '
        f'id="cae-live-form">{form}</div></html>',
        encoding="utf-8",
    )
    return tmp_path / "page.html"


NAMES = "[...document.querySelectorAll('[name=model]')].map(model => model.value)"


def open_page(browser: Browser, address: str) -> list[str]:
    """Open the page anew and return the names of its models."""
    browser.open("about:blank", 1400)
    browser.complaints.clear()
    browser.open(address, 1400)
    return browser.evaluate(NAMES)


def test_the_form_answers_with_each_model(browser: Browser, page: Path, address_of):
    names = open_page(browser, address_of(page))
    stored = browser.evaluate(TEXT)
    scripts = "[...document.scripts].filter(script => script.src).length"
    assert browser.evaluate(scripts) == 1, "no model is loaded before one is chosen"
    shown = browser.evaluate("document.querySelector('.answer').dataset.run")
    first = names.index(shown)
    answers = {number: choose(browser, number) for number in (*range(len(names)), first)}
    assert browser.complaints == []
    assert NUMBER.sub("", answers[first]) == NUMBER.sub("", stored)
    numbers = [
        [float(text.replace("−", "-")) for text in NUMBER.findall(answer)]
        for answer in (answers[first], stored)
    ]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.11), "12 bits a weight, one decimal"
    assert len({*answers.values()}) == len(names)
    assert "the swapped caption" in answers[names.index("cae-all")]
    marks = ["✓" if "Prefers the true caption" in answers[i] else "✗" for i in range(len(names))]
    assert browser.evaluate(MARKS) == marks


def test_the_counts_are_those_of_the_published_models(browser: Browser, page: Path, address_of):
    clip = load_clip("clip-mini", REPOSITORY / "data" / "mini" / "base.safetensors")
    scenes = [scene for scene, _ in live.test_scenes("mini")]
    pixels = torch.stack([clip.preprocess(render(scene).convert("RGBA")) for scene in scenes])
    with torch.no_grad():
        features = clip.model.encode_image(pixels, normalize=True).tolist()
    captions = [live._captions(scene) for scene in scenes]
    content = f"{json.dumps(captions)}, {json.dumps(features)}"
    names = open_page(browser, address_of(page))
    choose(browser, 0)  # loads the code of the models
    counts = browser.evaluate(f"({COUNT})({content}, {json.dumps(names)})")
    shown = "[...document.querySelectorAll('label .number')].map(count => +count.textContent)"
    assert browser.evaluate(shown) == counts
    total = "document.querySelector('legend small:last-child').textContent"
    assert browser.evaluate(total) == f"of {len(scenes)}"


def test_another_scene_shows_itself_and_what_the_chosen_model_answers(browser, page, address_of):
    chosen = open_page(browser, address_of(page)).index("clip-ft")
    state = f"[document.querySelector('img').src, document.querySelector('img').alt, {TEXT}]"
    first = browser.evaluate(state)
    seen = []
    while first[1] not in [alt for _, alt, _ in seen]:
        browser.evaluate("document.querySelector('.answer').replaceChildren()")
        browser.evaluate("document.querySelector('#cae-live-form button').click()")
        for _ in range(600):
            if browser.evaluate(TEXT):
                break
            time.sleep(0.05)
        seen.append(browser.evaluate(state))
        is_right = browser.evaluate(MARKS)[chosen] == "✓"
        assert is_right == ("Prefers the true caption" in seen[-1][2])
    assert browser.complaints == []
    assert all(alt.removeprefix("The scene: ") in answer for _, alt, answer in seen)
    assert len({source for source, _, _ in seen}) == len({alt for _, alt, _ in seen}) == len(seen)
    assert len(seen) > 5 and seen[-1][:2] == first[:2]


@pytest.mark.parametrize("lost", ["live-spacy-negclip.js", "live-clip-ft.js", "live-index.js"])
def test_a_model_that_cannot_be_loaded_is_named(browser: Browser, page: Path, address_of, lost):
    file = page.with_name(lost)
    content = file.read_text(encoding="utf-8")
    file.unlink()
    number = open_page(browser, address_of(page)).index("spacy-negclip")
    name = "The models" if lost == "live-index.js" else "NegCLIP, negatives from text"
    assert choose(browser, number).startswith(f"{name} could not be loaded.")
    file.write_text(content, encoding="utf-8")  # the connection is back
    browser.evaluate("document.querySelectorAll('[name=model]')[0].click()")
    assert "Prefers" in choose(browser, number)
