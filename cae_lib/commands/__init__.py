"""Implementations of the longer commands of `cae`, whose options `cae_lib.cli` declares."""
