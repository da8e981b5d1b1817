"""Token refinement: TRT with trained heads, and a training-free reading of it for any classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.explainers.base import Explainer
from trt_cam.explainers.registry import register_explainer
from trt_cam.models.trt import preliminary_map
from trt_cam.observe import Observation
from trt_cam.ops._checks import check_inside
from trt_cam.ops.attention import SelectionMode, cdf_threshold, reattention_map, token_importance
from trt_cam.ops.maps import minmax


@register_explainer
class TRT(Explainer):
    """Token Refinement Transformer (Su et al., BMVC 2022, arXiv:2208.01838)::

        grid = M_T * M_C[target]

    of a ``TRTLocalizer``; M_T alone if it has no CAM branch. A refinement spreads M_C before the product and leaves M_T
    as it is (ours, not the paper's).

    Needs trained heads. Class-specific. Signed; >= 0 where the localizer has ``relu`` or a learnt spread.

    Parameters
    ----------
    u, mode
        How much of m is kept, and what u means, in place of the model's own; see ``cdf_threshold``.
    re_attention
        False leaves out Eq. 9 and 10, for a study: M_T is m.
    """

    name = "trt"
    requires = frozenset({"trt"})

    def __init__(self, u: float | None = None, mode: SelectionMode | None = None, re_attention: bool = True) -> None:
        if mode is not None and u is None:
            raise InputError(f"mode={mode!r} needs the u that it is the unit of, got none; give u")
        self.u, self.mode, self.re_attention = u, mode, re_attention

    def localizer_settings(self) -> dict[str, Any]:
        return self.settings()

    def grid(self, seen: Observation, target: Tensor) -> Tensor:
        return seen.output.fused

    def refined(self, seen: Observation, target: Tensor, spread: Callable[[Tensor], Tensor]) -> Tensor:
        out = seen.output
        if out.m_c is None:
            return spread(out.m_t)
        return (out.m_t if out.m_c.ndim == 3 else out.m_t[:, None]) * spread(out.m_c)  # (B, Gh, Gw) or (B, T, Gh, Gw)

    def source(self, seen: Observation) -> str:
        return "no class: M_T alone" if seen.output.m_c is None else "the trained CAM branch"


@register_explainer
class TRTFree(Explainer):
    """TRT without training, on a classifier that has no TRT heads. Ours, not the paper's::

        m = normalised sum over blocks 1..L-1 of the query row     keep = tokens that make up a share u of m
        z = last block on Z_{L-1} with dropped tokens hidden       lambda = softmax over keep of z's class evidence
        grid = M_T(m, keep, lambda) * minmax(class evidence of the ordinary patch tokens)

    The block of TPSM is the backbone's own last block under the mask of Eq. 6, and the trained scoring head is replaced
    by what the classifier says of the kept tokens.

    Needs the query rows, the input of the last block, the final features, and a classifier of single positions.
    Class-specific. Values >= 0.

    Parameters
    ----------
    u, mode
        How much of m is kept, and what u means: "mass", "quantile", "topk" or "fixed"; see ``cdf_threshold``.
    temperature
        What the class evidence is divided by before the softmax; above 0, the larger the more even lambda.
    """

    name = "trt-free"
    requires = frozenset({"rows", "tokens", "features", "classifier"})

    def __init__(self, u: float = 0.65, mode: SelectionMode = "mass", temperature: float = 1.0) -> None:
        check_inside(temperature, "temperature", 0)
        self.u, self.mode, self.temperature = u, mode, temperature

    def grid(self, seen: Observation, target: Tensor) -> Tensor:
        m_t, m_c = self.factors(seen, target)
        return m_t * minmax(m_c)[0]

    def refined(self, seen: Observation, target: Tensor, spread: Callable[[Tensor], Tensor]) -> Tensor:
        m_t, m_c = self.factors(seen, target)
        return m_t * spread(m_c)

    def factors(self, seen: Observation, target: Tensor) -> tuple[Tensor, Tensor]:
        """M_T and M_C, (B, Gh, Gw) each."""
        assert seen.features is not None
        rows = seen.rows[:-1] or seen.rows
        prefix = rows[0].shape[2] - seen.grid_size[0] * seen.grid_size[1]
        m = preliminary_map(rows, prefix)
        keep = cdf_threshold(m, self.u, mode=self.mode)
        scored = seen.normed(seen.replay_masked(keep))
        scores = seen.class_map(scored, target).flatten(1) / self.temperature  # (B, N)
        m_t = reattention_map(m, keep, token_importance(scores, keep)).unflatten(1, seen.grid_size)
        return m_t, seen.class_map(seen.features, target)
