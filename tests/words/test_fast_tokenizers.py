"""Roles and words for Hugging Face's fast tokenizers, built here and worked out by hand."""

from functools import cache
from types import SimpleNamespace
from unittest.mock import Mock

import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer, SigLipTokenizer

from cae_lab.attribution import CaptionSample
from cae_lib.errors import ConfigError
from cae_lib.words.alignment import Alignment, align, token_roles
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")


@cache
def clips():
    """Hugging Face's CLIP tokenizer with open_clip's own vocabulary and merges."""
    simple = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): i for token, i in simple.encoder.items()}
    merges = list(simple.bpe_ranks)
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def wrap(model, pre, *, normalizer=None, template=None, unk_token=None, **options):
    """A fast tokenizer with `<pad>` 0 and `</s>` 1."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre
    if normalizer is not None:
        backend.normalizer = normalizer
    special = [(token, i) for i, token in enumerate(("<pad>", "</s>", "[CLS]", "[SEP]"))]
    template = {"single": template or "$A </s>", "special_tokens": special}
    backend.post_processor = tokenizers.processors.TemplateProcessing(**template)
    options |= {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": unk_token}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **options)


def metaspace():
    """A Unigram model as SentencePiece makes them; "on" is only known without its space."""
    words = "<pad> </s> <unk> ▁ ▁a ▁dog ▁in ▁fr ont ▁of on ' s".split()
    model = tokenizers.models.Unigram([(word, -1.0 * len(word)) for word in words], unk_id=2)
    return wrap(model, tokenizers.pre_tokenizers.Metaspace(), unk_token="<unk>")


def byte_level(trim_offsets: bool = True, **options):
    """A BPE of single bytes and two words, as GPT-2's; an emoji is four tokens."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<pad>", "</s>", *alphabet, "do", "dog", "Ġdog"]
    merges = [("d", "o"), ("do", "g"), ("Ġ", "dog")]
    model = tokenizers.models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges)
    fast = wrap(model, tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False), **options)
    trim = tokenizers.processors.ByteLevel(trim_offsets=trim_offsets)
    steps = [trim, fast.backend_tokenizer.post_processor]
    fast.backend_tokenizer.post_processor = tokenizers.processors.Sequence(steps)
    return fast


def word_piece(**options):
    """BERT's kind: `[CLS]` and `[SEP]` around the tokens, which do not know capitals."""
    tokens = "<pad> </s> [CLS] [SEP] [UNK] a dog red skate ##board t tred".split()
    model = tokenizers.models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]")
    return wrap(
        model,
        tokenizers.pre_tokenizers.BertPreTokenizer(),
        template="[CLS] $A [SEP]",
        normalizer=tokenizers.normalizers.BertNormalizer(),
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        **options,
    )


def wrapped(fast, folder, **options) -> HFTokenizer:
    fast.save_pretrained(folder)
    return HFTokenizer(str(folder), **options)


def siglip(fast, context_length: int) -> SigLipTokenizer:
    """open_clip's class around a tokenizer at hand."""
    tokenizer = object.__new__(SigLipTokenizer)
    tokenizer.tokenizer, tokenizer.context_length = fast, context_length
    return tokenizer


def marks(caption: str, *words: tuple[str, int]) -> list[Span]:
    """Spans of words, given in the order in which they stand."""
    spans, start = [], 0
    for word, role in words:
        start = caption.index(word, start)
        spans.append(Span(start, start + len(word), role))
        start += len(word)
    return spans


def shown(alignment: Alignment, fast) -> str:
    """token:role:word of each position of the first caption; padding is shown once."""
    names = fast.convert_ids_to_tokens(alignment.tokens[0].tolist())
    roles, words = alignment.roles[0].tolist(), alignment.words[0].tolist()
    actual = [
        f"{name.removesuffix('</w>')}:{role}:{word}"
        for name, role, word in zip(names, roles, words, strict=True)
    ]
    while len(actual) > 1 and actual[-1] == actual[-2]:
        actual.pop()
    return " ".join(actual)


def test_clip_fast_tokenizer_gives_what_open_clips_gives():
    simple, clip = open_clip.SimpleTokenizer(), clips()
    captions = [
        "a skateboarding okapi in front of it",
        "the cat's café, 12 dogs!! 😀 😀😀",
        "",
        "Zoë's cats' t-shirt 3.5",
        "x " * 90,
    ]
    spans = [
        marks(captions[0], ("skateboarding", ATTRIBUTE), ("okapi", OBJECT), ("in front", RELATION)),
        marks(captions[1], ("cat", OBJECT), ("café", OBJECT), ("12", ATTRIBUTE), ("😀", OBJECT)),
        [],
        marks(captions[3], ("Zoë", OBJECT), ("shirt", OBJECT)),
        [Span(0, 1, OBJECT), Span(170, 171, OBJECT)],
    ]
    ours, reference = align(captions, spans, clip), align(captions, spans, simple)
    text = reference.tokens != 0
    assert torch.equal(ours.tokens[text], reference.tokens[text])
    assert (ours.tokens[~text] == clip.pad_token_id).all()
    assert torch.equal(ours.words, reference.words) and ours.words.dtype == torch.long
    assert torch.equal(ours.roles, reference.roles) and ours.roles.any()
    counts = [(a.n_truncated, a.n_unmatched, a.n_spans) for a in (ours, reference)]
    assert counts == [(1, 1, 11)] * 2


HAND = {
    "text that the tokenizer does not clean": (
        clips,
        "the dog&#39;s “red” cafe\u0301, Dog 😀",
        77,
        [
            ("dog", OBJECT),
            ("red", ATTRIBUTE),
            ("cafe\u0301", OBJECT),
            ("Dog", RELATION),
            ("😀", ATTRIBUTE),
        ],
        "<|startoftext|>:0:0 the:0:1 dog:1:2 &:0:3 #:0:3 3:0:4 9:0:5 ;:0:6 s:0:7 âĢ:0:8 ľ:0:8 "
        "red:2:9 âĢ:0:10 Ŀ:0:10 cafÃ©:1:11 ,:0:12 dog:3:13 ðŁĺĢ:2:14 <|endoftext|>:0:0",
        (0, 0),
    ),
    "tokens that hold the space before their word": (
        metaspace,
        "a dog's  in front of 中 on",
        20,
        [("dog", OBJECT), ("in front of ", RELATION), ("中", OBJECT)],
        "▁a:0:1 ▁dog:1:2 ':0:3 s:0:3 ▁:0:0 ▁in:3:4 ▁fr:3:5 ont:3:5 ▁of:3:6 ▁:0:0 <unk>:1:7 "
        "▁:0:0 on:0:8 </s>:0:0 <pad>:0:0",
        (0, 0),
    ),
    "bytes of a character belong to its word": (
        byte_level,
        "dog  dog é😀 dog",
        16,
        [("dog  ", ATTRIBUTE), ("é", OBJECT), ("😀 dog", RELATION)],
        "dog:2:1 Ġ:0:0 Ġdog:0:2 Ġ:0:0 Ã:1:3 ©:1:3 ð:3:4 Ł:3:4 ĺ:3:4 Ģ:3:4 Ġdog:3:5 </s>:0:0 "
        "<pad>:0:0",
        (0, 0),
    ),
}


@pytest.mark.parametrize(
    ("build", "caption", "length", "things", "expected", "counts"), HAND.values(), ids=HAND
)
def test_tokens_roles_and_words_of_fast_tokenizers_by_hand(
    build, caption, length, things, expected, counts
):
    fast = build()
    alignment = align([caption, ""], [marks(caption, *things), []], fast, length)
    assert shown(alignment, fast) == expected
    padded = fast([caption, ""], padding="max_length", truncation=True, max_length=length)
    assert alignment.tokens.tolist() == padded["input_ids"]
    assert not alignment.words[1].any()
    actual = (alignment.n_truncated, alignment.n_unmatched, alignment.n_spans)
    assert actual == (*counts, len(things))


@pytest.mark.parametrize("options", [{"strip_sep_token": True}, {"tokenizer_mode": "clips"}])
def test_wrapper_of_open_clip_with_its_cleaning(tmp_path, options):
    fast = word_piece(bos_token="[UNK]")
    tokenizer = wrapped(fast, tmp_path, context_length=8, **options)
    captions = [" A  &quot;Red&quot; skateboard", "dog &amp;amp; a t dog a red", "dog " * 8, ""]
    things = ("A", RELATION), ("Red", ATTRIBUTE), ("skateboard", OBJECT)
    spans = [marks(captions[0], *things), [], [], []]
    alignment = align(captions, spans, tokenizer)
    assert torch.equal(alignment.tokens, tokenizer(captions))
    names = fast.convert_ids_to_tokens(alignment.tokens[0].tolist())
    assert names[1:6] == ["a", "[UNK]", "red", "[UNK]", "skate"]
    cut = options.get("tokenizer_mode") == "clips"  # one special token more
    assert alignment.roles[0].tolist() == [0, 3, 0, 2, 0, 1, 0 if cut else 1, 0]
    assert alignment.words[0].tolist() == [0, 1, 2, 3, 4, 5, 0 if cut else 5, 0]
    assert alignment.words[2].tolist() == [0, 1, 2, 3, 4, 5, 0 if cut else 6, 0]
    assert not alignment.words[3].any()
    assert alignment.n_truncated == (2 if not cut else 3)


def test_tokenizer_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="ByT5Tokenizer"):
        align(["a"], [[]], transformers.ByT5Tokenizer(model_max_length=8))
    # the `model_max_length` of this one says "no limit"
    for endless in (metaspace(), wrapped(metaspace(), tmp_path, context_length=None)):
        with pytest.raises(ConfigError, match="context_length"):
            align(["a"], [[]], endless)
    unpadded = metaspace()
    unpadded.pad_token = None
    with pytest.raises(ConfigError, match="padding"):
        align(["a"], [[]], unpadded, context_length=8)


def test_cache_of_roles_tells_tokenizers_apart(tmp_path):
    tagger = SimpleNamespace(identity="", tag=lambda captions: [[] for _ in captions])
    fast, larger = byte_level(True, model_max_length=64), byte_level(True)
    larger.add_tokens(["cat"])
    token_roles(["dog"], fast, tagger, tmp_path)
    fast("dog", max_length=5, padding="max_length", truncation=True)
    token_roles(["dog"], fast, tagger, tmp_path, 64)
    assert len(list(tmp_path.iterdir())) == 1
    left = [byte_level(True, **{f"{end}_side": "left"}) for end in ("padding", "truncation")]
    others = [(fast, 65), *((one, 64) for one in (larger, *left)), (siglip(fast, 64), None)]
    for number, (tokenizer, length) in enumerate(others, start=2):
        token_roles(["dog"], tokenizer, tagger, tmp_path, length)
        assert len(list(tmp_path.iterdir())) == number


@pytest.mark.parametrize("build", [clips, byte_level, metaspace, word_piece])
def test_swaps_of_phrases_are_kept_also_where_white_space_has_a_token(build) -> None:
    words = token_roles(["a red dog on a cat"], build(), "dependency", context_length=32)
    ((_, _, *phrases, _),) = words.swaps[0].tolist()
    numbers = [set(words.words[0, start:end].tolist()) - {0} for start, end in phrases]
    assert numbers == [{1, 2, 3}, {5, 6}]


def test_siglip_tokenizer_drops_punctuation_and_decodes_words():
    fast = word_piece()
    tokenizer = siglip(fast, 8)
    caption = "A_dog: T-Red&#33;"
    spans = marks(caption, ("dog", OBJECT), (":", RELATION), ("Red", ATTRIBUTE))
    alignment = align([caption], [spans], tokenizer)
    assert torch.equal(alignment.tokens, tokenizer([caption]))
    assert shown(alignment, fast) == "[CLS]:0:0 a:0:1 dog:1:2 tred:2:3 [SEP]:0:0 <pad>:0:0"
    assert alignment.n_unmatched == 1
    assert align([caption], [spans], tokenizer, context_length=4).n_truncated == 1
    sample = Mock(words=alignment.words, tokens=alignment.tokens, n_words=[3])
    assert CaptionSample.word_texts(sample, 0, tokenizer) == ["a", "dog", "tred"]
