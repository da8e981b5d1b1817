"""``trt-cam pseudo-label``: boxes for folders of photos, as labels to train a detector on."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_cam.cli.options import (
    BOXES,
    add_classes,
    add_dataset,
    add_method,
    add_model,
    add_refine,
    add_run,
    add_threshold,
    choice,
    classes_of,
    keywords,
    quieten,
    refinement,
)
from trt_cam.cli.output import FAILURE, Counter, check_folder, complain, on_terminal, say
from trt_cam.cli.parser import add_command
from trt_cam.cli.values import CHANCE, LEAST_0, SomeOf, filled

if TYPE_CHECKING:
    from trt_cam.pseudolabels import PseudoLabels

SHOWN = 20  # photos that failed; all of them have a line in the file


FORMATS = ("coco", "yolo", "voc", "jsonl")
TEXT = """
Make boxes for photos that have none, as labels to train a detector on: localize the object in every photo
below DIR and write its box. Writes to --out photos.jsonl, a line for each photo, and a folder for each
format; prints how many photos have boxes, and which failed.

Kill it and run it again with --resume, or run it under torchrun: the files are the same to the last byte. Once
it is complete, --resume writes other formats or keeps other boxes without running the model again.
"""
EXAMPLES = """
trt-cam pseudo-label photos --out runs/labels
trt-cam pseudo-label photos --out runs/labels --format coco,yolo --min-score 0.5 --min-size 16
trt-cam pseudo-label photos --out runs/labels --target predicted --boxes all_external --workers 4
trt-cam pseudo-label photos --out runs/labels --resume
"""


def add(commands: Any) -> None:
    """Options of ``pseudo-label``."""
    parser = add_command(
        *(commands, "pseudo-label", "make boxes for photos that have none, to train a detector on"),
        usage="DIR --out DIR [options]",
        text=TEXT,
        examples=EXAMPLES,
        page="docs/pseudo-labels.md",
    )
    parser.add_argument(
        "data", type=filled, metavar="DIR", help="photos, in a folder for each class or not; or a data set"
    )
    add_run(parser)
    add_labels(parser.add_argument_group("labels"))
    look = parser.add_argument_group("what to look for, and how")
    choice(
        *(look, "--target", ("label", "predicted")),
        "the class of the photo's folder or label, where it has one, or what the model predicts (default: label)",
        "label",
    )
    choice(
        *(look, "--boxes", BOXES[:2]), "one around the largest region, or one around each (default: largest)", "largest"
    )
    add_method(look)
    add_refine(look)
    add_threshold(look)
    data = parser.add_argument_group("data")
    add_dataset(data)
    add_classes(data)
    add_model(parser.add_argument_group("model"))
    parser.set_defaults(command=run)


def add_labels(group: Any) -> None:
    """What is written, and which boxes."""
    group.add_argument(
        "--format",
        type=SomeOf(FORMATS),
        default=["coco"],
        metavar="FORMATS",
        help=f"{', '.join(FORMATS)}, or several separated by commas (default: coco)",
    )
    group.add_argument(
        "--min-size",
        type=LEAST_0,
        default=0,
        metavar="N",
        help="least side of a box: pixels, or below 1 a share of the photo's side",
    )
    group.add_argument(
        "--min-score", type=CHANCE, default=0, metavar="P", help="least probability of a box's class, in [0, 1]"
    )


def run(chosen: argparse.Namespace) -> int:
    """Label, write the files, say what is in them; what failed at the end."""
    quieten()
    check_folder(Path(chosen.out))
    from trt_cam.data.catalog import load_dataset

    data = load_dataset(chosen.data, chosen.kind, chosen.split, **keywords(chosen.data_option))
    from trt_cam.listing import with_settings
    from trt_cam.pseudolabels import pseudo_label
    from trt_cam.runs import World

    found = pseudo_label(
        data,
        chosen.out,
        model=chosen.model,
        method=with_settings(chosen.method, chosen.set),
        refine=refinement(chosen),
        threshold=chosen.threshold,
        boxes=chosen.boxes,
        formats=chosen.format,
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
        progress=Counter() if on_terminal(sys.stderr) else None,
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
