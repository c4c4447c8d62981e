"""Scores of models: choices, retrieval, and the intervals and tests that go with them."""
