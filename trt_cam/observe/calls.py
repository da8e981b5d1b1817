"""One call of attention: its q, k and v, and the rows, columns and gradients that are read of it.

What is read is computed from q and k, so no model is rebuilt, and no whole matrix is made where rows do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trt_cam.backbone import Backbone
from trt_cam.errors import UnsupportedModelError
from trt_cam.ops.precision import at_least_float32

CHUNK = 2 * 2**20  # bytes of attention matrix made at a time when whole rows are reduced: what a cache holds


@dataclass
class AttentionCall:
    """One call of attention inside a module: q, k of a fused one, or the weights of one that is not fused.

    Attributes
    ----------
    q, k : (B, nh, Nq, d), (B, nh, Nk, d)
        After norms and rotary embedding; None for a call that is not fused.
    v : (B, nh, Nk, d) or None
    bias : broadcastable to (B, nh, Nq, Nk), additive, or None
    scale : factor of q.k
    weights, scores : (B, nh, Nq, Nk) or None
        Attention itself and what it is the softmax of, where the model computes them.
    output : (B, nh, Nq, d) or None
        What a fused call returned, once it was run.
    """

    q: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None
    bias: Tensor | None = None
    scale: float = 1.0
    weights: Tensor | None = None
    scores: Tensor | None = None
    output: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, nh, Nq, Nk)."""
        if self.weights is not None:
            return tuple(self.weights.shape)  # type: ignore[return-value]
        assert self.q is not None and self.k is not None
        return (*self.q.shape[:3], self.k.shape[2])  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        seen = self.q if self.weights is None else self.weights
        assert seen is not None
        return seen.device

    def rows(self, start: int, stop: int, heads: slice = slice(None)) -> Tensor:
        """Attention of query rows ``start:stop``, (B, nh, stop - start, Nk), at least float32."""
        if self.weights is not None:
            return at_least_float32(self.weights[:, heads, start:stop])
        assert self.q is not None and self.k is not None
        with precisely(self.q):
            q, k = at_least_float32(self.q[:, heads, start:stop]), at_least_float32(self.k[:, heads])
            scores = q @ k.transpose(-2, -1) * self.scale
            if self.bias is not None:
                scores = scores + self.bias.expand(self.shape)[:, heads, start:stop]
            return scores.softmax(dim=-1)

    def weighed(self, row: Tensor) -> Tensor:
        """Sum of the query rows weighed by ``row``, (B, Nq) or (B, nh, Nq): (B, nh, Nk), at least float32.

        The softmax's division is done on the weights, one number per row, and not on the matrix.
        """
        row = row[:, None, None] if row.ndim == 2 else row[:, :, None]  # (B, 1 or nh, 1, Nq)
        with precisely(row):
            if self.weights is not None:
                return (row.to(at_least_float32(self.weights)) @ at_least_float32(self.weights))[:, :, 0]
            assert self.q is not None and self.k is not None
            q, k = at_least_float32(self.q), at_least_float32(self.k).transpose(-2, -1)
            row, out = row.to(q), q.new_zeros(*q.shape[:2], 1, k.shape[3])  # (B, nh, 1, Nk)
            for start, stop in self.chunks():
                part = row[..., start:stop]
                # a sweep starts with one row, the others need not be made; a graph that is traced has no values
                if torch.compiler.is_compiling() or part.any():
                    scores = (q[:, :, start:stop] * self.scale) @ k
                    if self.bias is not None:
                        scores += self.bias.expand(self.shape)[:, :, start:stop]
                    scores -= scores.detach().amax(dim=-1, keepdim=True)
                    scores.exp_()
                    out = out + (part / scores.sum(dim=-1)[:, :, None]) @ scores
            return out[:, :, 0]

    def differentiable(self) -> Tensor:
        """What a score is differentiated by to find the derivative of attention; see ``gradient_rows``."""
        found = self.output if self.weights is None else self.weights
        assert found is not None
        return found

    def gradient_rows(self, gradient: Tensor, start: int, stop: int) -> Tensor:
        """Derivative of a score by attention's query rows ``start:stop``, (B, nh, stop - start, Nk), at least float32.

        ``gradient`` is that by ``differentiable()``: of a fused call by its output O = A v, so that dA = dO v'.
        """
        rows = at_least_float32(gradient[:, :, start:stop])
        if self.weights is not None:
            return rows
        assert self.v is not None
        with precisely(rows):
            return rows @ at_least_float32(self.v.detach()).transpose(-2, -1)

    def detached(self) -> AttentionCall:
        """What is needed to make rows later: no values, no graph."""
        q, k, weights = (x if x is None else x.detach() for x in (self.q, self.k, self.weights))
        return AttentionCall(q, k, None, self.bias, self.scale, weights)

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Ranges of query rows whose attention over all heads stays under ``CHUNK`` bytes; all in a traced graph."""
        B, nh, Nq, Nk = self.shape
        step = Nq if torch.compiler.is_compiling() else max(1, CHUNK // (4 * B * nh * Nk))
        for start in range(0, Nq, step):
            yield start, min(Nq, start + step)


def precisely(like: Tensor) -> torch.autocast:
    """Autocast off: maps are float32 at least, whatever the model runs in."""
    return torch.autocast(like.device.type, enabled=False)


def check_calls(backbone: Backbone, made: Mapping[nn.Module, Sequence[tuple[int, ...]]], tokens: int) -> None:
    """One call of attention over ``tokens`` tokens in each module, or an error that names it, never a wrong result.

    ``made`` holds the shapes (B, nh, Nq, Nk) of the calls seen. An attention pool may have another shape.
    """
    names = {module: name for name, module in backbone.model.named_modules()}
    for module, shapes in made.items():
        expected, good = "one call of attention", len(shapes) == 1
        if good and module is not backbone.pool:
            expected = f"attention over {tokens} tokens"
            good = shapes[0][2] in (1, tokens) and shapes[0][3] == tokens  # one query: class attention
        if not good:
            raise UnsupportedModelError(
                f"{expected} was needed from {names.get(module, '?')!r} of {type(backbone.model).__name__}, "
                f"got shapes {list(shapes)}; if the model builds attention in another way, use a gradient method"
            )


def query_rows(call: AttentionCall, backbone: Backbone) -> Tensor:
    """The row that stands for the classifier's view in one call, (B, nh, Nk): class row, or mean over patch rows."""
    if backbone.pooling == "token" or call.shape[2] == 1:
        return call.rows(0, 1)[:, :, 0]
    B, _, S, _ = call.shape
    row = torch.ones(B, S, device=call.device)
    row[:, : backbone.prefix] = 0
    return call.weighed(row) / (S - backbone.prefix)
