"""Boxes for folders of photos that have none, written as the labels that detectors are trained on."""

from trt_cam.pseudolabels.runner import PseudoLabels as PseudoLabels
from trt_cam.pseudolabels.runner import pseudo_label as pseudo_label
