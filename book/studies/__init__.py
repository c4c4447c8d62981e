"""Measurements of the studies beside the paper; importing this package registers their suites."""

from cae_lib.evaluation.suites import register_suite

register_suite("blind", "book.studies.blind", "average_image_table")
register_suite("faithfulness", "book.studies.faithfulness", "faithfulness_table")
register_suite("sensitivity", "book.studies.faithfulness", "sensitivity_table", base_only=True)
register_suite("heatmaps", "book.studies.heatmaps", "heatmap_table")
