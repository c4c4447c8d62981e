"""Pictures, captions and tables for the page that trains in a loop of the reader's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, islice

from open_clip import SimpleTokenizer
from PIL import Image
from torch import Tensor

from cae_lib.errors import DataError
from cae_lib.report.markup import NONE, Table, number
from cae_lib.words.alignment import Alignment
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION
from cae_lib.world.config import world_config
from cae_lib.world.draw import render
from cae_lib.world.grammar import captions
from cae_lib.world.scenes import scenes, text_generator

SHOWN = (1, 2, 3, 5, 10, 15, 20, 30, 40, 60, 80, 100)


def sample_pairs(profile: str, n: int) -> tuple[list[Image.Image], list[str]]:
    """The first n pictures of the small world's training split, each with one caption.

    They are drawn here and now; no file of the small world is read.
    """
    config = world_config(profile)
    pictures, texts = [], []
    for index, scene in enumerate(islice(scenes(config.scenes, "train"), n)):
        pictures.append(render(scene))
        generator = text_generator(config.scenes, "train", index)
        texts.append(captions(scene, config.coco, generator, 1)[0].text)
    return pictures, texts


def roles_table(
    texts: Sequence[str], words: Alignment, tokenizer: SimpleTokenizer, n: int = 4
) -> Table:
    """The words of each role in the first n captions."""
    rows = []
    for text, tokens, roles in list(zip(texts, words.tokens, words.roles, strict=True))[:n]:
        cells = [words_of_role(tokens, roles, role, tokenizer)
                 for role in (OBJECT, ATTRIBUTE, RELATION)]  # fmt: skip
        rows.append([text, *(", ".join(cell) or NONE for cell in cells)])
    return Table(
        name="tab-roles",
        caption=f"Roles of the words in the first {len(rows)} captions. In all "
        f"{len(words.tokens)} captions {words.n_unmatched} of {words.n_spans} phrases were not "
        f"found again among the tokens, and {words.n_truncated} captions were too long.",
        header=["caption", "object", "attribute", "relation"],
        rows=rows,
        left=4,
    )


def words_of_role(
    tokens: Tensor, roles: Tensor, role: int, tokenizer: SimpleTokenizer
) -> list[str]:
    """Unbroken runs of tokens `(T,)` with a role, as text."""
    pairs = groupby(zip(tokens.tolist(), roles.tolist(), strict=True), key=lambda pair: pair[1])
    runs = [[token for token, _ in group] for found, group in pairs if found == role]
    return [tokenizer.decode(run).strip() for run in runs]


def steps_table(history: Sequence[Mapping[str, float]], method: str, weight: float) -> Table:
    """What a loop logged, at its first steps and at some later ones.

    Args:
        history: for each step "contrastive", "attribution", "objects", "composition",
            "n_objects" and "n_composition".
        method: attribution method of the loop.
        weight: its lambda.

    Raises:
        DataError: no step was logged.
    """
    if not history:
        raise DataError("no step was logged: append one entry to `history` in each step.")
    rows = []
    for step in [s for s in SHOWN if s < len(history)] + [len(history)]:
        line = history[step - 1]
        measured = [line["contrastive"], line["attribution"], line["objects"], line["composition"]]
        lead = line["objects"] - line["composition"]
        counts = [f"{line[name]:.0f}" for name in ("n_objects", "n_composition")]
        rows.append([str(step), *map(number, measured), number(lead, sign=True), *counts])
    return Table(
        name="tab-steps",
        caption=f"What the loop logged, with the method {method} and λ = {weight:g}: the two "
        "losses, the mean attribution of object words and of relation and attribute words, the "
        "lead of the objects, and the number of tokens behind each mean.",
        header=["step", "L_ITC", "λ L_attr", "A_obj", "A_comp", "lead", "objects", "composition"],
        rows=rows,
    )
