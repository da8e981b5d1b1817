"""Does an explainer keep the rules of this library? ``check_explainer`` says so, for built-in and foreign ones."""

from trt_cam.testing.conformance import check_explainer as check_explainer
from trt_cam.testing.conformance import tiny_models as tiny_models
from trt_cam.testing.rules import ConformanceError as ConformanceError
