"""The explorer's data are what is stored and what the library computes; a browser filters, turns,
links and announces items, from a folder, wide and narrow, without a complaint."""

import io
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from browser import find_browser, left_by
from conftest import REPOSITORY
from PIL import Image
from toys import forget

from cae_lib import results, runs
from cae_lib.attribution.word_scores import word_scores
from cae_lib.cli import main
from cae_lib.evaluation import datasets
from cae_lib.evaluation.choice import answers
from cae_lib.evaluation.encoder import Encoder
from cae_lib.models.clip import load_clip
from cae_lib.pages.explorer import RUNS, SCORED, WAYS, Entry, build, collect, true_pairs

BOOK = REPOSITORY / "book"
DATA = re.compile(r'id="cae-explorer-data">(.*?)</script>', re.DOTALL)
PER_SUBSET = 3


def example_of(page: str) -> dict[str, Any]:
    """The index and items that a page has in itself."""
    return json.loads(DATA.search(page)[1])


def read(file: Path) -> Any:
    """What a script of the explorer sets."""
    return json.loads(file.read_text(encoding="utf-8").partition(" = ")[2].rstrip().rstrip(";"))


@pytest.fixture(scope="module")
def explorer(smoke_world: Path, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The explorer of a small world, in which three models of random weights stand for all runs."""
    home = tmp_path_factory.mktemp("home")
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    clips = [load_clip("clip-mini", seed=seed) for seed in range(3)]
    of = {run: clips[place % 3] for place, run in enumerate(RUNS)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAE_HOME", str(home))
        forget()
        parts = datasets.benchmarks("smoke")
        frames = {id(clip): answers(parts, Encoder(clip)) for clip in clips}
        for run in RUNS:
            results.save("benchmarks", run, 0, frames[id(of[run])], "smoke", key="", provenance={})
        patch.setattr(runs, "open_run", lambda run, profile: of[run])
        page = build("smoke", home / "files", PER_SUBSET).html
        table = results.load("benchmarks", "smoke", RUNS, 1)
        yield SimpleNamespace(
            page=page, files=home / "files", parts={p.key: p for p in parts}, table=table, clips=of
        )
    forget()


def check_choices(index: dict, chosen: dict[str, list[dict]], table: pd.DataFrame) -> int:
    """Hold the choices of items against the stored ones; how many there were."""
    known = table.set_index(["family", "subset", "item", "run"]).sort_index()
    assert list(index["runs"]) == list(RUNS)
    n = 0
    for name, items in chosen.items():
        for item in items:
            subset = index["sets"][name]["subsets"][item["subset"]][0]
            own = known.loc[name, subset, item["item"]].loc[list(RUNS)]
            assert item["right"] == own["correct"].astype(int).tolist()
            np.testing.assert_allclose(item["margin"], own["margin"], atol=5.1e-5)
            assert item["rank"] == own["rank"].tolist()
            n += 1
    return n


def test_choices_and_texts_are_those_of_the_tables_and_sets(explorer):
    index = read(explorer.files / "explorer-index.js")
    chosen = {name: read(explorer.files / f"explorer-{name}.js")["items"] for name in index["sets"]}
    sizes = [size for each in index["sets"].values() for size in each["subsets"]]
    assert check_choices(index, chosen, explorer.table) == sum(drawn for _, drawn, _ in sizes)
    assert all(drawn == min(PER_SUBSET, total) for _, drawn, total in sizes)
    assert not {"winoground/text", "svo_probes/match", "sugarcrepe_pp/tot/swap_obj"} & {
        f"{name}/{subset[0]}" for name, each in index["sets"].items() for subset in each["subsets"]
    }
    for name, items in chosen.items():
        for item in items:
            part = explorer.parts[f"{name}/{index['sets'][name]['subsets'][item['subset']][0]}"]
            one = part.items[item["item"]]
            assert item["texts"] == list(one.texts) and len(item["pictures"]) == len(one.images)
            if part.task == "choice" and len(one.images) == 1:
                assert item["true"] == [one.truth]
        order = [(item["subset"], item["right"][1] == item["right"][6]) for item in items]
        assert order == sorted(order), "disagreements first in each subset"
    (group,) = {tuple(item["true"]) for item in chosen["winoground"]}
    assert group == (0, 1) == tuple(chosen["sugarcrepe_pp"][0]["true"])
    assert {tuple(item["true"]) for item in chosen["svo_probes"]} == {(0,)}


def test_scores_are_the_library_s(explorer):
    index = read(explorer.files / "explorer-index.js")
    for name in ("aro", "svo_probes", "winoground"):
        content = read(explorer.files / f"explorer-{name}.js")
        item = content["items"][0]
        part = explorer.parts[f"{name}/{index['sets'][name]['subsets'][item['subset']][0]}"]
        one = part.items[item["item"]]
        for (text, picture), own in zip(true_pairs(one), item["words"], strict=True):
            assert (own["text"], own["picture"]) == (text, picture)
            assert " ".join(own["words"]) == one.texts[text].lower()
            for run, found in zip(SCORED, own["scores"], strict=True):
                clip = explorer.clips[run]
                images = torch.from_numpy(Encoder(clip).images([one.images[picture]]))
                tokens = clip.tokenizer([one.texts[text]])
                for way, scores in zip(WAYS, found, strict=True):
                    if way != "binding":
                        expected = word_scores(clip, tokens, images, way)[0]
                        np.testing.assert_allclose(scores, 1000 * expected.numpy(), atol=0.51)
                    else:  # no object word binds
                        assert all(
                            s is None
                            for s, role in zip(scores, own["roles"], strict=True)
                            if index["roles"][role][0] in ("other", "object")
                        )


def test_a_sheet_has_the_pictures_that_the_models_see(explorer):
    index, content = (read(explorer.files / f"explorer-{name}.js") for name in ("index", "aro"))
    item = content["items"][1]
    subset = index["sets"]["aro"]["subsets"][item["subset"]][0]
    ref = explorer.parts[f"aro/{subset}"].items[item["item"]].images[0]
    seen = Image.open(ref.path).convert("RGB").crop(ref.crop)
    row, column = divmod(item["pictures"][0], index["columns"])
    sheet = Image.open(explorer.files / content["sheets"][item["subset"]])
    shown = sheet.crop((112 * column, 112 * row, 112 * (column + 1), 112 * (row + 1)))
    assert np.abs(np.asarray(shown, float) - np.asarray(seen, float)).mean() < 8


def test_the_stored_page_has_one_item_of_each_subset(monkeypatch):
    monkeypatch.delenv("CAE_HOME", raising=False)  # the repository's own tables
    cells = nbformat.read(BOOK / "experiments" / "explorer.ipynb", as_version=4).cells
    (page,) = [
        output.data["text/html"]
        for cell in cells
        for output in cell.get("outputs", ())
        if "cae-explorer-data" in output.get("data", {}).get("text/html", "")
    ]
    example = example_of(page)
    chosen = {name: each["items"] for name, each in example["sets"].items()}
    n = check_choices(example["index"], chosen, results.load("benchmarks", "mini", RUNS, 1))
    assert n == sum(len(each["subsets"]) for each in example["index"]["sets"].values())
    sheet = example["sets"]["aro"]["sheets"][0].partition(",")[2]
    assert Image.open(io.BytesIO(b64decode(sheet))).format == "WEBP"


def test_a_caption_cannot_leave_the_data(explorer, tmp_path: Path, monkeypatch):
    """Within a script, "<!-- <script>" hides the next "</script>", and the page ends unread."""
    evil = ["a <!-- <script> b", "a </script><img src=x onerror=alert(1)>\u2028 b"]

    def collected(*arguments: Any) -> list[Entry]:
        entries = collect(*arguments)
        for entry in entries:
            entry.content["texts"] = [*evil, *entry.content["texts"][2:]]
            entry.content["right"][0], entry.content["margin"][0] = 0, -0.0003
        return entries

    monkeypatch.setattr("cae_lib.pages.explorer.collect", collected)
    page = build("smoke", tmp_path, 1).html
    data = DATA.search(page)[1]
    assert not set("<\u2028") & set(data)
    for chunk in (*example_of(page)["sets"].values(), read(tmp_path / "explorer-aro.js")):
        assert all(item["texts"][:2] == evil for item in chunk["items"])
    assert "<" not in (tmp_path / "explorer-aro.js").read_text(encoding="utf-8")
    if find_browser() is None:
        return
    steps = """addEventListener("load", () => setTimeout(() => {
      const root = document.getElementById("cae-explorer");
      const seen = {captions: root.querySelector(".captions").innerText,
        margin: root.querySelector(".choices td.number").innerText,
        images: document.querySelectorAll("img[onerror]").length};
      document.body.append(Object.assign(document.createElement("pre"),
                                         {id: "result", textContent: JSON.stringify(seen)}));
    }, 1000))"""
    text = document(tmp_path, page, True).replace("</body>", f"<script>{steps}</script></body>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    seen, complaints = left_by((tmp_path / "page.html").as_uri(), tmp_path / "user")
    assert evil[0] in seen["captions"] and seen["images"] == 0 and complaints == []
    assert seen["margin"] == "−0.03", "a wrong choice has no margin of zero"


STEPS = """
async function wait() {
  do await new Promise(done => setTimeout(done, 30));
  while (document.getElementById("cae-explorer").ariaBusy !== "false");
}
const one = what => document.querySelector(`#cae-explorer ${what}`);
const all = what => [...document.querySelectorAll(`#cae-explorer ${what}`)];
const status = () => one("[role=status]").textContent.replace(/\\s+/g, " ");
const press = (key, on = document.body) =>
  on.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
async function choose(name, value) {
  const control = one(`[name=${name}]`);
  if (control.type === "checkbox") control.checked = value; else control.value = value;
  control.dispatchEvent(new Event("change", {bubbles: true}));
  await wait();
}
async function go(hash) { location.hash = hash; await wait(); }
function each(look) {  // at every item that is listed
  const found = [], n = Number(/of (\\d+)/.exec(status())?.[1] ?? 0);
  for (let k = 0; k < n; k++) { found.push(look()); press("ArrowRight"); }
  return found;
}
const marks = () => all(".choices tbody tr").map(row => row.cells[1].innerText[0] === "✓");
addEventListener("load", async () => {
  const seen = {};
  await wait();
  seen.first = status(); seen.hash = location.hash;
  press("ArrowRight"); seen.second = status(); seen.link = location.hash;
  press("ArrowLeft"); press("ArrowLeft"); seen.last = status();
  press("ArrowRight", one("select")); seen.kept = status();
  one("button[value='1']").click(); seen.clicked = status();
  await choose("set", "all"); seen.all = status();
  await choose("model", "negclip"); await choose("choice", "wrong");
  seen.wrong = each(() => marks().at(-1));
  await choose("choice", ""); await choose("disagree", true);
  seen.disagree = each(() => { const m = marks(); return m[1] !== m[6]; });
  seen.filters = location.hash;
  await choose("disagree", false); await choose("set", "svo_probes");
  await choose("choice", "right");
  seen.empty = [status(), location.hash];
  await go("set=winoground&way=gradient&item=winoground%2Fgroup%2FITEM");
  seen.linked = [status(), one("[name=way]:checked").value, one("[name=choice]").value,
                 all("figure").length, all(".words table").length, location.hash];
  await go("set=nowhere&model=x&item=y"); seen.lost = [status(), one("[name=set]").value];
  seen.unnamed = all("img").filter(image => !image.alt).length
    + all("select, input").filter(control => !control.labels.length).length;
  seen.wide = [];
  for (const width of ["388px", "720px"]) {
    document.getElementById("cae-explorer").style.width = width;
    for (const name of all("[name=set] option").map(option => option.value)) {
      await choose("set", name);
      const box = document.getElementById("cae-explorer");
      if (box.scrollWidth > box.clientWidth) seen.wide.push([width, name]);
    }
  }
  document.body.innerHTML = "";
  document.body.append(Object.assign(document.createElement("pre"),
                                     {id: "result", textContent: JSON.stringify(seen)}));
});
"""


def document(folder: Path, page: str, index: bool) -> str:
    """A document with the explorer as the book shows it, and its files beside it."""
    static = BOOK / "_static"
    for name in ("explorer.js", "explorer.css", "cae.css"):
        (folder / name).write_text((static / name).read_text(encoding="utf-8"), encoding="utf-8")
    scripts = ["explorer.js"] + ["explorer-index.js"] * index
    head = "".join(f'<script src="{name}"></script>' for name in scripts)
    head += '<link rel="stylesheet" href="cae.css"><link rel="stylesheet" href="explorer.css">'
    return (
        f'<!doctype html><meta charset="utf-8">{head}<body><article class="bd-article">{page}'
        "</article></body>"
    )


def look(folder: Path, document: str, item: int) -> dict[str, Any]:
    """Open a document from a folder in a headless browser, and go through its explorer."""
    steps = f"<script>{STEPS.replace('ITEM', str(item))}</script></body>"
    (folder / "page.html").write_text(document.replace("</body>", steps), encoding="utf-8")
    seen, complaints = left_by((folder / "page.html").as_uri(), folder / "user")
    assert complaints == []
    return seen


@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome on this machine")
@pytest.mark.parametrize("shown", ["with its files", "alone", "by the command"])
def test_a_browser_filters_turns_and_links(explorer, tmp_path: Path, shown: str):
    whole, folder = shown != "alone", explorer.files if shown == "with its files" else tmp_path
    if shown == "by the command":
        assert main(["explore", "--profile", "smoke", "-n", "3", "-o", str(folder)]) == 0
        text = (folder / "index.html").read_text(encoding="utf-8")
    else:
        text = document(folder, explorer.page, whole)
    example = example_of(text)
    items = (
        read(folder / "explorer-winoground.js")["items"]
        if whole
        else (example["sets"]["winoground"]["items"])
    )
    number = items[-1]["item"]
    seen = look(folder, text, number)
    sizes = {
        name: sum(drawn if whole else 1 for _, drawn, _ in each["subsets"])
        for name, each in example["index"]["sets"].items()
    }
    n, total = sizes["aro"], sum(sizes.values())
    assert seen["first"].startswith(f"1 of {n}: ") and "CLIP-FT is " in seen["first"]
    assert seen["second"].startswith(f"2 of {n}") and seen["last"].startswith(f"{n} of {n}")
    assert seen["kept"] == seen["last"] and seen["clicked"] == seen["first"]
    assert seen["hash"] != seen["link"] and seen["link"].startswith("#item=aro%2F")
    assert seen["all"].endswith(seen["first"].partition(": ")[2]) and f"of {total}:" in seen["all"]
    listed = [
        item
        for name in sizes
        for item in (read(folder / f"explorer-{name}.js") if whole else example["sets"][name])[
            "items"
        ]
    ]
    assert seen["wrong"] == [False] * sum(not item["right"][-1] for item in listed)
    unlike = [item for item in listed if item["right"][1] != item["right"][6]]
    assert seen["disagree"] == [True] * len(unlike) and 0 < len(unlike) < len(listed)
    assert "set=all&model=negclip&disagree=1&item=" in seen["filters"]
    assert seen["linked"][0].startswith(f"{len(items)} of {len(items)}: ")
    assert seen["linked"][1:5] == ["gradient", "", 2, 2]
    assert f"winoground%2Fgroup%2F{number}" in seen["linked"][5]
    assert seen["lost"][0].startswith(f"1 of {n}: ") and seen["lost"][1] == "aro"
    assert seen["unnamed"] == 0 and seen["wide"] == []
