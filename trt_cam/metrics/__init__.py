"""How good maps are: here, whether a classifier depends on what they mark."""

from trt_cam.metrics.faithfulness import average_drop as average_drop
from trt_cam.metrics.faithfulness import deletion as deletion
from trt_cam.metrics.faithfulness import energy_in_box as energy_in_box
from trt_cam.metrics.faithfulness import faithfulness as faithfulness
from trt_cam.metrics.faithfulness import insertion as insertion
from trt_cam.metrics.faithfulness import max_sensitivity as max_sensitivity
from trt_cam.metrics.faithfulness import pointing_game as pointing_game
