"""Running a model's own blocks under a key mask, or on other tokens than its forward would give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_cam.backbone import Backbone, unwrap
from trt_cam.errors import UnsupportedModelError
from trt_cam.observe.calls import AttentionCall, check_calls, query_rows
from trt_cam.observe.quiet import eagerly
from trt_cam.observe.scope import watched
from trt_cam.observe.watch import Handler, hooked, intercept
from trt_cam.ops.attention import masked_attention, selection_mask


def run_masked(
    block: nn.Module, attention: nn.Module, keep: Tensor, *args: Any, prefix: int, eps: float = 0.0, **kwargs: Any
) -> Tensor:
    """Run one transformer block under the key mask of Eq. 6; ``args[0]`` are its tokens (B, P + N, D).

    Raises
    ------
    UnsupportedModelError
        The block does not attend exactly once, or has unfused attention and ``eps`` is asked for.
    """
    calls = []

    def masked(call: AttentionCall) -> Tensor:
        calls.append(call.shape)
        if call.scores is not None:  # not fused
            if eps > 0:
                raise UnsupportedModelError("eps > 0 needs fused attention; set block.attn.fused_attn = True, or eps=0")
            return call.scores.masked_fill(~selection_mask(keep, prefix=prefix), -torch.inf).softmax(dim=-1)
        assert call.q is not None and call.k is not None and call.v is not None
        return masked_attention(call.q, call.k, call.v, keep, eps=eps, scale=call.scale, bias=call.bias, prefix=prefix)

    with eagerly(), watched(unwrap(block)) as active, intercept({unwrap(attention): masked}, active):
        out: Tensor = block(*args, **kwargs)
    if len(calls) != 1:
        raise UnsupportedModelError(
            f"a block that attends once was needed to hide its dropped tokens, got {type(block).__name__} with "
            f"attention {type(attention).__name__} that does so {len(calls)} times; use a timm block"
        )
    return out


def unbiased(call: AttentionCall) -> Tensor | None:
    """Answer a fused call without its position bias: for tokens that have no position."""
    if call.bias is None or call.q is None or call.k is None or call.v is None:
        return None
    return F.scaled_dot_product_attention(call.q, call.k, call.v, scale=call.scale)


def unplaced(kwargs: dict[str, Any]) -> dict[str, Any]:
    """A block's arguments without rotary embedding: for tokens that have no position."""
    return {**kwargs, "rope": None} if "rope" in kwargs else kwargs


def run_unplaced(block: nn.Module, attention: nn.Module, tokens: Tensor, **kwargs: Any) -> Tensor:
    """Run one transformer block on tokens (B, n, D) that have no position: no rotary embedding, no relative bias."""
    with eagerly(), watched(unwrap(block)) as active, intercept({unwrap(attention): unbiased}, active):
        out: Tensor = block(tokens, **unplaced(kwargs))
    return out


@contextmanager
def answering(module: nn.Module, answer: Any) -> Iterator[None]:
    """A module that answers the same whatever it is asked, without being run; for all threads."""
    own = vars(module).get("forward")
    module.forward = lambda *args, **kwargs: answer
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def rewrite_last_block(
    backbone: Backbone,
    images: Tensor,
    rewrite: Callable[[list[Tensor], Tensor, dict[str, Any]], Tensor],
    taps: Sequence[nn.Module] = (),
) -> tuple[Tensor, list[Any], Tensor]:
    """One forward, differentiable, in which the last block reads other tokens.

    Parameters
    ----------
    backbone
        A transformer; its own forward runs, so stem, positions, final norm, pooling and head are its own.
    images : (B, 3, H, W)
    rewrite
        Called once before the last block as ``rewrite(rows, tokens, kwargs)``: the query rows of the L - 1 blocks
        before it, each (B, nh, S); its tokens Z_{L-1} (B, S, D); and its other arguments. It returns the tokens to
        read instead, (B, P + n, D). They have no position: rotary and relative bias are left out.
    taps
        Modules whose outputs are wanted too.

    Returns
    -------
    logits (B, K), outputs of ``taps``, input of block L - 1 (that is Z_{L-2}, (B, S, D))
    """
    rows: list[Tensor] = []
    made: dict[nn.Module, list[tuple[int, ...]]] = {module: [] for module in backbone.attentions[:-1]}
    found: dict[int, Any] = {}

    def noting(module: nn.Module) -> Handler:
        def note(call: AttentionCall) -> None:
            made[module].append(call.shape)
            rows.append(query_rows(call, backbone))

        return note

    def before_last(args: Any, kwargs: Any) -> Any:
        check_calls(backbone, made, args[0].shape[1])
        return (rewrite(rows, args[0], kwargs), *args[1:]), unplaced(kwargs)

    handlers = {module: noting(module) for module in made}
    handlers[backbone.attentions[-1]] = unbiased
    with ExitStack() as stack:
        stack.enter_context(eagerly())
        active = stack.enter_context(watched(backbone.model))
        stack.enter_context(intercept(handlers, active))
        stack.enter_context(hooked(backbone.blocks[-1], active, on_input=before_last))
        stack.enter_context(hooked(backbone.blocks[-2], active, on_input=lambda args, _: found.update({-1: args[0]})))
        for index, tap in enumerate(taps):
            stack.enter_context(hooked(tap, active, on_output=lambda out, index=index: found.update({index: out})))
        logits = backbone.model(images)
    return logits, [found[index] for index in range(len(taps))], found[-1]
