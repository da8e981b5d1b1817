"""The table of models on the site: columns that are numbered on GitHub are headed by their methods."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx

PAGE = "models"
KEY = re.compile(r"(\d+) `([^`]+)`")  # of the list above the table


def head(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Write the methods' names upright at the heads of the columns."""
    if page != PAGE:
        return
    names = dict(KEY.findall(app.env.doc2path(page).read_text(encoding="utf-8")))
    for row in tree.findall(nodes.thead):
        for entry in row.findall(nodes.entry):
            name = names.get(entry.astext())
            if name:
                entry.children = []
                entry += nodes.inline(name, name, classes=["upright"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to each page whose links are led."""
    app.connect("doctree-resolved", head)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
