"""Measures of models on benchmarks, retrieval and word attribution, each as a tidy table."""
