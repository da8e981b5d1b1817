"""What `localize` returns for one photo: boxes now, heat and pictures when asked for."""

from __future__ import annotations

import html
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from trt_cam.data.frames import Frame
from trt_cam.data.photos import load_photo
from trt_cam.errors import InputError
from trt_cam.ops.maps import minmax, resize


def input_heat(grid: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Grids as heat on the model's input.

    Parameters
    ----------
    grid : (B, Gh, Gw)
        Raw and signed.
    frame
        Where the photo lies on the input; heat on padding is set to zero.

    Returns
    -------
    (B, H, W) in [0, 1], and (B,) bool
        The heat, and whether a map is flat (then its heat is zero).
    """
    heat, flat = minmax(resize(grid, frame.input))
    inside = frame.inside()
    if not inside.all():
        mask = torch.from_numpy(inside).to(heat.device)
        low = heat.masked_fill(~mask, torch.inf).amin(dim=(-2, -1), keepdim=True)
        heat, flat = minmax(torch.where(mask, heat, low))
    return heat, flat


def write_picture(picture: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Write a picture, or say in one line why it cannot be written."""
    path = Path(path)
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path} ({error}); give a writable place and a suffix like .png") from error
    return path


@dataclass(frozen=True)
class Failure:
    """A photo that could not be localized, and why, in one line."""

    path: Path | None
    error: str

    def to_json(self) -> dict[str, Any]:
        """The line of a JSONL file that stands for this photo."""
        return {"path": None if self.path is None else str(self.path), "error": self.error}


@dataclass(frozen=True, eq=False, repr=False)
class Localization:
    """An object's boxes and heat map in one photo. A notebook shows it by itself.

    Attributes
    ----------
    boxes : (M, 4) int64
        ``x0, y0, x1, y1`` in pixels of the upright photo, far edge exclusive.
    scores : (M,) float32 in [0, 1]
        Probability of the class, the same for each box; 0 for a model without a classifier.
    mean_heat : (M,) float32 in [0, 1]
        Mean of the heat inside each box.
    label, target, score
        Name, index and probability of the class that was looked for; None where there is none.
    grid : (Gh, Gw) float32
        The method's map over patches, refined if ``refine`` says so; signed, unless only positive evidence counts.
    frame
        Where the photo lies on the model's input.
    method, model, refine, threshold
        What made the result.
    note : str
        Why there is no box ("the photo is blank", "the map is flat"), else empty.
    path : Path or None
        Of the photo, if it came from a file.
    """

    boxes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    mean_heat: npt.NDArray[np.float32]
    label: str | None
    target: int | None
    score: float | None
    grid: npt.NDArray[np.float32]
    frame: Frame
    method: str
    model: str
    refine: str | None
    threshold: float
    note: str = ""
    path: Path | None = None
    source: Image.Image | None = field(default=None)

    @property
    def flat(self) -> bool:
        """True where nothing could be told apart: a blank photo or a flat map."""
        return bool(self.note)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the upright photo."""
        return self.frame.photo

    @property
    def heat(self) -> npt.NDArray[np.float32]:
        """(H, W) float32 in [0, 1] at the photo's size, computed at each call."""
        return self.frame.heat_to_photo(self.heat_on_input)

    @property
    def heat_on_input(self) -> npt.NDArray[np.float32]:
        """(H, W) float32 in [0, 1] on the model's input, where the boxes were drawn; zero if `flat`."""
        if self.flat:
            return np.zeros(self.frame.input, dtype=np.float32)
        heat, _ = input_heat(torch.from_numpy(self.grid)[None], self.frame)
        return heat[0].numpy()

    @property
    def photo(self) -> Image.Image:
        """The upright RGB photo; read again from its file if it came from one."""
        origin = self.path if self.source is None else self.source
        if origin is None:
            raise InputError("the photo is not kept in this result; use its heat with trt_cam.overlay(photo, heat)")
        return load_photo(origin)

    def show(self) -> Image.Image:
        """The photo under its heat with the boxes drawn: opens a viewer, and is returned."""
        picture = self.picture()
        picture.show(title=self.caption)
        return picture

    def picture(self, max_side: int | None = None) -> Image.Image:
        """The photo under its heat with the boxes drawn, at the photo's size or reduced to ``max_side`` pixels."""
        from trt_cam.report.overlay import draw_result  # a result draws itself: the one way up from here

        return draw_result(self.photo, self.heat_on_input, self.frame, self.boxes, self.caption, max_side=max_side)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture; the suffix of ``path`` says in which format.

        Raises
        ------
        InputError
            The folder is not there or cannot be written, or the suffix is of no known format.
        """
        return write_picture(self.picture(), path)

    @property
    def caption(self) -> str:
        """One line about the object: label and probability, or why there is no box."""
        if self.note:
            return self.note
        name = self.label or (f"class {self.target}" if self.target is not None else "object")
        return name.split(",")[0] + (f" {self.score:.0%}" if self.score is not None else "")

    def to_json(self) -> dict[str, Any]:
        """Plain values, the line of a JSONL file that stands for this photo."""
        target = {"index": self.target, "name": self.label, "score": _plain(self.score)}
        line = {
            "path": str(self.path) if self.path is not None else None,
            "width": self.size[1],
            "height": self.size[0],
            "model": self.model,
            "method": self.method,
            "refine": self.refine,
            "target": target,
            "boxes": self.boxes.tolist(),
            "scores": [_plain(score) for score in self.scores],
            "threshold": self.threshold,
        }
        return line | ({"note": self.note} if self.note else {})

    def __repr__(self) -> str:
        where = f"{self.path}: " if self.path is not None else ""
        found = " ".join(str(box) for box in self.boxes.tolist()[:3]) + (" ..." if len(self.boxes) > 3 else "")
        made = f"{self.method}{f' + {self.refine}' if self.refine else ''}, {self.model}, threshold {self.threshold:g}"
        return f"<Localization {where}{self.caption}, {len(self.boxes)} boxes {found} ({made})>".replace("  ", " ")

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.picture(max_side=640).save(stream, "png")
        return stream.getvalue()

    def _repr_html_(self) -> str:
        import base64

        text = base64.b64encode(self._repr_png_()).decode()
        return f'<img src="data:image/png;base64,{text}"/><br/><small>{html.escape(repr(self))}</small>'


def _plain(value: Any) -> float | None:
    return None if value is None else round(float(value), 6)
