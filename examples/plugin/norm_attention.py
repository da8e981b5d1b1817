"""A method of one's own, found by trt_cam wherever this package is installed."""

from torch import Tensor

from trt_cam import Explainer
from trt_cam.observe import Observation


class NormAttention(Explainer):
    """Attention of the last block, times how long the features are that it reads (after Kobayashi et al., EMNLP 2020)::

        grid = (mean_h A_L[query, patches]) * |features| ** power

    A patch that is looked at but says little counts little. Class-agnostic: ``target`` is not read. Values >= 0.

    Parameters
    ----------
    power
        Weight of the length; 0 is the attention alone.
    """

    name = "norm-attention"
    requires = frozenset({"rows", "features"})
    class_specific = False

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def grid(self, seen: Observation, target: object) -> Tensor:
        assert seen.features is not None
        row = seen.rows[-1].mean(dim=1)  # (B, S)
        length: Tensor = seen.features.norm(dim=1)  # (B, Gh, Gw)
        return seen.to_grid(row) * length.pow(self.power)
