"""The checks of the conformance suite, each on one bound explainer."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trt_cam.backbone import unwrap
from trt_cam.errors import InputError, TrtCamError
from trt_cam.explainers import BoundExplainer, Explanation, create_explainer
from trt_cam.testing.rules import ConformanceError, compare, need, same, state, unsettled


class Suite:
    """An explainer, its model, two images and their targets."""

    def __init__(self, explain: BoundExplainer, size: tuple[int, int], calls: int) -> None:
        self.explain, self.model, self.calls = explain, explain.model, calls
        weights = next(self.model.parameters())
        drawn = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
        self.images = drawn.to(weights.device, weights.dtype)
        self.targets = [0, min(1, max(explain.classes - 1, 0))] if explain.classes else None

    def run(self, images: Tensor | None = None, target: Any = "own") -> Explanation:
        """One call, by default of both images for their targets."""
        return self.explain(
            self.images if images is None else images, self.targets if isinstance(target, str) else target
        )


def shape_and_type(suite: Suite) -> None:
    """(B, Gh, Gw), at least float32, on the images' device, finite; in [0, 1] as an array."""
    found = suite.run()
    came = f"{tuple(found.grid.shape)} {found.grid.dtype}"
    need(found.grid.ndim == 3 and len(found.grid) == 2, f"a grid (B, Gh, Gw) with B = 2 was needed, got {came}")
    need(found.grid.dtype in (torch.float32, torch.float64), f"at least float32 was needed, got {came}")
    need(found.grid.device == suite.images.device, f"a grid on the images' device was needed, got {found.grid.device}")
    need(not found.grid.requires_grad, "a grid without a graph was needed, got one that requires grad")
    need(bool(found.grid.isfinite().all()), "finite values were needed, got NaN or infinity")
    pixels = np.asarray(found)
    need(pixels.shape == (2, *suite.images.shape[-2:]), f"np.asarray at input size was needed, got {pixels.shape}")
    need(pixels.min() >= 0 and pixels.max() <= 1, "np.asarray in [0, 1] was needed, got values outside")


def batch_equals_singles(suite: Suite) -> None:
    """The map of an image does not depend on its neighbours."""
    together = suite.run().grid
    for index in range(2):
        target = None if suite.targets is None else suite.targets[index : index + 1]
        same(suite.run(suite.images[index : index + 1], target).grid, together[index : index + 1], f"image {index}")


def targets(suite: Suite) -> None:
    """An index, a list, a tensor and (B, T) mean the same; without one it is the predicted class."""
    if suite.targets is None:
        return
    plain = suite.run().grid
    same(suite.run(target=torch.tensor(suite.targets)).grid, plain, "a tensor of targets beside a list")
    one = suite.targets[-1]
    same(suite.run(target=one).grid, suite.run(target=[one, one]).grid, "one target beside a list")
    several = suite.run(target=[[target, 0] for target in suite.targets]).grid
    need(several.shape == (2, 2, *plain.shape[1:]), f"(B, T, Gh, Gw) was needed, got {tuple(several.shape)}")
    same(several[:, 0], plain, "the first of two targets")
    predicted = suite.run(target=None)
    same(suite.run(target=predicted.logits.argmax(1)).grid, predicted.grid, "no target beside the predicted class")


def callable_targets(suite: Suite) -> None:
    """A method that scores logits takes a callable, or one per image; another refuses it in one line."""
    try:
        found = suite.run(target=lambda logits: logits[0]).grid
    except InputError:
        return
    same(suite.run(target=[lambda logits: logits[0]] * 2).grid, found, "one callable per image beside one for all")


def the_same_again(suite: Suite) -> None:
    """The same images give the same map; random state and settings stay."""
    before, settings = torch.get_rng_state(), repr(suite.explain.explainer)
    first, second = suite.run().grid, suite.run().grid
    need(bool(torch.equal(first, second)), "the same map from the same images was needed, got another")
    need(bool(torch.equal(before, torch.get_rng_state())), "torch's random state was needed as it was, got it changed")
    came = repr(suite.explain.explainer)
    need(came == settings, f"settings {settings} were needed as they were, got {came}")


def model_as_it_was(suite: Suite) -> None:
    """A call leaves nothing behind, in the model, around it, or in the images."""
    before, images = state(suite.model), suite.images.clone()
    suite.run()
    compare(before, state(suite.model), "after a call")
    need(bool(torch.equal(images, suite.images)), "the images were needed as they were, got them changed")


def model_in_training(suite: Suite) -> None:
    """A model in training, partly frozen, with gradients, is explained in eval mode and left as it was."""
    expected = suite.run().grid
    with unsettled(suite.model):
        before = state(suite.model)
        found = suite.run().grid
        compare(before, state(suite.model), "after a call in training mode")
    same(found, expected, "beside eval mode")


def model_as_it_was_after_an_exception(suite: Suite) -> None:
    """An exception in any forward of the model comes through, and nothing is left behind."""
    leaves = [module for module in suite.model.modules() if not list(module.children()) and list(module.parameters())]
    for module in (leaves[0], leaves[len(leaves) // 2], leaves[-1]):
        fired = _interrupted(suite, module, at=0)
        for at in {1, fired} if fired else set():
            _interrupted(suite, module, at)


class _Interruption(Exception):
    """Raised in a forward."""


def _interrupted(suite: Suite, module: nn.Module, at: int) -> int:
    """Explain with an exception the ``at``-th time that a module is run; how often it was."""
    fired = 0

    def interrupt(*_: Any) -> None:
        nonlocal fired
        fired += 1
        if fired == at:
            raise _Interruption

    before, came = state(suite.model), at == 0
    handle = module.register_forward_hook(interrupt)
    try:
        suite.run()
    except _Interruption:
        came = True
    finally:
        handle.remove()
    need(came, "an exception in the model's forward was needed to come through, got a map")
    compare(before, state(suite.model), "after an exception in its forward")
    return fired


def nothing_grows(suite: Suite) -> None:
    """Calls keep no tensors and no modules alive."""

    def alive() -> int:
        gc.collect()
        return sum(1 for one in gc.get_objects() if issubclass(type(one), (Tensor, nn.Module)))

    suite.run()
    before = alive()
    for _ in range(suite.calls):
        suite.run()
    grown = alive() - before
    need(grown <= 2, f"no growth over {suite.calls} calls was needed, got {grown} tensors more")


def two_threads(suite: Suite) -> None:
    """Two at once give what one gives."""
    expected, found = suite.run().grid, dict[int, Any]()

    def work(index: int) -> None:
        try:
            found[index] = suite.run().grid
        except Exception as error:
            found[index] = error

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found.values():
        need(isinstance(one, Tensor), f"a map from each of two threads was needed, got {one!r}")
        same(one, expected, "in a thread")


def a_constant_image(suite: Suite) -> None:
    """Finite; flat or not."""
    found = suite.run(torch.zeros_like(suite.images))
    need(bool(found.grid.isfinite().all()), "finite values for a constant image were needed, got NaN or infinity")
    need(bool(np.isfinite(np.asarray(found)).all()), "finite heat for a constant image was needed, got NaN")


def errors(suite: Suite) -> None:
    """What cannot be explained is refused in one line."""
    other = torch.float32 if suite.images.dtype == torch.float64 else torch.float64
    bad: dict[str, Callable[[], Any]] = {
        "an image without a batch": lambda: suite.run(suite.images[0]),
        "an empty batch": lambda: suite.run(suite.images[:0]),
        "NaN in an image": lambda: suite.run(suite.images * float("nan")),
        "another precision": lambda: suite.run(suite.images.to(other)),
    }
    if suite.targets is not None:
        bad["a class out of range"] = lambda: suite.run(target=10**6)
        bad["fewer targets than images"] = lambda: suite.run(target=suite.targets[:1])  # type: ignore[index]
    net = unwrap(suite.model)
    if suite.targets is not None and suite.explain.explainer.class_specific and hasattr(net, "reset_classifier"):
        headless = copy.deepcopy(net)
        headless.reset_classifier(0)
        explainer = suite.explain.explainer
        bad["no classifier to predict a class"] = lambda: create_explainer(explainer, headless)(suite.images)
    for what, call in bad.items():
        refused(what, call)


def refused(what: str, call: Callable[[], Any], kind: type[Exception] = TrtCamError) -> None:
    """One line of the library's own errors is needed."""
    try:
        call()
    except kind as error:
        line = str(error)
        need("\n" not in line and len(line) > 20, f"{what}: one line that says what to do was needed, got {line!r}")
    except Exception as error:
        raise ConformanceError(f"{what}: {kind.__name__} was needed, got {type(error).__name__}: {error}") from error
    else:
        raise ConformanceError(f"{what}: {kind.__name__} was needed, got a result")


def settings(suite: Suite) -> None:
    """Settings are shown, can be copied, and an unknown one is refused."""
    explainer = suite.explain.explainer
    need(type(explainer).__name__ in repr(explainer), f"a repr that names the explainer was needed, got {explainer!r}")
    need(repr(copy.deepcopy(explainer)) == repr(explainer), "settings that can be copied were needed, got others")
    unknown = "an unknown setting"
    refused(unknown, lambda: create_explainer(type(explainer), suite.model, no_such_setting=1), InputError)


CHECKS = (
    model_as_it_was,  # before others leave their traces
    shape_and_type,
    batch_equals_singles,
    targets,
    callable_targets,
    the_same_again,
    model_in_training,
    model_as_it_was_after_an_exception,
    nothing_grows,
    two_threads,
    a_constant_image,
    errors,
    settings,
)
