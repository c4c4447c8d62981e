"""The explorer shows what is stored and what the library computes, and asks before it answers."""

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from browser import Browser
from conftest import REPOSITORY
from PIL import Image
from torch.nn.functional import normalize
from toys import forget

from book.extension import explorer
from book.extension.__main__ import main
from cae_bench import datasets
from cae_bench.answers import answer_benchmarks
from cae_bench.encoder import Encoder
from cae_lab import store
from cae_lab.profiles import load_profile
from cae_lab.runs import Run
from cae_lib.attribution.word_scores import word_scores
from cae_lib.errors import CheckpointError
from cae_lib.models.clip import load_clip

DATA = re.compile(r'id="cae-explorer-data">(.*?)</script>', re.DOTALL)
PER_SUBSET = 3
STORED = (
    "base",
    "clip-ft",
    *explorer.PAPER_RUNS,
    "negclip",
    "cae-binding",
)
PARTLY = "hinge-negclip"
"""A run that has answered one subset only."""


def read(file: Path) -> Any:
    """Return what a script of the explorer sets."""
    return json.loads(file.read_text(encoding="utf-8").partition(" = ")[2].rstrip().rstrip(";"))


@pytest.fixture(scope="module")
def built(smoke_world: Path, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The explorer of a small world, in which three models of random weights stand for all runs."""
    home = tmp_path_factory.mktemp("home")
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    clips = [load_clip("clip-mini", seed=seed) for seed in range(3)]
    of = {run: clips[place % 3] for place, run in enumerate(STORED)}

    def open_run(run: Run) -> Any:
        if run.name == "cae-binding":
            raise CheckpointError("not trained")
        return of[run.name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAE_HOME", str(home))
        patch.setattr(Run, "open", open_run)
        forget()
        parts = datasets.load_benchmarks(load_profile("smoke").datasets)
        frames = {id(clip): answer_benchmarks(parts, Encoder(clip)) for clip in clips}
        frame = frames[id(clips[0])]
        partial = frame[(frame["family"] == "aro") & (frame["subset"] == "relation")]
        stored = {run: frames[id(of[run])] for run in STORED} | {PARTLY: partial}
        for run, rows in stored.items():
            store.save("benchmarks", load_profile("smoke"), run, 0, rows, key="", provenance={})
        folder = home / "files"
        assert (
            main(["explore", "--profile", "smoke", "-n", str(PER_SUBSET), "-o", str(folder)]) == 0
        )
        text = (folder / "index.html").read_text(encoding="utf-8")
        yield SimpleNamespace(
            folder=folder,
            text=text,
            data=json.loads(DATA.search(text)[1]),
            collection=explorer.collect("smoke", PER_SUBSET),
            parts={part.key: part for part in parts},
            right={
                run: rows.set_index(["family", "subset", "item"])["correct"].to_dict()
                for run, rows in stored.items()
            },
            clips=of,
        )
    forget()


def test_answers_and_items_are_the_stored_ones(built):
    index, n = read(built.folder / "explorer-index.js"), 0
    assert [run for run, _ in index["runs"]] == [*STORED, PARTLY]
    assert index["measured"] == {PARTLY: ["ARO relation"]}
    for family, entry in index["families"].items():
        items = read(built.folder / f"explorer-{family}.js")["items"]
        for subset, task, n_drawn, n_used in entry["subsets"]:
            part = built.parts[f"{family}/{subset}"]
            of_subset = [item for item in items if item["subset"] == subset]
            assert (task, n_used) == (part.task, part.n_used)
            assert len({item["row"] for item in of_subset}) == n_drawn == min(PER_SUBSET, n_used)
            for item in of_subset:
                stored = part.items[item["row"]]
                assert item["texts"] == list(stored.texts) and item["truth"] == stored.truth
                assert len(item["tiles"]) == len(stored.images)
                for (run, _), sign in zip(index["runs"], item["answers"], strict=True):
                    right = built.right[run].get((family, subset, item["row"]))
                    assert sign == ("-" if right is None else str(int(right)))
                n += 1
    assert n == len(built.collection.entries)
    assert not {"group"} ^ {s[0] for s in index["families"]["winoground"]["subsets"]}, (
        "no rescoring"
    )


def test_images_are_those_that_the_models_see(built):
    content = read(built.folder / "explorer-aro.js")
    item = content["items"][1]
    ref = built.parts[f"aro/{item['subset']}"].items[item["row"]].images[0]
    seen = Image.open(ref.path).convert("RGB").crop(ref.crop)
    row, column = divmod(item["tiles"][0], explorer.COLUMNS)
    size = explorer.SCENE_SIZE
    sheet = Image.open(built.folder / content["sheets"][item["subset"]])
    shown = sheet.crop((size * column, size * row, size * (column + 1), size * (row + 1)))
    assert np.abs(np.asarray(shown, float) - np.asarray(seen, float)).mean() < 8


def test_word_scores_are_the_librarys(built):
    table = built.data["words"]
    assert len(table["runs"]) == 3, "the run that is not trained here is left out"
    scored = ("base", "clip-ft", "cae-perturbation")
    for entry in built.collection.entries[:: len(built.collection.entries) // 5]:
        for (text, image), word_entry in zip(
            entry.true_pairs, table["items"][entry.id], strict=True
        ):
            caption = entry.item.texts[text]
            words = word_entry.get("words", caption.lower().split())
            assert " ".join(words) == caption.lower() and len(word_entry["roles"]) == len(words)
            steps = np.frombuffer(b64decode(word_entry["scores"]), np.int8).reshape(
                3, 5, len(words)
            )
            scores = steps * (np.array(word_entry["largest"])[:, None] / 127)
            for run, of_run in zip(scored, scores, strict=True):
                clip = built.clips[run]
                images = torch.from_numpy(Encoder(clip).encode_images([entry.item.images[image]]))
                for method_index, method in enumerate(explorer.PAPER_METHOD_LABELS):
                    expected = word_scores(clip, clip.tokenizer([caption]), images, method)[0]
                    np.testing.assert_allclose(
                        of_run[method_index],
                        expected.numpy(),
                        atol=0.006 * word_entry["largest"][method_index] + 1e-9,
                    )
            binding = steps[:, list(explorer.SCORE_METHODS).index("binding")]
            objects = [role == "1" for role in word_entry["roles"]]
            assert (binding[:, objects] == explorer.NO_SCORE).all()


def test_a_tour_has_the_items_that_it_says(built):
    tour = explorer.Tour("", "", right=("negclip",), wrong=("clip-ft", "base"))
    named = {
        (entry.family, entry.subset, entry.row)
        for entry in built.collection.entries
        if built.right["negclip"][entry.family, entry.subset, entry.row]
        and not built.right["clip-ft"][entry.family, entry.subset, entry.row]
        and not built.right["base"][entry.family, entry.subset, entry.row]
    }
    tour_entries = tour.choose(built.collection, {})
    places = [(entry.family, entry.subset, entry.row) for entry in tour_entries]
    assert len(places) == min(len(named), explorer.PER_TOUR) and {*places} <= named
    families = [entry.family for entry in tour_entries]
    spread = len({family for family, _, _ in named})
    assert len({*families[:spread]}) == min(spread, explorer.PER_TOUR), "one of each family first"
    assert replace(tour, right=("truth-binding",)).choose(built.collection, {}) == []


def test_items_of_earlier_tours_come_last(built):
    tour = explorer.Tour("", "")
    first, second, *_ = tour.choose(built.collection, {})
    assert tour.choose(built.collection, {}, {first.id})[0] == second
    entries = (first, second)
    both = tour.choose(replace(built.collection, entries=entries), {}, {first.id})
    assert both == [second, first]


def test_a_tour_of_what_no_tuned_model_solves_asks_all_that_are_shown():
    (tour,) = (each for each in explorer.TOURS if "no fine-tuned" in each.title)
    assert {*tour.wrong} == {*explorer.RUNS} - {"base"}


def test_the_parser_errs_where_it_takes_a_word_of_a_relation_for_an_object(built):
    first = built.collection.entries[0]
    entries = [
        replace(first, item=replace(first.item, texts=(caption, "a dog"), truth=0))
        for caption in ("a brown dog to the left of a young boy", "a brown dog and a young boy")
    ]
    roles = explorer.caption_roles(entries)
    assert roles[entries[0].item.texts[0]]["left"] == "object"
    tour = explorer.Tour("", "", parser_errs=True)
    assert tour.choose(replace(built.collection, entries=tuple(entries)), roles) == entries[:1]


@pytest.fixture(params=[1400, 420])
def page(browser: Browser, built: SimpleNamespace, request) -> Browser:
    """The explorer from a disk, at two widths, with no guesses yet."""
    show(browser, built.folder / "index.html", request.param)
    browser.evaluate("sessionStorage.clear()")
    show(browser, built.folder / "index.html", request.param)
    return browser


def show(browser: Browser, file: Path, width: int = 1400, address: str = "") -> None:
    browser.complaints.clear()
    browser.open("about:blank", width)
    while browser.evaluate("location.href") != "about:blank":  # else the old page may answer below
        pass
    browser.open(file.as_uri() + address, width)
    wait(browser)
    browser.evaluate("document.querySelector('[name=every]').click()")  # show all models


def wait(browser: Browser) -> None:
    while browser.evaluate("document.getElementById('cae-explorer').ariaBusy !== 'false'"):
        pass


def choose(browser: Browser, name: str, value: str) -> None:
    browser.evaluate(f"""(() => {{ const control = document.querySelector(`[name={name}]`);
      control.value = {json.dumps(value)};
      control.dispatchEvent(new Event("change", {{bubbles: true}})); }})()""")
    wait(browser)


def look(browser: Browser) -> dict[str, Any]:
    return browser.evaluate("""(() => {
      const all = what => [...document.querySelectorAll(`#cae-explorer ${what}`)];
      const text = what => all(what).map(one => one.innerText.replace(/\\s+/g, " ").trim());
      return {options: all("[name=option]").map(one => Number(one.value)), place: text(".place")[0],
        status: text("[role=status]")[0], marked: text(".item li"), about: text(".about")[0],
        rows: all(".answers tbody tr").map(row =>
          [...row.cells].map(cell => cell.innerText.trim())),
        tables: all(".words table").length,
        item: new URLSearchParams(location.hash.slice(1)).get("item"),
        unnamed: all("img").filter(one => !one.alt).length
          + all("select, input").filter(one => !one.labels.length).length,
        wide: document.documentElement.scrollWidth - innerWidth};
    })()""")


def test_the_reader_guesses_first_and_keeps_a_tally(page: Browser, built: SimpleNamespace):
    before = look(page)
    item = next(entry for entry in built.collection.entries if entry.id == before["item"])
    assert before["status"] == "" and before["rows"] == [] and before["tables"] == 0
    assert sorted(before["options"]) == [*range(len(item.item.texts))]
    page.press(str(1 + before["options"].index(item.item.truth)))  # the right one, by its key
    after = look(page)
    assert after["status"].startswith("You are right. ") and after["options"] == []
    n_right = item.answers.count("1")
    assert after["status"].endswith(f"{n_right} of {len(STORED) + 1} models are right.")
    assert after["rows"][0] == ["You", "✓ right", "1 of 1"]
    expected = ["✓ right" if sign == "1" else "✗ wrong" for sign in item.answers]
    assert [row[1] for row in after["rows"][1:]] == expected
    assert sum("true" in mark for mark in after["marked"]) == 1 and after["tables"] == 1
    page.press("ArrowRight")
    second = look(page)
    assert second["place"] == f"2 of {2 * PER_SUBSET}" and second["status"] == ""
    other = next(entry for entry in built.collection.entries if entry.id == second["item"])
    wrong = next(option for option in second["options"] if option != other.item.truth)
    page.evaluate(f"document.querySelector('[name=option][value=\"{wrong}\"]').click()")
    state = look(page)
    assert state["status"].startswith("You are wrong. ") and state["rows"][0][2] == "1 of 2"
    both = [(a == "1") + (b == "1") for a, b in zip(item.answers, other.answers, strict=True)]
    assert [row[2] for row in state["rows"][1:]] == [f"{n} of 2" for n in both]
    page.evaluate("location.reload()")
    page.evaluate("new Promise(done => setTimeout(done, 300))")
    wait(page)
    rows = look(page)["rows"]
    assert rows[0][2] == "1 of 2", "the session keeps the tally"
    usual = [explorer.label(run) for run in explorer.USUAL_RUNS if run in STORED]
    assert [row[0] for row in rows] == ["You", *usual], "the others are shown on demand"
    page.evaluate("document.querySelector('[name=forget]').click()")
    assert look(page)["rows"] == [] and page.complaints == []


def test_a_missing_answer_says_why_and_every_task_fits_the_screen(
    page: Browser, built: SimpleNamespace
):
    for family in built.data["index"]["families"]:
        choose(page, "family", family)
        page.evaluate("document.querySelector('[name=reveal]').click()")
        seen = look(page)
        rows = {row[0]: row[1] for row in seen["rows"]}
        assert rows["You"] == "no guess" and seen["rows"][0][2] == "–"
        reason = rows[explorer.label(PARTLY)]
        assert (reason == "not measured: ARO relation only") is (family != "aro")
        assert seen["unnamed"] == 0 and seen["wide"] <= 0, family
    assert page.complaints == []


def test_tours_filters_and_addresses(page: Browser, built: SimpleNamespace):
    for number, tour in enumerate(built.data["tours"], 1):
        choose(page, "tour", str(number))
        seen = look(page)
        assert seen["about"] == tour["text"] and seen["item"] == tour["items"][0]
        assert seen["place"] == f"1 of {len(tour['items'])}"
    choose(page, "tour", "")
    choose(page, "family", "valse")
    choose(page, "model", "negclip")
    choose(page, "answer", "0")
    n = sum(
        entry.family == "valse"
        and not built.right["negclip"][entry.family, entry.subset, entry.row]
        for entry in built.collection.entries
    )
    assert look(page)["place"] == (f"1 of {n}" if n else "No item fits these filters.")
    item = [entry for entry in built.collection.entries if entry.family == "winoground"][-1]
    show(page, built.folder / "index.html", 1400, f"#family=winoground&item={item.id}")
    assert look(page)["item"] == item.id
    show(page, built.folder / "index.html", 1400, "#family=nowhere&item=x")
    assert look(page)["item"].startswith("aro/") and page.complaints == []


def test_a_copy_without_files_has_the_tours_and_an_item_of_each_subset(
    browser: Browser, built: SimpleNamespace, tmp_path: Path
):
    for name in ("index.html", "explorer.js", "explorer.css", "live.css"):
        (tmp_path / name).write_bytes((built.folder / name).read_bytes())
    show(browser, tmp_path / "index.html")
    assert [c for c in browser.complaints if "explorer-index.js" not in str(c)] == []
    subsets = built.data["index"]["families"]["sugarcrepe"]["subsets"]
    choose(browser, "family", "sugarcrepe")
    assert int(look(browser)["place"].rpartition(" ")[2]) >= len(subsets)
    for number, tour in enumerate(built.data["tours"], 1):
        choose(browser, "tour", str(number))
        assert look(browser)["place"] == f"1 of {len(tour['items'])}"


def test_browsers_compute_scores_of_the_published_books_words(
    browser, built, tmp_path, monkeypatch
):
    published = REPOSITORY / "data" / "live"
    monkeypatch.setattr(explorer, "PUBLISHED", "smoke")
    monkeypatch.setattr(explorer, "live_folder", lambda: published)  # also after a reproduction
    file = explorer.standalone("smoke", tmp_path, 1)
    assert json.loads(DATA.search(file.read_text(encoding="utf-8"))[1])["words"]["items"] == {}
    show(browser, file)
    browser.evaluate("document.querySelector('[name=reveal]').click()")
    browser.evaluate("document.querySelector('[name=score]').click()")
    while not browser.evaluate("document.querySelectorAll('.words table').length"):
        pass
    labels, *rows = browser.evaluate("""[...document.querySelector(".words table").rows].map(row =>
      [...row.cells].map(cell => cell.innerText.replace("−", "-").trim()))""")
    index = read(published / "live-index.js")
    assert labels[1] == index["models"][0][1] and len(labels) == 4
    name = look(browser)["item"]
    (entry,) = (e for e in explorer.collect("smoke", 1).entries if e.id == name)
    ((text, image),) = entry.true_pairs
    feature = Encoder(built.clips["base"]).encode_images([entry.item.images[image]])
    clip = load_clip("clip-mini", published.parent / "mini" / "base.safetensors")
    tokens = clip.tokenizer([entry.item.texts[text]])
    feature = normalize(torch.from_numpy(feature), dim=-1)
    expected = word_scores(clip, tokens, feature, "perturbation")[0].tolist()[: len(rows)]
    assert [float(row[1]) for row in rows] == pytest.approx([100 * s for s in expected], abs=0.15)
    choices = "[...document.querySelectorAll('[name=added] optgroup option')].map(o => o.text)"
    assert {*browser.evaluate(choices), *labels[1:]} == {label for _, label, *_ in index["models"]}
    shown = "[...document.querySelector('.words table').rows[0].cells].map(c => c.innerText)"
    choose(browser, "added", "cae-attention")
    while len(browser.evaluate(shown)) < 5:
        pass
    assert browser.evaluate(shown)[4] == "CLIP-CAE (attention), λ 0.3"
    assert "CLIP-CAE (attention), λ 0.3" not in browser.evaluate(choices)
    assert browser.complaints == []


def test_a_caption_cannot_leave_the_data(browser, built, tmp_path: Path, monkeypatch):
    """Within a script, "<!-- <script>" hides the next "</script>", and the page ends unread."""
    evil = ("a <!-- <script> b", "a </script><img src=x onerror=alert(1)>\u2028 b")

    def collected(*arguments: Any) -> explorer.Collection:
        collection = collect(*arguments)
        entries = [
            replace(entry, item=replace(entry.item, texts=(*evil, *entry.item.texts[2:])))
            for entry in collection.entries
        ]
        return replace(collection, entries=tuple(entries))

    collect = explorer.collect
    monkeypatch.setattr(explorer, "collect", collected)
    file = explorer.standalone("smoke", tmp_path, 1)
    data = DATA.search(file.read_text(encoding="utf-8"))[1]
    chunk = (tmp_path / "explorer-aro.js").read_text(encoding="utf-8")
    assert not set("<\u2028") & {*data, *chunk}
    show(browser, file)
    browser.evaluate("sessionStorage.clear()")  # guesses of other tests: an item that they answered
    show(browser, file)  # has no options
    assert evil[0] in " ".join(
        browser.evaluate("[...document.querySelectorAll('[name=option]')].map(o => o.innerText)")
    )
    assert browser.evaluate("document.querySelectorAll('img[onerror]').length") == 0
    assert browser.complaints == []
