"""What a pass needs around it so that the model is as it was, also after an exception and between threads."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trt_cam.backbone import unwrap
from trt_cam.errors import InputError
from trt_cam.observe.scope import interrupting

_guard = threading.Lock()
_evaluating: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
"""Modules that are in training mode but for passes, with how many of these hold them in eval mode."""
_eager: list[Any] = []  # [count, stance], shared by all threads


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for the duration; of all passes that share a module, the last one that ends puts it back."""
    with _guard:
        held = [module for module in model.modules() if module.training or (_evaluating and module in _evaluating)]
        for module in held:
            _evaluating[module] = _evaluating.get(module, 0) + 1
            module.training = False
    try:
        yield
    finally:
        with _guard:
            for module in held:
                _evaluating[module] -= 1
                if not _evaluating[module]:
                    del _evaluating[module]
                    module.training = True


@contextmanager
def eagerly() -> Iterator[None]:
    """Compiled code runs uncompiled for the duration: hooks and modes do not fire inside compiled graphs."""
    if "torch._dynamo" not in sys.modules:  # then nothing can be compiled, and the import would cost a second
        yield
        return
    with _guard:
        if not _eager:
            stance = torch.compiler.set_stance("force_eager")
            stance.__enter__()
            _eager.extend([0, stance])
        _eager[0] += 1
    try:
        yield
    finally:
        with _guard:
            _eager[0] -= 1
            if _eager[0] == 0:
                _eager[1].__exit__(None, None, None)
                _eager.clear()


@contextmanager
def quiet_pass(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """Everything a pass needs around it: eval mode, eager code, no gradients, no inference tensors."""
    with ExitStack() as stack:
        stack.enter_context(eval_mode(unwrap(model)))
        stack.enter_context(eagerly())
        stack.enter_context(interrupting())
        if torch.is_inference_mode_enabled() or images.is_inference():
            stack.enter_context(torch.inference_mode(False))
            images = images.clone()
        stack.enter_context(torch.no_grad())
        yield images


def check_images(images: Tensor) -> None:
    """Refuse what is not a preprocessed batch."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        came = f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        raise InputError(
            f"preprocessed images (B, 3, H, W) of a float dtype were needed, got {came}; give photos, as files, "
            "PIL images or uint8 arrays, to localize"
        )
    if 0 in images.shape:
        raise InputError(f"at least one image with pixels was needed, got an empty batch {tuple(images.shape)}")
    if not torch.compiler.is_compiling() and not images.isfinite().all():  # a graph that is traced has no values
        raise InputError("finite images were needed, got NaN or infinity; check the preprocessing")


def check_placed(model: nn.Module, images: Tensor) -> None:
    """Refuse images on another device than the model's, or of another precision where no autocast converts them."""
    weights = next((one for one in model.parameters() if one.is_floating_point()), None)
    if weights is None:
        return
    if weights.device != images.device:
        raise InputError(
            f"images on the model's device {weights.device} were needed, got {images.device}; "
            f"use images.to({str(weights.device)!r})"
        )
    if weights.dtype != images.dtype and not torch.is_autocast_enabled(images.device.type):
        raise InputError(
            f"images of the model's precision {weights.dtype} were needed, got {images.dtype}; "
            f"use images.to({weights.dtype}), or torch.autocast"
        )
