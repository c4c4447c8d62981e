from __future__ import annotations

import io
import struct

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from cae_lib.errors import DataError
from cae_lib.pages.check import HTML_ALT
from cae_lib.report.attribution_figures import distributions, gaps
from cae_lib.report.benchmark_figures import forest
from cae_lib.report.benchmark_tables import differences
from cae_lib.report.benchmarks import all_answers
from cae_lib.report.diagram import diagram
from cae_lib.report.figure import MOST_BYTES, Figure, finish, style
from cae_lib.report.verdicts import base_scores, trained_runs
from cae_lib.report.world import picture_sheet, relation_examples, statement


def smallest_letters(canvas) -> float:
    return min(text.get_fontsize() for text in canvas.findobj(plt.Text) if text.get_text())


@pytest.fixture
def letters(monkeypatch):
    """Sizes of the smallest letters of the figures that a test draws."""
    found: list[float] = []

    def watch(canvas, alt):
        found.append(smallest_letters(canvas))
        return finish(canvas, alt)

    for module in ("attribution_figures", "benchmark_figures", "world"):
        monkeypatch.setattr(f"cae_lib.report.{module}.finish", watch)
    return found


def test_every_figure_is_legible_small_and_described(store, letters):
    base = {method: {"CLIP": scores} for method, scores in base_scores("smoke").items()}
    figures = [
        distributions(base),
        distributions(trained_runs("smoke", 3)),
        gaps(trained_runs("smoke", 3)),
        forest(differences(all_answers("smoke", 3))),
        picture_sheet(list(relation_examples("smoke").items())[:4]),
    ]
    assert min(letters) >= 9 and len(letters) == len(figures)
    for figure in figures:
        assert len(figure.png) <= MOST_BYTES
        assert HTML_ALT.search(figure._repr_html_())[1]
        assert Image.open(io.BytesIO(figure.png)).convert("RGB").getpixel((0, 0)) == (255,) * 3
    assert not plt.get_fignums(), "figures are left open"


def test_alternative_text_follows_the_data(store):
    runs = trained_runs("smoke", 3)
    before = gaps(runs).alt
    assert "CLIP-FT 0.06" in before and "CLIP-CAE (attention)" in before
    store.attribution("clip-ft", {"object": 0.30, "attribute": 0.10, "relation": 0.10})
    assert "CLIP-FT 0.19" in gaps(trained_runs("smoke", 3)).alt
    scene = next(iter(relation_examples("smoke").values()))
    assert statement(scene.content) in picture_sheet([("one", scene)]).alt


def test_alternative_text_cannot_leave_its_attribute():
    page = Figure(b"", 'a "quoted" <text>')._repr_html_()
    assert 'alt="a &quot;quoted&quot; &lt;text&gt;"' in page
    assert repr(Figure(b"", "words")) == "words"


def noise(side: float):
    """A figure that no compression makes small."""
    canvas, axis = plt.subplots(figsize=(side, side))
    axis.imshow(np.random.default_rng(0).random((400, 400, 3)))
    return canvas


def test_a_figure_too_large_for_a_page_is_refused():
    with style(), pytest.raises(DataError, match="too large: at most 1000"):
        finish(noise(1), "noise", most=1000)
    plt.close("all")


def test_large_pictures_get_fewer_colours():
    with style():
        png = finish(noise(1), "noise", most=30_000).png
    depth, kind = struct.unpack("BB", png[24:26])
    assert (depth, kind) == (8, 3), "expected a palette"


def test_the_diagram_is_an_image_with_words(tmp_path):
    import xml.etree.ElementTree as tree

    root = tree.fromstring(diagram())
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert {"title", "desc", "rect", "text", "path"} <= names
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    for element in root.iter():
        if element.tag.endswith("rect"):
            box = {key: float(element.attrib.get(key, 0)) for key in ("x", "y", "width", "height")}
            assert box["x"] + box["width"] <= width and box["y"] + box["height"] <= height
