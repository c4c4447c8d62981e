"""How well the paper's parser finds the roles of words, measured against the gold roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cae_lib.errors import DataError
from cae_lib.evaluation.attribution import ROLES
from cae_lib.records import load_record
from cae_lib.report.markup import NONE, Table, number


def words_record(profile: str) -> Mapping[str, Any]:
    """What the record `words` holds: precision and recall by role.

    Raises:
        DataError: There is no such record, or a role is missing from it.
    """
    content = load_record("words", profile).results
    missing = [name for name in (*ROLES, "n_captions") if name not in content]
    if missing:
        raise DataError(f"record words of profile {profile} lacks {', '.join(missing)}")
    return content


def parser_table(content: Mapping[str, Any]) -> Table:
    """Precision and recall of each role's words."""
    rows = [[role, *_scores(content[role])] for role in ROLES]
    return Table(
        name="tab-parser",
        caption="Words that SceneGraphParser gives a role, against the gold roles of "
        f"{content['n_captions']} captions of the small world's COCO (val2014): precision and "
        "recall in percent, over words.",
        header=["role", "precision", "recall", "found", "gold"],
        rows=rows,
    )


def relation_table(content: Mapping[str, Any]) -> Table:
    """Precision and recall of relation words in the captions that state each relation."""
    rows = [[name, *_scores(found)] for name, found in content.get("by_relation", {}).items()]
    return Table(
        name="tab-parser-relations",
        caption="Relation words in captions that state a relation, by that relation: precision and "
        "recall in percent, over words.",
        header=["relation", "precision", "recall", "found", "gold"],
        rows=rows,
        collapsed="By relation",
    )


def _scores(found: Mapping[str, Any]) -> list[str]:
    return [_share(found["precision"]), _share(found["recall"]), str(found["n_predicted"]),
            str(found["n_gold"])]  # fmt: skip


def _share(value: float | None) -> str:
    return NONE if value is None else number(100 * value, 1)
