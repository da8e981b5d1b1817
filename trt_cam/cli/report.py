"""``trt-cam report``: a page of what ``trt-cam evaluate`` found."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trt_cam.cli.options import add_pairs, keywords, quieten
from trt_cam.cli.output import complain, make_folder, say
from trt_cam.cli.parser import add_command
from trt_cam.cli.values import COUNT, SomeOf, filled

TEXT = """
Make a page of what `trt-cam evaluate` found: tables with intervals, curves, where methods differ, and photos
with heat maps, boxes and a slider for the threshold. One HTML file that opens in any browser, from the disk,
and holds all it shows. Prints its path, and warns of what it lacks, such as photos that are not there any more.
"""
EXAMPLES = """
trt-cam report runs/cub
trt-cam report runs/cub --photos 20 --out page.html
trt-cam report runs/cub --figures pdf,png
"""


def add(commands: Any) -> None:
    """Options of ``report``."""
    parser = add_command(
        *(commands, "report", "make a page of an evaluation: tables, curves, photos"),
        usage="RUN [options]",
        text=TEXT,
        examples=EXAMPLES,
        page="docs/evaluation.md",
    )
    parser.add_argument("run", type=filled, metavar="RUN", help="folder that `trt-cam evaluate --out` wrote")
    parser.add_argument("--out", type=filled, metavar="FILE", help="the page (default: report.html in RUN)")
    parser.add_argument(
        "--photos", type=COUNT, metavar="N", help="photos in each list of a method (default: 8, or what fits)"
    )
    parser.add_argument(
        "--figures",
        type=SomeOf(("pdf", "svg", "png")),
        default=[],
        metavar="KINDS",
        help="draw figures for papers to RUN/figures too: pdf, svg, png, or several separated by commas",
    )
    data = parser.add_argument_group("data", "where the run does not find its data set any more")
    data.add_argument("--data", type=filled, metavar="DIR", help="where it lies now (default: where it was)")
    add_pairs(data, "--data-option", "an option of its layout, such as photos_root=DIR")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """Write the page and the figures; what the page lacks is said."""
    quieten()
    from trt_cam.report.page import write_page
    from trt_cam.report.papers import write_figures

    if chosen.out:
        make_folder(Path(chosen.out).expanduser().parent)
    page = write_page(
        chosen.run,
        data=chosen.data,
        options=keywords(chosen.data_option),
        out=chosen.out,
        photos=chosen.photos,
    )
    for note in page.notes:
        complain(note, kind="warning: ")
    say(f"-> {page.path}")
    for path in write_figures(chosen.run, chosen.figures) if chosen.figures else []:
        say(f"-> {path}")
    return 0
