"""Files below a folder, sorted; links that lead out of it, or round in a circle, are reported and not followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from trt_cam.data.photos import SUFFIXES
from trt_cam.data.problems import Folder, Report, cannot


def is_picture(name: str) -> bool:
    """Whether a file's name has the suffix of a picture."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def scan(folder: Folder, name: str, report: Report) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted, hidden ones left out.

    Parameters
    ----------
    folder, name
        Which one; "" is the folder itself.
    report
        Told why it cannot be read.
    """
    folders, files = list[str](), list[str]()
    if why := name and folder.leads_out(name):
        report(folder.at(name), None, why)
        return folders, files
    try:
        with os.scandir(folder.at(name)) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        report(folder.at(name), None, cannot(error))
    return sorted(folders), sorted(files)


def pictures(folder: Folder, name: str, report: Report) -> Iterator[str]:
    """Names of all pictures below a folder; arguments as in `files_below`."""
    return files_below(folder, name, report, is_picture)


def files_below(
    folder: Folder, name: str, report: Report, wanted: Callable[[str], bool], around: tuple[str, ...] = ()
) -> Iterator[str]:
    """Names of files below a folder, from the top of the data set, in order.

    Parameters
    ----------
    folder, name, report
        As in `scan`.
    wanted
        Which files, by their names.
    around
        Real paths of the folders on the way down.
    """
    real = os.path.realpath(folder.at(name))
    around = around or ((os.path.realpath(folder.at("")),) if name else ())
    if real in around:
        report(folder.at(name), None, "is a link to a folder that it lies in")
        return
    folders, files = scan(folder, name, report)
    yield from (join(name, file) for file in files if wanted(file))
    for below in folders:
        yield from files_below(folder, join(name, below), report, wanted, (*around, real))


def join(*names: str) -> str:
    """Parts of a name with slashes between them; empty ones are left out."""
    return "/".join(name for name in names if name)
