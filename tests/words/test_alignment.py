"""Alignment with the BPE tokens of CLIP, against the tokenizer and a search by token ids."""

from __future__ import annotations

import open_clip
import pytest
import torch

from cae_lib.attribution.grouping import word_index
from cae_lib.errors import ConfigError, DataError
from cae_lib.words.alignment import Alignment, align, pieces, token_roles
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span
from cae_lib.words.scene_graph import SceneGraphTagger

ODD = [
    "  A  café,\n the dog&#39;s “red” t-shirt ",
    "sch\u00c3\u00b6n &amp;amp; grün \U0001f600 \U0001f600\U0001f600 12 dogs",
    "\u0130stanbul's cats' 3.5",
    "",
]


@pytest.fixture(scope="module")
def tokenizer() -> open_clip.SimpleTokenizer:
    return open_clip.get_tokenizer("ViT-B-32")


class CountingTagger:
    """Marks the word "dog" as an object, and counts its calls."""

    identity = "counting"

    def __init__(self) -> None:
        self.calls = 0

    def tag(self, captions):
        self.calls += 1
        places = [caption.find("dog") for caption in captions]
        return [[Span(place, place + 3, OBJECT)] if place >= 0 else [] for place in places]


def roles_of(alignment: Alignment, row: int, tokenizer) -> list[tuple[str, int]]:
    length = int((alignment.tokens[row] > 0).sum())
    return [
        (tokenizer.decode([int(alignment.tokens[row, i])]).strip(), int(alignment.roles[row, i]))
        for i in range(1, length - 1)
    ]


def test_tokens_are_the_tokenizers(tokenizer):
    captions = [*ODD, "a dog on a mat", "x " * 90]
    alignment = align(captions, [[]] * len(captions), tokenizer)
    assert torch.equal(alignment.tokens, tokenizer(captions))
    assert alignment.roles.dtype == torch.int8 and not alignment.roles.any()


def test_pieces_tile_the_words(tokenizer):
    cleaned = tokenizer.clean_fn("A skateboarder's déjà-vu")
    found = pieces(cleaned, tokenizer)
    assert [piece.token for piece in found] == tokenizer.encode(cleaned)
    covered = {i for piece in found for i in range(piece.start, piece.end)}
    assert covered == {i for i, c in enumerate(cleaned) if c != " "}


@pytest.mark.parametrize("context_length", [None, 9])  # of which nine cut words in two
def test_words_are_those_of_the_end_marks(tokenizer, context_length):
    captions = [*ODD, "a skateboarding okapi", "one two three four five six okapi", "x " * 90]
    alignment = align(captions, [[]] * len(captions), tokenizer, context_length)
    assert torch.equal(alignment.tokens, tokenizer(captions, context_length))
    assert torch.equal(alignment.words, word_index(alignment.tokens, 49408))
    if context_length is None:
        assert alignment.words[4, :7].tolist() == [0, 1, 2, 3, 3, 0, 0]
    else:
        assert alignment.words[5].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0]


def test_roles_by_hand_with_a_word_of_several_tokens(tokenizer):
    caption = "a skateboarding okapi in front of it"
    spans = [Span(2, 15, ATTRIBUTE), Span(16, 21, OBJECT), Span(22, 33, RELATION)]
    alignment = align([caption], [spans], tokenizer)
    assert roles_of(alignment, 0, tokenizer) == [
        ("a", 0), ("skateboarding", 2), ("ok", 1), ("api", 1),
        ("in", 3), ("front", 3), ("of", 3), ("it", 0),
    ]
    assert alignment.roles[0, 0] == 0 and not alignment.roles[0, 9:].any()
    assert (alignment.n_truncated, alignment.n_unmatched, alignment.n_spans) == (0, 0, 3)


def test_spans_follow_the_caption_through_the_tokenizers_cleaning(tokenizer):
    caption = ODD[0]
    places = [(caption.index(word), word) for word in ("café", "dog", "red", "shirt")]
    spans = [Span(start, start + len(word), OBJECT) for start, word in places]
    marked = [word for word, role in roles_of(align([caption], [spans], tokenizer), 0, tokenizer)
              if role]
    assert marked == ["café", "dog", "red", "shirt"]


def test_mojibake_keeps_its_word(tokenizer):
    caption = ODD[1]  # the tokenizer repairs the first word to "schön"
    alignment = align([caption], [[Span(0, 6, ATTRIBUTE)]], tokenizer)
    marked = [word for word, role in roles_of(alignment, 0, tokenizer) if role == 2]
    assert "".join(marked) == "schön"


def test_where_two_spans_meet_the_first_decides(tokenizer):
    spans = [Span(2, 5, RELATION), Span(0, 9, OBJECT)]
    alignment = align(["a dog mat"], [spans], tokenizer)
    assert roles_of(alignment, 0, tokenizer) == [("a", 1), ("dog", 3), ("mat", 1)]


def test_cut_and_lost_spans_are_counted(tokenizer):
    caption = "x " * 80 + "dog"
    spans = [Span(0, 1, OBJECT), Span(160, 163, OBJECT), Span(0, 0, RELATION)]
    alignment = align([caption, "a dog"], [spans, [Span(2, 5, OBJECT)]], tokenizer)
    assert (alignment.n_truncated, alignment.n_unmatched, alignment.n_spans) == (1, 2, 4)
    assert alignment.roles[0, 76] == 0 and alignment.tokens[0, 76] == tokenizer.eot_token_id
    just_fits = align(["x " * 75], [[]], tokenizer)
    assert just_fits.n_truncated == 0


def test_same_roles_as_the_first_match_of_token_ids(tokenizer):
    """The authors' rule written out: the first contiguous place of the word's token ids."""
    captions = [
        "A man next to a man with a hot dog on a plate on a table.",
        "Two brown dogs and a skateboarder sitting next to a big red fire hydrant.",
        "An orange sits on an orange plate in front of the orange cat.",
        "a well-dressed woman's t-shirt on the t shirt",
        "A carpet under a car",
    ]
    tagger = SceneGraphTagger()
    roles = token_roles(captions, tagger, tokenizer).roles
    for caption, graph, row in zip(captions, tagger.graphs(captions), roles, strict=True):
        words = [(entity["head"], OBJECT) for entity in graph["entities"]]
        words += [
            (modifier["span"], ATTRIBUTE)
            for entity in graph["entities"]
            for modifier in entity["modifiers"]
            if modifier["dep"] != "det"
        ]
        words += [(relation["relation"], RELATION) for relation in graph["relations"]]
        ids, expected = tokenizer(caption)[0].tolist(), [0] * 77
        for word, role in words:
            wanted = tokenizer.encode(word)
            starts = (i for i in range(77) if ids[i : i + len(wanted)] == wanted)
            start = next(starts, None)
            for i in range(start, start + len(wanted)) if start is not None else ():
                expected[i] = expected[i] or role
        assert row.tolist() == expected, caption


def test_cache_serves_the_same_corpus_only(tokenizer, tmp_path):
    captions = ["a dog", "two dogs", "a cat"]
    tagger = CountingTagger()
    first = token_roles(captions, tagger, tokenizer, tmp_path)
    again = token_roles(captions, tagger, tokenizer, tmp_path)
    assert tagger.calls == 1
    assert torch.equal(first.tokens, again.tokens) and first.tokens.dtype == again.tokens.dtype
    assert torch.equal(first.roles, again.roles)
    assert torch.equal(first.words, again.words) and first.words.dtype == again.words.dtype
    assert (again.n_truncated, again.n_unmatched, again.n_spans) == (0, 0, 2)
    token_roles(captions[:2], tagger, tokenizer, tmp_path)
    token_roles(captions, tagger, open_clip.SimpleTokenizer(context_length=32), tmp_path)
    tagger.identity = "other"
    token_roles(captions, tagger, tokenizer, tmp_path)
    assert tagger.calls == 4
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".pt"]


def test_a_damaged_cache_file_is_named(tokenizer, tmp_path):
    token_roles(["a dog"], CountingTagger(), tokenizer, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"")
    with pytest.raises(DataError, match=rf"{file.name}: damaged cache"):
        token_roles(["a dog"], CountingTagger(), tokenizer, tmp_path)


def test_other_tokenizers_and_counts_are_errors(tokenizer):
    with pytest.raises(ConfigError, match="expected open_clip's SimpleTokenizer"):
        align(["a"], [[]], lambda texts: torch.zeros(len(texts), 77))
    with pytest.raises(DataError, match="2 captions with 1 lists"):
        align(["a", "b"], [[]], tokenizer)
