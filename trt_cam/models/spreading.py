"""A small convolutional head that learnt how far a class map's evidence spreads. Ours, not the paper's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_cam.ops.maps import minmax
from trt_cam.refine import affinity, spread


class SpreadHead(nn.Module):
    """From middle features and the map of a class to the extent of its object.

    The map is given twice, as it is and after a step of affinity (``trt_cam.refine``), so what is learnt is where that
    step goes wrong. Any class can be asked for, also one that was not in training: all that is known of it is its map.

    Parameters
    ----------
    channels
        Of each of the stages of features; affinity is of all but the first.
    width
        Of the hidden layers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.channels, self.width = tuple(channels), width
        self.register_buffer("mean", torch.zeros(sum(channels)))
        self.register_buffer("std", torch.ones(sum(channels)))
        self.of_features = nn.Conv2d(sum(channels), width, kernel_size=1)
        self.of_maps = nn.Conv2d(2, width, kernel_size=1)
        self.near = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.far = nn.Conv2d(width, width, kernel_size=3, padding=2, dilation=2)
        self.out = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, features: Tensor, maps: Tensor) -> Tensor:
        """The answer before its sigmoid.

        Parameters
        ----------
        features : (B, C, Gh, Gw)
            Stages joined.
        maps : (B, T, Gh, Gw)
            Of T classes each; stretched to [0, 1] here.

        Returns
        -------
        (B, T, Gh, Gw)
        """
        B, T, Gh, Gw = maps.shape
        weights = affinity(features.split(self.channels, dim=1)[1:], (Gh, Gw))  # (B, N, N)
        seeds = minmax(maps.flatten(0, 1))[0]  # (B * T, Gh, Gw)
        carried = spread(seeds, weights.repeat_interleave(T, dim=0))
        standard = (features - self.mean[:, None, None]) / self.std[:, None, None]
        hidden = self.of_features(standard).repeat_interleave(T, dim=0)  # (B * T, width, Gh, Gw)
        hidden = F.gelu(hidden + self.of_maps(torch.stack([seeds, carried], dim=1).to(hidden.dtype)))
        hidden = F.gelu(self.near(hidden)) + hidden
        hidden = F.gelu(self.far(hidden)) + hidden
        return self.out(hidden)[:, 0].view(B, T, Gh, Gw)
