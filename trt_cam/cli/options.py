"""Options that several commands share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from trt_cam.errors import InputError


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that explain photos."""
    parser.add_argument("--model", help="a timm name, a folder or hf-hub:owner/name (default: the embedded model)")
    parser.add_argument("--target", help="class name or index to look for (default: the predicted class)")
    parser.add_argument("--threshold", type=float, metavar="SHARE", help="of the map's maximum, in [0, 1)")
    parser.add_argument("--refine", default="default", help="default (the model's own), affinity, ncut or none")
    parser.add_argument("--fit", default="squash", help="squash, pad or crop")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="of the model's input (default: its own)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...")


def common(chosen: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_common` as keywords."""
    names = ("model", "target", "threshold", "fit", "size", "device")
    refine = None if chosen.refine == "none" else chosen.refine
    return {name: getattr(chosen, name) for name in names} | {"refine": refine}


def quieten() -> None:
    """Keep other packages' warnings off stderr: what matters of them is in our one line."""
    import logging
    import warnings

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would list its five retries
    warnings.filterwarnings("ignore", module=r"(PIL|timm|huggingface_hub)\b")


def sides(given: list[int] | None) -> tuple[int, int] | None:
    """``--size``: one number for a square, or height and width."""
    if given is None:
        return None
    if len(given) not in (1, 2):
        raise InputError(f"--size needs one number of pixels, or height and width; got {len(given)} numbers")
    return given[0], given[-1]


def add_run(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that take a model through many photos, in runs that can be cut short."""
    parser.add_argument("--classes", metavar="FILE", help="JSON: the model's class of each of the data set's")
    parser.add_argument("--model", help="a timm name, a folder or hf-hub:owner/name (default: the embedded model)")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="of the model's input (default: its own)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; under torchrun cuda is each process's own")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="photos in one forward")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of one forward on the CPU (default: 1)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read photos")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut short")


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that read a data set."""
    parser.add_argument("folder", metavar="DIR", help="that the archives were unpacked in")
    parser.add_argument("--kind", default="auto", help="cub, wsol, ilsvrc, folders, ... (default: by what lies there)")
    parser.add_argument("--split", help="train, val, test (default: all there are)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="such as photos_root=DIR")


def dataset(chosen: argparse.Namespace) -> dict[str, str]:
    """What ``--set`` says of a data set, as keywords."""
    return named_values(chosen.set, "--set")


def named_values(given: list[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` texts as keywords."""
    pairs = [(one, *one.partition("=")) for one in given]
    for one, name, equals, value in pairs:
        if not (name and equals and value):
            raise InputError(f"{option} needs NAME=VALUE, got {one!r}")
    return {name: value for _, name, _, value in pairs}


def classes_of(path: str | None) -> dict[str, str | int] | None:
    """The file of ``--classes``."""
    if path is None:
        return None
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--classes {path} must be a file of JSON, got: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(one, (str, int)) for one in found.values()):
        raise InputError(
            f"--classes {path} must hold one object, the data set's classes to the model's names or indices"
        )
    return found
