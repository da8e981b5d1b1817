"""Links of the pages to files outside docs/, which GitHub shows beside them: to the page that holds the same."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

PAGES = {
    "../README.md": "index.md",
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../SECURITY.md": "security.md",
    "../trt_cam/assets/README.md": "embedded-model.md",
}
LINK = re.compile(r"\]\((\.\./[^)#\s]+)")


def within(text: str) -> str:
    """A page's text, its links to such files led to pages."""
    return LINK.sub(lambda found: f"]({PAGES.get(found[1], found[1])}", text)


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """A page as it is read."""
    source[0] = within(source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to each page that is read."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
