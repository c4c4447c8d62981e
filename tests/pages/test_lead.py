"""Gap against accuracy by hand: by slider, keys and choice of a method a browser shows the numbers
that the page embeds, which are those of the tables; without scripts and in print it shows the
still figure."""

import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from browser import Browser, find_browser
from conftest import REPOSITORY

from book.extension.glue import html_of
from cae_lib import results
from cae_lib.evaluation.averages import weights

BOOK = REPOSITORY / "book"
DATA = re.compile(r'id="cae-lead-data">(.*?)</script>', re.DOTALL)
METHODS = {
    "attention": "attention",
    "GradCAM": "gradcam",
    "perturbation": "perturbation",
    "gradient": "gradient",
}
BOUND, ROLES = "CAE on bindings", ("object", "attribute", "relation")

LOOK = """(() => {
  const root = document.getElementById("cae-lead"), form = root.querySelector("form");
  const visible = element => Boolean(element?.getClientRects().length);
  const all = what => [...form.querySelectorAll(what)];
  const box = element => element.getBoundingClientRect();
  const figure = visible(root.querySelector("svg.cae-figure"));
  if (!visible(form)) return {figure, form: false};
  const axis = box(form.querySelector(".axis")), dot = box(form.querySelector(".dot"));
  return {
    figure, form: true, status: form.querySelector("[role=status]").textContent,
    chosen: form.elements.method.value,
    bars: Object.fromEntries(all("tbody tr").map(row =>
      [row.cells[0].textContent, row.cells[1].textContent])),
    dot: ((dot.left + dot.right) / 2 - axis.left) / axis.width,
    marks: all(".axis i").map(mark => (box(mark).left - axis.left) / axis.width),
    interval: box(form.querySelector(".interval")).width / axis.width,
    unnamed: all("input").filter(control => !control.labels.length).length,
    wide: Math.max(document.documentElement.scrollWidth - innerWidth,
                   root.scrollWidth - root.clientWidth),
  };
})()"""


@pytest.fixture(scope="module")
def shown() -> str:
    """What the page's cell shows."""
    cells = nbformat.read(BOOK / "experiments" / "bindings.ipynb", as_version=4).cells
    (found,) = [
        html_of(output.data)
        for cell in cells
        for output in cell.get("outputs", ())
        if "cae-lead-data" in html_of(output.get("data", {}))
    ]
    return found


@pytest.fixture(scope="module")
def rows(shown: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads(DATA.search(shown)[1])["rows"])


@pytest.fixture(scope="module")
def address(shown: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A document as the book shows it, in a folder."""
    folder = tmp_path_factory.mktemp("lead")
    for name in ("lead.js", "lead.css", "cae.css"):
        shutil.copy(BOOK / "_static" / name, folder)
    (folder / "page.html").write_text(
        '<!doctype html><meta charset="utf-8"><script src="lead.js"></script>'
        '<link rel="stylesheet" href="cae.css"><link rel="stylesheet" href="lead.css"><body>'
        '<article class="bd-article">'
        f'<div class="cell_output">{shown}</div></article></body>',
        encoding="utf-8",
    )
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on this machine")
    started = Browser(tmp_path_factory.mktemp("user"))
    yield started
    started.close()


def rounded(value: float, digits: int, sign: bool = False) -> str:
    text = f"{abs(value):.{digits}f}"
    return text if not float(text) else ("−" if value < 0 else "+" if sign else "") + text


def check(seen: dict[str, Any], row: pd.Series) -> None:
    """Compare what is seen at one λ of a method with its row of the embedded data."""
    on_test_items = row["method"] != BOUND
    names = ROLES if on_test_items else METHODS
    assert seen["chosen"] == row["method"]
    assert seen["bars"] == {name: rounded(100 * row[name], 0) for name in names}
    zero, control = seen["marks"]
    scale = (control - zero) / row["negclip"]
    assert scale > 0 and abs(seen["dot"] - zero - scale * row["estimate"]) < 0.01
    gain = rounded(100 * row["estimate"], 1, sign=True)
    assert f" {gain} points" in seen["status"] and f"λ {row['weight']:g}" in seen["status"]
    has_interval = on_test_items and row["weight"]
    width = scale * (row["high"] - row["low"]) if has_interval else 0
    assert abs(seen["interval"] - width) < 0.01
    assert not seen["figure"] and seen["unnamed"] == 0 and seen["wide"] <= 0


@pytest.mark.parametrize("width", [420, 1400])
def test_each_method_and_weight_shows_its_row(browser, address, rows, width: int):
    browser.complaints.clear()
    browser.open(address, width)
    for method, own in rows.groupby("method", sort=False):
        browser.click(f'#cae-lead input[value="{method}"]')
        for step, (_, row) in enumerate(own.iterrows()):
            share = (step / (len(own) - 1) - 0.5) * 0.95 + 0.5
            browser.click("#cae-lead input[type=range]", share)
            check(browser.evaluate(LOOK), row)
    assert browser.complaints == []


def test_keys_alone_move_the_figure(browser, address, rows):
    browser.complaints.clear()
    browser.open(address, 1400)
    first = rows[rows["method"] == "attention"]
    check(browser.evaluate(LOOK), first.iloc[0])
    for keys, method, step in (
        (["Tab", "Tab", "ArrowRight"], "attention", 1),
        (["End"], "attention", 5),
        (["ArrowLeft"], "attention", 4),
        (["Home"], "attention", 0),
    ):
        for key in keys:
            browser.press(key)
        check(browser.evaluate(LOOK), rows[rows["method"] == method].iloc[step])
    assert browser.complaints == []


def test_the_still_figure_stays_without_scripts_and_in_print(browser, address):
    browser("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser("Page.navigate", url=address + "?plain")
        while browser.evaluate("document.readyState !== 'complete' || !location.search"):
            pass
        assert browser.evaluate("""[document.querySelector("#cae-lead form") === null,
          document.querySelector("#cae-lead svg").getClientRects().length]""") == [True, 1]
    finally:
        browser("Emulation.setScriptExecutionDisabled", value=False)
    browser.open(address, 1400)
    assert browser.evaluate(LOOK)["form"]
    browser.show_on("print")
    assert browser.evaluate(LOOK) == {"figure": True, "form": False}
    browser.show_on("screen")


def test_the_embedded_numbers_are_those_of_the_tables(rows, monkeypatch):
    monkeypatch.delenv("CAE_HOME", raising=False)  # the repository's own tables
    asked = weights(results.load("items", "mini", [results.DATA]), "family")
    asked = asked[asked["score"] == "mean"]
    assert list(rows.groupby("method", sort=False).size()) == [6, 6, 6, 6, 5]
    for method, n in (("GradCAM", 1), ("perturbation", 3)):
        own = rows[rows["method"] == method].set_index("run")
        assert set(own["seeds"]) == {n} and own["weight"].is_monotonic_increasing
        words = results.load("attribution", "mini", own.index, n)
        words = words[words["method"] == METHODS[method]]
        means = words.pivot_table("score", ["run", "seed", "caption"], "role")
        shares = means.groupby("run").mean() / means.loc["clip-ft", "object"].mean()
        kinds = words.replace({"role": dict.fromkeys(ROLES[1:], "composition")})
        kinds = kinds.pivot_table("score", ["run", "seed", "caption"], "role")
        lead = (kinds["object"] - kinds["composition"]).groupby("run").mean()
        right = results.load("benchmarks", "mini", own.index, n).merge(asked, on=results.ANSWERS)
        right = (right["correct"] * right["weight"]).groupby(right["run"]).sum() / n
        for run, row in own.iterrows():
            np.testing.assert_allclose(
                row[[*ROLES]].astype(float), shares.loc[run, [*ROLES]], atol=1e-4
            )
            assert row["lead"] == pytest.approx(lead[run] / lead["clip-ft"], abs=1e-4)
            assert row["estimate"] == pytest.approx(right[run] - right["clip-ft"], abs=1e-4)
            assert row["low"] < row["estimate"] < row["high"] or run == "clip-ft"
            assert bool(row["chosen"]) is (run == f"cae-{METHODS[method]}")
    tuned = results.load("binding", "mini", ["tuning"])
    start = tuned[tuned["experiment"] == "clip-ft"].iloc[0]
    own = rows[rows["method"] == BOUND]
    assert own["chosen"].sum() == 1 and own["estimate"].iloc[0] == 0
    for _, row in own.iloc[1:].iterrows():
        (found,) = tuned[
            (tuned["weight"] == row["weight"]) & (tuned["margin"] == row["margin"])
        ].to_dict("records")
        assert found["chosen"] == row["chosen"]
        gain = found["against_negatives"] - start["against_negatives"]
        assert row["estimate"] == pytest.approx(gain, abs=1e-5)
        for label, name in METHODS.items():
            share = found[f"gap_{name}"] / start[f"gap_{name}"]
            assert row[label] == pytest.approx(share, abs=1e-4)
