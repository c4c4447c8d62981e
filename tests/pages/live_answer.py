"""Time of an answer in the playground: a caption is edited, and what depends on it drawn anew.

Usage, from the top of the repository, with Chromium or Chrome installed:

    .venv/bin/python -m tests.pages.live_answer
    .venv/bin/python -m tests.pages.live_answer --rounds 5 --models 2      # a quick look

A headless browser opens the playground with some of the book's models. In each round the colours
of the caption are replaced. Then the playground computes the similarities of caption and swapped
caption by all models, and by the two models in its cards the scores of the words and the choice
among similar captions. Columns, in milliseconds of a round:

    wall    from the edit until the browser is free again after the frame that shows the answer;
            it waits for a frame, up to 17 ms
    answer  the part of it in which answers are computed and drawn, by the clock
    script  processor time of all scripts
    task    processor time of the page: scripts, styles and layout

Other programs disturb processor time less than the clock. The table of the least and the median of
all rounds is printed and not stored.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from tests.browser import Browser, find_browser, write_playground

CAPTIONS = {
    "short": "a {} cow is left of a {} dog",
    "long": "a small {} cow is left of a large striped {} dog",
}
SHOWN = ("clip-ft", "cae-all")
"""Runs that the playground shows at first."""

COLORS = "red orange yellow green blue purple pink brown".split()
LIMIT = 50
"""Milliseconds that an answer of ten models may take on an idle machine."""

EDIT = """
new Promise(done => {
  const field = document.querySelector("[name=caption]"), form = document.querySelector("form");
  const begun = performance.now();
  field.value = %s;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() =>  // after the playground's own frame is drawn
    done([performance.now() - begun, Number(form.dataset.milliseconds)])));
})
"""


def write_page(folder: Path, n_models: int) -> tuple[Path, int]:
    """Write the playground with some of its models, and return the page and their number."""
    page = write_playground(folder)
    name, _, text = (folder / "live-index.js").read_text(encoding="utf-8").partition(" = ")
    index = json.loads(text.rstrip().removesuffix(";"))
    first = [model for model in index["models"] if model[0] in SHOWN]
    index["models"] = [*first, *(m for m in index["models"] if m not in first)][:n_models]
    text = f"{name} = {json.dumps(index)};"
    (folder / "live-index.js").write_text(text, encoding="utf-8")
    return page, len(index["models"])


def processor_seconds(browser: Browser) -> tuple[float, float]:
    """Return the time that the page has spent in scripts, and in all."""
    metrics: list[dict[str, Any]] = browser("Performance.getMetrics")["metrics"]
    values = {metric["name"]: metric["value"] for metric in metrics}
    return values["ScriptDuration"], values["TaskDuration"]


def measure(browser: Browser, page: Path, n_models: int, rounds: int) -> pd.DataFrame:
    """Return milliseconds of each round, by kind of caption and number of models."""
    browser("Performance.enable", timeDomain="threadTicks")
    browser.open("about:blank", 1400)
    browser.open(page.as_uri(), 1400)
    browser.wait("document.querySelectorAll('.answer > .words').length === 2")
    browser.evaluate("document.querySelector('.all').open = true")
    browser.wait(f"document.querySelectorAll('.all .both').length === {n_models}")
    rows = []
    for kind, caption in CAPTIONS.items():
        pairs = list(itertools.permutations(COLORS, 2))[: rounds + 3]
        for number, colors in enumerate(pairs):
            before = processor_seconds(browser)
            wall, answer = browser.evaluate(EDIT % json.dumps(caption.format(*colors)))
            script, task = (
                1000 * (after - begun)
                for after, begun in zip(processor_seconds(browser), before, strict=True)
            )
            if number >= 3:  # the first ones compile
                times = {"wall": wall, "answer": answer, "script": script, "task": task}
                rows.append({"models": n_models, "caption": kind} | times)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30, help="edits of each caption, at most 53")
    parser.add_argument(
        "--models", type=int, nargs="+", default=[2, 10, 99], help="numbers of models"
    )
    options = parser.parse_args()
    if find_browser() is None:
        raise SystemExit("no Chromium or Chrome on this machine: install one to run this")
    frames = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        browser = Browser(Path(name, "user"))
        try:
            for n in options.models:
                folder = Path(name, f"page-{n}")
                folder.mkdir()
                frames.append(measure(browser, *write_page(folder, n), options.rounds))
        finally:
            browser.close()
    frame = pd.concat(frames)
    columns = ["wall", "answer", "script", "task"]
    table = frame.groupby(["models", "caption"])[columns].agg(["min", "median"])
    print(table.round(1).to_string())
    print(f"limit for ten models on an idle machine: {LIMIT} ms")


if __name__ == "__main__":
    main()
