"""Measurements of the studies beside the paper; importing this package registers their suites."""

from cae_lib.evaluation.suites import register

register("blind", "book.studies.blind", "average_image_table")
register("faithfulness", "book.studies.faithfulness", "faithfulness_table")
register("sensitivity", "book.studies.faithfulness", "sensitivity_table", base_only=True)
register("heatmaps", "book.studies.heatmaps", "heatmap_table")
