"""Word lists that decide which swaps of a caption's parts make it false.

All lists serve `find_swaps`, unless a comment says otherwise. `swap_negatives` has shorter lists of
its own, since other lists would draw the published hard negatives anew.

The lists are short on purpose: each of them prevents errors that occurred in captions of COCO,
Flickr8k and the synthetic scenes.
"""

from __future__ import annotations

NOUN_POS = ("NOUN", "PROPN")  # coarse parts of speech, as spaCy names them (`Token.pos_`)

# Prepositions that hold in both directions: swapping their arguments makes nothing false. "by" is
# directed before the agent of a passive ("held by"), "with" after a past participle ("filled
# with"). The words of a preposition are joined by "_".
#
# ARO drops 157 relations from its average as symmetric (`aro_symmetric.txt`). Those of them that
# are symmetric in meaning end in one of these prepositions or are in `MUTUAL_VERBS`. The others,
# such as "underneath", "sitting under" and "reading", are directed, and are swapped here.
MUTUAL_PREPOSITIONS = frozenset(
    "adjacent_to across_from along_side_of along_with alongside alongside_of amid among amongst "
    "and apart_from attached_to away_from beside besides between by close_by close_to connected_to "
    "far_from near nearby next_to on_the_other_side_of opposite together_with with".split()
)

# Lemmas of verbs that hold in both directions, or whose reversal nobody could call false.
MUTUAL_VERBS = frozenset(
    "embrace equal face fight greet hug kiss marry match meet resemble".split()
)

# Lemmas of verbs after whose participle "by" states a place instead of an agent ("parked by").
POSTURE_VERBS = frozenset("lean lie locate park place position seat set sit stand stop".split())

# Lemmas of verbs that are mutual if "to" follows, as in "talk to".
MUTUAL_VERBS_TO = frozenset("chat speak talk".split())

# Prepositions that are mutual after a noun ("trees along a road", "a bike against a wall") and
# directed after a verb ("walking along a road", "leaning against a wall").
MUTUAL_WORDS_AFTER_NOUN = frozenset({"against", "along"})

# Prepositions of time, purpose or manner, which no reversal makes false in an image. "of" mostly
# follows a quantity or a part, and "at" is almost mutual.
UNSWAPPED_PREPOSITIONS = frozenset(
    "about after as at before despite during except for including like of per since than through "
    "throughout towards until via without".split()
)

# Words after which "of" states a directed relation, as in "a bowl full of lemons".
WORDS_WITH_DIRECTED_OF = frozenset("full made consisting composed".split())

# Of `DependencyTagger` and `swap_negatives`: nouns that form a preposition with "of" ("on top of").
COMPOUND_PREPOSITION_NOUNS = frozenset(
    "back bottom center centre edge end front inside left middle right side top".split()
)

# Of `swap_negatives`: words for relations that hold in both directions.
MUTUAL_WORDS_OF_NEGATIVES = frozenset("alongside and beside near next opposite or with".split())

# Of `swap_negatives`: words that spaCy tags as adjectives although they describe no property.
NON_DESCRIPTIVE_ADJECTIVES = frozenset("few many more most much other same several such".split())

# Nouns for a position in an image or on an object ("left", "top"), which name no object.
PLACE_NOUNS = frozenset(
    "back background base bottom center centre corner distance edge edges end foot foreground "
    "front inside left middle outside rear right side sides top".split()
)

# Other nouns and quantifiers that name no object in an image, such as "time" or "pair".
NON_OBJECT_NOUNS = frozenset(
    "action afternoon air bit close-up closeup course dark day daytime display evening "
    "fun half line lot midair mid-air morning motion night one ones order other others pair part "
    "place process row series set something somebody someone something thing things time times "
    "use view way".split()
)

# Nouns for an image itself: "a view of a giraffe" is about the giraffe.
IMAGE_NOUNS = frozenset(
    "close closeup close-up drawing image painting photo photograph picture portrait scene shot "
    "view".split()
)

DETERMINERS = frozenset(
    "a an another any each every her his its my no our some that the their these this those "
    "your".split()
)
QUANTIFIERS = frozenset("both few many several".split())  # in the place of a determiner
POSSESSIVES = frozenset("her his its my our their your".split())

# Scales of attributes, such as colour or size. Words of different groups of a scale are taken to
# exclude each other; those of one group, and of different scales, are not.
ATTRIBUTE_SCALES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        *((word,) for word in "black white brown tan beige yellow orange red pink maroon".split()),
        *((word,) for word in "purple blue turquoise teal green silver".split()),
        ("grey", "gray"),
        ("blond", "blonde"),
        ("gold", "golden"),
    ),
    # "small" stands in two scales, because "a small boy" is neither old nor large.
    (("young", "little", "small", "tiny"), ("old", "older", "elderly")),
    (("small", "little", "tiny", "short"), ("large", "big", "huge", "giant", "tall", "long")),
    (("striped",), ("spotted",), ("checkered", "plaid"), ("plain",)),
    (("wooden",), ("metal", "metallic"), ("plastic",), ("glass",), ("brick",), ("concrete",)),
    (("wet",), ("dry",)),
    (("open",), ("closed",)),
    (("empty",), ("full",)),
    (("bright", "light"), ("dark",)),
    (("male",), ("female",)),
)

# The numbers of two to ten objects, as a scale like those of `ATTRIBUTE_SCALES`.
COUNT_SCALE = tuple((word,) for word in "two three four five six seven eight nine ten".split())
COUNT_WORDS = frozenset(word for group in COUNT_SCALE for word in group)


def are_contradictory(first: str, second: str) -> bool:
    """Return whether two attributes, given in lower case, cannot both be true of one object."""
    return any(
        _group(scale, first) != _group(scale, second)
        and None not in (_group(scale, first), _group(scale, second))
        for scale in (*ATTRIBUTE_SCALES, COUNT_SCALE)
    )


def _group(scale: tuple[tuple[str, ...], ...], word: str) -> int | None:
    return next((n for n, group in enumerate(scale) if word in group), None)
