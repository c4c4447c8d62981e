"""The slider over weights shows the rows that its page has embedded, by mouse and by keys."""

import json
import shutil
from typing import Any

import pytest
from conftest import REPOSITORY

COLORS = {"object": "#0173b2", "attribute": "#de8f05", "relation": "#029e73"}
REFERENCES = {"CLIP-FT": 0.0, "swap-margin loss": 0.06, "margin loss": 0.16}
ROWS = [
    {
        "method": method,
        "weight": weight,
        "chosen": chosen,
        "seeds": seeds,
        "object": 1 - 0.1 * step,
        "attribute": 0.5 + 0.1 * step,
        "relation": 0.25,
        "gap": 1 - 0.6 * step,
        "estimate": -0.004 * step,
        "low": None if seeds == 2 else -0.004 * step - 0.01,
        "high": None if seeds == 2 else -0.004 * step + 0.01,
    }
    for method, seeds in (("attention", 1), ("perturbation", 3), ("gradient", 2))
    for step, (weight, chosen) in enumerate(
        [(0.0, False), (0.1, method == "attention"), (0.3, True)]
    )
    if not (method == "attention" and step == 2)
]

LOOK = """(() => {
  const root = document.getElementById("cae-weight-slider"), form = root.querySelector("form");
  const visible = element => Boolean(element?.getClientRects().length);
  const figure = visible(root.querySelector("svg"));
  if (!visible(form)) return {figure, form: false};
  const all = what => [...form.querySelectorAll(what)];
  const box = element => element.getBoundingClientRect();
  const axis = box(form.querySelector(".axis"));
  const middle = element => (box(element).left + box(element).width / 2 - axis.left) / axis.width;
  return {
    figure, form: true, status: form.querySelector("[role=status]").textContent,
    step: Number(form.elements.weight.value), last: Number(form.elements.weight.max),
    numbers: all("td.number").map(cell => cell.textContent),
    widths: all(".bar span").map(bar => box(bar).width),
    dot: middle(form.querySelector(".dot")), marks: all(".axis i").map(middle),
    interval: box(form.querySelector(".interval")).width / axis.width,
    names: all(".axis small").map(label => label.textContent),
    note: form.querySelector(".note").textContent,
    unnamed: all("input").filter(control => !control.labels.length).length,
    wide: Math.max(document.documentElement.scrollWidth - innerWidth,
                   root.scrollWidth - root.clientWidth),
    beside: all(".axis small").map(box).filter(label => label.left < 0 || label.right > innerWidth),
  };
})()"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A document with the slider as the book shows it, in a folder."""
    folder = tmp_path_factory.mktemp("slider")
    for name in ("weight-slider.js", "weight-slider.css", "cae.css"):
        shutil.copy(REPOSITORY / "book" / "_static" / name, folder)
    shutil.copytree(REPOSITORY / "book" / "_static" / "fonts", folder / "fonts")
    data = json.dumps({"colors": COLORS, "references": REFERENCES, "rows": ROWS})
    (folder / "page.html").write_text(
        '<!doctype html><meta charset="utf-8"><script src="weight-slider.js"></script>'
        '<link rel="stylesheet" href="cae.css"><link rel="stylesheet" href="weight-slider.css">'
        '<body><article class="bd-article"><div id="cae-weight-slider"><div class="cae-box">'
        '<svg class="cae-figure" width="10" height="10"></svg></div></div>'
        f'<script type="application/json" id="cae-weight-slider-data">{data}</script></article>',
        encoding="utf-8",
    )
    return (folder / "page.html").as_uri()


def check(seen: dict[str, Any], row: dict[str, Any]) -> None:
    """Compare what is seen with a row of the data, by arithmetic of its own."""
    assert seen["numbers"] == [f"{100 * row[role]:.0f}" for role in COLORS]
    ratios = [width / row[role] for width, role in zip(seen["widths"], COLORS, strict=True)]
    assert max(ratios) - min(ratios) < 0.03 * max(ratios), "bars are to scale"
    zero, *_, most = seen["marks"]
    scale = (most - zero) / max(REFERENCES.values())
    assert seen["dot"] - zero == pytest.approx(scale * row["estimate"], abs=0.01)
    has_interval = row["low"] is not None
    width = row["high"] - row["low"] if has_interval else 0
    assert seen["interval"] == pytest.approx(scale * width, abs=0.01)
    assert ("(no interval)" in seen["status"]) is (row["weight"] > 0 and not has_interval)
    assert f"CAE by {row['method']}, λ {row['weight']:g}" in seen["status"]
    assert f"gap {100 * row['gap']:.0f}".replace("-", "−") in seen["status"]
    change = f"−{-100 * row['estimate']:.1f}" if row["estimate"] else "0.0"
    assert f"accuracy {change} points" in seen["status"]
    assert seen["names"] == ["CLIP-FT 0", "swap-margin loss +6.0", "margin loss +16.0"]
    assert not seen["figure"] and seen["unnamed"] == 0
    assert seen["wide"] <= 0 and seen["beside"] == []


@pytest.mark.parametrize("width", [420, 1400])
def test_slider_starts_at_the_chosen_weight_and_shows_each(browser, address, width: int):
    browser.complaints.clear()
    browser.open(address, width)
    for method in ("attention", "perturbation", "gradient"):
        rows = [row for row in ROWS if row["method"] == method]
        browser.click(f'#cae-weight-slider input[value="{method}"]')
        start = browser.evaluate(LOOK)
        assert rows[start["step"]]["chosen"] and start["last"] == len(rows) - 1
        assert ("3 seeds" in start["note"]) is (method == "perturbation")
        for step, row in enumerate(rows):
            share = (step / (len(rows) - 1) - 0.5) * 0.95 + 0.5
            browser.click("#cae-weight-slider input[type=range]", share)
            check(browser.evaluate(LOOK), row)
    browser.evaluate("""document.body.style.font = "19px monospace"; true""")
    wide = browser.evaluate(LOOK)
    assert wide["wide"] <= 0 and wide["beside"] == [], "large letters stay on the screen"
    assert browser.complaints == []


def test_slider_moves_by_keys_and_print_shows_the_still_figure(browser, address):
    browser.open(address, 1400)
    browser.evaluate("document.querySelector('#cae-weight-slider input[type=radio]').focus()")
    browser.press("ArrowDown")
    browser.press("Tab")
    rows = [row for row in ROWS if row["method"] == "perturbation"]
    for key, step in (("Home", 0), ("ArrowRight", 1), ("End", 2), ("ArrowLeft", 1)):
        browser.press(key)
        check(browser.evaluate(LOOK), rows[step])
    browser.show_on("print")
    assert browser.evaluate(LOOK) == {"figure": True, "form": False}
    browser.show_on("screen")
