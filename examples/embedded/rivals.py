"""Other methods on the embedded trunk: a plain classifier, TS-CAM, and TRT by the paper's losses alone.

They see the photos, labels and views that the embedded model is taught with, through the same frozen trunk, in random
windows of 14 x 14 tokens (it takes part of the tokens, too), by the optimizer and schedule of its ``Recipe``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trt_cam
from embedded.features import Cache, say, trunk_weights
from embedded.heads import fit
from embedded.maps import standardise
from embedded.recipe import Recipe
from trt_cam.models.hybrid import CHANNELS, TrunkCam, hybrid_vit, load_lite0
from trt_cam.models.tscam import TSCAMNet
from trt_cam.training.frozen import FrozenTrainee

WINDOW = 14  # tokens a side
STAGES = {"classifier": ("classifier",), "ts-cam": ("ts-cam",), "trt-paper": ("tpsm", "cam")}


def new_rival(kind: str, cache: Cache, recipe: Recipe) -> nn.Module:
    """The network of a kind of ``STAGES``: the trunk with its published weights, all else random."""
    torch.manual_seed(recipe.seed)
    vit: Any = hybrid_vit()
    nn.init.trunc_normal_(vit.patch_embed.proj.weight, std=0.1)
    load_lite0(vit.patch_embed.trunk, TrunkCam(), trunk_weights(0))
    standardise(vit.patch_embed, cache)
    if kind == "ts-cam":
        return TSCAMNet(vit, 1000)
    return vit if kind == "classifier" else trt_cam.TRTLocalizer(vit, u=recipe.u)


def rival(kind: str, cache: Cache, frequency: np.ndarray, recipe: Recipe, samples: tuple[int, int]) -> nn.Module:
    """A trained network of a kind, kept in the work folder; ``samples`` are the views seen in its one or two stages."""
    net, path = new_rival(kind, cache, recipe), cache.work / f"{kind}-{recipe.seed}.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    pixels = WINDOW * 16
    trainee = FrozenTrainee(net, (pixels, pixels))
    for number, stage in enumerate(STAGES[kind]):
        rng = np.random.default_rng((recipe.seed, number))

        def loss(step: int, stage: str = stage, rng: np.random.Generator = rng) -> dict[str, Tensor]:
            rows = np.sort(rng.choice(cache.count, recipe.batch, replace=False, p=frequency))
            logits = trainee(window(cache(f"F_{step % 2}", rows), rng), stage)
            return {stage: sum(F.cross_entropy(one, cache("label", rows)) for one in logits.values())}  # type: ignore[dict-item]

        say(f"{kind}, seed {recipe.seed}, stage {stage}")
        trainee.ready(stage)
        fit(trainee.trained(stage), samples[number] // recipe.batch, recipe, loss)
    torch.save(net.state_dict(), path)
    return net.eval()


def window(features: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
    """A random part of the grid, as the trunk would have given it."""
    y, x = (int(rng.integers(0, side - WINDOW + 1)) for side in features.shape[-2:])
    part = features[:, :, y : y + WINDOW, x : x + WINDOW]
    return {f"trunk.{index}": one for index, one in enumerate(part.split(CHANNELS, dim=1))}
