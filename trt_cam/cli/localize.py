"""``trt-cam localize``: boxes, classes and pictures of photos."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_cam.cli.options import add_common, common, quieten
from trt_cam.cli.output import FAILURE, complain, make_folder, progress, say
from trt_cam.errors import InputError

if TYPE_CHECKING:
    from trt_cam.results import Failure, Localization


def add(commands: Any) -> None:
    """Options of ``localize``."""
    parser = commands.add_parser("localize", help="find the object in photos: boxes, class, pictures")
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="files, folders or patterns")
    parser.add_argument("--method", default="auto", help="see `trt-cam methods`; auto takes the best that fits")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the method")
    parser.add_argument("--boxes", default="largest", help="largest, all_external or all")
    parser.add_argument("--out", metavar="DIR", help="write a picture for each photo there, or to one file.png")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each photo")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="photos in one forward")
    add_common(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """Each photo as a line, a picture or JSON, as it is done; what failed at the end."""
    quieten()
    from trt_cam.data.photos import expand_photos
    from trt_cam.listing import with_settings
    from trt_cam.localization import iter_localize

    method = with_settings(chosen.method, chosen.set)
    photos = expand_photos(chosen.photos)
    pictures = Pictures(chosen.out, photos) if chosen.out else None
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
