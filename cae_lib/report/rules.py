"""The rules of the verdicts in words and numbers, fixed before any result was looked at."""

from __future__ import annotations

from collections.abc import Mapping

LEAD = 1.25
SHARE_OF_METHODS = 0.75
CLOSED = 0.5
FAMILIES_WON = 5
DIP = 0.02

RULES: Mapping[str, str] = {
    "C1": f"A method shows the deficiency if the mean of object words is at least {LEAD} times "
          "that of attribute words and of relation words, and the 95 % intervals of both "
          "differences lie above zero. The claim is *reproduced* if at least "
          f"{100 * SHARE_OF_METHODS:.0f} % of the methods show it, *partly* if any does, else "
          "*not*.",
    "C2": "Each CAE run is judged by the method that it was trained on. The groups are *level* if "
          "CAE leaves at most half of CLIP-FT's gap, in either direction, both in absolute terms "
          "and relative to the level of the scores, and the 95 % interval of the reduction lies "
          "above zero. The claim is *reproduced* if the groups are level for all four methods, "
          "*partly* if the gap is reduced (that interval lies above zero) for any, else *not*. "
          "While fewer than four methods have been trained, the verdict is at most *partly*.",
    "C3": f"A CAE run passes if it is better than CLIP-FT on at least {FAMILIES_WON} of the seven "
          "families, and worse on none; better and worse mean that the 95 % interval of the "
          "difference excludes zero. The claim is *reproduced* if the runs of all four methods "
          "pass, *partly* if any run is better on more families than it is worse on, else *not*. "
          "While fewer than four methods have been trained, the verdict is at most *partly*.",
    "C4": "As for C3, with NegCLIP in the place of CLIP-FT: a run of NegCLIP with CAE passes if "
          f"it is better than NegCLIP on at least {FAMILIES_WON} of the seven families, and worse "
          "on none; better and worse mean that the 95 % interval of the difference excludes zero. "
          "The claim is *reproduced* if the runs of all four methods pass, *partly* if any run is "
          "better on more families than it is worse on, else *not*.",
    "C5": "R@1 of each CAE run is compared with CLIP-FT's in four cells: COCO and Flickr30k, image "
          "to text and text to image. A cell is *kept* if the 95 % interval of the difference lies "
          f"above −{100 * DIP:.0f} points, and *lost* if it is not kept and the interval lies "
          "below zero. The claim is *reproduced* if, for all four methods, every cell is kept and "
          "COCO text-to-image is better (its interval lies above zero); *partly* if, for any "
          "method, every cell is kept, or COCO text-to-image is better and no cell is lost; else "
          "*not*.",
    "C6": "A CAE run passes if the mean over the sets of its Spearman correlation is higher than "
          "CLIP-FT's (the 95 % interval of the difference lies above zero) and no single set is "
          "lower for certain. The claim is *reproduced* if the runs of all four methods pass, "
          "*partly* if the mean is higher for any run, else *not*.",
    "C7": "For relation phrases and for attribute phrases, the mean cosine to their caption of "
          "each CAE run is compared with CLIP-FT's; closer and farther mean that the 95 % interval "
          "of the difference excludes zero. A run passes if both kinds are closer. The claim is "
          "*reproduced* if the runs of all four methods pass, *partly* if for any run one kind is "
          "closer and the other is not farther, else *not*. The cosine to phrases of other "
          "captions is shown beside it, and does not enter the rule.",
    "C8": "For each CAE run, two shares are compared with CLIP-FT's over the same scenes: that "
          "of the picture's relevance which falls on the region of the relation (start layer: the "
          "last one), and that of the word scores which falls on the relation's words (GradCAM, "
          "the text's side of the same rule). A run passes if both are higher (the 95 % intervals "
          "of the differences lie above zero). The claim is *reproduced* if the runs of all four "
          "methods pass, *partly* if for any run one is higher and the other is not lower for "
          "certain, else *not*.",
}  # fmt: skip
