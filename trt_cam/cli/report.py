"""``trt-cam report``: a page of what ``trt-cam evaluate`` found."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trt_cam.cli.options import named_values, quieten
from trt_cam.cli.output import complain, make_folder, say


def add(commands: Any) -> None:
    """Options of ``report``."""
    parser = commands.add_parser(
        "report",
        help="a page of an evaluation: figures, curves, errors, photos",
        description="Makes one HTML file of a run: it opens in any browser, from the disk, and holds all it shows.",
    )
    parser.add_argument("run", metavar="RUN", help="the --out of `trt-cam evaluate`")
    parser.add_argument("--data", metavar="DIR", help="where the data set lies now (default: where it was)")
    parser.add_argument("--data-option", action="append", default=[], metavar="NAME=VALUE", help="photos_root=DIR, ...")
    parser.add_argument("--out", metavar="FILE", help="the page (default: report.html in RUN)")
    parser.add_argument("--photos", type=int, metavar="N", help="in each list of a method (default: 8, or what fits)")
    parser.add_argument("--figures", metavar="KINDS", help="also draw figures for papers to RUN/figures: pdf, svg, png")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """Write the page and the figures; what the page lacks is said."""
    quieten()
    from trt_cam.report.page import write_page
    from trt_cam.report.papers import check_kinds, write_figures

    kinds = check_kinds(chosen.figures.split(",")) if chosen.figures else []
    if chosen.out:
        make_folder(Path(chosen.out).expanduser().parent)
    page = write_page(
        chosen.run,
        data=chosen.data,
        options=named_values(chosen.data_option, "--data-option"),
        out=chosen.out,
        photos=chosen.photos,
    )
    for note in page.notes:
        complain(note, kind="warning: ")
    say(f"-> {page.path}")
    for path in write_figures(chosen.run, kinds) if kinds else []:
        say(f"-> {path}")
    return 0
