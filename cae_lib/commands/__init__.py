"""What each command of `cae` does; `cae_lib.cli` describes them and imports one when it runs."""
