"""Explanation methods, grouped by what they need, behind one interface."""

from trt_cam.explainers import (  # noqa: F401  # they register themselves
    activation,
    attention,
    attention_gradient,
    clustering,
    gradient,
    occlusion,
    perturbation,
    refinement,
)
from trt_cam.explainers.base import Explainer as Explainer
from trt_cam.explainers.base import Explanation as Explanation
from trt_cam.explainers.binding import BoundExplainer as BoundExplainer
from trt_cam.explainers.binding import create_explainer as create_explainer
from trt_cam.explainers.functions import register_foreign as register_foreign
from trt_cam.explainers.functions import register_function as register_function
from trt_cam.explainers.registry import get_explainer as get_explainer
from trt_cam.explainers.registry import list_explainers as list_explainers
from trt_cam.explainers.registry import register_explainer as register_explainer
from trt_cam.explainers.together import explain_together as explain_together
