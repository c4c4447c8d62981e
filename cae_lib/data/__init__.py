"""Captions, images, benchmarks, and their downloads."""
