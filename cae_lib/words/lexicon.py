"""List words for swaps: mutual relations, place nouns, views, and scales of attributes.

The lists are short on purpose: each of them prevents errors that occurred in captions of COCO,
Flickr8k and the synthetic scenes.
"""

from __future__ import annotations

MUTUAL_PREPOSITIONS = frozenset(
    "adjacent_to across_from along_side_of along_with alongside alongside_of amid among amongst "
    "and apart_from attached_to away_from beside besides between by close_by close_to connected_to "
    "far_from near nearby next_to on_the_other_side_of opposite together_with with".split()
)
"""Prepositions that hold in both directions, so that swapping their arguments makes nothing false.

"by" counts unless it opens the agent of a passive ("held by", not "parked by"), "with" unless a
past participle comes before it ("filled with"). The names of `aro_symmetric.txt` (the 157 relations
that ARO drops from its average as symmetric) that are symmetric in meaning end in one of these or
are in `MUTUAL_VERBS`. The rest of ARO's list, such as "underneath", "sitting under" and "reading",
is directed, and is swapped here.
"""

MUTUAL_VERBS = frozenset(
    "embrace equal face fight greet hug kiss marry match meet resemble".split()
)
"""Lemmas of verbs that hold in both directions, or whose reversal nobody could call false."""

POSTURES = frozenset("lean lie locate park place position seat set sit stand stop".split())
"""Lemmas of verbs after whose participle "by" is a place, not an agent."""

MUTUAL_VERBS_TO = frozenset("chat speak talk".split())
"""Lemmas of verbs that are mutual with "to"."""

MUTUAL_BETWEEN_THINGS = frozenset({"against", "along"})
"""Prepositions that are mutual when a noun has them ("trees along a road", "a bike against a wall")
and directed when a verb has them ("walking along a road", "leaning against a wall")."""

UNSWAPPED_PREPOSITIONS = frozenset(
    "about after as at before despite during except for including like of per since than through "
    "throughout towards until via without".split()
)
"""Prepositions that state no relation between two things in an image that could be reversed: of
time, purpose or manner, "of" after a quantity or a part, and "at", near to a mutual one."""

DIRECTED_OF = frozenset("full made consisting composed".split())
"""Words after which "of" is a relation of its own: "a bowl full of lemons"."""

PLACE_WORDS = frozenset(
    "back background base bottom center centre corner distance edge edges end foot foreground "
    "front inside left middle outside rear right side sides top".split()
)
"""Nouns of a place within an image or a thing, which are no thing themselves."""

NO_THINGS = frozenset(
    "action afternoon air bit close-up closeup course dark day daytime display evening "
    "fun half line lot midair mid-air morning motion night one ones order other others pair part "
    "place process row series set something somebody someone something thing things time times "
    "use view way".split()
)
"""Nouns that name no thing of an image, and amounts that stand alone."""

VIEWS = frozenset(
    "close closeup close-up drawing image painting photo photograph picture portrait scene shot "
    "view".split()
)
"""Nouns of an image itself: "a view of a giraffe" is about the giraffe."""

DETERMINERS = frozenset(
    "a an another any each every her his its my no our some that the their these this those "
    "your".split()
)
PLURAL_DETERMINERS = frozenset("both few many several some these those".split())
POSSESSIVES = frozenset("her his its my our their your".split())

SCALES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        *((word,) for word in "black white brown tan beige yellow orange red pink maroon".split()),
        *((word,) for word in "purple blue turquoise teal green silver".split()),
        ("grey", "gray"),
        ("blond", "blonde"),
        ("gold", "golden"),
    ),
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
"""Attributes by what they say, in groups: those of other groups of one scale exclude
each other where a caption says both."""

COUNTS = tuple((word,) for word in "two three four five six seven eight nine ten".split())
"""Numbers of several things, a scale of their own."""


def contradict(first: str, second: str) -> bool:
    """Return whether two attributes, in lower case, cannot both be true of one thing."""
    return any(
        _group(scale, first) != _group(scale, second)
        and None not in (_group(scale, first), _group(scale, second))
        for scale in (*SCALES, COUNTS)
    )


def _group(scale: tuple[tuple[str, ...], ...], word: str) -> int | None:
    return next((n for n, group in enumerate(scale) if word in group), None)
