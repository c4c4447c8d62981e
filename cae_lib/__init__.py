"""Composition attribution enhancement (CAE) for CLIP.

The package finds the roles of words, attributes the image-text similarity to words, and trains with
the attribution loss. A public name is imported on first access:

    import cae_lib as cae

    words = cae.token_roles(captions, tokenizer)
    loss = cae.CAELoss(model, method="perturbation")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cae_lib.attribution import Attribution as Attribution
    from cae_lib.attribution import AttributionMethod as AttributionMethod
    from cae_lib.attribution import get_method as get_method
    from cae_lib.attribution.pair import attribute as attribute
    from cae_lib.config import AttributionLossConfig as AttributionLossConfig
    from cae_lib.data.negatives import swap_negatives as swap_negatives
    from cae_lib.methods import PAPER_METHODS as PAPER_METHODS
    from cae_lib.models.clip import load_clip as load_clip
    from cae_lib.training.distributed import init_distributed as init_distributed
    from cae_lib.training.losses import CAELoss as CAELoss
    from cae_lib.training.losses import contrastive_loss as contrastive_loss
    from cae_lib.training.openclip import CAEClipLoss as CAEClipLoss
    from cae_lib.training.openclip import CAEModel as CAEModel
    from cae_lib.training.openclip import RoleTokenizer as RoleTokenizer
    from cae_lib.words.alignment import align as align
    from cae_lib.words.alignment import token_roles as token_roles
    from cae_lib.words.roles import Span as Span

__version__ = "0.1.0"

# The submodule of each public name, which `__getattr__` imports on first access: `import cae_lib`
# loads neither PyTorch nor spaCy. The imports above are for type checkers alone.
_MODULES = {
    "Attribution": "attribution",
    "AttributionLossConfig": "config",
    "AttributionMethod": "attribution",
    "CAEClipLoss": "training.openclip",
    "CAELoss": "training.losses",
    "CAEModel": "training.openclip",
    "PAPER_METHODS": "methods",
    "RoleTokenizer": "training.openclip",
    "Span": "words.roles",
    "align": "words.alignment",
    "attribute": "attribution.pair",
    "contrastive_loss": "training.losses",
    "get_method": "attribution",
    "init_distributed": "training.distributed",
    "load_clip": "models.clip",
    "swap_negatives": "data.negatives",
    "token_roles": "words.alignment",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    # An extra may be missing: the error says how to install it.
    except ModuleNotFoundError as error:
        from cae_lib.config import missing_package_error

        raise missing_package_error(error, f"cae_lib.{name}") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
