"""The site of these pages: `make docs`. Nothing is fetched while it is built, nor by a reader's browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))
sys.path.insert(0, str(HERE.parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # of the notebooks too: what needs the network must fail here

from trt_cam import __version__  # noqa: E402

project = "trt_cam"
author = "The trt_cam authors"
copyright = author
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",
    "elsewhere",
    "sources",
    "tables",
    "signatures",
    "commands",
    "gallery",
    "notebooks",
]
exclude_patterns = ["_build", "extensions", "gallery", "pictures"]
highlight_language = "text"
default_role = "py:obj"
smartquotes_action = "D"  # dashes between names and their descriptions; quotes stay as they are typed

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables
# Sliders need a kernel and scripts from elsewhere: what is shown is the still picture beside them.
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"Source": "Source", "Array": "Array"}
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]
maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"trt_cam {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = html_show_sourcelink = False
html_show_sphinx = False
html_permalinks_icon = "#"
