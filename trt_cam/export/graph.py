"""What is written: the pass that explains, traced as it stands."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from trt_cam.data.frames import frame_of
from trt_cam.errors import UnsupportedModelError
from trt_cam.explainers.asked import Options
from trt_cam.explainers.registry import get_explainer
from trt_cam.models.hub import first_line
from trt_cam.pipeline import Pipeline
from trt_cam.results import input_heat

WRITABLE = ("trt", "ts-cam", "trt-free", "cam", "rollout", "raw-attention", "last-attention", "attention-product")
"""Methods that can be written, where a model carries them."""

UNWRITABLE = {
    "gradient": "gradients",
    "attention gradient": "gradients of attention",
    "forward": "many forwards",
    "replay": "many runs of what follows a layer",
}
"""What a method requires that is more than one pass forward, and that in words."""

MOST = 2**20
"""Photos at a time: a bound that no memory reaches, which torch wants to know."""

PREDICTED = -1
"""In place of a class: the one that the model predicts for each photo."""


class Explaining(nn.Module):
    """What is written: photos (B, H, W, 3) uint8 to logits (B, K) and heat (B, H, W).

    Parameters
    ----------
    line
        Of ``localize``: model, method, refinement, preprocessing.
    """

    def __init__(self, line: Pipeline) -> None:
        super().__init__()
        self.line, self.net = line, line.model
        self.frame = frame_of(line.size, line.size)

    @property
    def asks(self) -> bool:
        """Whether the heat depends on a class."""
        explain = self.line.explain
        headless = explain.reads_localizer and explain.localizer.cam is None
        return bool(explain.explainer.class_specific and explain.classes and not headless)

    def forward(self, photo: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``target``: (1,) or (B,) int64, below 0 for the predicted class; None for that of every photo."""
        explain, options = self.line.explain, Options(refine=self.line.refine)

        def asked(logits: Tensor) -> Tensor:
            predicted = logits.argmax(dim=1)
            return predicted if target is None else torch.where(target < 0, predicted, target)

        kind = next(self.net.parameters()).dtype
        images = self.line.prepare.normalize(photo.movedim(-1, 1).float() / 255).to(kind)  # (B, 3, H, W)
        seen = explain.look(images, explain.needs(options.refine), asked)
        logits = explain.ranking(seen, images, asked)
        chosen = asked(logits) if explain.classes else None
        grid = explain.map(seen, chosen, options.refine).detach()
        heat, _ = input_heat(explain.explanation(seen, grid, logits, chosen, options).evidence.float(), self.frame)
        return logits.float(), heat


def check_fit(line: Pipeline) -> None:
    """Refuse what is more than one pass forward, or has no word in ONNX."""
    explain = line.explain
    needed = (explain.explainer.requires | explain.explainer.wants) & UNWRITABLE.keys()
    if needed:
        fitting = [name for name in WRITABLE if get_explainer(name).requires <= explain.gives]
        raise UnsupportedModelError(
            f"a method of one pass forward was needed, but {explain.explainer.name!r} needs "
            f"{' and '.join(UNWRITABLE[one] for one in sorted(needed))}; for {line.name} take {' or '.join(fitting)}"
        )
    if line.refine == "ncut":
        raise UnsupportedModelError("refine='ncut' needs eigenvectors, which ONNX has not; use 'affinity' or None")


def traced(graph: Explaining, photo: Tensor, batch: int | str) -> Any:
    """The graph as an ONNX ``ModelProto``."""
    many = photo.expand(2 if batch == "dynamic" else int(batch), -1, -1, -1)  # of 1, torch would make a constant
    target = (torch.full((1,), PREDICTED, device=photo.device),) if graph.asks else ()
    shapes: dict[str, Any] = {"photo": {0: torch.export.Dim("batch", max=MOST)}, **({"target": None} if target else {})}
    try:
        with silence():
            made: Any = torch.onnx.export(
                graph,
                (many, *target),
                dynamo=True,
                input_names=["photo", "target"][: 1 + len(target)],
                output_names=["logits", "heat"],
                dynamic_shapes=shapes if batch == "dynamic" else None,
                custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises its own, which name what it has no word for
        line = graph.line
        raise UnsupportedModelError(
            f"{line.name} with {line.explain.explainer.name!r} cannot be written as ONNX: {cause_of(error)}; "
            "try another method, a fixed batch, or a newer torch"
        ) from error
    return made.model_proto


def stable_sort(x: Any, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:
    """ONNX for ``sort(stable=True)``: of equal values TopK takes the lower index first, by its definition."""
    from onnxscript import opset18

    op: Any = opset18
    count = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
    return op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)


@contextmanager
def silence() -> Iterator[None]:
    """Keep torch's exporter quiet: what matters of it is in the error."""
    logger, said = logging.getLogger("torch"), io.StringIO()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(said), redirect_stderr(said):
            yield
    finally:
        logger.setLevel(before)


def cause_of(error: BaseException) -> str:
    """The innermost reason, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
