"""Prepare the book's pages for the web, as a Sphinx extension (see `_config.yml`).

It sets what search engines and link previews show of a page, writes formulas as MathML, which needs
no script, puts the files of the explorer and of the live models beside their pages, and removes
scripts that no page uses.
"""

from __future__ import annotations

import html
import json
import re
import textwrap
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from markupsafe import Markup
from sphinx.util import logging

from book.extension.build import PUBLISHED, live_folder
from cae_lab.mime_types import FIGURE_MIME_TYPE
from cae_lab.profiles import PROFILES, load_profile

CARD = "_static/card.png"
"""The image that the preview of a link shows."""

EXPLORER, PLAYGROUND = "experiments/explorer.ipynb", "playground.md"
MODELS = ("live-index.js", "live-model.js", "live.css")
PARTS = {
    "explorer": {"explorer-index.js", "explorer.js", "explorer.css", *MODELS},
    "live-form": {"live-form.js", "live.css"},
    "playground": {"playground.js", *MODELS},
    "weight-slider": {"weight-slider.js", "weight-slider.css"},
}
"""Parts of pages, elements `cae-NAME`, with the files that other pages do without."""

FORM = re.compile(r'(?<=<div id="cae-live-form">).*?(?=</div>)', re.DOTALL)
"""What the front page says where a book has no models, which a form of theirs replaces."""

MOST_DESCRIPTION = 200
SPELLED = {
    r"\dots": r"\ldots",
    r"\operatorname*": r"\operatorname",
    r"\setminus": r"\smallsetminus",
}
"""TeX that docutils does not know or writes with a character that fonts lack; its replacement."""

SCRIPT = re.compile(r"(?:<!--[^>]*icons -->\s*)?<script[^>]*/fontawesome\.js[^>]*></script>")
"""The script that draws the theme's icons, which a font of its style sheet shows without it."""

OPTION = '<span class="pre cae-option">'

ACCESSIBLE = {
    r'<summary aria-label="Toggle hidden content">': "<summary>",
    r'(<button class="btn search-button-field[^>]*) aria-label="Search"': r"\1",
    r"<summary>(?=<span class=\"toctree-toggle\")": '<summary aria-label="Pages below this one">',
    r'<div id="pst-primary-sidebar" ': r'\g<0>role="complementary" aria-label="The book" ',
    r'role="doc-biblioentry"': 'role="listitem"',
}
"""Regular expressions of HTML that screen readers cannot use, with replacements: labels that differ
from the visible text or are missing, a part outside of all landmarks, an outdated role."""


def setup(app: Any) -> dict[str, bool]:
    """Register the extension; Sphinx calls this function."""
    app.add_config_value("cae_explorer", True, "html", [bool])  # whether to write its items
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
    app.connect("builder-inited", _with_explorer)
    app.connect("builder-inited", _with_models)
    app.connect("source-read", _with_figures)
    app.connect("doctree-resolved", _with_boxes)
    app.connect("html-page-context", _with_description)
    # Last, once the theme and Jupyter Book have added their scripts.
    app.connect("html-page-context", _with_own_files, priority=999)
    app.connect("build-finished", _finish_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _formula(translator: Any, node: nodes.Element) -> None:
    """Write a formula, inline or in a line of its own."""
    block, source = isinstance(node, nodes.math_block), node.astext()
    for name, known in SPELLED.items():
        # A function, because `re.sub` reads the backslashes of a replacement text.
        source = re.sub(re.escape(name) + "(?![A-Za-z])", lambda _, known=known: known, source)
    try:
        written = tex2mathml(source, as_block=block)
    except MathError as error:
        logging.getLogger(__name__).warning("formula: %s", error, location=node)
        written = html.escape(source)
    kind = "div" if block else "span"
    translator.body.append(f'<{kind} class="math notranslate nohighlight">{written}</{kind}>')
    # Otherwise Sphinx would write the TeX of the node, too.
    raise nodes.SkipNode


def _with_explorer(app: Any) -> None:
    """Write the explorer's items and images, and copy them with the book's own files."""
    has_page = Path(app.srcdir, EXPLORER).is_file()
    if app.builder.name != "html" or not (has_page and app.config.cae_explorer):
        return
    # It imports PyTorch, which a book without the explorer does without.
    from book.extension.explorer import draw_scenes, write_files

    profile = _profile(app)
    if not load_profile(profile).is_synthetic:  # the copy of a profile without synthetic scenes
        return
    draw_scenes(profile)
    folder = Path(app.outdir).parent / "explorer"
    write_files(profile, folder)
    app.config.html_static_path.append(str(folder))
    # A script cannot ask whether a file exists; pages of a book with the files load this one.
    app.add_js_file("explorer-index.js")


def _with_models(app: Any) -> None:
    """Copy the models that run in the reader's browser, which are those of the published book."""
    if app.builder.name == "html" and _has_models(app):
        app.config.html_static_path.append(str(live_folder()))
        app.add_js_file(MODELS[0])


def _has_models(app: Any) -> bool:
    """Whether a book is the published one, and has a page that runs the models that lie here."""
    has_page = Path(app.srcdir, PLAYGROUND).is_file()
    return has_page and _profile(app) == PUBLISHED and (live_folder() / MODELS[0]).is_file()


def _profile(app: Any) -> str:
    """Return the profile whose book is built."""
    # `own_book` names the copy of a profile's book like this.
    copies = {f"{name}-book": name for name in PROFILES}
    return copies.get(Path(app.srcdir).name, PUBLISHED)


def _with_figures(app: Any, page: str, source: list[str]) -> None:
    """Give a notebook's figures to the book as HTML, without the images for other viewers."""
    # MyST-NB does not know our type, and would show the PNG that is stored beside it.
    if FIGURE_MIME_TYPE not in source[0] or Path(app.env.doc2path(page)).suffix != ".ipynb":
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if FIGURE_MIME_TYPE in (bundle := output.get("data", {})):
                bundle["text/html"] = bundle.pop(FIGURE_MIME_TYPE)
                bundle.pop("image/png", None)
    source[0] = json.dumps(notebook)


def _with_boxes(app: Any, tree: nodes.document, page: str) -> None:
    """Put drawings that are in a page's text, not in its notebook, into boxes that scroll."""
    for raw in tree.findall(nodes.raw):
        if isinstance(raw.parent, nodes.section) and raw.astext().startswith("<svg"):
            raw[0] = nodes.Text(f'<div class="cae-box">{raw.astext()}</div>')


def description(page: nodes.document) -> str:
    """Return the sentences of a page's finding, or else its first paragraph, that are short enough.

    At most `MOST_DESCRIPTION` characters; "" if the page has no text.
    """
    texts = [
        "".join(
            text
            for text in paragraph.findall(nodes.Text)
            if not isinstance(text.parent, nodes.raw | nodes.footnote_reference)
        )
        for paragraph in page.findall(nodes.paragraph)
        # not in notes and lists
        if isinstance(paragraph.parent, nodes.section | nodes.definition)
    ]
    texts = [" ".join(text.split()) for text in texts]
    answers = [text for text in texts if text.startswith(("Finding.", "Answer."))]
    text = next(filter(None, answers + texts), "")
    sentences = re.split(
        r"(?<=[.?!]) (?=[A-Z])", re.sub(r"^(Question|Finding|Answer)\. ", "", text)
    )
    fitting = [" ".join(sentences[:count]) for count in range(len(sentences), 0, -1)]
    return next(
        (text for text in fitting if len(text) <= MOST_DESCRIPTION),
        textwrap.shorten(sentences[0], MOST_DESCRIPTION, placeholder=" …"),
    )


def _with_description(
    app: Any, page: str, template: str, context: dict[str, Any], tree: nodes.document | None
) -> None:
    """Give a page its description and the data for a preview."""
    site, first = app.config.html_title, page == app.config.root_doc
    title = Markup(context.get("title", site)).striptags()
    text = description(tree) if tree is not None else ""
    text = text or " · ".join(dict.fromkeys([title, site]))
    properties = {
        "og:title": title,
        "og:description": text,
        "og:site_name": site,
        "og:type": "website" if first else "article",
        "og:url": context.get("pageurl"),
        "og:image": _address(app, context),
        "og:image:width": 1200,
        "og:image:height": 630,
    }
    tags = [("name", "description", text), ("name", "twitter:card", "summary_large_image")]
    tags += [("property", name, str(value)) for name, value in properties.items() if value]
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n    <meta {kind}="{name}" content="{html.escape(value)}" />'
        for kind, name, value in tags
    )


def _address(app: Any, context: dict[str, Any]) -> str:
    """Return the address of the card."""
    # Previews require an absolute address: that of the book, or of the file in its repository.
    options = app.config.html_theme_options
    if app.config.html_baseurl:
        return f"{app.config.html_baseurl.rstrip('/')}/{CARD}"
    if url := options.get("repository_url"):
        folder = f"{options.get('repository_branch')}/{options.get('path_to_docs')}"
        return f"{url}/raw/{folder}/{CARD}"
    return context["pathto"](CARD, resource=True)


def _with_own_files(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Fill in the form of the front page, drop files of absent `PARTS`, and those of Thebe."""
    body = context.get("body", "")
    if 'id="cae-live-form"' in body and _has_models(app):
        form = (live_folder() / "front.html").read_text(encoding="utf-8")
        # A function, because `re.sub` would read the backslashes of a replacement text.
        body = context["body"] = FORM.sub(lambda _: form, body)
    parts = {part: files for part, files in PARTS.items() if f'id="cae-{part}"' in body}
    absent = {name for files in PARTS.values() for name in files}.difference(*parts.values())

    def wanted(file: Any) -> bool:
        name = Path(str(getattr(file, "filename", file))).name
        # Both the theme and Jupyter Book add Thebe, which no page uses; a browser would complain of
        # constants that are declared twice.
        return (
            name.partition("?")[0] not in absent
            and "thebe" not in f"{file} {getattr(file, 'attributes', '')}".lower()
        )

    for files in ("script_files", "css_files"):
        context[files] = list(filter(wanted, context[files]))


def _finish_pages(app: Any, error: Exception | None) -> None:
    """Make the replacements of `ACCESSIBLE` in all pages, and remove the script of the icons."""
    if error or app.builder.name != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = SCRIPT.sub("", page.read_text(encoding="utf-8"))
        for old, new in ACCESSIBLE.items():
            text = re.sub(old, new, text)
        # Browsers would break a line after the hyphens of a command's option; the class forbids it.
        text = re.sub(r'<span class="pre">(?=--[\w-]{1,30}</span>)', OPTION, text)
        # The title of the front page names the book twice.
        text = re.sub(r"<title>(.*) &#8212; \1</title>", r"<title>\1</title>", text)
        page.write_text(text, encoding="utf-8")
