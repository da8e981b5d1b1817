"""Figures of several pictures side by side, drawn without pyplot's global state."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image


def side_by_side(
    pictures: Sequence[Image.Image], titles: Sequence[str], *, columns: int = 5, inches: float = 3.0
) -> Figure:
    """Pictures in rows, each under its title.

    Parameters
    ----------
    pictures, titles
        As many of the one as of the other, at least one.
    columns
        Pictures in a row, at most.
    inches
        Width of one picture.
    """
    rows = math.ceil(len(pictures) / columns)
    across = math.ceil(len(pictures) / rows)
    tall = max(picture.height / picture.width for picture in pictures)
    lines = 1 + max(title.count("\n") for title in titles)
    height = inches * min(tall, 2.0) + 0.2 + 0.2 * lines
    figure = Figure(figsize=(inches * across, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (picture, title) in enumerate(zip(pictures, titles, strict=True), start=1):
        axes = figure.add_subplot(rows, across, place)
        axes.imshow(picture)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return figure


def to_png(figure: Figure, dpi: int = 110) -> bytes:
    """A figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return stream.getvalue()
