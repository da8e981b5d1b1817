"""Seeing attention calls while fused kernels stay on.

A ``TorchFunctionMode`` sees each call of ``scaled_dot_product_attention``, ``softmax`` or
``multi_head_attention_forward`` and attributes it to the attention module in whose forward it happens. What is read is
computed from q and k there, so no model is rebuilt.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trt_cam.backbone import Backbone
from trt_cam.errors import UnsupportedModelError
from trt_cam.observe.scope import Active

SOFTMAX = frozenset({torch.softmax, F.softmax, Tensor.softmax})
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
            return wide(self.weights[:, heads, start:stop])
        assert self.q is not None and self.k is not None
        with precisely(self.q):
            scores = wide(self.q[:, heads, start:stop]) @ wide(self.k[:, heads]).transpose(-2, -1) * self.scale
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
                return (row.to(wide(self.weights)) @ wide(self.weights))[:, :, 0]
            assert self.q is not None and self.k is not None
            q, k = wide(self.q), wide(self.k).transpose(-2, -1)
            row, out = row.to(q), q.new_zeros(*q.shape[:2], 1, k.shape[3])  # (B, nh, 1, Nk)
            for start, stop in self.chunks():
                part = row[..., start:stop]
                if part.any():  # a sweep starts with one row, the others need not be made
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
        rows = wide(gradient[:, :, start:stop])
        if self.weights is not None:
            return rows
        assert self.v is not None
        with precisely(rows):
            return rows @ wide(self.v.detach()).transpose(-2, -1)

    def detached(self) -> AttentionCall:
        """What is needed to make rows later: no values, no graph."""
        q, k, weights = (x if x is None else x.detach() for x in (self.q, self.k, self.weights))
        return AttentionCall(q, k, None, self.bias, self.scale, weights)

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Ranges of query rows whose attention over all heads stays under ``CHUNK`` bytes."""
        B, nh, Nq, Nk = self.shape
        step = max(1, CHUNK // (4 * B * nh * Nk))
        for start in range(0, Nq, step):
            yield start, min(Nq, start + step)


def wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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


Handler = Callable[[AttentionCall], Tensor | None]
"""What to do with a call: look at it (None), or answer it: the output of a fused call, the weights of another."""


WEIGHED = frozenset(
    {F.linear, F.layer_norm, F.conv2d, torch.conv2d, F.multi_head_attention_forward}
    | {torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__}
)
"""Functions of inputs and weights whose inputs autograd keeps for the sake of the weights."""


def constant(argument: Any) -> Any:
    """A weight without its gradient; anything else as it is."""
    return argument.detach() if isinstance(argument, nn.Parameter) else argument


class _Watch(TorchFunctionMode):
    """Turns the three functions into ``AttentionCall`` for the module being run.

    Where a graph is built, weights enter it as constants: kept for their own gradient, which nobody asks for, the inputs
    of all linear layers would take nearly half of the memory.
    """

    def __init__(self, handlers: Mapping[nn.Module, Handler], inside: list[nn.Module], active: Active) -> None:
        super().__init__()
        self.handlers, self.inside, self.active = handlers, inside, active

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.active():
            return func(*args, **kwargs)
        if torch.is_grad_enabled() and func in WEIGHED:
            args, kwargs = tuple(map(constant, args)), {name: constant(one) for name, one in kwargs.items()}
        if not self.inside:
            return func(*args, **kwargs)
        handler = self.handlers[self.inside[-1]]
        if func is F.scaled_dot_product_attention:
            return fused(handler, *args, **kwargs)
        if func in SOFTMAX and isinstance(args[0], Tensor) and args[0].ndim == 4:
            weights: Any = func(*args, **kwargs)
            answer = handler(AttentionCall(weights=weights, scores=args[0]))
            return weights if answer is None else answer
        if func is F.multi_head_attention_forward:
            return multi_head_attention(handler, *args, **kwargs)
        return func(*args, **kwargs)


def fused_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    """The arguments of ``scaled_dot_product_attention`` as an ``AttentionCall``."""
    if is_causal or enable_gqa or query.ndim != 4:
        raise UnsupportedModelError(
            f"observing needs bidirectional attention over (B, heads, N, d), got causal={is_causal}, "
            f"grouped={enable_gqa}, shape {tuple(query.shape)}; use a gradient method instead"
        )
    bias = attn_mask
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill(~bias, -torch.inf)
    return AttentionCall(query, key, value, bias, query.shape[-1] ** -0.5 if scale is None else scale)


def fused(handler: Handler, *args: Any, **kwargs: Any) -> Tensor:
    """``scaled_dot_product_attention`` with its handler."""
    call = fused_call(*args, **kwargs)
    answer = handler(call)
    call.output = F.scaled_dot_product_attention(*args, **kwargs) if answer is None else answer
    return call.output


def multi_head_attention(handler: Handler, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """``multi_head_attention_forward`` of ``nn.MultiheadAttention`` by its fused kernel, so that q, k and v are seen.

    What its plain self-attention does not use (masks, separate projections, added keys) is run as it is, and its
    weights are seen.
    """
    given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
    given.apply_defaults()
    use = given.arguments
    x, heads = use["query"], use["num_heads"]
    unusual = ("bias_k", "bias_v", "key_padding_mask", "attn_mask", "static_k", "static_v")
    plain = use["key"] is x and use["value"] is x and x.ndim == 3 and not any(use[one] is not None for one in unusual)
    if plain and not (use["add_zero_attn"] or use["use_separate_proj_weight"] or use["need_weights"]):
        S, B, D = x.shape
        qkv = F.linear(x, use["in_proj_weight"], use["in_proj_bias"])  # (S, B, 3 D)
        q, k, v = qkv.view(S, B, 3, heads, D // heads).permute(2, 1, 3, 0, 4)  # (B, nh, S, d) each
        out = fused(handler, q, k, v)
        return F.linear(out.permute(2, 0, 1, 3).flatten(2), use["out_proj_weight"], use["out_proj_bias"]), None
    wanted, mean = use["need_weights"], use["average_attn_weights"]
    out, weights = F.multi_head_attention_forward(
        *args, **{**kwargs, "need_weights": True, "average_attn_weights": False}
    )
    assert weights is not None
    if handler(AttentionCall(weights=weights)) is not None:
        raise UnsupportedModelError("attention of this nn.MultiheadAttention cannot be masked; use a timm model")
    return out, (weights.mean(dim=1) if mean else weights) if wanted else None


@contextmanager
def intercept(handlers: Mapping[nn.Module, Handler], active: Active) -> Iterator[None]:
    """Call ``handlers[module]`` for each attention call that happens inside that module's watched forward."""
    inside: list[nn.Module] = []

    def enter(module: nn.Module, args: Any) -> None:
        if active():
            inside.append(module)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if active():
            inside.pop()

    with ExitStack() as stack:
        for module in handlers:
            stack.callback(module.register_forward_pre_hook(enter).remove)
            # first of all hooks: what the user's own hooks compute afterwards is no attention of this module
            stack.callback(module.register_forward_hook(leave, prepend=True).remove)
        stack.enter_context(_Watch(handlers, inside, active))
        yield


@contextmanager
def hooked(module: nn.Module, active: Active, on_input: Any = None, on_output: Any = None) -> Iterator[None]:
    """Hooks for the duration of a watched forward.

    ``on_input(args, kwargs)`` may return new (args, kwargs); ``on_output(output)`` may return a new output.
    """

    def before(_: nn.Module, args: Any, kwargs: Any = None) -> Any:
        # torch registers a hook before it notes that it takes kwargs: another thread may call it in between
        return on_input(args, kwargs) if active() else None

    def after(_: nn.Module, args: Any, output: Any) -> Any:
        return on_output(output) if active() else None

    with ExitStack() as stack:
        if on_input is not None:
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        if on_output is not None:
            stack.callback(module.register_forward_hook(after).remove)
        yield
