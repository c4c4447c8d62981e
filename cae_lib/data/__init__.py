"""Captions, images, and hard negatives."""
