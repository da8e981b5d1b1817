"""What a model is made of: blocks, attention modules, prefix tokens, pooling, classifier, preprocessing.

Every other file asks this folder instead of guessing. Nothing here hooks a model or changes it.
"""

from trt_cam.backbone.anatomy import Backbone as Backbone
from trt_cam.backbone.anatomy import class_evidence as class_evidence
from trt_cam.backbone.anatomy import classifiers as classifiers
from trt_cam.backbone.anatomy import count_classes as count_classes
from trt_cam.backbone.anatomy import unwrap as unwrap
from trt_cam.backbone.families import describe as describe
from trt_cam.backbone.inputs import Preprocessing as Preprocessing
from trt_cam.backbone.inputs import class_names as class_names
from trt_cam.backbone.inputs import create_timm as create_timm
from trt_cam.backbone.inputs import imagenet_wnids as imagenet_wnids
from trt_cam.backbone.inputs import import_timm as import_timm
from trt_cam.backbone.inputs import preprocessing as preprocessing
