"""One photo's boxes in the XML of PASCAL VOC, which ILSVRC uses too."""

from __future__ import annotations

from dataclasses import dataclass

from trt_cam.data.lists import Element, numbers, read_xml, whole
from trt_cam.data.problems import Folder, Report, quoted

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Object:
    """A named box, corners as the file holds them, and the line it begins in."""

    name: str
    corners: tuple[float, ...]
    line: int


@dataclass(frozen=True)
class Annotation:
    """What an XML file says of its photo: (H, W) or None, file name, objects."""

    size: tuple[int, int] | None
    filename: str
    objects: tuple[Object, ...]


def read_annotation(folder: Folder, name: str, report: Report) -> Annotation | None:
    """Read one file; None after a report. An object that cannot be read is reported and left out."""
    top = read_xml(folder, name, report)
    if top is None:
        return None
    file = folder.at(name)
    if top.name != "annotation":
        report(file, top.line, f"needs <annotation>, got <{top.name}>")
        return None
    objects = []
    for element in top.all("object"):
        corners = numbers([element.value("bndbox", corner) for corner in _CORNERS])
        if not element.value("name"):
            report(file, element.line, "object without a name")
        elif corners is None:
            shown = " ".join(element.value("bndbox", corner) or "?" for corner in _CORNERS)
            report(file, element.line, f"needs numbers {' '.join(_CORNERS)}, got {quoted(shown)}")
        else:
            objects.append(Object(element.value("name"), tuple(corners), _line(element)))
    return Annotation(_size(top), top.value("filename"), tuple(objects))


def _line(element: Element) -> int:
    box = element.get("bndbox")
    return box.line if box is not None else element.line


def _size(top: Element) -> tuple[int, int] | None:
    width, height = whole(top.value("size", "width")), whole(top.value("size", "height"))
    return (height, width) if width and height and min(width, height) > 0 else None  # some tools write 0
