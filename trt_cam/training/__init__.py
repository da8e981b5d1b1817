"""Training from image labels alone: TRT's two stages, TS-CAM and CAM, in one visible loop."""

from trt_cam.training.run import Trained as Trained
from trt_cam.training.run import train as train
