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
        printed: The paper's numbers, as far as they are known; empty where none is.
    """

    id: str
    text: str
    place: str
    page: str | None = None
    printed: str = ""

    @property
    def source(self) -> str:
        """Place and numbers, as a cell of a table."""
        return f"{self.place}<br>{self.printed}" if self.printed else self.place


CLAIMS: Mapping[str, Claim] = {
    claim.id: claim
    for claim in (
        Claim("C1", "CLIP gives object words clearly higher attribution than relation and "
              "attribute words.", "Fig. 1", "fig1-attribution-deficiency"),
        Claim("C2", "After CAE the three groups are comparable, by each attribution method.",
              "Fig. 7", "fig7-attribution-distribution"),
        Claim("C3", "CLIP-CAE beats CLIP-FT on almost all of seven benchmarks, whichever the "
              "method.", "Table 1", "tab1-compositional-benchmarks",
              "CAE − CLIP-FT, mean of 4 methods: −0.8 to +5.2 points, up in 5 of 7 known scores"),
        Claim("C4", "CAE adds to hard negatives: NegCLIP with CAE beats NegCLIP.", "Table 2",
              "tab2-hard-negatives", "ARO, relation: NegCLIP 80.4, with CAE above 80"),
        Claim("C5", "Retrieval is not hurt: COCO text-to-image improves, Flickr30K "
              "image-to-text dips slightly.", "Table 3", "tab3-retrieval"),
        Claim("C6", "Text embeddings improve on semantic textual similarity.", "Table 4",
              "tab4-similarity", "Spearman × 100, CLIP-FT → CLIP-CAE: SICK-R 68.0 → 69.3, STS-B "
              "66.3 → 66.5"),
        Claim("C7", "A caption's embedding moves closer to those of its relation and attribute "
              "phrases.", "Fig. 3", "fig3-embedding-similarity"),
        Claim("C8", "Heat maps and word scores move to the relation.", "Fig. 6", "fig6-heatmaps",
              "“touching” in one caption 0.16 → 0.31"),
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


TABLE4: Mapping[tuple[str, str], tuple[float, float, float]] = {
    ("SICK-R", "spearman"): (67.9, 68.0, 69.3),
    ("SICK-R", "pearson"): (68.6, 73.4, 71.6),
    ("STS-B", "spearman"): (61.5, 66.3, 66.5),
    ("STS-B", "pearson"): (59.1, 64.0, 65.2),
}
"""Correlations times 100 of CLIP, CLIP-FT and CLIP-CAE, by set and measure."""

NEGCLIP: Mapping[str, float] = {
    "ARO-R": 80.4, "ARO-A": 71.7, "SC-Rel": 73.2, "SC-Att": 80.0, "VLC-Rel": 71.8,
    "VLC-Att": 70.1, "VALSE-Rel": 79.5,
}  # fmt: skip
"""NegCLIP alone, as the same authors quote it; NegCLIP with CAE is known on ARO-R only."""

HARD_CAE_NOTE = "ARO, relation, paper: above 80 with NegCLIP and CAE; no other number is known."

ORIENTATION: Mapping[tuple[str, str], float] = {
    ("coco", "text"): 50.1, ("coco", "image"): 30.5,
    ("flickr30k", "text"): 78.8, ("flickr30k", "image"): 58.8,
}  # fmt: skip
"""R@1 of CLIP as downloaded, by set and by what is retrieved; Table 3's cells are unknown."""
