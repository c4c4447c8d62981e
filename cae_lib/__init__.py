"""Composition attribution enhancement (CAE) for CLIP.

The package finds the roles of words, attributes the image-text similarity to words, trains with the
attribution loss, and evaluates its effects. A public name is imported on first access:

    import cae_lib as cae

    words = cae.token_roles(captions, tokenizer)
    loss = cae.CAELoss(model, method="perturbation")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cae_lib import results as results
    from cae_lib.attribution import Attribution as Attribution
    from cae_lib.attribution import AttributionMethod as AttributionMethod
    from cae_lib.attribution import get_method as get_method
    from cae_lib.config import AttributionLossConfig as AttributionLossConfig
    from cae_lib.data.negatives import swap_negatives as swap_negatives
    from cae_lib.evaluation.averages import score_weights as score_weights
    from cae_lib.evaluation.pair import attribute as attribute
    from cae_lib.evaluation.scores import evaluate as evaluate
    from cae_lib.methods import PAPER_METHODS as PAPER_METHODS
    from cae_lib.models.clip import load_clip as load_clip
    from cae_lib.statistics import contrasts as contrasts
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
    "attribute": "evaluation.pair",
    "contrasts": "statistics",
    "contrastive_loss": "training.losses",
    "evaluate": "evaluation.scores",
    "get_method": "attribution",
    "init_distributed": "training.distributed",
    "load_clip": "models.clip",
    "score_weights": "evaluation.averages",
    "swap_negatives": "data.negatives",
    "token_roles": "words.alignment",
}
__all__ = [*_MODULES, "results"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"{__name__}.{_MODULES.get(name, name)}"
    try:
        return getattr(import_module(module), name) if name in _MODULES else import_module(module)
    except ModuleNotFoundError as error:
        if str(error.name).startswith(__name__):
            raise
        from cae_lib.config import install_command

        raise ModuleNotFoundError(
            f"cae_lib.{name} needs {error.name}, which is not installed: {install_command('lab')}",
            name=error.name,
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
