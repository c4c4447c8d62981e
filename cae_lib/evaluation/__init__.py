"""Measure models on benchmarks, retrieval and word attribution; each result is a tidy table."""
