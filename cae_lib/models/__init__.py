"""CLIP models, their checkpoints, and encoders that expose attention maps."""

from cae_lib.models.checkpoint import CheckpointMeta, read_meta, save_checkpoint
from cae_lib.models.clip import Clip, load_clip
from cae_lib.models.image_tower import ImageOutput, encode_image
from cae_lib.models.text_encoder import encode_text, text_encoder
from cae_lib.models.text_tower import TextEncoder, TextOutput

__all__ = [
    "CheckpointMeta",
    "Clip",
    "ImageOutput",
    "TextEncoder",
    "TextOutput",
    "encode_image",
    "encode_text",
    "load_clip",
    "read_meta",
    "save_checkpoint",
    "text_encoder",
]
