"""Measurements that single pages use, beside the suites of `cae_lab`."""

from cae_lab.suites import SUITES, Suite, by_name

STUDIES = by_name(
    (
        Suite("blind", "book.studies.blind:average_image_table", "benchmarks"),
        Suite(
            "faithfulness",
            "book.studies.faithfulness:faithfulness_table",
            "captions",
            is_study=True,
            needs_word_tokens=True,
            is_rounded=True,
        ),
        Suite(
            "sensitivity",
            "book.studies.faithfulness:sensitivity_table",
            "captions",
            of=("base",),
            is_study=True,
            needs_word_tokens=True,
            is_rounded=True,
        ),
        Suite(
            "heatmaps",
            "book.studies.heatmaps:heatmap_table",
            "scenes",
            needs_content=True,
            is_rounded=True,
        ),
    )
)
"""The suites of the studies, by name."""

ALL_SUITES = {**SUITES, **STUDIES}
"""All suites that a page may load, by name."""
