"""Explainers by name: built in, registered by a caller, or offered by installed packages."""

from __future__ import annotations

import difflib
from fnmatch import fnmatch
from importlib.metadata import entry_points

from trt_cam.errors import InputError
from trt_cam.explainers.base import Explainer

_registry: dict[str, type[Explainer]] = {}
GROUP = "trt_cam.explainers"


def register_explainer(cls: type[Explainer]) -> type[Explainer]:
    """Class decorator: make an explainer known by its ``name``.

    Raises
    ------
    InputError
        The class has no name, or the name is taken.
    """
    if not cls.name:
        raise InputError(f"an explainer needs a name, got {cls.__name__} without one; set {cls.__name__}.name")
    if _registry.get(cls.name, cls) is not cls:
        raise InputError(f"explainer name {cls.name!r} is taken by {_registry[cls.name].__name__}; choose another")
    _registry[cls.name] = cls
    return cls


def list_explainers(pattern: str = "*") -> list[str]:
    """Names of all explainers, built in or from installed packages, that match a shell pattern."""
    load_plugins()
    return sorted(name for name in _registry if fnmatch(name, pattern))


def get_explainer(name: str) -> type[Explainer]:
    """The class behind a name; near names are suggested for an unknown one."""
    load_plugins()
    if name not in _registry:
        near = difflib.get_close_matches(str(name).lower(), _registry, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(sorted(_registry))}"
        raise InputError(f"a known method was needed, got {name!r}; {hint}")
    return _registry[name]


def load_plugins() -> None:
    """Import the explainers that installed packages offer under the entry point group, once."""
    for point in entry_points(group=GROUP):
        if point.name not in _registry:
            register_explainer(point.load())
