"""Plain functions as explainers: one of this library's observations, or a foreign one of model and images."""

from __future__ import annotations

import copy
import inspect
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trt_cam.errors import InputError
from trt_cam.explainers.base import Explainer
from trt_cam.explainers.registry import register_explainer
from trt_cam.observe import Observation
from trt_cam.ops.precision import at_least_float32

Decorator = Callable[[Callable[..., Any]], type[Explainer]]


def register_function(
    name: str, *, requires: Iterable[str] = (), class_specific: bool = True, positive: bool = False
) -> Decorator:
    """Decorator: a function ``f(seen, target, *, setting=default) -> (B, Gh, Gw)`` becomes a registered explainer.

    Parameters
    ----------
    name
        Registry name, lower case.
    requires, class_specific, positive
        As in ``Explainer``. What follows ``target`` in the function's signature are the settings.

    Returns
    -------
    Decorator
        It returns the explainer's class.

    Raises
    ------
    InputError
        The name is taken.
    """
    facts = {"requires": frozenset(requires), "class_specific": class_specific, "positive": positive}
    return lambda function: _registered(FunctionExplainer, name, function, facts)


def register_foreign(
    name: str, *, class_specific: bool = True, positive: bool = False, callables: bool = False
) -> Decorator:
    """Decorator: a function ``f(model, images, target, *, setting=default) -> (B, h, w)`` becomes an explainer.

    For methods of other packages. The function may do to the model as it likes, except for writing into its weights:
    it gets a copy in eval mode that shares their memory, while hooks, modes and gradients are its own. Gradients are
    enabled, random numbers (torch's, numpy's, Python's) are seeded with 0 and put back, one function runs at a time.

    Parameters
    ----------
    name
        Registry name, lower case.
    class_specific, positive
        As in ``Explainer``. What follows ``target`` in the function's signature are the settings.
    callables
        Whether the function takes as ``target`` also a callable from an image's logits (K,) to a scalar, or one per
        image; else it is classes (B,) alone, and None for a model without classifier.

    Returns
    -------
    Decorator
        It returns the explainer's class. The function's result may be an array or a tensor, in any resolution.

    Raises
    ------
    InputError
        The name is taken.
    """
    requires = frozenset({"forward"}) if callables else frozenset()
    facts = {"requires": requires, "class_specific": class_specific, "positive": positive}
    return lambda function: _registered(ForeignExplainer, name, function, facts)


class FunctionExplainer(Explainer):
    """An explainer whose grid is a function's; its settings are the function's arguments after the first ones."""

    function: ClassVar[Callable[..., Any]]
    given: ClassVar[int] = 2  # arguments that are no settings

    def __init__(self, **settings: Any) -> None:
        known = {
            argument.name: argument.default
            for argument in [*inspect.signature(self.function).parameters.values()][self.given :]
            if argument.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        }
        unknown = sorted(settings.keys() - known.keys())
        if unknown:
            raise InputError(
                f"settings of {self.name!r} among {', '.join(known) or 'none'} were needed, got {', '.join(unknown)}"
            )
        vars(self).update({**known, **settings})
        missing = [setting for setting, value in vars(self).items() if value is inspect.Parameter.empty]
        if missing:
            raise InputError(f"{self.name!r} needs a value for {', '.join(missing)}, got none; give it as a setting")

    def grid(self, seen: Observation, target: Any) -> Tensor:
        return checked(type(self).function(seen, target, **self.settings()), self.name, seen.images)

    def source(self, seen: Observation) -> str:
        return f"the function {type(self).function.__name__}"


class ForeignExplainer(FunctionExplainer):
    """The same for a function of model, images and target, that may do to the model as it likes."""

    given = 3

    def grid(self, seen: Observation, target: Any) -> Tensor:
        model = seen.backbone.model if seen.net is None else seen.net
        with on_its_own(seen.images.device):
            images = seen.images.detach().clone()
            target = target.clone() if isinstance(target, Tensor) else target
            found = type(self).function(stand_in(model), images, target, **self.settings())
            return checked(found, self.name, seen.images)


def stand_in(model: nn.Module) -> nn.Module:
    """A copy in eval mode that shares the memory of the weights, and nothing else."""
    memo: dict[int, Any] = {
        id(weights): nn.Parameter(weights.detach(), requires_grad=weights.requires_grad)
        for weights in model.parameters()
    }
    return copy.deepcopy(model, memo).eval()


_turn = threading.RLock()  # foreign functions share the random state, and are seldom made for threads


@contextmanager
def on_its_own(device: torch.device) -> Iterator[None]:
    """Around a foreign function: gradients are enabled, random numbers seeded, and all of it put back."""
    with _turn, torch.inference_mode(False), torch.enable_grad():
        state, python = np.random.get_state(), random.getstate()
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(0)
                np.random.seed(0)
                random.seed(0)
                yield
        finally:
            np.random.set_state(state)
            random.setstate(python)


def checked(found: Any, name: str, images: Tensor) -> Tensor:
    """What a function returned as (B, h, w) on the images' device, detached, at least float32."""
    maps = torch.as_tensor(found) if isinstance(found, (Tensor, np.ndarray)) else None
    if maps is None or maps.ndim != 3 or len(maps) != len(images) or maps.is_complex():
        came = type(found).__name__ if maps is None else f"{tuple(maps.shape)} {maps.dtype}"
        raise InputError(
            f"maps (B, h, w) with B = {len(images)} were needed from the function of {name!r}, got {came}; "
            "sum or average over other axes in the function"
        )
    return at_least_float32(maps.detach().to(images.device))


def _registered(
    base: type[FunctionExplainer], name: str, function: Callable[..., Any], facts: dict[str, Any]
) -> type[Explainer]:
    """The class for a function. It stands under the function's name, so that its instances can be pickled."""
    if not callable(function) or not hasattr(function, "__name__"):
        raise InputError(f"a function was needed for {name!r}, got {function!r}; for a class: register_explainer")
    clash = [setting for setting in [*inspect.signature(function).parameters][base.given :] if hasattr(base, setting)]
    if clash:
        raise InputError(f"settings of {name!r} need other names than an explainer's own, got {', '.join(clash)}")
    names = {"__module__": function.__module__, "__qualname__": function.__qualname__, "__doc__": function.__doc__}
    cls = type(function.__name__, (base,), {**facts, **names, "name": name, "function": staticmethod(function)})
    return register_explainer(cls)
