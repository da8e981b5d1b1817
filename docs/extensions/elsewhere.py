"""Files outside docs/ that the pages include or link to, which GitHub shows beside them.

A page that includes ``../CONTRIBUTING.md`` shows that file, its links led from docs/. A link to a file that is a page
here leads to the page; one to any other file gives the file.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from sphinx.application import Sphinx

PAGES = {
    "../README.md": "index.md",
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../SECURITY.md": "security.md",
    "../trt_cam/assets/README.md": "embedded-model.md",
    "../examples/plugin/README.md": "from-another-repository.md",
}
INCLUDED = re.compile(r"```\{include\} (\.\./\S+)\n```\n")
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


def led(text: str, folder: str) -> str:
    """A text of docs/``folder``, its links led from docs/ and to pages."""

    def page(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found[1]))
        path = path.removeprefix("../docs/")
        return f"]({PAGES.get(path, path)}"

    return LINK.sub(page, text)


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """A page as it is read."""
    docs = Path(app.srcdir)

    def whole(found: re.Match[str]) -> str:
        app.env.note_dependency(str((docs / found[1]).resolve()))
        return led((docs / found[1]).read_text(encoding="utf-8"), posixpath.dirname(found[1]))

    if "/" not in name:
        source[0] = led(INCLUDED.sub(whole, source[0]), "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to each page that is read."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
