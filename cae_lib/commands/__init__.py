"""What longer commands of `cae` do; `cae_lib.cli` declares their options."""
