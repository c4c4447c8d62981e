"""Implementations of the longer commands of `cae`, whose options `cae_lab.cli` declares."""
