"""How good maps are: whether a classifier depends on what they mark, and whether they mark the object.

The figures of weakly supervised localization are made in three steps: a protocol by its name, an accumulator of photos
(``LocalizationResults`` for boxes, ``MaskResults`` for masks), and the figures of all photos it holds.
"""

from trt_cam.metrics.choices import Thresholds as Thresholds
from trt_cam.metrics.choices import search_threshold as search_threshold
from trt_cam.metrics.faithfulness import average_drop as average_drop
from trt_cam.metrics.faithfulness import deletion as deletion
from trt_cam.metrics.faithfulness import energy_in_box as energy_in_box
from trt_cam.metrics.faithfulness import faithfulness as faithfulness
from trt_cam.metrics.faithfulness import insertion as insertion
from trt_cam.metrics.faithfulness import max_sensitivity as max_sensitivity
from trt_cam.metrics.faithfulness import pointing_game as pointing_game
from trt_cam.metrics.intervals import Figure as Figure
from trt_cam.metrics.intervals import bootstrap as bootstrap
from trt_cam.metrics.masks import MaskFigures as MaskFigures
from trt_cam.metrics.masks import MaskResults as MaskResults
from trt_cam.metrics.masks import evaluation_mask as evaluation_mask
from trt_cam.metrics.masks import mask_figures as mask_figures
from trt_cam.metrics.pairs import Difference as Difference
from trt_cam.metrics.pairs import paired as paired
from trt_cam.metrics.pairs import paired_masks as paired_masks
from trt_cam.metrics.protocols import PRESETS as PRESETS
from trt_cam.metrics.protocols import get_protocol as get_protocol
from trt_cam.metrics.protocols import threshold_list as threshold_list
from trt_cam.metrics.records import LocalizationResults as LocalizationResults
from trt_cam.metrics.summary import LocalizationFigures as LocalizationFigures
from trt_cam.metrics.summary import figures as figures
