"""The paper's studies as lists of methods for ``evaluate``: what each part of TRT does on the same trained network.

The paper retrains for each setting where it does not say otherwise; here the selection is exchanged at inference.
"""

from __future__ import annotations

from collections.abc import Callable

from trt_cam.explainers import Explainer
from trt_cam.explainers.refinement import TRT

Row = str | Explainer

U = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.8, 0.9, 0.95, 0.99)
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


def selection() -> list[Row]:
    """Figure 4a: tokens selected by their mass, by their number, or by a fixed share of the largest."""
    rows: list[Row] = ["trt"]
    rows += [TRT(u=share, mode="topk") for share in SHARES]
    rows += [TRT(u=share, mode="fixed") for share in SHARES]
    return rows + [TRT(u=share, mode="mass") for share in SHARES]


def share_kept() -> list[Row]:
    """Figure 4b: the share u of attention that selected tokens make up."""
    return [TRT(u=u, mode="mass") for u in U]


def re_attention() -> list[Row]:
    """Figure 5: with and without re-attention, where M_T is m."""
    return ["trt", TRT(re_attention=False)]


def tables() -> list[Row]:
    """Tables 1 to 3: the methods of the paper that one network can carry."""
    return ["trt", "cam", "ts-cam", "grad-cam", "raw-attention", "rollout"]


STUDIES: dict[str, Callable[[], list[Row]]] = {
    "selection": selection,
    "u": share_kept,
    "re-attention": re_attention,
    "tables": tables,
}
