"""Explainers by name: built in, registered by a caller, or offered by installed packages."""

from __future__ import annotations

import difflib
import warnings
from fnmatch import fnmatch
from importlib.metadata import entry_points
from types import ModuleType

from trt_cam.errors import InputError
from trt_cam.explainers.base import Explainer

_registry: dict[str, type[Explainer]] = {}
_loaded: set[tuple[str, str]] = set()  # plugins that were tried
GROUP = "trt_cam.explainers"


def register_explainer(cls: type[Explainer]) -> type[Explainer]:
    """Class decorator: make an explainer known by its ``name``.

    A class of the same module and name replaces itself, as when a notebook's cell is run again.

    Raises
    ------
    InputError
        It is no explainer, it has no name, or the name is taken.
    """
    if not (isinstance(cls, type) and issubclass(cls, Explainer)):
        raise InputError(f"a subclass of Explainer was needed, got {cls!r}; for a function: register_function")
    if not cls.name or not isinstance(cls.name, str):
        raise InputError(f"an explainer needs a name, got {cls.__name__} without one; set {cls.__name__}.name")
    taken = _registry.get(cls.name, cls)
    if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise InputError(f"explainer name {cls.name!r} is taken by {taken.__name__}; choose another")
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
    """Import the explainers that installed packages offer under the entry point group, each once.

    An entry point names a class, or a module that registers its own. A broken one is warned of in one line.
    """
    for point in entry_points(group=GROUP):
        if (point.name, point.value) in _loaded:
            continue
        _loaded.add((point.name, point.value))
        try:
            found = point.load()
            if not isinstance(found, ModuleType):
                register_explainer(found)
        except Exception as error:
            package = point.dist.name if point.dist is not None else point.value
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            warnings.warn(f"explainer {point.name!r} of package {package!r} is left out: {reason}", stacklevel=3)
