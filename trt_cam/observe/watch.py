"""Seeing attention calls while fused kernels stay on, and hooks for the duration of a watched forward.

A ``TorchFunctionMode`` sees each call of ``scaled_dot_product_attention``, ``softmax`` or
``multi_head_attention_forward`` and attributes it to the attention module in whose forward it happens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trt_cam.errors import UnsupportedModelError
from trt_cam.observe.calls import AttentionCall
from trt_cam.observe.scope import Active

SOFTMAX = frozenset({torch.softmax, F.softmax, Tensor.softmax})
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

    ``frozen`` is for a graph that is built to explain, not to train: weights enter it as constants. Kept for their own
    gradient, which nobody asks for, the inputs of all linear layers would take nearly half of the memory.
    """

    def __init__(
        self, handlers: Mapping[nn.Module, Handler], inside: list[nn.Module], active: Active, *, frozen: bool
    ) -> None:
        super().__init__()
        self.handlers, self.inside, self.active, self.frozen = handlers, inside, active, frozen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.active():
            return func(*args, **kwargs)
        if self.frozen and torch.is_grad_enabled() and func in WEIGHED:
            args, kwargs = tuple(map(constant, args)), {name: constant(one) for name, one in kwargs.items()}
        if not self.inside:
            return func(*args, **kwargs)
        handler = self.handlers[self.inside[-1]]
        if func is F.scaled_dot_product_attention:
            return fused(handler, *args, **kwargs)
        scores = args[0] if args else kwargs.get("input")
        if func in SOFTMAX and isinstance(scores, Tensor) and scores.ndim == 4:
            weights: Any = func(*args, **kwargs)
            answer = handler(AttentionCall(weights=weights, scores=scores))
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
def intercept(handlers: Mapping[nn.Module, Handler], active: Active, *, frozen: bool = False) -> Iterator[None]:
    """Call ``handlers[module]`` for each attention call that happens inside that module's watched forward.

    ``frozen``: whether weights are constants of a graph that is built meanwhile.
    """
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
        stack.enter_context(_Watch(handlers, inside, active, frozen=frozen))
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
