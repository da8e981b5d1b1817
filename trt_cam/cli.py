"""The command ``trt-cam``: the words of the Python API; one clear line per error; exit 2 for usage, 1 for failure."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from trt_cam import __version__
from trt_cam.errors import InputError, TrtCamError

if TYPE_CHECKING:
    from trt_cam.results import Failure, Localization

USAGE, FAILURE, INTERRUPTED = 2, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments
        Words after the program's name; None takes the process's own.
    """
    try:
        chosen = build_parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = chosen.command
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: complain(str(message), kind="warning: ")
            return command(chosen)
    except SystemExit as done:  # argparse ends --help and usage errors so
        return int(done.code or 0)
    except TrtCamError as error:
        complain(str(error))
        return USAGE if isinstance(error, InputError) else FAILURE
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # Python flushes it once more at exit
        return FAILURE
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED


class Parser(argparse.ArgumentParser):
    """argparse with one line per error."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see {self.prog} --help")
        raise SystemExit(USAGE)


def build_parser() -> argparse.ArgumentParser:
    """All commands and options. Nothing heavy is imported before a command runs."""
    parser = Parser(prog="trt-cam", description="Heat maps and boxes of the objects in photos.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"trt-cam {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    add_localize(commands)
    add_compare(commands)
    methods = commands.add_parser("methods", help="list the explanation methods, or describe one")
    methods.add_argument("name", nargs="?", help="name of one method")
    methods.set_defaults(command=run_methods)
    models = commands.add_parser("models", help="list the models that can be named")
    models.add_argument("pattern", nargs="?", default="*", help="such as 'deit*'")
    models.set_defaults(command=run_models)
    return parser


def add_localize(commands: Any) -> None:
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
    parser.set_defaults(command=run_localize)


def add_compare(commands: Any) -> None:
    """Options of ``compare``."""
    parser = commands.add_parser("compare", help="explain one photo by several methods, side by side")
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument("--methods", default="auto,grad-cam,raw-attention,rollout", help="separated by commas")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.NAME=VALUE", help="an option of a method")
    parser.add_argument("--faithfulness", action="store_true", help="how much the class depends on what is marked")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each method")
    parser.add_argument("--out", metavar="FILE", default="compare.png", help="the figure (default: %(default)s)")
    add_common(parser)
    parser.set_defaults(command=run_compare)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options of both."""
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


def run_localize(chosen: argparse.Namespace) -> int:
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


def run_compare(chosen: argparse.Namespace) -> int:
    """One figure, and a line per method."""
    quieten()
    from trt_cam.data.photos import load_photo
    from trt_cam.listing import with_settings
    from trt_cam.report.comparison import compare

    try:
        photo = load_photo(chosen.photo)
    except InputError as error:  # a failure of this photo, not of usage
        complain(str(error))
        return FAILURE
    make_folder(Path(chosen.out).expanduser().parent)
    names = [name.strip() for name in chosen.methods.split(",") if name.strip()]
    for one in chosen.set:
        if one.partition(".")[0] not in names:
            raise InputError(f"--set needs METHOD.NAME=VALUE of one of {', '.join(names)}, got {one!r}")
    methods = [
        with_settings(name, [one.partition(".")[2] for one in chosen.set if one.partition(".")[0] == name])
        for name in names
    ]
    comparison = compare(photo, methods, out=chosen.out, faithfulness=chosen.faithfulness, **common(chosen))
    for name, result in comparison.results.items():
        scores = comparison.scores.get(name, {})
        if chosen.json:
            say(json.dumps(result.to_json() | ({"faithfulness": scores} if scores else {})))
            continue
        boxes = " ".join(str(box) for box in result.boxes.tolist()) or "no box"
        say("  ".join([name, result.caption, boxes, *(f"{key} {value:.3f}" for key, value in scores.items())]))
    for name, why in comparison.refused.items():
        complain(why, kind=f"{name} left out: ")
    if not chosen.json:
        say(f"-> {chosen.out}")
    return 0


def run_methods(chosen: argparse.Namespace) -> int:
    """One line per method, or all about one."""
    from trt_cam.listing import description, summaries

    say(description(chosen.name) if chosen.name else "\n".join(summaries()))
    return 0


def run_models(chosen: argparse.Namespace) -> int:
    """One name per line."""
    from trt_cam.models.catalog import model_names

    names = model_names(chosen.pattern)
    if not names:
        raise InputError(f"no model name matches {chosen.pattern!r}; `trt-cam models` lists all")
    say("\n".join(names))
    return 0


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


def make_folder(folder: Path) -> None:
    """Make a folder if it is not there, and see that it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise OutputError(f"cannot write to {folder} ({error.strerror or error}); give another --out") from error


class OutputError(TrtCamError, OSError):
    """The place for results cannot be written."""


def progress(results: Iterable[Any], count: int) -> Iterator[Any]:
    """The same results, counted on stderr if that is a terminal, they are many, and their lines go elsewhere."""
    shown = count > 1 and sys.stderr.isatty() and not sys.stdout.isatty()
    for done, result in enumerate(results, start=1):
        if shown:
            say(f"\r{done}/{count} photos", sys.stderr, end="")
        yield result
    if shown:
        say("\r" + " " * 40 + "\r", sys.stderr, end="")


def say(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """Print, escaping what the terminal cannot show."""
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, end=end, flush=stream is sys.stderr)


def complain(text: str, kind: str = "error: ") -> None:
    """One line on stderr."""
    say(f"trt-cam: {kind}{' '.join(text.split())}", sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
