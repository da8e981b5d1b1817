"""Heat maps and boxes of the objects in a photo, from vision transformers that saw image labels only.

>>> import trt_cam
>>> "localize" in dir(trt_cam)
True

Every public name is imported when it is first used, so ``import trt_cam`` loads neither torch nor timm nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from trt_cam import errors as errors
    from trt_cam import testing as testing
    from trt_cam.data.catalog import load_dataset as load_dataset
    from trt_cam.evaluation import evaluate as evaluate
    from trt_cam.explainers import Explainer as Explainer
    from trt_cam.explainers import Explanation as Explanation
    from trt_cam.explainers import create_explainer as create_explainer
    from trt_cam.explainers import list_explainers as list_explainers
    from trt_cam.explainers import register_explainer as register_explainer
    from trt_cam.explainers import register_foreign as register_foreign
    from trt_cam.explainers import register_function as register_function
    from trt_cam.localization import BatchLocalizer as BatchLocalizer
    from trt_cam.localization import Localization as Localization
    from trt_cam.localization import localize as localize
    from trt_cam.metrics.choices import search_threshold as search_threshold
    from trt_cam.models.heads import TPSM as TPSM
    from trt_cam.models.trt import TRTLocalizer as TRTLocalizer
    from trt_cam.models.trt import TRTOutput as TRTOutput
    from trt_cam.ops.attention import cdf_threshold as cdf_threshold
    from trt_cam.ops.attention import masked_attention as masked_attention
    from trt_cam.ops.boxes import box_iou as box_iou
    from trt_cam.ops.boxes import boxes_from_map as boxes_from_map
    from trt_cam.report.comparison import compare as compare
    from trt_cam.report.overlay import overlay as overlay
    from trt_cam.training import train as train

_HOMES = {
    "localize": "trt_cam.localization",
    "BatchLocalizer": "trt_cam.localization",
    "Localization": "trt_cam.localization",
    "compare": "trt_cam.report.comparison",
    "overlay": "trt_cam.report.overlay",
    "load_dataset": "trt_cam.data.catalog",
    "evaluate": "trt_cam.evaluation",
    "search_threshold": "trt_cam.metrics.choices",
    "train": "trt_cam.training",
    "create_explainer": "trt_cam.explainers",
    "list_explainers": "trt_cam.explainers",
    "register_explainer": "trt_cam.explainers",
    "register_foreign": "trt_cam.explainers",
    "register_function": "trt_cam.explainers",
    "Explainer": "trt_cam.explainers",
    "Explanation": "trt_cam.explainers",
    "TRTLocalizer": "trt_cam.models.trt",
    "TRTOutput": "trt_cam.models.trt",
    "TPSM": "trt_cam.models.heads",
    "cdf_threshold": "trt_cam.ops.attention",
    "masked_attention": "trt_cam.ops.attention",
    "boxes_from_map": "trt_cam.ops.boxes",
    "box_iou": "trt_cam.ops.boxes",
}
_MODULES = ("errors", "testing")

__all__ = [
    "TPSM",
    "BatchLocalizer",
    "Explainer",
    "Explanation",
    "Localization",
    "TRTLocalizer",
    "TRTOutput",
    "box_iou",
    "boxes_from_map",
    "cdf_threshold",
    "compare",
    "create_explainer",
    "errors",
    "evaluate",
    "list_explainers",
    "load_dataset",
    "localize",
    "masked_attention",
    "overlay",
    "register_explainer",
    "register_foreign",
    "register_function",
    "search_threshold",
    "testing",
    "train",
]


if not TYPE_CHECKING:  # type checkers know the names above, and no other

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return import_module(f"trt_cam.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'trt_cam' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value  # the second use is an ordinary lookup
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
