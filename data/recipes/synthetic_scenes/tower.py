"""Pretrain the image tower of the base model of the synthetic scenes before it sees any caption.

CLIP's image embeddings contain relations and bindings that its texts hardly ask for. A small tower
does not learn them from sparse captions, so it learns the scenes themselves, by heads that are
thrown away. Without heads on the patches it does not find out what belongs to what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from cae_lib.data.images import TrainingImages, normalize_pixels
from cae_lib.models.clip import Clip
from cae_lib.runtime import Progress, atomic_file
from data.recipes.synthetic_scenes.draw import render
from data.recipes.synthetic_scenes.grammar import canonical
from data.recipes.synthetic_scenes.scenes import Scene, SceneConfig, sample_scene
from data.recipes.synthetic_scenes.vocabulary import COLORS, NOUNS, PATTERNS, RELATIONS, SIZES

BATCH, LR, MUON_LR, WARMUP, DECAY = 128, 1e-3, 0.02, 100, 0.05
SAVE_EVERY = 200
UNBIASED = {"zipf": 0.0, "natural_order": 0.5, "relation_concentration": 50.0, "typical_color": 0.0}
"""Statistics of its scenes: what they show cannot be guessed from the nouns."""

READINGS = tuple(name for name in RELATIONS if canonical(name) == (name, False))
VALUES = {"color": (*COLORS,), "size": (None, *SIZES), "pattern": (None, *PATTERNS)}
ABSENT, FIRST, SECOND, FURTHER = range(4)
# Most nouns are absent.
PLACE_WEIGHTS = (0.1, 1.0, 1.0, 1.0)
# Left out by `cross_entropy`.
IGNORED = -100
# Shapes of the logits by head.
EMBEDDING_HEADS = {
    "reading": (len(READINGS),),
    "nouns": (2, len(NOUNS)),
    "colors": (2, len(COLORS)),
    "places": (len(NOUNS), len(PLACE_WEIGHTS)),
    **{name: (len(NOUNS), len(values)) for name, values in VALUES.items()},
}
PATCH_HEADS = {
    "noun": (len(NOUNS),),
    "color": (len(COLORS),),
    "place": (len(PLACE_WEIGHTS),),
    "reading": (len(READINGS),),
    "partner": (len(NOUNS),),
    "side": (4,),
}

Targets = dict[str, Tensor]
"""Class numbers by head, with a batch in front of their own dimensions; `IGNORED` for none."""


class Optimizers:
    """AdamW, and Muon for `matrices`, of modules that learn before captions are seen.

    Learning rates rise over `warmup` of all `steps`, and fall to 0 over the second half.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        steps: int,
        warmup: int,
        lr: float = LR,
        matrices: Sequence[nn.Parameter] = (),
    ) -> None:
        self.trained = [p for module in modules for p in module.parameters()]
        # by identity: `in` would compare the tensors' values
        others = [p for p in self.trained if not any(p is matrix for matrix in matrices)]
        self.each = [torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=DECAY)]
        if matrices:
            self.each.insert(0, torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=DECAY))
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: min(1.0, (step + 1) / warmup, 2 * (1 - step / steps))
            )
            for optimizer in self.each
        ]

    def step(self, loss: Tensor) -> None:
        """Take one step down a loss."""
        for optimizer in self.each:
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        for moved in (*self.each, *self.schedules):
            moved.step()


def pretrain_tower(clip: Clip, config: SceneConfig, steps: int, state: Path) -> None:
    """Train the image tower of `clip` in place, from the step that the file `state` has, if any."""
    tower, device = clip.model.visual, next(clip.model.parameters()).device
    normalization = [
        value.to(device) for value in TrainingImages((), clip.image_size).normalization
    ]
    torch.manual_seed(config.seed)
    embedding_heads = _heads(tower.output_dim, EMBEDDING_HEADS).to(device)
    patch_heads = _heads(tower.transformer.width, PATCH_HEADS).to(device)
    modules = [tower, embedding_heads, patch_heads]
    # Muon is for matrices alone.
    matrices = [p for p in tower.transformer.parameters() if p.ndim == 2]
    optimizers = Optimizers(modules, steps, WARMUP, matrices=matrices)
    stored = [*modules, *optimizers.each, *optimizers.schedules]
    done = 0
    if state.is_file():
        done, values = torch.load(state, weights_only=True)
        for each, value in zip(stored, values, strict=True):
            each.load_state_dict(value)
    # Batches go on after the last stored step, so that no image comes twice; no dataset has the
    # split "tower".
    drawn = Drawn(replace(config, **UNBIASED), "tower", range(done, steps))
    # The heads on patches need the tower's tokens.
    before, tower.output_tokens = tower.output_tokens, True
    tower.train()
    with Progress(steps - done, "image tower") as progress:
        for pixels, scene, patches in DataLoader(drawn, batch_size=None, num_workers=1):
            with torch.autocast(device.type, torch.bfloat16):
                embedding, tokens = tower(normalize_pixels(pixels.to(device), *normalization))
            # CLIP compares directions alone. The factor gives entries of a size of about 1.
            unit = F.normalize(embedding.float(), dim=-1) * tower.output_dim**0.5
            loss = _loss(embedding_heads, unit, scene) + _loss(patch_heads, tokens.float(), patches)
            optimizers.step(loss)
            progress.update(loss=loss.item())
            done += 1
            if done % SAVE_EVERY == 0 or done == steps:
                # whole or not at all, so that an interruption loses `SAVE_EVERY` steps at most
                with atomic_file(state) as temporary:
                    torch.save([done, [each.state_dict() for each in stored]], temporary)
    tower.output_tokens = before
    tower.eval()


def _heads(width: int, shapes: dict[str, tuple[int, ...]]) -> nn.ModuleDict:
    """Build linear heads from vectors `(..., width)` to logits `(..., *shape)`, classes last."""
    return nn.ModuleDict(
        {
            name: nn.Sequential(nn.Linear(width, int(np.prod(shape))), nn.Unflatten(-1, shape))
            for name, shape in shapes.items()
        }
    )


def _loss(heads: nn.ModuleDict, vectors: Tensor, targets: Targets) -> Tensor:
    """Return the sum of the heads' cross-entropies."""
    return sum(
        F.cross_entropy(
            head(vectors).flatten(0, -2),
            targets[name].flatten().to(vectors.device),
            ignore_index=IGNORED,
            weight=vectors.new_tensor(PLACE_WEIGHTS) if name == "places" else None,
        )
        for name, head in heads.items()
    )


class Drawn(Dataset):
    """Batches by number: images `(128, 3, S, S)` uint8, targets of scenes and of patches."""

    def __init__(self, config: SceneConfig, split: str, numbers: range) -> None:
        self.config, self.split, self.numbers = config, split, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[Tensor, Targets, Targets]:
        first = self.numbers[index] * BATCH
        scenes = [sample_scene(self.config, self.split, i) for i in range(first, first + BATCH)]
        pixels = np.stack([np.asarray(render(scene)) for scene in scenes])
        targets = (default_collate(list(map(of, scenes))) for of in (scene_targets, patch_targets))
        return (torch.from_numpy(pixels).permute(0, 3, 1, 2), *targets)


def ordered(scene: Scene) -> tuple[str, list[int]]:
    """Return the canonical relation of a scene, and its things' indices in the order of that."""
    reading, is_swapped = canonical(scene.content.relation)
    order = list(range(len(scene.content.things)))
    return reading, [1, 0, *order[2:]] if is_swapped else order


def scene_targets(scene: Scene) -> dict[str, np.ndarray]:
    """Return the targets of the heads on the embedding.

    They are the relation; noun and colour of its two things; and for each noun of the vocabulary
    its role, and the values of its attributes.
    """
    # "a right of b" and "b left of a" are one image and have one target.
    reading, order = ordered(scene)
    things = [scene.content.things[i] for i in order]
    targets = {
        "reading": np.array(READINGS.index(reading)),
        "nouns": np.array([NOUNS.index(thing.noun) for thing in things[:2]]),
        "colors": np.array([VALUES["color"].index(thing.color) for thing in things[:2]]),
        "places": np.full(len(NOUNS), ABSENT),
    }
    # Of a noun that is not in the scene, attributes are not asked for.
    targets |= {name: np.full(len(NOUNS), IGNORED) for name in VALUES}
    for number, thing in enumerate(things):
        noun = NOUNS.index(thing.noun)
        targets["places"][noun] = min(FIRST + number, FURTHER)
        for name, values in VALUES.items():
            targets[name][noun] = values.index(getattr(thing, name))
    return targets


def patch_targets(scene: Scene, side: int = 7) -> dict[str, np.ndarray]:
    """Return the targets of the heads on the patches, `(side * side,)` for each head.

    They are those of the thing at the middle of each patch; the main two also have their relation,
    and the noun and the side (left, right, top, bottom) of the other one.
    """
    reading, order = ordered(scene)
    targets = {name: np.full((side, side), IGNORED) for name in PATCH_HEADS}
    targets["place"][:] = ABSENT
    # middles of the patches
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    things = [(scene.content.things[i], scene.placements[i]) for i in order]
    # Farther things first, as they are drawn: a nearer one overwrites them.
    for number, (thing, at) in sorted(enumerate(things), key=lambda item: -item[1][1].depth):
        inside = (abs(x - at.x) < at.scale / 2) & (abs(y - at.y) < at.scale / 2)
        values = dict.fromkeys(PATCH_HEADS, IGNORED) | {
            "noun": NOUNS.index(thing.noun),
            "color": VALUES["color"].index(thing.color),
            "place": min(FIRST + number, FURTHER),
        }
        if number < 2:
            other, there = things[1 - number]
            right, down = there.x - at.x, there.y - at.y
            values |= {
                "reading": READINGS.index(reading),
                "partner": NOUNS.index(other.noun),
                "side": int(right > 0) if abs(right) > abs(down) else 2 + int(down > 0),
            }
        for name, value in values.items():
            targets[name][inside] = value
    return {name: grid.ravel() for name, grid in targets.items()}
