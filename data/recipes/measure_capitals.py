"""Measure how capitals and HTML entities change the roles that each tagger finds.

    python -m data.recipes.measure_capitals

The labelled captions of `data/roles/captions.txt` are rewritten (`FORMS`), and treated before they
are tagged (`TREATMENTS`). The printed table compares the roles of their words with the labels, in
percent: precision, recall and F1 of each role, the mean of the three F1, and captions without an
error. A word has the role of the first span that reaches into it, as on the page *Word roles*.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from cae_lab.cli import run_reporting_errors
from cae_lib.config import bundled_path
from cae_lib.words.alignment import has_title_case
from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.pipeline import Tagger
from cae_lib.words.roles import ROLE_NAMES, Span
from cae_lib.words.scene_graph import SceneGraphTagger

Rewrite = Callable[[str], str]
ROLE_OF_LETTER = dict(zip("-OAR", ROLE_NAMES, strict=True))


def title_case(caption: str) -> str:
    """Begin each word with a capital."""
    return " ".join(word[:1].upper() + word[1:] for word in caption.split(" "))


def lower_after_first(caption: str) -> str:
    """Lower all letters but the caption's first one and the pronoun "I"."""
    return caption[:1] + re.sub(r"\bi\b", "I", caption[1:].lower())


def truecase(caption: str) -> str:
    """Lower a caption in Title Case or capitals, and keep any other as it is."""
    return caption.lower() if has_title_case(caption) else caption


def with_entities(caption: str) -> str:
    """Write "and" as an entity, and the second word in quotes that are entities."""
    words = ["&amp;" if word == "and" else word for word in caption.split(" ")]
    quote = "&quot;" if len(words) % 2 else "&#39;"
    return " ".join([words[0], f"{quote}{words[1]}{quote}", *words[2:]])


FORMS: Mapping[str, Rewrite] = {
    "as labelled": str,
    "Title Case": title_case,
    "capitals": str.upper,
    "with entities": with_entities,
    "with these characters": lambda caption: html.unescape(with_entities(caption)),
}
TREATMENTS: Mapping[str, Rewrite] = {
    "as written": str,
    "lower": str.lower,
    "lower after the first": lower_after_first,
    "truecase": truecase,
}


def labelled_captions() -> tuple[list[str], list[list[str]]]:
    """Return the labelled captions, and the roles of their words."""
    lines = bundled_path("data/roles/captions.txt").read_text(encoding="utf-8").splitlines()
    words = [[word.rsplit("/", 1) for word in line.split(" ")] for line in lines]
    captions = [" ".join(word for word, _ in of_caption) for of_caption in words]
    return captions, [[ROLE_OF_LETTER[letter] for _, letter in of_caption] for of_caption in words]


def word_roles(caption: str, spans: Sequence[Span]) -> list[str]:
    """Return the role of each word, which is that of the first span that reaches into it."""
    roles, start = [], 0
    for word in caption.split(" "):
        end = start + len(word)
        reaching = [ROLE_NAMES[s.role] for s in spans if s.start < end and s.end > start]
        roles.append(reaching[0] if reaching else "other")
        start = end + 1
    return roles


def agreement(truth: Sequence[Sequence[str]], roles: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return precision, recall and F1 of each role, their mean, and captions without an error."""
    pairs = [
        pair
        for of_caption in zip(truth, roles, strict=True)
        for pair in zip(*of_caption, strict=True)
    ]
    shares, f1 = {}, []
    for role in ROLE_NAMES[1:]:
        n_true, n_tagged = (sum(pair[side] == role for pair in pairs) for side in (0, 1))
        n_right = pairs.count((role, role))
        f1.append(2 * n_right / max(1, n_true + n_tagged))
        shares[f"{role} precision"] = n_right / max(1, n_tagged)
        shares[f"{role} recall"] = n_right / max(1, n_true)
        shares[f"{role} F1"] = f1[-1]
    n_whole = sum(list(a) == list(b) for a, b in zip(truth, roles, strict=True))
    return shares | {"mean F1": sum(f1) / len(f1), "captions right": n_whole / len(truth)}


def measure(taggers: Mapping[str, Tagger]) -> pd.DataFrame:
    """Return the agreement with the labels by form, treatment and tagger, in percent."""
    captions, truth = labelled_captions()
    rows = {}
    for form, rewrite in FORMS.items():
        for treatment, treat in TREATMENTS.items():
            texts = [treat(rewrite(caption)) for caption in captions]
            for name, tagger in taggers.items():
                roles = [word_roles(*pair) for pair in zip(texts, tagger.tag(texts), strict=True)]
                rows[form, treatment, name] = agreement(truth, roles)
    table = pd.DataFrame.from_dict(rows, orient="index") * 100
    table.index = pd.MultiIndex.from_tuples(rows, names=["form", "treatment", "tagger"])
    return table


def main() -> int:
    """Print the table, and return the exit code."""

    def show() -> None:
        taggers = {"scene-graph": SceneGraphTagger(), "dependency": DependencyTagger()}
        print(measure(taggers).to_string(float_format="{:.1f}".format))

    return run_reporting_errors(show, "the same command")


if __name__ == "__main__":
    sys.exit(main())
