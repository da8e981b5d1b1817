"""The checks of the conformance suite, each on one bound explainer."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trt_cam.backbone import create_timm
from trt_cam.errors import InputError, TrtCamError, UnsupportedModelError
from trt_cam.explainers import BoundExplainer, Explainer, Explanation, create_explainer
from trt_cam.testing.rules import ConformanceError, compare, need, same, state

CLASSES, SIDE = 7, 64


def tiny_models() -> Iterator[tuple[str, nn.Module]]:
    """Small timm models with random weights, one of each kind: class token, average of patches, CNN."""
    plain: dict[str, Any] = {"img_size": SIDE, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": CLASSES}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "class token": ("vit_tiny_patch16_224", plain),
        "average of patches": ("vit_tiny_patch16_224", {**plain, "global_pool": "avg", "class_token": False}),
        "CNN": ("resnet10t", {"num_classes": CLASSES}),
    }
    with torch.random.fork_rng(devices=[]):
        for kind, (name, settings) in kinds.items():
            torch.manual_seed(0)
            yield kind, create_timm(name, pretrained=False, **settings).eval()


def check_explainer(
    method: str | type[Explainer] | Explainer,
    model: nn.Module | None = None,
    *,
    size: tuple[int, int] = (SIDE, SIDE),
    calls: int = 50,
    **settings: Any,
) -> list[str]:
    """Run the conformance suite.

    Parameters
    ----------
    method
        Registry name, class or instance.
    model
        In eval mode, with a classifier; None for one small timm model of each kind that the method takes.
    size : (H, W)
        Pixels of the model's input.
    calls
        After how many calls memory is looked at; fewer for a costly method.
    **settings
        Of the method: small numbers for a costly one.

    Returns
    -------
    list of str
        The checks that were made, ``"kind of model: check"``.

    Raises
    ------
    ConformanceError
        A check failed; the message names it.
    UnsupportedModelError
        The method takes none of the models.
    """
    made: list[str] = []
    refused: list[str] = []
    for kind, one in tiny_models() if model is None else [(type(model).__name__, model)]:
        try:
            explain = create_explainer(method, one, **settings)
        except UnsupportedModelError as error:
            refused.append(str(error))
            continue
        suite = _Suite(explain, size, calls)
        for check in CHECKS:
            name = check.__name__.removeprefix("_").replace("_", " ")
            try:
                check(suite)
            except ConformanceError as error:
                raise ConformanceError(f"{explain.explainer.name!r} on {kind}: {name}: {error}") from error
            made.append(f"{kind}: {name}")
    if not made:
        raise UnsupportedModelError(f"a model that the method takes was needed: {'; '.join(refused)}")
    return made


class _Suite:
    """An explainer, its model, and two images."""

    def __init__(self, explain: BoundExplainer, size: tuple[int, int], calls: int) -> None:
        self.explain, self.model, self.calls = explain, explain.model, calls
        weights = next(self.model.parameters())
        drawn = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
        self.images = drawn.to(weights.device, weights.dtype)
        self.targets = [0, min(1, max(explain.classes - 1, 0))] if explain.classes else None

    def run(self, images: Tensor | None = None, target: Any = "own") -> Explanation:
        return self.explain(
            self.images if images is None else images, self.targets if isinstance(target, str) else target
        )


def _shape_and_type(suite: _Suite) -> None:
    found = suite.run()
    came = f"{tuple(found.grid.shape)} {found.grid.dtype}"
    need(found.grid.ndim == 3 and len(found.grid) == 2, f"a grid (B, Gh, Gw) with B = 2 was needed, got {came}")
    need(found.grid.dtype in (torch.float32, torch.float64), f"at least float32 was needed, got {came}")
    need(found.grid.device == suite.images.device, f"a grid on the images' device was needed, got {found.grid.device}")
    need(not found.grid.requires_grad, "a grid without a graph was needed, got one that requires grad")
    need(bool(found.grid.isfinite().all()), "finite values were needed, got NaN or infinity")
    pixels = np.asarray(found)
    need(pixels.shape == (2, *suite.images.shape[-2:]), f"np.asarray at input size was needed, got {pixels.shape}")
    need(pixels.min() >= 0 and pixels.max() <= 1, "np.asarray in [0, 1] was needed")


def _batch_equals_singles(suite: _Suite) -> None:
    together = suite.run().grid
    for index in range(2):
        target = None if suite.targets is None else suite.targets[index : index + 1]
        same(suite.run(suite.images[index : index + 1], target).grid, together[index : index + 1], f"image {index}")


def _targets(suite: _Suite) -> None:
    if suite.targets is None or suite.explain.reads_localizer:
        return
    plain = suite.run().grid
    same(suite.run(target=torch.tensor(suite.targets)).grid, plain, "a tensor of targets beside a list")
    several = suite.run(target=[[one, 0] for one in suite.targets])
    need(several.grid.shape == (2, 2, *plain.shape[1:]), f"(B, T, Gh, Gw) was needed, got {tuple(several.grid.shape)}")
    same(several.grid[:, 0], plain, "the first of two targets")
    predicted = suite.run(target=None)
    same(suite.run(target=predicted.logits.argmax(1)).grid, predicted.grid, "no target beside the predicted class")


def _callable_targets(suite: _Suite) -> None:
    try:
        found = suite.run(target=lambda logits: logits[0])
        each = suite.run(target=[lambda logits: logits[0]] * 2)
    except InputError:
        return  # a method that asks for classes only says so
    same(each.grid, found.grid, "one callable for each image beside one for all")


def _the_same_again(suite: _Suite) -> None:
    before = torch.get_rng_state()
    first, second = suite.run().grid, suite.run().grid
    need(bool(torch.equal(first, second)), "the same map from the same images was needed, got another")
    need(bool(torch.equal(before, torch.get_rng_state())), "torch's random state was needed as it was")


def _model_as_it_was(suite: _Suite) -> None:
    modules = list(suite.model.modules())
    was = [module.training for module in modules]
    suite.model.train()
    try:
        before = state(suite.model)
        same(suite.run().grid, suite.run().grid, "in training mode")
        compare(before, state(suite.model), "after a call in training mode")
    finally:
        for module, training in zip(modules, was, strict=True):
            module.training = training


def _model_as_it_was_after_an_exception(suite: _Suite) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: Any) -> None:
        raise Interrupted

    leaves = [module for module in suite.model.modules() if not list(module.children()) and list(module.parameters())]
    for module in (leaves[0], leaves[len(leaves) // 2], leaves[-1]):
        handle = module.register_forward_hook(interrupt)
        before = state(suite.model)
        with suppress(Interrupted):
            suite.run()
        compare(before, state(suite.model), "after an exception in its forward")
        handle.remove()


def _nothing_grows(suite: _Suite) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(1 for one in gc.get_objects() if type(one) is Tensor)

    suite.run()
    before = tensors()
    for _ in range(suite.calls):
        suite.run()
    grown = tensors() - before
    need(grown <= 2, f"no growth over {suite.calls} calls was needed, got {grown} tensors more")


def _two_threads(suite: _Suite) -> None:
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


def _a_constant_image(suite: _Suite) -> None:
    found = suite.run(torch.zeros_like(suite.images))
    need(bool(found.grid.isfinite().all()), "finite values for a constant image were needed")
    need(bool(np.isfinite(np.asarray(found)).all()), "finite heat for a constant image was needed")


def _errors(suite: _Suite) -> None:
    bad: dict[str, Callable[[], Any]] = {
        "an image without a batch": lambda: suite.run(suite.images[0]),
        "an empty batch": lambda: suite.run(suite.images[:0]),
        "NaN in an image": lambda: suite.run(suite.images * float("nan")),
        "another precision": lambda: suite.run(suite.images.half()),
    }
    if suite.targets is not None:
        bad["a class out of range"] = lambda: suite.run(target=10**6)
        bad["fewer targets than images"] = lambda: suite.run(target=suite.targets[:1])  # type: ignore[index]
    for what, call in bad.items():
        try:
            call()
        except TrtCamError as error:
            need("\n" not in str(error) and len(str(error)) > 20, f"{what}: one line that says what to do was needed")
        except Exception as error:
            raise ConformanceError(f"{what}: a TrtCamError was needed, got {type(error).__name__}: {error}") from error
        else:
            raise ConformanceError(f"{what}: a TrtCamError was needed, got a map")


def _settings(suite: _Suite) -> None:
    explainer = suite.explain.explainer
    need(type(explainer).__name__ in repr(explainer), "a repr that names the explainer was needed")
    need(repr(copy.copy(explainer)) == repr(explainer), "settings that can be copied were needed")
    try:
        create_explainer(type(explainer), suite.model, no_such_setting=1)
    except InputError:
        return
    raise ConformanceError("an unknown setting: an InputError was needed, got an explainer")


CHECKS = (
    _shape_and_type,
    _batch_equals_singles,
    _targets,
    _callable_targets,
    _the_same_again,
    _model_as_it_was,
    _model_as_it_was_after_an_exception,
    _nothing_grows,
    _two_threads,
    _a_constant_image,
    _errors,
    _settings,
)
