"""What Li et al. (EMNLP 2024) claim and print, as far as it is known.

The cells of the four attribution methods in Tables 1 to 3 could not be recovered. The numbers
here are means over the four, as the same authors quote them later. Nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SETTING = "ViT-B/32, OpenAI's weights, the real benchmarks"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        id: C1 to C8.
        text: The claim in a sentence.
        place: Figure or table of the paper.
        page: The book's page that tests it; None while there is none.
    """

    id: str
    text: str
    place: str
    page: str | None = None


CLAIMS: Mapping[str, Claim] = {
    claim.id: claim
    for claim in (
        Claim("C1", "CLIP gives object words clearly higher attribution than relation and "
              "attribute words.", "Fig. 1", "fig1-attribution-deficiency"),
        Claim("C2", "After CAE the three groups are comparable, by each attribution method.",
              "Fig. 7", "fig7-attribution-distribution"),
        Claim("C3", "CLIP-CAE beats CLIP-FT on almost all of seven benchmarks, whichever the "
              "method.", "Table 1", "tab1-compositional-benchmarks"),
        Claim("C4", "CAE adds to hard negatives: NegCLIP with CAE beats NegCLIP.", "Table 2"),
        Claim("C5", "Retrieval is not hurt: COCO text-to-image improves, Flickr30K "
              "image-to-text dips slightly.", "Table 3"),
        Claim("C6", "Text embeddings improve on semantic textual similarity.", "Table 4"),
        Claim("C7", "A caption's embedding moves closer to those of its relation and attribute "
              "phrases.", "Fig. 3"),
        Claim("C8", "Heat maps and word scores move to the relation.", "Fig. 6"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Printed numbers of one benchmark, in percent; None where none is known.

    Attributes:
        clip: CLIP as downloaded.
        tuned: CLIP-FT, mean of the authors' later runs.
        spread: Standard deviation of that over four seeds.
        cae: CLIP-CAE, mean over the four attribution methods.
        note: What is special about the row.
    """

    clip: float | None
    tuned: float | None
    spread: float | None
    cae: float | None
    note: str = ""

    @property
    def gain(self) -> float | None:
        """CLIP-CAE minus CLIP-FT, in points."""
        if self.cae is None or self.tuned is None:
            return None
        return round(self.cae - self.tuned, 2)


TABLE1: Mapping[str, Row] = {
    "ARO-R": Row(58.7, 64.3, 0.40, 69.5),
    "ARO-A": Row(62.7, 66.2, 0.05, 65.4),
    "SC-Rel": Row(68.8, 71.1, 0.26, 73.0),
    "SC-Att": Row(70.8, 77.7, 0.22, 78.9),
    "VLC-Rel": Row(63.6, 60.9, 0.22, 65.4),
    "VLC-Att": Row(67.7, 67.4, 0.05, 68.6),
    "VALSE-Rel": Row(70.1, 69.3, 0.30, 68.8),
    "Winoground": Row(None, 5.5, None, 8.0, "CLIP-CAE by attention only"),
}
