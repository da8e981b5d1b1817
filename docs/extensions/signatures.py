"""Signatures with the annotations of the source: ``Source``, not the union of five types that it stands for."""

from __future__ import annotations

import inspect
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature

WITH_SIGNATURE = ("function", "class", "method")


def as_written(
    app: Sphinx, what: str, name: str, found: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Arguments and result of one object, or None where there is nothing to say otherwise."""
    if what not in WITH_SIGNATURE or signature is None:
        return None
    try:
        written = inspect.signature(found)
    except (TypeError, ValueError):  # classes of C have none
        return None
    own = [one for one in written.parameters.values() if one.name not in ("self", "cls")]
    result = "" if what == "class" or written.return_annotation is written.empty else str(written.return_annotation)
    alone = written.replace(parameters=own, return_annotation=written.empty)
    return stringify_signature(alone, unqualified_typehints=True), result or None


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to each signature that is written."""
    app.connect("autodoc-process-signature", as_written)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
