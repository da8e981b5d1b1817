"""``trt-cam data``: what lies in a data set's folder, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from trt_cam.cli.options import add_dataset, dataset
from trt_cam.cli.output import FAILURE, say

if TYPE_CHECKING:
    from trt_cam.data.problems import Problem
    from trt_cam.data.samples import DataSet


def add(commands: Any) -> None:
    """Options of ``data check``."""
    group = commands.add_parser("data", help="check data sets").add_subparsers(required=True, metavar="ACTION")
    parser = group.add_parser("check", help="list all that is missing or broken, with file and line")
    add_dataset(parser)
    parser.add_argument("--pictures", action="store_true", help="open every picture too")
    parser.add_argument("--most", type=int, metavar="N", help="print at most N problems (default: all)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each problem and split")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """A line for each problem, then one for each split."""
    from trt_cam.data.catalog import open_splits

    seen: set[Problem] = set()
    left = chosen.most
    for found in open_splits(chosen.folder, chosen.kind, chosen.split, **dataset(chosen)):
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
