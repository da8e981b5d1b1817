"""``trt-cam pseudo-label``: boxes for folders of photos, as labels to train a detector on."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

from trt_cam.cli.options import add_run, classes_of, quieten
from trt_cam.cli.output import FAILURE, Counter, complain, say

if TYPE_CHECKING:
    from trt_cam.pseudolabels import PseudoLabels

SHOWN = 20  # photos that failed; all of them have a line in the file


def add(commands: Any) -> None:
    """Options of ``pseudo-label``."""
    parser = commands.add_parser(
        "pseudo-label",
        help="boxes for folders of photos, as labels to train a detector on",
        description="Localize the object in every photo below DIR and write its box as COCO, YOLO, VOC or JSON lines. "
        "Kill it and run it again with --resume, or run it under torchrun: the files are the same to the last byte. "
        "Once it is complete, --resume writes other formats or keeps other boxes without a model's work.",
    )
    parser.add_argument("data", metavar="DIR", help="photos, in a folder for each class or not; or a data set")
    parser.add_argument(
        "--format", default="coco", help="coco, yolo, voc or jsonl, separated by commas (default: coco)"
    )
    parser.add_argument("--boxes", default="largest", help="largest (one a photo) or all_external")
    parser.add_argument("--target", default="label", help="label (of the photo, if it has one) or predicted")
    parser.add_argument(
        "--min-size", type=float, default=0, metavar="N", help="of a box's sides: pixels, or share if < 1"
    )
    parser.add_argument("--min-score", type=float, default=0, metavar="P", help="least probability of a box's class")
    parser.add_argument("--kind", default="auto", help="of data set (default: by what lies in the folder)")
    parser.add_argument("--split", help="which part, where there are several")
    parser.add_argument("--method", default="auto", help="see `trt-cam methods`; auto takes the best that fits")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the method")
    parser.add_argument("--refine", default="default", help="default (the model's own), affinity, ncut or none")
    parser.add_argument("--threshold", type=float, metavar="SHARE", help="of the map's maximum, in [0, 1)")
    add_run(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """Label, write the files, say what is in them; what failed at the end."""
    quieten()
    from trt_cam.data.catalog import load_dataset
    from trt_cam.listing import with_settings
    from trt_cam.pseudolabels import pseudo_label
    from trt_cam.runs import World

    found = pseudo_label(
        load_dataset(chosen.data, chosen.kind, chosen.split),
        chosen.out,
        model=chosen.model,
        method=with_settings(chosen.method, chosen.set),
        refine=None if chosen.refine == "none" else chosen.refine,
        threshold=chosen.threshold,
        boxes=chosen.boxes,
        formats=[name.strip() for name in chosen.format.split(",")],
        target=chosen.target,
        classes=classes_of(chosen.classes),
        min_size=chosen.min_size,
        min_score=chosen.min_score,
        batch_size=chosen.batch_size,
        threads=chosen.threads,
        workers=chosen.workers,
        resume=chosen.resume,
        device=chosen.device,
        size=chosen.size,
        progress=Counter() if sys.stderr.isatty() else None,
    )
    if World.current().rank > 0:  # process 0 reports; torchrun would end it at the first failure of another
        return 0
    report(found)
    return FAILURE if found.failed else 0


def report(found: PseudoLabels) -> None:
    """Counts on stdout, failures on stderr."""
    classes = sum(count > 0 for count in found.classes.values())
    say(
        f"{found.photos} photos: {found.labelled} with {found.boxes} boxes of {classes} classes, "
        f"{found.without_box} without a box, {found.copies} copies, {found.failed} failed"
    )
    say(f"-> {found.folder}")
    for _, reason in islice(found.failures(), SHOWN):
        complain(reason)
    if found.failed > SHOWN:
        complain(f"{found.failed - SHOWN} more failed; see error in {found.folder / 'photos.jsonl'}")
