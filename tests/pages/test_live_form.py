"""The front page's form shows the same with and without scripts, and other models on demand."""

import re
import shutil
import time
from pathlib import Path

import pytest
from browser import Browser, find_browser
from conftest import REPOSITORY

LIVE = REPOSITORY / "data" / "live"
TEXT = "document.querySelector('.answer').innerText.replace(/\\s+/g, ' ').trim()"
NUMBER = re.compile(r"−?\d+\.\d")


def choose(browser: Browser, number: int) -> str:
    """Choose a model, wait for its answer and return it."""
    browser.evaluate("document.querySelector('.answer').replaceChildren()")
    browser.evaluate(f"document.querySelectorAll('[name=model]')[{number}].click()")
    for _ in range(600):
        if answer := browser.evaluate(TEXT):
            return answer
        time.sleep(0.05)
    raise AssertionError(browser.complaints)


def test_the_form_answers_with_each_model(tmp_path: Path):
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on this machine: install one to run this")
    folder = tmp_path / "page"
    folder.mkdir()
    for source in (*LIVE.iterdir(), *(REPOSITORY / "book" / "_static").glob("live*")):
        shutil.copy(source, folder)
    form = (LIVE / "front.html").read_text(encoding="utf-8")
    (folder / "page.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Front</title><link '
        'rel="stylesheet" href="live.css"><script src="live-form.js"></script><div '
        f'id="cae-live-form">{form}</div></html>',
        encoding="utf-8",
    )
    browser = Browser(tmp_path / "user")
    try:
        browser.open((folder / "page.html").as_uri(), 1400)
        stored = browser.evaluate(TEXT)
        scripts = "[...document.scripts].filter(script => script.src).length"
        assert browser.evaluate(scripts) == 1, "no model is loaded before one is chosen"
        names = browser.evaluate("[...document.querySelectorAll('[name=model]')].map(m => m.value)")
        shown = browser.evaluate("document.querySelector('.answer').dataset.run")
        first = names.index(shown)
        answers = {number: choose(browser, number) for number in (*range(len(names)), first)}
        assert browser.complaints == []
    finally:
        browser.close()
    assert NUMBER.sub("", answers[first]) == NUMBER.sub("", stored)
    numbers = [
        [float(text.replace("−", "-")) for text in NUMBER.findall(answer)]
        for answer in (answers[first], stored)
    ]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.11), "12 bits a weight, one decimal"
    assert len({*answers.values()}) == len(names)
    assert "the swapped caption" in answers[names.index("cae-all")]
