"""The file: names of axes, metadata, the size of weights, and how far it is from PyTorch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from torch import Tensor

from trt_cam.errors import UnsupportedModelError
from trt_cam.export.graph import PREDICTED
from trt_cam.models.hub import first_line
from trt_cam.pipeline import Pipeline, own_threshold

SMALL = 256
"""Numbers of a weight below which float16 would save nothing."""


def name_axes(made: Any, batch: int | str) -> None:
    """Names of axes, the default of ``target``, and no traces of where the graph was made."""
    from onnx import numpy_helper

    graph = made.graph
    for value in (*graph.input, *graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if value.name == "target":
            first.dim_param = "targets"  # 1 for all photos, or one for each: only Where reads it, and broadcasts
            graph.initializer.append(numpy_helper.from_array(np.array([PREDICTED]), "target"))
        elif batch == "dynamic":
            first.dim_param = "batch"
    for part in (made, graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def halve(made: Any) -> None:
    """Store the large weights as float16, cast to float32 where the graph reads them."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in made.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALL:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(values).all():
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *made.graph.node]
    made.graph.ClearField("node")
    made.graph.node.extend(nodes)


def described(line: Pipeline) -> dict[str, str]:
    """Metadata of the file: what boxes need to be made."""
    method = line.explain.explainer.name
    threshold = own_threshold(line.model, method, line.refine) if line.threshold is None else line.threshold
    return {
        "model": line.name,
        "method": method,
        "refine": line.refine or "none",
        "threshold": repr(float(threshold)),
        "interpolation": line.prepare.interpolation,
        "classes": json.dumps(list(line.names or []), ensure_ascii=False),
    }


def differences(content: bytes, photo: Tensor, expected: tuple[Tensor, Tensor], batch: int) -> tuple[float, float]:
    """Largest differences of onnxruntime's logits and heat from PyTorch's."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found = session.run(None, {"photo": photo.expand(batch, -1, -1, -1).cpu().numpy()})
    except Exception as error:  # onnxruntime's own
        raise UnsupportedModelError(f"onnxruntime cannot run what was written: {first_line(error)}") from error
    return tuple(float(np.abs(ours.cpu().numpy() - theirs).max()) for ours, theirs in zip(expected, found, strict=True))  # type: ignore[return-value]
