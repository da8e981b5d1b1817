"""Token selection, masked attention and re-attention: the formulas of TRT (arXiv:2208.01838, Eq. 5 to 10).

Letters: B images, nh heads, N patch tokens, P prefix tokens (class token, registers), S = P + N, d width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.ops import _checks
from trt_cam.ops.precision import at_least_float32

SelectionMode = Literal["mass", "quantile", "topk", "fixed"]
HeadFusion = Literal["mean", "max", "min"]
MODES = get_args(SelectionMode)  # here, since older versions of torch cannot trace the call


def cdf_threshold(m: Tensor, u: float, *, mode: SelectionMode = "mass") -> Tensor:
    """Select the patch tokens that the preliminary attention map finds important (Eq. 5).

    Parameters
    ----------
    m : (B, N), finite
        Preliminary map; need not sum to 1. At least 0 for "mass" and "fixed".
    u : number
        How much to keep, in the unit of ``mode``.
    mode : "mass", "quantile", "topk" or "fixed"
        "mass": the largest tokens while their share of the sum of m stays below u; u >= 1 keeps all.
        "quantile": tokens above the u-quantile of the N values, u in [0, 1]; a larger u keeps *fewer*.
        "topk": the k largest; u is the count k if it is an int, else a share of N in [0, 1], rounded.
        "fixed": tokens above u times the largest m of the image, u in [0, 1]; a larger u keeps *fewer*.

    Returns
    -------
    (B, N) bool
        True for kept tokens. It carries no gradient, and may be empty: see Notes.

    Raises
    ------
    InputError
        ``m`` has another shape, is not floating or not finite, or ``u`` is out of range.

    Notes
    -----
    "mass" is what the authors' code does: the comparison is strict, so the token that crosses u is dropped, and nothing
    is kept where one token alone reaches u. "quantile" is the paper's sentence read literally. Sums run in float64
    (float32 on devices without it) and the running sum is compared with u times the total, so that equal values are
    counted right. Tied tokens are kept in index order. In u, "mass" and "topk" grow and the other two shrink, each
    set containing the smaller one.

    Examples
    --------
    >>> m = torch.tensor([[0.5, 0.1, 0.3, 0.1]])
    >>> cdf_threshold(m, 0.85)  # 0.5 + 0.3 stay below 0.85, the next token would reach 0.9
    tensor([[ True, False,  True, False]])
    >>> cdf_threshold(m, 1, mode="topk")
    tensor([[ True, False, False, False]])
    >>> cdf_threshold(m, 0.4).any()  # the first token alone is more than 0.4
    tensor(False)
    """
    _check_selection(m, u, mode)
    m = m.detach().to(torch.float32 if m.device.type == "mps" else torch.float64)
    N = m.shape[1]
    if mode == "quantile":
        return m > torch.quantile(m, float(u), dim=1, keepdim=True)
    if mode == "fixed":
        return m > float(u) * m.amax(dim=1, keepdim=True)
    if mode == "mass" and u >= 1:  # by the rule itself, rounding of the last sum would decide about the last token
        return torch.ones_like(m, dtype=torch.bool)
    ordered, order = m.sort(dim=1, descending=True, stable=True)
    if mode == "mass":
        running = ordered.cumsum(dim=1)
        kept = running < float(u) * running[:, -1:]
    else:
        k = int(u) if isinstance(u, Integral) else math.floor(float(u) * N + 0.5)
        kept = (torch.arange(N, device=m.device) < k).expand_as(m)
    return torch.zeros_like(kept).scatter(1, order, kept)


def masked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor,
    *,
    eps: float = 0.0,
    scale: float | None = None,
    bias: Tensor | None = None,
    prefix: int = 0,
) -> Tensor:
    """Attention in which every token reads the kept tokens, and a dropped one is read by itself only (Eq. 6 to 8).

    Parameters
    ----------
    q, k, v : (B, nh, S, d)
        Queries, keys and values of ``prefix`` + N tokens; the width of v may differ.
    keep : (B, N) bool
        Selected patch tokens, as ``cdf_threshold`` returns them.
    eps : at least 0
        0 is the paper's exact masked softmax: a dropped token has no influence on the others at all. The authors' code
        has 1e-6: it lets every dropped key leak eps/N, with the row's maximum taken over all keys.
    scale : number or None
        Factor of q.k; None is d ** -0.5.
    bias : broadcastable to (B, nh, S, S), or None
        Added to the scaled q.k, such as a relative-position bias.
    prefix : at least 0
        Leading tokens that no other token may read. They read the kept patches and themselves; the patches get
        exactly what they would without them.

    Returns
    -------
    (B, nh, S, width of v)

    Raises
    ------
    InputError
        Shapes do not fit together, ``keep`` is not bool, or ``eps`` or ``prefix`` is out of range.

    Examples
    --------
    >>> x = torch.tensor([[[[1.0], [2.0], [9.0]]]])
    >>> masked_attention(0 * x, x, x, torch.tensor([[True, True, False]])).flatten()
    tensor([1.5000, 1.5000, 4.0000])
    """
    _checks.check_range(eps, "eps", 0)
    _check_sequence(q, k, v, keep, prefix)
    mask = selection_mask(keep, prefix=prefix)  # (B, 1, S, S)
    if eps > 0:
        scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)  # (B, nh, S, S)
        return _leaky_softmax(scores if bias is None else scores + bias, mask, eps, prefix).to(v.dtype) @ v
    allowed = mask if bias is None else bias.to(q.dtype).masked_fill(~mask, -math.inf)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=scale)


def selection_mask(keep: Tensor, *, prefix: int = 0) -> Tensor:
    """Which token may read which, B of Eq. 6: the kept ones, and everyone itself.

    Parameters
    ----------
    keep : (B, N) bool
        Selected patch tokens.
    prefix : at least 0
        Tokens in front of the patches, which nobody but themselves may read.

    Returns
    -------
    (B, 1, S, S) bool
        Row i reads column j, S = ``prefix`` + N; made to broadcast over heads. No row is empty.
    """
    _checks.check_count(prefix, "prefix")
    readable = F.pad(keep, (prefix, 0), value=False)  # (B, S)
    itself = torch.eye(readable.shape[1], dtype=torch.bool, device=keep.device)
    return (readable[:, None, :] | itself)[:, None]


def token_importance(scores: Tensor, keep: Tensor, *, eps: float = 0.0) -> Tensor:
    """Softmax of the scores over the kept tokens, lambda in the paper.

    Parameters
    ----------
    scores : (B, N)
        Output of the scoring head; what it says of dropped tokens is not read.
    keep : (B, N) bool
        Selected tokens.
    eps : at least 0
        Added to the sum of exponentials, as the authors' code does with 1e-6; 0 is the plain softmax.

    Returns
    -------
    (B, N), at least float32
        Weights >= 0, zero for dropped tokens. They sum to 1 if ``eps`` is 0, to s / (s + eps) with s the sum of
        exponentials otherwise; all zero where nothing is kept.

    Raises
    ------
    InputError
        Shapes differ, ``keep`` is not bool, or ``eps`` is negative.

    Notes
    -----
    The exponentials are taken after subtracting the largest kept score, from eps too, which leaves the value as it is:
    the authors' form overflows in float32 for scores above 88. Gradients are finite for every selection.
    """
    _checks.check_floating(scores, "scores", "B, N")
    _checks.check_keep(keep, tuple(scores.shape))
    _checks.check_range(eps, "eps", 0)
    scores = at_least_float32(scores).masked_fill(~keep, -math.inf)  # before exp: no inf * 0 in the gradient
    # The result does not depend on the shift, so it needs no gradient; an empty selection must not shift by -inf.
    shift = scores.detach().amax(dim=1, keepdim=True).masked_fill(~keep.any(dim=1, keepdim=True), 0.0)
    weights = (scores - shift).exp()
    total = weights.sum(dim=1, keepdim=True)
    if eps > 0:
        total = total + eps * (-shift).exp()
    return weights / torch.where(total > 0, total, 1.0)


def reattention_map(m: Tensor, keep: Tensor, importance: Tensor, *, divide: bool = True) -> Tensor:
    """Share the attention of the kept tokens out again, by their importance (Eq. 9 and 10).

    Parameters
    ----------
    m : (B, N)
        Preliminary map.
    keep : (B, N) bool
        Selected tokens.
    importance : (B, N)
        Weights from ``token_importance``.
    divide : bool
        Divide the kept attention by the sum of the weights, as Eq. 9 says, so that the sum of m is preserved. The
        authors' two-branch model leaves the division out.

    Returns
    -------
    (B, N)
        M_T: m where dropped, redistributed where kept; equal to m where nothing is kept.

    Raises
    ------
    InputError
        Shapes differ, ``keep`` is not bool, or the other two are not floating.

    Notes
    -----
    Weights that sum to 0 over a selection with tokens (scores so low that ``eps`` swallows them) give it no attention.
    """
    _checks.check_floating(m, "m", "B, N")
    _checks.check_keep(keep, tuple(m.shape))
    _checks.check_floating(importance, "importance", "B, N")
    if importance.shape != m.shape:
        raise InputError(f"importance must have the shape of m, {tuple(m.shape)}, got {tuple(importance.shape)}")
    ratio = (m * keep).sum(dim=1, keepdim=True)
    if divide:
        total = importance.sum(dim=1, keepdim=True)
        ratio = torch.where(total > 0, ratio / torch.where(total > 0, total, 1.0), 0.0)
    return m.masked_fill(keep, 0.0) + importance * ratio


def fuse_heads(attention: Tensor, mode: HeadFusion = "mean") -> Tensor:
    """Reduce the head axis of an attention tensor.

    Parameters
    ----------
    attention : (B, nh, ...)
        Attention matrices or rows.
    mode : "mean", "max" or "min"
        How the heads are combined; TRT takes the mean.

    Returns
    -------
    (B, ...)
    """
    if attention.ndim < 2:
        raise InputError(f"attention must be (B, nh, ...), got shape {tuple(attention.shape)}")
    reduce: dict[str, Callable[..., Tensor]] = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}
    _checks.check_choice(mode, "mode", reduce)
    return reduce[mode](attention, dim=1)


def _check_selection(m: Tensor, u: float, mode: str) -> None:
    _checks.check_choice(mode, "mode", MODES)
    if mode == "topk" and isinstance(u, Integral):
        _checks.check_count(u, "u of mode 'topk'")
    else:
        _checks.check_range(u, f"u of mode {mode!r}", 0, math.inf if mode == "mass" else 1)
    _checks.check_floating(m, "m", "B, N")
    if m.shape[1] == 0:
        raise InputError("m must have at least one token, got shape (B, 0)")
    _checks.check_finite(m, "m")
    if mode in ("mass", "fixed"):
        _checks.check_nonnegative(m, "m")


def _check_sequence(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, prefix: int) -> None:
    for name, tokens in (("q", q), ("k", k), ("v", v)):
        _checks.check_floating(tokens, name, "B, nh, S, d")
    if q.shape != k.shape or q.shape[:3] != v.shape[:3]:
        raise InputError(f"q, k, v must share (B, nh, S), got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}")
    _checks.check_count(prefix, "prefix")
    if prefix >= q.shape[2]:
        raise InputError(f"prefix must leave at least one patch token, got prefix {prefix} of {q.shape[2]} tokens")
    _checks.check_keep(keep, (q.shape[0], q.shape[2] - prefix))


def _leaky_softmax(scores: Tensor, mask: Tensor, eps: float, prefix: int) -> Tensor:
    """Eq. 8 in the authors' form; prefix columns take part neither in the row's maximum nor in the leak."""
    scores = at_least_float32(scores)
    leak = scores.new_full((scores.shape[-1],), eps / (scores.shape[-1] - prefix))
    if prefix:
        leak[:prefix] = 0.0
        scores = torch.cat([scores[..., :prefix].masked_fill(~mask[..., :prefix], -math.inf), scores[..., prefix:]], -1)
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp() * mask
    return (weights + leak) / (weights.sum(dim=-1, keepdim=True) + eps)
