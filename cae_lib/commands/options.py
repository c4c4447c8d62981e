"""Which real datasets may be incomplete while a command runs."""

from __future__ import annotations

from contextlib import AbstractContextManager

from cae_lib.data.sources import allowing
from cae_lib.errors import ConfigError
from cae_lib.profiles import find_profile


def split_names(text: str) -> list[str]:
    """Split names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def allow(profile_name: str, sources: str) -> AbstractContextManager[None]:
    """Let sources be incomplete, with commas between them; ConfigError where they are built."""
    allowed_sources = split_names(sources)
    if allowed_sources and not find_profile(profile_name).real:
        raise ConfigError(
            f"--allow-missing is for real data; those of the profile {profile_name} are built "
            f"whole: `{find_profile(profile_name).build_command}`"
        )
    return allowing(allowed_sources)
