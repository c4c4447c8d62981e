"""Lead against accuracy, by hand: by slider, keys and choice of a method a browser shows numbers
that the page has embedded, which are those of the tables; the still figure is there without scripts
and in print."""

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

from cae_lib import results
from cae_lib.evaluation.averages import weights
from cae_lib.shown import html_of

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
    slider: form.elements.weight.getAttribute("aria-valuetext"),
    last: Number(form.elements.weight.max), chosen: form.elements.method.value,
    bars: Object.fromEntries(all("tbody tr").map(row => [row.cells[0].textContent, {
      told: row.cells[1].textContent, width: box(row.querySelector(".bar span")).width,
      start: box(row.querySelector(".bar i")).left - box(row.querySelector(".bar")).left,
      color: getComputedStyle(row.querySelector(".bar span")).backgroundColor}])),
    dot: ((dot.left + dot.right) / 2 - axis.left) / axis.width,
    marks: all(".axis i").map(mark => (box(mark).left - axis.left) / axis.width),
    interval: box(form.querySelector(".interval")).width / axis.width,
    past: all(".past").length, note: form.querySelector(".note").textContent,
    unnamed: all("input").filter(control => !control.labels.length).length,
    wide: Math.max(document.documentElement.scrollWidth - innerWidth,
                   root.scrollWidth - root.clientWidth),
    beside: all(".axis small").map(box).filter(label => label.left < 0 || label.right > innerWidth),
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


def check(seen: dict[str, Any], row: pd.Series, rows: pd.DataFrame) -> None:
    """Hold what is seen at one λ of a method against its row of the embedded data."""
    own = rows[rows["method"] == row["method"]]
    test = row["method"] != BOUND
    names = ROLES if test else METHODS
    assert seen["chosen"] == row["method"] and list(seen["bars"]) == list(names)
    widest = max(own[list(names)].max())
    room = max(bar["start"] + 1e-9 for bar in seen["bars"].values()) / max(own.iloc[0][list(names)])
    for name in names:
        bar = seen["bars"][name]
        assert bar["told"] == rounded(100 * row[name], 0)
        assert abs(bar["width"] - room * row[name]) < 1.1
        assert abs(bar["start"] - room * own.iloc[0][name]) < 1.1
        assert bar["width"] < 1.02 * room * widest
    zero, control = seen["marks"]
    scale = (control - zero) / row["negclip"]
    assert scale > 0 and abs(seen["dot"] - zero - scale * row["estimate"]) < 0.01
    told = f"{100 * row['lead']:.0f}".replace("-", "−")
    gain = rounded(100 * row["estimate"], 1, sign=True)
    assert f"object lead {told} % of CLIP-FT's" in seen["status"]
    assert f" {gain} points" in seen["status"] and f"λ {row['weight']:g}" in seen["status"]
    assert seen["slider"] in seen["status"] and seen["past"] == len(own) == seen["last"] + 1
    if test and row["weight"]:
        low, high = (rounded(100 * row[end], 1) for end in ("low", "high"))
        assert seen["status"].endswith(f"points [{low}, {high}]")
        assert abs(seen["interval"] - scale * (row["high"] - row["low"])) < 0.01
    else:
        assert "[" not in seen["status"] and seen["interval"] < 0.001
    assert ("validation" in seen["note"]) is not test
    assert not seen["figure"] and seen["unnamed"] == 0
    assert seen["wide"] <= 0 and seen["beside"] == []


@pytest.mark.parametrize("width", [420, 1400])
def test_each_method_and_weight_shows_its_row(browser, address, rows, width: int):
    browser.complaints.clear()
    browser.open(address, width)
    for method, own in rows.groupby("method", sort=False):
        browser.click(f'#cae-lead input[value="{method}"]')
        for step, (_, row) in enumerate(own.iterrows()):
            share = (step / (len(own) - 1) - 0.5) * 0.95 + 0.5
            browser.click("#cae-lead input[type=range]", share)
            check(browser.evaluate(LOOK), row, rows)
    assert browser.complaints == []


@pytest.mark.parametrize("font", ["'DejaVu Sans'", "'DejaVu Serif'", "monospace"])
@pytest.mark.parametrize("size", [14, 19])
def test_other_fonts_stay_on_the_screen(browser, address, rows, font: str, size: int):
    browser.open(address, 420)
    browser.evaluate(f"""document.documentElement.style.font = "{size}px {font}";
                         document.body.style.font = "{size}px {font}"; true""")
    for method in rows["method"].unique():
        browser.click(f'#cae-lead input[value="{method}"]')
        seen = browser.evaluate(LOOK)
        assert seen["chosen"] == method and seen["wide"] <= 0 and seen["beside"] == []


def test_keys_alone_move_the_figure(browser, address, rows):
    browser.complaints.clear()
    browser.open(address, 1400)
    first = rows[rows["method"] == "attention"]
    check(browser.evaluate(LOOK), first.iloc[0], rows)
    for keys, method, step in (
        (["Tab", "Tab", "ArrowRight"], "attention", 1),
        (["End"], "attention", 5),
        (["ArrowLeft"], "attention", 4),
        (["Home"], "attention", 0),
    ):
        for key in keys:
            browser.press(key)
        check(browser.evaluate(LOOK), rows[rows["method"] == method].iloc[step], rows)
    browser.press("End")
    browser.evaluate("document.querySelector('#cae-lead input[type=radio]').focus()")
    for method in ("GradCAM", "perturbation", "gradient"):
        browser.press("ArrowDown")
        check(browser.evaluate(LOOK), rows[rows["method"] == method].iloc[5], rows)
    browser.press("ArrowDown")  # which has fewer λ
    check(browser.evaluate(LOOK), rows[rows["method"] == BOUND].iloc[-1], rows)
    assert browser.complaints == []


def test_a_screen_reader_is_told(browser, address, rows):
    browser.open(address, 1400)
    browser("Accessibility.enable")
    tree = browser("Accessibility.getFullAXTree")["nodes"]
    told = [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip())
        for node in tree
        if not node["ignored"]
    ]
    assert ("slider", "λ") in told and ("form", "Lead against accuracy, by hand") in told
    assert {name for role, name in told if role == "radio"} == set(rows["method"])
    (status,) = [node for node in tree if node.get("role", {}).get("value") == "status"]
    (live,) = [each for each in status["properties"] if each["name"] == "live"]
    assert live["value"]["value"] == "polite"


def test_the_still_figure_stays_without_scripts_and_in_print(browser, address):
    for width in (420, 1400):
        browser("Emulation.setScriptExecutionDisabled", value=True)
        try:
            browser(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=900,
                deviceScaleFactor=1,
                mobile=False,
            )
            browser("Page.navigate", url=address + f"?{width}")
            while browser.evaluate("document.readyState !== 'complete' || !location.search"):
                pass
            assert browser.evaluate("""[document.querySelector("#cae-lead form") === null,
              document.querySelector("#cae-lead svg").getClientRects().length]""") == [True, 1]
        finally:
            browser("Emulation.setScriptExecutionDisabled", value=False)
        browser.open(address, width)
        assert browser.evaluate(LOOK)["form"]
        browser.show_on("print")
        assert browser.evaluate(LOOK) == {"figure": True, "form": False}
        browser.show_on("screen")


def test_bars_and_text_have_the_page_s_colour(browser, address):
    browser.open(address, 1400)
    browser.evaluate("""document.documentElement.style.setProperty("--pst-color-text-base",
                        "rgb(1, 2, 3)")""")
    colors = browser.evaluate("""[".dot", ".interval", ".past"].map(what =>
      getComputedStyle(document.querySelector("#cae-lead " + what)).backgroundColor)""")
    assert colors == ["rgb(1, 2, 3)"] * 3
    bars = [bar["color"] for bar in browser.evaluate(LOOK)["bars"].values()]
    assert len(set(bars)) == 3 and "rgba(0, 0, 0, 0)" not in bars


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
