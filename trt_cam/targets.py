"""From what a caller says of a class - an index, a name, one of its synonyms - to its index."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Integral
from typing import Any

import numpy as np

from trt_cam.errors import InputError

Names = Sequence[str] | None


def resolve_target(target: object, names: Names, count: int) -> int:
    """The index of one class.

    Parameters
    ----------
    target : index or name
        A name is compared without case and underscores, whole or by one of its comma-separated synonyms
        ("tabby" is "tabby, tabby cat"); digits are an index.
    names : K names or None
        Of the model's classes; None where they are not known.
    count : K
        Number of classes; 0 where the model has no classifier.

    Raises
    ------
    InputError
        The index is out of range, or the name is unknown (near ones are suggested) or means several classes.
    """
    if isinstance(target, str) and not target.strip().isdigit():
        return _by_name(target, names)
    if isinstance(target, bool) or not isinstance(target, (str, Integral)):
        raise InputError(f"a target must be a class index or a class name, got {target!r}")
    index = int(target)
    if not count:
        raise InputError(f"target {index} needs a model with a classifier; this one has none, leave target out")
    if not 0 <= index < count:
        raise InputError(f"target {index} is out of range; the model's classes are 0 to {count - 1}")
    return index


def resolve_targets(target: Any, names: Names, count: int, photos: int | None) -> list[int] | int | None:
    """Like `resolve_target`, for None (the predicted class) and for a sequence with one target per photo too."""
    if target is None:
        return None
    if hasattr(target, "tolist"):  # an array, a tensor, or one number of either
        target = target.tolist()
    if isinstance(target, str) or not isinstance(target, Sequence):
        return resolve_target(target, names, count)
    if photos is not None and len(target) != photos:
        raise InputError(f"targets must be one for all photos or one each, got {len(target)} for {photos} photos")
    return [resolve_target(one, names, count) for one in target]


def class_label(index: int | None, names: Names) -> str | None:
    """The name of a class, or None where it has none."""
    return names[index] if index is not None and names is not None and index < len(names) else None


def _by_name(target: str, names: Names) -> int:
    if names is None:
        raise InputError(f"target {target!r} is a name, but the model does not know its class names; give an index")
    wanted = _plain(target)
    whole = [index for index, name in enumerate(names) if _plain(name) == wanted]
    synonyms = {index: [_plain(part) for part in name.split(",")] for index, name in enumerate(names)}
    found = whole or [index for index, parts in synonyms.items() if wanted in parts]
    if len(found) > 1:
        listed = "; ".join(f"{index} ({names[index]})" for index in found[:5])
        raise InputError(f"class name {target!r} means several classes: {listed}; give the index")
    if not found:
        known = sorted(set(np.concatenate(list(synonyms.values())).tolist())) if synonyms else []
        near = get_close_matches(wanted, known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "give the index or another name"
        raise InputError(f"no class is named {target!r} among the model's {len(names)}; {hint}")
    return found[0]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()
