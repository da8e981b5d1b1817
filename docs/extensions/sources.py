"""Ways back from the pages of source to the reference, where a name is documented under another module than its own.

viewcode takes it that all names of a file are documented under one module; ``trt_cam.TPSM`` and
``trt_cam.models.heads.CamBranch`` are of one file.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

BACK = re.compile(r'<a class="viewcode-back" href="([^"#]*)#([^"]*)">(.*?)</a>')


def mended(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """The ways back of one page of source: right, or left out."""
    if not page.startswith("_modules/") or "body" not in context:
        return
    module = page.removeprefix("_modules/").replace("/", ".").removesuffix(".__init__")
    known = {name: entry.node_id for name, entry in app.env.domains.python_domain.objects.items()}

    def way(found: re.Match[str]) -> str:
        file, name, text = found.groups()
        if name in known:
            return found[0]
        parts = name.split(".")
        homes = (f"{module}.{'.'.join(parts[start:])}" for start in range(len(parts)))
        home = next((known[one] for one in homes if one in known), None)
        return f'<a class="viewcode-back" href="{file}#{home}">{text}</a>' if home else ""

    context["body"] = BACK.sub(way, context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to each page that is written."""
    app.connect("html-page-context", mended)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
