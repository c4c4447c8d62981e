"""Composition attribution enhancement for CLIP: models, attribution, training, evaluation."""

__version__ = "0.1.0"
