"""Golden cases: the exact roles, swaps and hard negatives of some captions.

The values in `words.json` were read: each is right, or `known_error` of its caption says what is
wrong. When a case fails, either mend the code, or raise the version that the failure names, write
the new cases (`python tests/golden/test_words.py`), and read what changed.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip import SimpleTokenizer

from cae_lib.attribution.binding import swapped_captions
from cae_lib.data.negatives import swap_negatives
from cae_lib.words.alignment import token_roles
from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.roles import NO_OFFSETS, ROLE_NAMES, Offsets, Span, Swap
from cae_lib.words.versions import DEPENDENCY_VERSION, NEGATIVES_VERSION, SWAPS_VERSION

STORED = Path(__file__).with_name("words.json")
SWAPS = "SWAPS_VERSION in cae_lib/words/versions.py", SWAPS_VERSION
MOVED = (
    f"TRAINING_VERSION in cae_lib/training/inputs.py or, where swaps changed, {SWAPS[0]}",
    SWAPS_VERSION,
)
NEGATIVES = "NEGATIVES_VERSION in cae_lib/words/versions.py", NEGATIVES_VERSION
VERSIONS = {
    "roles": ("DEPENDENCY_VERSION in cae_lib/words/versions.py", DEPENDENCY_VERSION),
    "swaps": SWAPS,
    "moved nouns": MOVED,
    "moved phrases": MOVED,
    "moved half": MOVED,
    "negatives": NEGATIVES,
    "controls": NEGATIVES,
}
"""What is stored of each caption, and the version that has to be raised when it changes."""


def marked(caption: str, spans: Sequence[Span]) -> str:
    """Return a caption with its spans in brackets, such as "a [red|attribute] [dog|object]"."""
    text = caption
    for span in sorted(spans, key=lambda span: span.start, reverse=True):
        words = f"[{caption[span.start : span.end]}|{ROLE_NAMES[span.role]}]"
        text = text[: span.start] + words + text[span.end :]
    return text


def described(caption: str, swap: Swap) -> str:
    """Return the binder of a swap, and the nouns and the phrases that it may move."""

    def pair(parts: tuple[Offsets, Offsets]) -> str:
        return "-" if NO_OFFSETS in parts else " / ".join(caption[slice(*part)] for part in parts)

    binder = caption[slice(*swap.binder)] or "(attributes)"
    return f"{binder}: {pair(swap.nouns)}; {pair(swap.phrases)}"


def swapped(captions: Sequence[str], tagger: DependencyTagger, moved: str) -> list[list[str]]:
    """Return the captions that training sees in place of each caption."""
    tokenizer = SimpleTokenizer()
    words = token_roles(captions, tokenizer, tagger)
    rows, _, variants = swapped_captions(
        words.tokens,
        words.words,
        words.roles,
        swaps=words.swaps,
        swap_kind=moved,
        generator=torch.Generator().manual_seed(1),
    )
    texts: list[list[str]] = [[] for _ in captions]
    for row, tokens in zip(rows.tolist(), variants.tolist(), strict=True):
        text = tokenizer.decode(tokens[1 : tokens.index(tokenizer.eot_token_id)])
        texts[row].append(text.strip())
    return texts


def cases(captions: Sequence[str]) -> dict[str, list[Any]]:
    """Return what is stored of each caption."""
    tagger = DependencyTagger()
    tagged = list(zip(captions, tagger.tag_with_swaps(captions), strict=True))
    return {
        "roles": [marked(caption, spans) for caption, (spans, _) in tagged],
        "swaps": [[described(caption, swap) for swap in swaps] for caption, (_, swaps) in tagged],
        "moved nouns": swapped(captions, tagger, "noun"),
        "moved phrases": swapped(captions, tagger, "phrase"),
        "moved half": swapped(captions, tagger, "half"),
        "negatives": swap_negatives(captions),
        "controls": swap_negatives(captions, preserve_meaning=True),
    }


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads(STORED.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def computed(stored) -> dict[str, list[Any]]:
    return cases(list(stored["captions"]))


@pytest.mark.parametrize("kind", VERSIONS)
def test_captions_have_the_stored_words(kind: str, stored, computed) -> None:
    name, version = VERSIONS[kind]
    write = "write the new cases: python tests/golden/test_words.py"
    assert stored["versions"][kind] == version, write
    for (caption, case), value in zip(stored["captions"].items(), computed[kind], strict=True):
        advice = f"{kind} of {caption!r}: mend the code, or raise {name} and {write}"
        assert value == case[kind], advice


def write() -> None:
    """Write the cases of the code that is here."""
    content = json.loads(STORED.read_text(encoding="utf-8"))
    content["versions"] = {kind: version for kind, (_, version) in VERSIONS.items()}
    for kind, values in cases(list(content["captions"])).items():
        for case, value in zip(content["captions"].values(), values, strict=True):
            case[kind] = value
    text = json.dumps(content, indent=1, ensure_ascii=False)
    STORED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
