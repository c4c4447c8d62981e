"""Alignment with the BPE tokens of CLIP, against the tokenizer and a search by token ids."""

import html
import random
import warnings

import numpy as np
import open_clip
import pytest
import torch

from cae_lib.attribution.binding import swapped_captions
from cae_lib.data.negatives import swap_negatives
from cae_lib.errors import ConfigError, DataError
from cae_lib.words.alignment import align, check_captions, token_roles, word_numbers
from cae_lib.words.entities import plain_text
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span, Swap
from cae_lib.words.scene_graph import SceneGraphTagger

ODD = [
    "  A  café,\n the dog&#39;s “red” t-shirt ",
    "sch\u00c3\u00b6n &amp;amp; grün \U0001f600 \U0001f600\U0001f600 12 dogs",
    "\u0130stanbul's cats' 3.5",
    "",
    "a <start_of_text> dog",
    "\x1c a\u200bdog \ufdfa cafe\u0301s",
    "<|endoftext|> a dog <|startoftext|>",
]


@pytest.fixture(scope="module")
def tokenizer() -> open_clip.SimpleTokenizer:
    return open_clip.get_tokenizer("ViT-B-32")


@pytest.mark.parametrize("context_length", [None, 9])  # of which nine cut words in two
def test_tokens_are_the_tokenizers_and_words_those_of_the_end_marks(tokenizer, context_length):
    captions = [
        *ODD[:4],
        "a skateboarding okapi",
        "one two three four five six okapi",
        "x " * 90,
        *ODD[4:],
    ]
    alignment = align(captions, [[]] * len(captions), tokenizer, context_length)
    assert torch.equal(alignment.tokens, tokenizer(captions, context_length))
    assert torch.equal(alignment.words, word_numbers(alignment.tokens, 49408))
    assert alignment.roles.dtype == torch.int8 and not alignment.roles.any()
    row, words = (4, [0, 1, 2, 3, 3, 0, 0]) if context_length is None else (5, [*range(8), 0])
    assert alignment.words[row, : len(words)].tolist() == words


@pytest.mark.parametrize(
    ("caption", "spans", "expected"),
    [
        (
            "a skateboarding okapi in front of it",
            [(2, 15, 2), (16, 21, 1), (22, 33, 3)],
            "a0 skateboarding2 ok1 api1 in3 front3 of3 it0",
        ),
        # spans follow the caption through the tokenizer's cleaning: spaces, HTML entities, mojibake
        (
            ODD[0],
            [(5, 9, 1), (16, 19, 1), (27, 30, 2), (34, 39, 1)],
            'a0 cafÃ©1 ,0 the0 dog1 \'s0 "0 red2 "0 t0 -0 shirt1',
        ),
        (ODD[1], [(0, 6, 2)], "sch2 Ã¶2 n2 &0 gr0 Ã¼0 n0 ðŁĺĢ0 ðŁĺĢðŁĺĢ0 10 20 dogs0"),
        ("a dog mat", [(2, 5, 3), (0, 9, 1)], "a1 dog3 mat1"),  # where two meet the first decides
    ],
)
def test_roles_by_hand(caption, spans, expected, tokenizer):
    alignment = align([caption], [[Span(*span) for span in spans]], tokenizer)
    inside = alignment.words[0] > 0
    pairs = torch.stack([alignment.tokens[0], alignment.roles[0]], dim=1)[inside].tolist()
    actual = [f"{tokenizer.decoder[token]}{role}".replace("</w>", "") for token, role in pairs]
    assert " ".join(actual) == expected and not alignment.roles[0, ~inside].any()
    counts = (alignment.n_truncated, alignment.n_unmatched, alignment.n_spans)
    assert counts == (0, 0, len(spans))


def test_cut_and_lost_spans_are_counted(tokenizer):
    caption = "x " * 80 + "dog"
    spans = [Span(0, 1, OBJECT), Span(160, 163, OBJECT), Span(0, 0, RELATION)]
    alignment = align([caption, "a dog"], [spans, [Span(2, 5, OBJECT)]], tokenizer)
    assert (alignment.n_truncated, alignment.n_unmatched, alignment.n_spans) == (1, 2, 4)
    assert alignment.roles[0, 76] == 0 and alignment.tokens[0, 76] == tokenizer.eot_token_id
    counts = [align(["x " * n], [[]], tokenizer).n_truncated for n in (75, 76)]
    assert counts == [0, 1]  # just fits, just not


def test_swap_that_the_context_cuts_is_left_out(tokenizer):
    """The last noun, "okapi", has two tokens; the start and the end take one position each."""
    caption = "a dog near an okapi"
    nouns, phrases = ((2, 5), (14, 19)), ((0, 5), (11, 19))
    swaps = [Swap(nouns, phrases, binder=(6, 10))]
    complete, cut = (align([caption], [[]], tokenizer, n, [swaps]).swaps.tolist() for n in (8, 7))
    assert complete == [[[[2, 3], [5, 7], [1, 3], [4, 7], [3, 4]]]]
    assert cut == [[]]


def test_plain_text_is_what_html_unescape_returns_in_the_end():
    rng, parts = (
        random.Random(0),
        ["&amp;", "amp;", "&", "#39;", "&quot", "u", " ", "&notit;", "&#1;"],
    )
    for _ in range(500):
        caption = expected = "".join(rng.choices(parts, k=rng.randint(0, 7)))
        while html.unescape(expected) != expected:
            expected = html.unescape(expected)
        text, places = plain_text(caption)
        assert text == expected and len(places) == len(text)
        assert all(end - start == 1 or caption[start] == "&" for start, end in places)


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
    roles = token_roles(captions, tokenizer, tagger).roles
    for caption, graph, row in zip(captions, tagger.graphs(captions), roles, strict=True):
        words = [(entity["head"], OBJECT) for entity in graph["entities"]]
        modifiers = [m for entity in graph["entities"] for m in entity["modifiers"]]
        words += [(m["span"], ATTRIBUTE) for m in modifiers if m["dep"] != "det"]
        words += [(relation["relation"], RELATION) for relation in graph["relations"]]
        ids, expected = tokenizer(caption)[0].tolist(), [0] * 77
        for word, role in words:
            of_word = tokenizer.encode(word)
            starts = (i for i in range(77) if ids[i : i + len(of_word)] == of_word)
            start = next(starts, None)
            for i in range(start, start + len(of_word)) if start is not None else ():
                expected[i] = expected[i] or role
        assert row.tolist() == expected, caption


class CountingTagger:
    """Marks the first three characters as an object, and counts its calls."""

    identity = "counting"
    calls = 0

    def tag(self, captions):
        self.calls += 1
        return [[Span(0, 3, OBJECT)] for _ in captions]


class CarelessTagger:
    """Finds in "a cat on a mat" a swap whose binder is no relation of its own, then a right one."""

    identity = "careless"

    def tag(self, captions):
        return [spans for spans, _ in self.tag_with_swaps(captions)]

    def tag_with_swaps(self, captions):
        spans = [Span(2, 5, OBJECT), Span(6, 8, RELATION), Span(11, 14, OBJECT)]
        nouns = ((2, 5), (11, 14))
        return [(spans, [Swap(nouns, nouns, (9, 10)), Swap(nouns, nouns, (6, 8))])]


def test_swaps_that_contradict_their_roles_are_left_out(tokenizer):
    words = token_roles(["a cat on a mat"], tokenizer, CarelessTagger())
    kept = [swap for swap in words.swaps[0].tolist() if any(map(any, swap))]
    assert kept == [[[2, 3], [5, 6], [2, 3], [5, 6], [3, 4]]]
    _, _, variants = swapped_captions(words.tokens, words.words, words.roles, swaps=words.swaps)
    assert torch.equal(variants, tokenizer(["a mat on a cat"]))


def test_cache_of_roles_serves_the_same_corpus_only(tokenizer, tmp_path):
    captions, tagger = ["dog", "dogs run", ""], CountingTagger()
    first = token_roles(captions, tokenizer, tagger, tmp_path)
    again = token_roles(captions, tokenizer, tagger, tmp_path)
    assert tagger.calls == 1
    for name, value in vars(first).items():
        stored = vars(again)[name]
        same = torch.equal(stored, value) if isinstance(value, torch.Tensor) else stored == value
        assert same and getattr(stored, "dtype", None) == getattr(value, "dtype", None)
    token_roles(captions[:2], tokenizer, tagger, tmp_path)
    token_roles(captions, open_clip.SimpleTokenizer(context_length=32), tagger, tmp_path)
    assert token_roles(captions, tokenizer, tagger, tmp_path, 16).tokens.shape == (3, 16)
    tagger.identity = "other"
    token_roles(captions, tokenizer, tagger, tmp_path)
    files = list(tmp_path.iterdir())
    assert tagger.calls == len(files) == 5 and all(file.suffix == ".pt" for file in files)
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"\.pt: damaged cache"):
        token_roles(captions, tokenizer, tagger, tmp_path)
    with pytest.raises(ConfigError, match="expected open_clip's SimpleTokenizer"):
        align(["a"], [[]], lambda texts: torch.zeros(len(texts), 77))


def test_tokens_after_an_end_that_a_caption_holds_have_no_word_and_no_role(tokenizer):
    caption = "a dog<end_of_text> a cat"
    alignment = align([caption], [[Span(0, len(caption), OBJECT)]], tokenizer)
    assert alignment.words[0, :5].tolist() == [0, 1, 2, 0, 0]
    assert torch.equal(alignment.roles > 0, alignment.words > 0)
    behind = align([caption], [[Span(18, 23, OBJECT, ((2, 5),))]], tokenizer)
    assert behind.n_unmatched == 1 and not behind.roles.any() and not behind.arguments.any()


def test_each_caption_has_a_list_of_swaps(tokenizer):
    for swaps in ([], [[], [], []]):
        with pytest.raises(DataError, match="lists of swaps for 2 captions"):
            align(["a dog", "a cat"], [[], []], tokenizer, swaps=swaps)


@pytest.mark.parametrize(
    ("caption", "things", "expected"),
    [
        # a relation has its subject and object, an attribute its bearer; of several words the first
        (
            "a red fire hydrant near a big dog",
            {"red": ["fire hydrant"], "big": ["dog"], "near": ["fire hydrant", "dog"]},
            {"red": [3, 0], "near": [3, 8], "big": [8, 0]},
        ),
        # spaces, an entity and mojibake are cleaned away: the places move
        (
            "  a  red dog&#39;s toy sch\u00c3\u00b6n the big  mat ",
            {"red": ["dog"], "big": ["mat"], "sch\u00c3\u00b6n": ["toy", "mat"]},
            {"red": [3, 0], "sch\u00f6n": [5, 9], "big": [9, 0]},
        ),
        ("red &amp; dog", {"red": ["&amp;"]}, {"red": [2, 0]}),
        ("red dog near", {"near": ["dog", ""]}, {"near": [2, 0]}),  # one that stands nowhere
    ],
    ids=["first word", "cleaned", "entity", "nowhere"],
)
def test_arguments_by_hand(caption, things, expected, tokenizer):
    """Numbers of the words that a word is said of, counted in the cleaned caption."""

    def place(text):
        start = caption.index(text) if text else 0
        return start, start + len(text)

    spans = [
        Span(*place(word), RELATION if len(of) == 2 else ATTRIBUTE, tuple(map(place, of)))
        for word, of in things.items()
    ]
    alignment = align([caption], [spans], tokenizer)
    actual = {}
    for token, words in zip(alignment.tokens[0], alignment.arguments[0].tolist(), strict=True):
        if any(words):
            actual.setdefault(tuple(words), []).append(int(token))
    read = {tokenizer.decode(tokens).strip(): list(words) for words, tokens in actual.items()}
    assert read == expected


def test_first_of_spans_that_share_a_token_decides_its_role_and_arguments(tokenizer) -> None:
    red_object, red_attribute = Span(0, 3, OBJECT), Span(0, 3, ATTRIBUTE, ((4, 7),))
    of_attribute = align(["red dog"], [[red_attribute, red_object]], tokenizer)
    of_object = align(["red dog"], [[red_object, red_attribute]], tokenizer)
    assert of_attribute.roles[0, 1] == ATTRIBUTE and of_attribute.arguments[0, 1].tolist() == [2, 0]
    assert of_object.roles[0, 1] == OBJECT and not of_object.arguments.any()


@pytest.mark.parametrize(
    "captions", ["a dog", ["a dog", 3], None, {"a red cat"}, {"a": 1}, (c for c in "ab")]
)
def test_captions_are_a_list_of_texts(captions, tokenizer):
    tagger = CountingTagger()
    with pytest.raises(DataError, match="expected"):
        check_captions(captions)
    for call in (
        lambda: token_roles(captions, tokenizer, tagger),
        lambda: swap_negatives(captions),
        lambda: align(captions, [[]], tokenizer),
    ):
        with pytest.raises(DataError):
            call()
    assert not tagger.calls


@pytest.mark.parametrize(
    "spans",
    [[[Span(0, 3, 257)]], [[Span(0, 3, None)]], [[(0, 3, 1)]], [Span(0, 3, 1)], ["dog"]],
    ids=str,
)
def test_spans_have_a_role_and_are_listed_by_caption(spans, tokenizer):
    with pytest.raises(DataError, match="caption 0"):
        align(["dog"], spans, tokenizer)
    with pytest.raises(DataError, match="2 captions with 1 lists"):
        align(["dog", "b"], spans, tokenizer)
    of_numpy = [[Span(np.int64(0), np.int64(3), np.int64(OBJECT))]]
    assert align(np.array(["dog"]), of_numpy, tokenizer).roles[0, 1] == OBJECT


def test_captions_in_title_case_give_one_warning_and_names_give_none(tokenizer):
    names = ["A couple of guys playing a game on the Nintendo Wii.", "A boy and I in a Hawaiian"]
    titles = ["A Red Dog", "A Cat in the Hat on a Mat", "TWO DOGS ON A BED"]
    with pytest.warns(UserWarning, match="3 of 5 captions.*") as record:
        token_roles([*titles, *names], tokenizer, CountingTagger())
    assert len(record) == 1 and "caption.lower()" in str(record[0].message)
    assert record[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for captions in (names, [*names, "Two dogs", "a street sign", *titles], []):
            token_roles(captions, tokenizer, CountingTagger())
