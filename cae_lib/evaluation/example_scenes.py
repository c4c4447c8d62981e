"""Scenes that are drawn for a figure: chosen by what they show, in no corpus of the small world."""

from __future__ import annotations

from dataclasses import dataclass

from cae_lib.data.world.grammar import clause
from cae_lib.data.world.scenes import Content, Scene, Thing, arrange


@dataclass(frozen=True)
class Example:
    """A scene drawn for the figure, in no corpus: chosen by what it says, before any model saw it.

    Attributes:
        subject, relation, obj: What it shows.
        colors: Of subject and object.
        seed: Of its arrangement.
    """

    subject: str
    relation: str
    obj: str
    colors: tuple[str, str]
    seed: int = 0

    @property
    def caption(self) -> str:
        """The caption scored."""
        return statement(self.subject, self.relation, self.obj)

    @property
    def scene(self) -> Scene:
        """The scene; the same example gives the same picture."""
        things = (Thing(self.subject, self.colors[0]), Thing(self.obj, self.colors[1]))
        return arrange(Content(things, self.relation), self.seed)


EXAMPLES: tuple[Example, ...] = (
    Example("cat", "touching", "elephant", ("orange", "blue")),
    Example("dog", "chasing", "duck", ("brown", "yellow")),
    Example("bird", "above", "house", ("red", "green")),
)


def statement(subject: str, relation: str, obj: str) -> str:
    """The caption of a scene, in the relation's canonical wording."""
    return clause(f"the {subject}", relation, f"the {obj}")
