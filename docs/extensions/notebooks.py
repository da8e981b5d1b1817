"""notebooks/: copies of the examples' notebooks, which myst-nb runs while the site is built."""

from __future__ import annotations

import shutil
from pathlib import Path

from sphinx.application import Sphinx


def copy(app: Sphinx) -> None:
    """Copy those that are new or changed, so that what was run is not run again; take away what is gone."""
    to = Path(app.srcdir) / "notebooks"
    to.mkdir(exist_ok=True)
    given = {one.name: one for one in (Path(app.srcdir).parent / "examples").glob("*.ipynb")}
    for copied in to.glob("*.ipynb"):
        if copied.name not in given:
            copied.unlink()
    for name, notebook in given.items():
        if not (to / name).exists() or (to / name).read_bytes() != notebook.read_bytes():
            shutil.copyfile(notebook, to / name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Copy them before pages are looked for."""
    app.connect("builder-inited", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
