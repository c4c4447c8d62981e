"""Losses, the training module, and the trainer."""
