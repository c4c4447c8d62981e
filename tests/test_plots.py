"""What the pages share for figures and tables."""

import base64
import html
import io
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from myst_nb.core.variables import format_plain_text
from PIL import Image

from book.extension.glue import glue, html_of
from cae_lab import plots
from cae_lib.errors import DataError

ROWS = pd.DataFrame(
    {
        "family": ["ARO", "ARO", "CREPE", "CREPE"],
        "method": ["a", "b"] * 2,
        "estimate": [0.01, -0.02, 0.0, 0.1],
        "low": [-0.01, -0.03, -0.0004, 0.05],
        "high": [0.03, -0.01, 0.0004, 0.15],
    }
)


def drawn() -> plt.Figure:
    plots.set_style()
    return plots.forest(ROWS, "family", "method", palette={"a": "#112233"}).figure


def test_a_figure_takes_the_page_s_colour_carries_its_numbers_and_is_drawn_again_narrow():
    open_before = plt.get_fignums()
    shown = plots.show(drawn(), "two\n families", ROWS, "gains")
    assert repr(shown) == "two families"
    assert all(x in shown.html for x in ('aria-label="two families"', "currentColor", "#112233"))
    assert plots.INK not in shown.html and "<?xml" not in shown.html
    link = re.search(r'download="gains.csv" href="data:text/csv;base64,([^"]+)"', shown.html)
    table = pd.read_csv(io.BytesIO(base64.b64decode(link[1])))
    pd.testing.assert_frame_equal(table, ROWS, check_dtype=False)
    assert plots.show(drawn(), "two families", ROWS, "gains").html == shown.html  # the same twice
    axes = drawn().axes[0]
    axes.set_title("another")
    other = plots.show(axes.figure, "another", ROWS)
    ids = [set(re.findall(r'\bid="([^"]+)"', figure.html)) for figure in (shown, other)]
    assert all(ids) and not ids[0] & ids[1]  # both may stand on one page
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', shown.html))
    assert used and used <= ids[0]
    widths = [float(w) for w in re.findall(r'<svg [^>]*style="width: ([\d.]+)in', shown.html)]
    assert widths == pytest.approx([plots.TEXT_WIDTH_INCHES, plots.NARROW_WIDTH_INCHES], abs=0.02)
    beside = plots.show(plt.subplots(1, 2, figsize=(7, 3))[0], "an alt text").html
    assert beside.count("cae-stacked") == 1 and "cae-stacked" not in shown.html
    assert plt.get_fignums() == open_before


def test_a_narrow_figure_wraps_its_texts_and_keeps_their_lines():
    figure, axes = plt.subplots(figsize=(7, 3))
    axes.text(0, 0, "two short\nlines")
    axes.text(0, 1, "one line that is too long for a telephone")
    plots.narrow_figure(figure)
    short, long = (text.get_text() for text in axes.texts)
    assert short == "two short\nlines"
    assert long.split() == "one line that is too long for a telephone".split()
    assert max(map(len, long.split("\n"))) <= plots.NARROW_LINE_LENGTHS[0]
    plt.close(figure)


def test_a_figure_is_an_image_where_html_is_not_trusted(monkeypatch):
    bundle = plots.show(drawn(), "two families", ROWS, "gains")._repr_mimebundle_()
    assert bundle["text/plain"] == "two families" and "cae-figure" in html_of(bundle)
    assert "text/html" not in bundle, "viewers would prefer it to the image"
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert image.width == round(100 * plots.TEXT_WIDTH_INCHES)
    corner = image.convert("RGB").getpixel((0, 0))
    assert corner == (255, 255, 255), "on white, so that black letters read in a dark notebook"
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: bundles.append(bundle))
    glue("figure", plots.show(drawn(), "two families"), display=True)
    assert "image/png" in bundles[0] and "text/html" not in bundles[0]
    glue("figure", plots.show(drawn(), "two families"))
    assert set(bundles[1]) == {
        "application/papermill.record/text/plain",
        "application/papermill.record/text/html",
    }


def test_roles_and_models_have_the_same_look_in_each_order_and_no_two_alike():
    looks = {
        "relation": ("^", None),  # in the colours of the palette
        "attribute": ("s", None),
        "NegCLIP": plots.marker_and_color("negclip"),
        "swap-margin loss": plots.marker_and_color("dependency-binding"),
    }
    for names in (["relation", "attribute"], ["NegCLIP", "swap-margin loss"]):
        rows = ROWS.assign(method=names * 2)
        for part in (rows, rows.iloc[::-1]):
            axes = plots.forest(part, "family", "method")
            drawn_looks = {
                bar.get_label(): (bar.lines[0].get_marker(), bar.lines[0].get_color())
                for bar in axes.containers
            }
            for name in names:
                marker, color = looks[name]
                assert drawn_looks[name] == (marker, color or drawn_looks[name][1])
            plt.close(axes.figure)
    models = ["base", "clip-ft", "negclip", "hinge-negclip", "negclip-binding", "softmax-binding"]
    models += ["dependency-binding", "truth-binding", "cae-binding", "placebo-binding"]
    models += [f"cae-{name}" for name in plots.PAPER_METHOD_LABELS]
    assert len({plots.marker_and_color(run) for run in models}) == len(models)


def test_a_run_without_a_declared_look_is_grey_and_looks_like_no_other():
    new = plots.marker_and_color("my-new-run")
    assert new[1] == plots.GRAY and plots.label("my-new-run") == "my-new-run"
    named = [*plots.RUN_MARKERS_AND_COLORS, "placebo-attention", "random-gradient"]
    named += [f"cae-{name}" for name in plots.METHOD_LABELS]
    assert new not in [plots.marker_and_color(run) for run in named]


EVIL = '<img src=x onerror="alert(1)"> & <!-- <script>'


def test_texts_in_tables_are_escaped_and_markup_is_marked():
    frame = pd.DataFrame({EVIL: [EVIL, plots.bold(EVIL)], "n": [1.5, None]}, [EVIL, "b"])
    for shown in (
        plots.table(frame, EVIL, fold=[EVIL]),
        plots.table(frame.T),
        plots.table(frame.rename_axis(EVIL)),
        plots.table(pd.concat({EVIL: frame}, axis=1), EVIL),
        plots.table(pd.concat({EVIL: frame}, names=[EVIL, "b"])),
    ):
        assert "<img" not in shown.html and "<script" not in shown.html
        assert "&lt;img" in shown.html and f"<b>{html.escape(EVIL, quote=False)}</b>" in shown.html
    assert "<td>1.5</td>" in plots.table(frame).html and "<td>–</td>" in plots.table(frame).html
    categories = pd.DataFrame({"a": pd.Categorical([EVIL])})
    assert "<img" not in plots.table(categories).html
    assert "<img" not in plots.badge(EVIL).html
    assert '"><img' not in plots.csv_link(ROWS, '"><img>')


def test_json_in_a_script_ends_neither_script_nor_line():
    content = {"texts": ["<!-- <script>", "</script>", "a\u2028b\u2029c"], "µ": 1.5}
    text = plots.script_json(content)
    assert json.loads(text) == content
    assert not set("<\u2028\u2029") & set(text)


@pytest.mark.parametrize("alt", ["", " \n", "x" * (plots.MAX_ALT_LENGTH + 1)])
def test_an_alt_text_is_there_and_short(alt: str):
    with pytest.raises(DataError, match="alt text"):
        plots.show(drawn(), alt)


@pytest.mark.parametrize(
    ("palette", "expected"),
    [
        (["#112233", "#445566", "#778899"], ["#112233", "#445566"]),
        ("Set2", ["#66c2a5", "#fc8d62"]),
        ({"b": "#112233"}, ["#0173b2", "#112233"]),
    ],
)
def test_a_forest_has_lines_in_order_intervals_to_scale_and_seaborns_palettes(palette, expected):
    axes = plots.forest(ROWS, "family", "method", palette=palette)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["ARO", "CREPE"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first line on top
    places = [bar.lines[0].get_ydata().tolist() for bar in axes.containers]
    assert places == [pytest.approx([-0.15, 0.85]), pytest.approx([0.15, 1.15])]
    ends = [
        segment[:, 0].tolist()
        for bar in axes.containers
        for segment in bar.lines[2][0].get_segments()
    ]
    assert ends == [pytest.approx(pair) for pair in ([-1, 3], [-0.04, 0.04], [-3, -1], [5, 15])]
    assert [to_hex(bar.lines[0].get_color()) for bar in axes.containers] == [
        to_hex(color) for color in expected
    ]
    plt.close(axes.figure)


def test_tables_and_forests_say_where_there_is_no_interval():
    rows = ROWS.copy()
    rows.loc[1, ["low", "high"]] = np.nan
    texts = plots.format_intervals(rows, sign=True)
    assert texts[1] == "−2.0 (no interval)" and texts[0] == "+1.0 [−1.0,\u00a0+3.0]"
    cells = plots.format_estimates(rows)
    assert [cells[0].text, cells[1].text] == ["1.0 ±2.0", "−2.0 (no interval)"]
    axes = plots.forest(rows, "family", "method")
    (note,) = axes.texts
    assert note.get_text() == "no interval" and note.xy == pytest.approx((-2.0, 0.15))
    plt.close(axes.figure)


def test_numbers_have_a_true_minus_and_no_negative_zero():
    assert plots.format_number(-0.0123, 1, 100) == "−1.2"
    assert plots.format_number(-0.0001, 1, 100) == "0.0"
    assert plots.format_number(0.0123, 1, 100, sign=True) == "+1.2"
    assert plots.format_number(float("nan")) == "–"
    assert plots.format_intervals(ROWS, sign=True).iloc[1] == "−2.0 [−3.0,\u00a0−1.0]"
    assert plots.format_estimates(ROWS).iloc[3] == plots.CellOutput(
        "10.0 <small>±5.0</small>", "10.0 ±5.0"
    )
    assert plots.format_range(ROWS["estimate"]) == "−2.0 to +10.0"
    assert plots.format_range([np.nan, 0.01, 0.02]) == "+1.0 to +2.0"
    assert (
        plots.format_range([0.401, 0.399], 0, sign=False) == "40" and plots.format_range([]) == "–"
    )


def test_rows_are_picked_in_the_order_of_the_choices():
    picked = plots.pick(ROWS, method=["b", "a"], family=["CREPE", "ARO"])
    order = [("b", "CREPE"), ("b", "ARO"), ("a", "CREPE"), ("a", "ARO")]
    assert list(zip(picked["method"], picked["family"], strict=True)) == order
    with pytest.warns(UserWarning, match="no family .'VALSE'.: there are .'ARO', 'CREPE'"):
        assert plots.pick(ROWS, family=["VALSE", "CREPE"])["method"].tolist() == ["a", "b"]
    with pytest.warns(UserWarning, match="no method"), pytest.raises(DataError, match="method"):
        plots.pick(ROWS, method=["c"])


def cells(shown: plots.CellOutput) -> list[list[str]]:
    """The cells of a table by row; those that are folded on a phone stand in brackets."""
    rows = re.findall(r"<tr.*?</tr>", shown.html, re.DOTALL)
    rows = [re.findall(r'<t[hd]( class="cae-fold")?[^>]*>(.*?)</t', row) for row in rows]
    return [[f"[{text}]" if fold else text for fold, text in row] for row in rows]


def test_a_table_folds_its_columns_on_a_phone():
    frame = ROWS.drop(columns="estimate").set_index(["family", "method"])
    assert "cae-fold" not in plots.table(frame).html and "cae-all" not in plots.table(frame).html
    shown = plots.table(frame, "a caption", fold=["low"])
    assert cells(shown)[:3] == [
        ["family", "method", "[low]", "high"],
        ["ARO", "a", "[-0.0100]", "0.0300"],
        ["b", "[-0.0300]", "-0.0100"],
    ]
    above = plots.table(pd.concat({"both": frame.rename_axis(["family", None])}, axis=1))
    assert cells(above)[:2] == [["", "", "both"], ["family", "", "low", "high"]]
    wide = ROWS.set_index("family").pivot(columns="method", values=["low", "high"])
    assert cells(plots.table(wide, fold=["high"]))[:2] == [
        ["", "low", "[high]"],
        ["", "a", "b", "[a]", "[b]"],
    ]
    with pytest.raises(DataError, match="no columns .'lower'. to fold; there are .'low', 'high'"):
        plots.table(frame, fold=["lower"])


def test_a_badge_holds_the_outcome_and_a_small_one_of_each_method_that_differs():
    badge = plots.badge("mixed (GradCAM, attention supported; gradient undecided)")
    spans = re.findall(r'class="([^"]*)">([^<]+)', badge.html)
    assert spans == [
        ("verdict verdict-mixed", "mixed"),
        ("verdict-method verdict-supported", "GradCAM "),
        ("verdict-method verdict-supported", "attention "),
        ("verdict-method verdict-undecided", "gradient "),
    ]
    signs = re.findall(r'aria-label="(\w+)" title="(\w+)">(.)<', badge.html)
    assert signs == [("supported",) * 2 + ("✓",)] * 2 + [("undecided",) * 2 + ("?",)]
    assert badge.text == "mixed (GradCAM, attention supported; gradient undecided)"
    assert plots.badge("not tested").html == (
        '<span class="verdict verdict-not-tested">not tested</span>'
    )
    assert plots.badge("negligible").html.endswith(">≈ negligible</span>")


def test_glue_keeps_words_plain_and_numbers_as_numbers(monkeypatch):
    bundles = []
    monkeypatch.setattr(
        "IPython.display.display", lambda bundle, **more: bundles.append((bundle, more))
    )
    glue("gain", ROWS["estimate"].iloc[0])
    glue("word", "−1.2")
    glue("badge", plots.badge("mixed"), display=True)
    glue("thousands", "2,000")
    glue("sign", "+1.7")
    record = "application/papermill.record/"
    printed = [format_plain_text(bundles[k][0][f"{record}text/plain"], "") for k in (0, 1, 3, 4)]
    assert printed == ["0.01", "−1.2", "2,000", "+1.7"], "as the book prints them"
    assert set(bundles[2][0]) == {"text/plain", "text/html"}
    assert bundles[0][1]["metadata"]["scrapbook"] == {"name": "gain", "mime_prefix": record}
