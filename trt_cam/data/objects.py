"""Photos with objects of several classes: a sample for each photo and class, as localization is measured on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trt_cam.data.table import Place, Table


def add_objects(
    table: Table,
    photo: str,
    place: Place,
    objects: Iterable[tuple[int, Sequence[float], Place]],
    size: tuple[int, int] | None,
) -> None:
    """Add one photo, once for each class it shows.

    Parameters
    ----------
    table
        Its classes are named.
    photo
        Name of its file. The sample's id is ``<photo>#<class>``, or ``<photo>`` for one without objects.
    place
        Where the photo was read.
    objects
        Label, ``x0, y0, x1, y1`` and place of each.
    size : (H, W) or None
        That the boxes refer to.
    """
    rows: dict[int, int] = {}
    for label, corners, at in objects:
        if label not in rows:
            rows[label] = table.add(f"{photo}#{table.classes[label]}", place, label, size, photo)
        table.add_box(rows[label], corners, at)
    if not rows:
        table.add(photo, place, size=size)
