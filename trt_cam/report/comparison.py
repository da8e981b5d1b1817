"""Several methods on one photo, side by side."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from trt_cam.data.photos import Source, load_photo
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.evaluation.chosen import name_with_settings
from trt_cam.explainers import Explainer
from trt_cam.localization import localize
from trt_cam.metrics import faithfulness as measure
from trt_cam.pipeline import Pipeline, place
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
    results : one Localization per method, by its name, with the settings of an explainer that has some
    refused : why a method cannot be carried by the model, by the same
    scores : of each method, the numbers of ``trt_cam.metrics.faithfulness``, if they were asked for
    """

    photo: Image.Image
    results: dict[str, Localization]
    refused: dict[str, str]
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    def _repr_png_(self) -> bytes:
        shown = self.photo.copy()
        shown.thumbnail((_SIDE, _SIDE))
        pictures, titles = [shown], ["photo"]
        for name, result in self.results.items():
            pictures.append(result.picture(max_side=_SIDE))
            title = name + (f" + {result.refine}" if result.refine else "")
            scores = self.scores.get(name, {})
            shown_scores = [f"{key} {scores[key]:.2f}" for key in ("insertion", "deletion") if key in scores]
            titles.append("\n".join([title, *([", ".join(shown_scores)] if shown_scores else [])]))
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
    methods: Sequence[Any] = DEFAULT_METHODS,
    *,
    model: str | os.PathLike[str] | nn.Module | None = None,
    target: Any = None,
    refine: str | None = "default",
    out: str | os.PathLike[str] | None = None,
    faithfulness: bool = False,
    **options: Any,
) -> Comparison:
    """Explain one photo by several methods.

    Parameters
    ----------
    photo : a photo
        Path, PIL image or (H, W, 3) uint8 RGB array.
    methods
        Names of explainers, or explainers with their settings; one that the model cannot carry is left out and named
        in the result, unless it is all.
    model, target
        As in `localize`; the target of None is the class that the first method's forward predicts, for all.
    refine : "default", "affinity", "ncut" or None
        For each method; None shows the methods as they are.
    out
        Where to write the figure, if anywhere.
    faithfulness
        Whether insertion, deletion, average drop and increase, and max-sensitivity of each are found.
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
        raise InputError(f"methods must be a list of names such as ['trt', 'grad-cam'], got {methods!r}")
    image, net = load_photo(photo), place(model, options.pop("device", None))
    results: dict[str, Localization] = {}
    scores: dict[str, dict[str, float]] = {}
    refused: dict[str, str] = {}
    for method in methods:
        asked = name_with_settings(method) if isinstance(method, Explainer) else str(getattr(method, "name", method))
        try:
            found = localize(image, model=net, method=method, target=target, refine=refine, **options)
        except UnsupportedModelError as error:
            refused[asked] = str(error)
            continue
        assert isinstance(found, Localization)
        name = found.method if asked == "auto" else asked
        results[name] = found
        target = found.target if target is None else target
        if faithfulness:
            scores[name] = measured(image, net, method, found, options)
    if not results:
        raise UnsupportedModelError(f"none of {', '.join(map(str, methods))} fits: {next(iter(refused.values()))}")
    comparison = Comparison(image, results, refused, scores)
    if out is not None:
        comparison.save(out)
    return comparison


def measured(
    photo: Image.Image, net: nn.Module, method: Any, found: Localization, options: dict[str, Any]
) -> dict[str, float]:
    """Faithfulness of one result's map on the model's input."""
    pipeline = Pipeline.build(
        net,
        method,
        None,
        refine=found.refine,
        fit=options.get("fit") or "squash",
        size=options.get("size"),
    )
    ready = pipeline.read(photo, None, strict=True)
    assert ready.image is not None
    weights = next(net.parameters())
    images = ready.image[None].to(weights.device, weights.dtype)
    numbers = measure(pipeline.explain, images, found.target, refine=found.refine)
    return {name: float(value) for name, value in numbers.items()}
