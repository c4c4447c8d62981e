"""Attribution methods; `cae_lib.methods` lists them by name."""

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions, get_method

__all__ = ["Attribution", "AttributionMethod", "Captions", "get_method"]
