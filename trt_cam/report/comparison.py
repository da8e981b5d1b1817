"""Several methods on one photo, side by side."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from trt_cam.data.photos import Source, load_photo
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.localization import localize
from trt_cam.pipeline import place
from trt_cam.report.figures import side_by_side, to_png
from trt_cam.results import Localization, write_picture

DEFAULT_METHODS = ("auto", "grad-cam", "raw-attention", "rollout")
_SIDE = 480  # pixels of one picture in the figure


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Results of several methods on one photo. A notebook shows it by itself.

    Attributes
    ----------
    photo : the photo, upright
    results : one Localization per method, by its name
    refused : why a method cannot be carried by the model, by its name
    """

    photo: Image.Image
    results: dict[str, Localization]
    refused: dict[str, str]

    def _repr_png_(self) -> bytes:
        shown = self.photo.copy()
        shown.thumbnail((_SIDE, _SIDE))
        pictures, titles = [shown], ["photo"]
        for name, result in self.results.items():
            pictures.append(result.picture(max_side=_SIDE))
            titles.append(name + (f" + {result.refine}" if result.refine else ""))
        return to_png(side_by_side(pictures, titles))

    def show(self) -> Image.Image:
        """The figure: opens a viewer, and is returned."""
        figure = Image.open(io.BytesIO(self._repr_png_()))
        figure.show()
        return figure

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the figure; the suffix of ``path`` says in which format.

        Raises
        ------
        InputError
            The folder is not there or cannot be written, or the suffix is of no known format.
        """
        return write_picture(Image.open(io.BytesIO(self._repr_png_())).convert("RGB"), path)

    def __repr__(self) -> str:
        lines = [f"{name}: {result!r}" for name, result in self.results.items()]
        lines += [f"{name}: refused, {why}" for name, why in self.refused.items()]
        return "\n".join(lines)


def compare(
    photo: Source,
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    model: str | os.PathLike[str] | nn.Module | None = None,
    target: Any = None,
    refine: str | None = "default",
    out: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Comparison:
    """Explain one photo by several methods.

    Parameters
    ----------
    photo : a photo
        Path, PIL image or (H, W, 3) uint8 RGB array.
    methods
        Names of explainers; one that the model cannot carry is left out and named in the result, unless it is all.
    model, target
        As in `localize`; the target of None is the class that the first method's forward predicts, for all.
    refine : "default", "affinity" or None
        For each method; None shows the methods as they are.
    out
        Where to write the figure, if anywhere.
    options
        Others of `localize`: threshold, boxes, fit, size, device.

    Raises
    ------
    InputError
        The photo or an option cannot be used, or ``methods`` is empty.
    UnsupportedModelError
        The model can carry none of the methods.
    """
    if isinstance(methods, str) or not methods:
        raise InputError(f"methods must be a list of names such as ['trt', 'grad-cam']; got {methods!r}")
    image, net = load_photo(photo), place(model, options.pop("device", None))
    results: dict[str, Localization] = {}
    refused: dict[str, str] = {}
    for method in methods:
        try:
            found = localize(image, model=net, method=method, target=target, refine=refine, **options)
        except UnsupportedModelError as error:
            refused[str(method)] = str(error)
            continue
        assert isinstance(found, Localization)
        results[found.method] = found
        target = found.target if target is None else target
    if not results:
        raise UnsupportedModelError(f"none of {', '.join(map(str, methods))} fits: {next(iter(refused.values()))}")
    comparison = Comparison(image, results, refused)
    if out is not None:
        comparison.save(out)
    return comparison
