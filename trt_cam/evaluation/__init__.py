"""A data set through a model by several methods, and the figures of a published protocol."""

from trt_cam.evaluation.chosen import class_indices as class_indices
from trt_cam.evaluation.chosen import of_data as of_data
from trt_cam.evaluation.chosen import of_weights as of_weights
from trt_cam.evaluation.runner import Evaluation as Evaluation
from trt_cam.evaluation.runner import Progress as Progress
from trt_cam.evaluation.runner import evaluate as evaluate
