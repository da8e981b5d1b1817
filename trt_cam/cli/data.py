"""``trt-cam data``: what lies in a data set's folder, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from trt_cam.cli.options import add_dataset, keywords
from trt_cam.cli.output import FAILURE, say
from trt_cam.cli.parser import add_command
from trt_cam.cli.values import WHOLE, filled

if TYPE_CHECKING:
    from trt_cam.data.problems import Problem
    from trt_cam.data.samples import DataSet


TEXT = """
Look through a data set for all that is missing or broken: lists, boxes, masks, classes, and whether the
photos are there. Prints a line for each problem, with file and line, then one for each split: how many
samples, classes, boxes and masks it has. Nothing is changed. Exit code 1 where there is a problem.
"""
EXAMPLES = """
trt-cam data check CUB_200_2011
trt-cam data check CUB_200_2011 --split test --pictures
trt-cam data check wsolevaluation --data-option name=ILSVRC --json
"""


def add(commands: Any) -> None:
    """Options of ``data check``."""
    group = add_command(
        *(commands, "data", "look through a data set for what is missing or broken"),
        usage="ACTION [options]",
        text="Data sets in the layouts that they are distributed in.",
        examples="trt-cam data check CUB_200_2011",
        page="docs/datasets.md",
    ).add_subparsers(metavar="ACTION")
    parser = add_command(
        *(group, "check", "list all that is missing or broken, with file and line"),
        usage="DIR [options]",
        text=TEXT,
        examples=EXAMPLES,
        page="docs/datasets.md",
    )
    parser.add_argument("data", type=filled, metavar="DIR", help="folder that the archives were unpacked in")
    add_dataset(parser.add_argument_group("data"))
    output = parser.add_argument_group("output")
    output.add_argument("--pictures", action="store_true", help="open every picture too, which takes minutes to hours")
    output.add_argument("--most", type=WHOLE, metavar="N", help="print at most N problems (default: all)")
    output.add_argument("--json", action="store_true", help="print one line of JSON for each problem and each split")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """A line for each problem, then one for each split."""
    from trt_cam.data.catalog import open_splits

    seen: set[Problem] = set()
    left = chosen.most
    for found in open_splits(chosen.data, chosen.kind, chosen.split, **keywords(chosen.data_option)):
        count = 0
        for problem in found.problems(pictures=chosen.pictures):
            if problem in seen:  # in a list that several splits share
                continue
            seen.add(problem)
            count += 1
            if left is None or len(seen) <= left:
                say(json.dumps(as_json(problem)) if chosen.json else str(problem))
        summarize(found, count, chosen.json)
    return FAILURE if seen else 0


def as_json(problem: Problem) -> dict[str, Any]:
    """A problem's three parts."""
    return {"file": str(problem.file), "line": problem.line, "message": problem.message}


def summarize(found: DataSet, problems: int, as_json: bool) -> None:
    """How much there is, and how much of it is wrong."""
    counts = found.counts()
    if as_json:
        say(json.dumps({"kind": found.kind, "name": found.name, "split": found.split, **counts, "problems": problems}))
        return
    words = [
        f"{counts[what]:,} {what}"
        for what in ("samples", "classes", "boxes", "masks")
        if counts[what] or what == "samples"
    ]
    words += [f"{counts['without']:,} without a box"] if counts["boxes"] or counts["masks"] else []
    end = "no problem" if not problems else f"{problems:,} problem{'s' * (problems > 1)}"
    say(f"{found.name} {found.split} ({found.kind}): {', '.join(words)}; {end}")
