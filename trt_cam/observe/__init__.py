"""Watching a model's one forward: attention, tokens, features, gradients. Nothing of the model is changed by it.

Only this folder hooks, intercepts or differentiates. Rules that hold for every pass, each with a test:
fused attention stays on; hooks act on their own thread only and are gone afterwards; a model in training mode is put
into eval mode and back, shared safely between threads; compiled models and blocks run eagerly; inside
``inference_mode`` the pass runs outside of it, on cloned inputs; parameters' ``.grad`` is never touched.
"""

from trt_cam.observe.calls import AttentionCall as AttentionCall
from trt_cam.observe.calls import precisely as precisely
from trt_cam.observe.layers import Layer as Layer
from trt_cam.observe.layers import Reshape as Reshape
from trt_cam.observe.layers import resolve_layers as resolve_layers
from trt_cam.observe.observation import Observation as Observation
from trt_cam.observe.observation import Target as Target
from trt_cam.observe.observation import of_image as of_image
from trt_cam.observe.observation import shares as shares
from trt_cam.observe.observation import target_scores as target_scores
from trt_cam.observe.passes import observe as observe
from trt_cam.observe.quiet import check_images as check_images
from trt_cam.observe.quiet import eval_mode as eval_mode
from trt_cam.observe.quiet import quiet_pass as quiet_pass
from trt_cam.observe.replay import chunks as chunks
from trt_cam.observe.replay import forward as forward
from trt_cam.observe.replay import halving as halving
from trt_cam.observe.replay import image_bytes as image_bytes
from trt_cam.observe.rewriting import answering as answering
from trt_cam.observe.rewriting import rewrite_last_block as rewrite_last_block
from trt_cam.observe.rewriting import run_masked as run_masked
from trt_cam.observe.rewriting import run_unplaced as run_unplaced
