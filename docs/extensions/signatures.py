"""Signatures with the annotations of the source: ``Source``, not the union of five types that it stands for.

And docstrings of properties as they are: napoleon takes what stands before a colon for a type.
"""

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


def keep(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Remember the lines of a property before napoleon reads them; those with sections are left to it."""
    if what == "property" and not any(line.startswith("---") for line in lines):
        app.env.temp_data[f"property {name}"] = list(lines)


def put_back(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Put them back."""
    lines[:] = app.env.temp_data.pop(f"property {name}", lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to each signature and docstring that is written."""
    app.connect("autodoc-process-signature", as_written)
    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", put_back, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
