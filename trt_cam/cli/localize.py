"""``trt-cam localize``: boxes, classes and pictures of photos."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_cam.cli.options import (
    BOXES,
    add_batch,
    add_method,
    add_model,
    add_photo,
    add_refine,
    add_threshold,
    choice,
    common,
    quieten,
)
from trt_cam.cli.output import FAILURE, check_folder, check_picture, complain, make_folder, progress, say
from trt_cam.cli.parser import add_command
from trt_cam.cli.values import filled, photo
from trt_cam.errors import InputError

if TYPE_CHECKING:
    from trt_cam.results import Failure, Localization


TEXT = """
Find the object in each photo: its class, a box around it, and the heat map that the box was made of.
Prints a line for each photo: path, class with its probability, and boxes as [x0, y0, x1, y1], in pixels
of the upright photo from its top left, x1 and y1 exclusive.

--out writes pictures with heat and box,
--json prints one line of JSON for each photo instead. A photo that fails does not stop the others.
"""
EXAMPLES = """
trt-cam localize photo.jpg
trt-cam localize photos/ 'more/*.png' --out pictures
trt-cam localize photo.jpg --target tabby --method rollout --set head_fusion=max
trt-cam localize photo.jpg --model deit_small_patch16_224 --json
"""


def add(commands: Any) -> None:
    """Options of ``localize``."""
    parser = add_command(
        *(commands, "localize", "find the object in photos: class, boxes, heat map"),
        usage="PHOTO [PHOTO ...] [options]",
        text=TEXT,
        examples=EXAMPLES,
        page="docs/quickstart.md",
    )
    parser.add_argument(
        "photos", nargs="+", type=photo, metavar="PHOTO", help="file, folder (all photos below it) or quoted pattern"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=filled, metavar="DIR", help="folder for a picture of each photo, or one file.png")
    output.add_argument("--json", action="store_true", help="print one line of JSON for each photo")
    look = parser.add_argument_group("what to look for, and how")
    add_photo(look)
    add_method(look)
    add_refine(look)
    boxes = parser.add_argument_group("boxes")
    add_threshold(boxes)
    choice(
        *(boxes, "--boxes", BOXES),
        "around the largest region, around each, or around each contour, holes included (default: largest)",
        "largest",
    )
    model = parser.add_argument_group("model")
    add_model(model)
    add_batch(model)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """Each photo as a line, a picture or JSON, as it is done; what failed at the end."""
    quieten()
    from trt_cam.data.photos import expand_photos

    photos = expand_photos(chosen.photos)
    pictures = Pictures(chosen.out, photos) if chosen.out else None
    from trt_cam.listing import with_settings
    from trt_cam.localization import iter_localize

    method = with_settings(chosen.method, chosen.set)
    found = iter_localize(photos, method=method, boxes=chosen.boxes, batch_size=chosen.batch_size, **common(chosen))
    failed = [line for result in progress(found, len(photos)) if (line := report(result, pictures, chosen.json))]
    if len(failed) > 1 or (failed and len(photos) > 1):
        complain(f"{len(failed)} of {len(photos)} photos failed:", kind="")
    for line in failed:
        complain(line)
    return FAILURE if failed else 0


def report(result: Localization | Failure, pictures: Pictures | None, as_json: bool) -> str:
    """Print one result and write its picture; returns what went wrong, else nothing."""
    from trt_cam.results import Localization

    error, written = "", None
    if not isinstance(result, Localization):
        error = result.error
    elif pictures is not None:
        try:
            written = result.save(pictures.place(result.path))
        except InputError as problem:
            error = str(problem)
    if as_json:
        say(json.dumps(result.to_json() | ({"error": error} if error else {})))
    elif isinstance(result, Localization):
        boxes = " ".join(str(box) for box in result.boxes.tolist()) or "no box"
        say("  ".join([str(result.path), result.caption, boxes] + ([f"-> {written}"] if written else [])))
    return error


class Pictures:
    """Where pictures go: one file, or a folder in which no name is used twice and no photo is overwritten."""

    def __init__(self, out: str, photos: Sequence[Path]) -> None:
        target = Path(out).expanduser()
        self.file = target if target.suffix and not target.is_dir() else None
        if self.file is not None and len(photos) > 1:
            raise InputError(f"--out {out} is one file, but there are {len(photos)} photos; give a folder")
        check_folder(target) if self.file is None else check_picture(self.file)
        self.folder = target.parent if self.file else target
        make_folder(self.folder)
        self.taken = {photo.absolute() for photo in photos}

    def place(self, photo: Path | None) -> Path:
        """The file of a photo's picture."""
        stem = photo.stem if photo is not None else "photo"
        if self.file is not None:
            return self.file
        names = (f"{stem}.png" if turn == 1 else f"{stem}-{turn}.png" for turn in range(1, sys.maxsize))
        path = next(path for name in names if (path := (self.folder / name)).absolute() not in self.taken)
        self.taken.add(path.absolute())
        return path
