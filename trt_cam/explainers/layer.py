"""What methods share that read one layer of the model."""

from __future__ import annotations

from collections.abc import Sequence

from trt_cam.errors import InputError
from trt_cam.explainers.base import Explainer
from trt_cam.observe import Layer, Reshape


class LayerMethod(Explainer):
    """What methods share that read the activation a (B, D, h, w) of one layer.

    The layer is the last one that still has patch gradients: the input of the last attention where the classifier reads
    the class token, the last block where it averages, the feature map of a CNN. The grid keeps its sign; heat and boxes
    use its positive part.

    Parameters
    ----------
    target_layers
        Layers of the model, by dotted name or as modules, in place of that one; their maps in [0, 1] are averaged.
    reshape_transform
        From a layer's output to (B, D, h, w); never needed, the layout is derived.
    """

    requires = frozenset({"activation"})
    positive = True

    def __init__(
        self, target_layers: Layer | Sequence[Layer] | None = None, reshape_transform: Reshape | None = None
    ) -> None:
        if reshape_transform is not None and not callable(reshape_transform):
            raise InputError(f"reshape_transform must be callable or None, got {reshape_transform!r}; leave it out")
        self.target_layers, self.reshape_transform = target_layers, reshape_transform
