"""Options that several commands share, in groups, and what they mean for the library."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trt_cam.cli.values import COUNT, PIXELS, SHARE, WHOLE, OneOf, filled, names, pair, pair_of_method
from trt_cam.errors import InputError

REFINEMENTS = ("default", "affinity", "ncut", "none")
BOXES = ("largest", "all_external", "all")
FITS = ("squash", "pad", "crop")


def choice(group: Any, flag: str, words: tuple[str, ...], text: str, default: str | None = None) -> None:
    """An option that takes one of a few words."""
    group.add_argument(flag, choices=words, type=OneOf(words), default=default, help=text)


def add_pairs(group: Any, flag: str, text: str, *, kind: Callable[[str], str] = pair) -> None:
    """An option that sets others by name and may be given several times."""
    metavar = "METHOD.NAME=VALUE" if kind is pair_of_method else "NAME=VALUE"
    told = f"{text}; may be given several times"
    group.add_argument(flag, action="append", type=kind, default=[], metavar=metavar, help=told)


def add_model(group: Any, *, pixels: str = "side of the square that photos are resized to") -> None:
    """Which model, and where it runs."""
    group.add_argument(
        "--model",
        type=filled,
        metavar="NAME",
        help="a name of `trt-cam models`, a folder that `trt-cam train` or `trt-cam import` wrote, or "
        "hf-hub:OWNER/NAME (default: trt-lite0, the model in this package, which needs no network)",
    )
    group.add_argument("--size", type=PIXELS, metavar="PIXELS", help=f"{pixels} (default: the model's own)")
    group.add_argument("--device", type=filled, help="where to compute: cpu, cuda, cuda:1, ... (default: cpu)")


def add_batch(group: Any) -> None:
    """How many photos a forward takes."""
    group.add_argument("--batch-size", type=COUNT, default=8, metavar="N", help="photos in one forward of the model")


def add_method(group: Any) -> None:
    """One method with its options."""
    group.add_argument(
        "--method",
        type=filled,
        default="auto",
        metavar="NAME",
        help="a name of `trt-cam methods`; auto takes what the model was trained for, else trt-free, else grad-cam",
    )
    add_pairs(group, "--set", "an option of the method, as `trt-cam methods NAME` lists them")


def add_methods(group: Any, default: str | None, told: str = "") -> None:
    """Several methods with their options."""
    group.add_argument(
        "--methods",
        type=names,
        default=default,
        metavar="NAMES",
        help=f"names of `trt-cam methods`, separated by commas{told}",
    )
    text = "an option of one of them, as `trt-cam methods METHOD` lists them"
    add_pairs(group, "--set", text, kind=pair_of_method)


def add_refine(group: Any, words: tuple[str, ...] = REFINEMENTS) -> None:
    """What is done to the raw map."""
    meaning = {
        "default": "what the model's configuration says",
        "affinity": "spread it over patches that are alike",
        "ncut": "cut out a group of patches that are alike (normalised cut)",
        "none": "leave it",
    }
    told = "; ".join(f"{word}: {meaning[word]}" for word in words)
    choice(group, "--refine", words, f"what becomes of the raw map; {told} (default: default)", "default")


def refinement(chosen: argparse.Namespace) -> str | None:
    """``--refine`` as the library takes it."""
    found: str = chosen.refine
    return None if found == "none" else found


def add_threshold(group: Any) -> None:
    """Where foreground begins."""
    group.add_argument(
        "--threshold",
        type=SHARE,
        metavar="SHARE",
        help="boxes are around what is above this share of the map's maximum, in [0, 1) "
        "(default: the model's for this method, else the method's)",
    )


def add_photo(group: Any) -> None:
    """What is looked for in a photo, and how it comes to the model's input."""
    group.add_argument(
        "--target", type=filled, metavar="CLASS", help="class to look for, name or index (default: the predicted one)"
    )
    choice(
        group,
        "--fit",
        FITS,
        "how a photo comes to the model's square: both sides squashed, the shorter one padded, or the middle cropped "
        "(default: squash)",
        "squash",
    )


def common(chosen: argparse.Namespace) -> dict[str, Any]:
    """What `add_model`, `add_photo`, `add_refine` and `add_threshold` say, as keywords of ``localize``."""
    told = ("model", "target", "threshold", "fit", "size", "device")
    return {name: getattr(chosen, name) for name in told} | {"refine": refinement(chosen)}


def add_run(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that take a model through many photos, in runs that can be cut short."""
    group = parser.add_argument_group("run")
    group.add_argument("--out", required=True, type=filled, metavar="DIR", help="folder of the run: new, or empty")
    group.add_argument("--resume", action="store_true", help="go on with the run in --out that was cut short")
    add_batch(group)
    group.add_argument("--threads", type=COUNT, default=1, metavar="N", help="of one forward on the CPU")
    group.add_argument("--workers", type=WHOLE, default=0, metavar="N", help="processes that read photos")


def add_dataset(group: Any) -> None:
    """Which data set."""
    group.add_argument(
        "--kind",
        type=filled,
        default="auto",
        help="layout: wsol, cub, voc, coco, folders, ... of docs/datasets.md; auto looks at what lies in DIR",
    )
    group.add_argument("--split", type=filled, metavar="NAME", help="train, val, test, ... (default: the only one)")
    add_pairs(group, "--data-option", "an option of the layout, such as photos_root=DIR")


def add_classes(group: Any) -> None:
    """Which class of the model a class of the data is."""
    group.add_argument(
        "--classes",
        type=filled,
        metavar="FILE",
        help="JSON object: the model's class, name or index, of each class of the data (default: by equal names)",
    )


def keywords(given: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as keywords."""
    return {name: value for name, _, value in (one.partition("=") for one in given)}


def classes_of(path: str | None) -> dict[str, str | int] | None:
    """The file of ``--classes``."""
    if path is None:
        return None
    needed = "--classes needs a file with a JSON object of the data's classes to the model's names or indices"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{needed}, but {path} cannot be read so: {getattr(error, 'strerror', None) or error}"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(one, (str, int)) for one in found.values()):
        raise InputError(f"{needed}, got something else in {path}; write it as docs/evaluation.md shows")
    return found


def sides(given: list[int] | None) -> tuple[int, int] | None:
    """``--size``: one number for a square, or height and width."""
    if given is None:
        return None
    if len(given) > 2:
        raise InputError(f"--size needs one number of pixels, or height and width, got {len(given)} numbers")
    return given[0], given[-1]


def exclude(chosen: argparse.Namespace, first: str, second: str, instead: str) -> None:
    """Refuse two options that were both given, and of which one would do nothing."""
    given = [getattr(chosen, one.removeprefix("--").replace("-", "_")) for one in (first, second)]
    if not any(one is None or one is False or one == [] for one in given):
        raise InputError(f"{first} and {second} do not go together; {instead}")


def quieten() -> None:
    """Keep other packages' warnings off stderr: what matters of them is in our one line."""
    import logging
    import warnings

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would list its five retries
    warnings.filterwarnings("ignore", module=r"(PIL|timm|huggingface_hub)\b")
