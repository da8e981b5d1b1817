"""Checks of an explainer's map that share no code with the library: places, and what each formula gives.

Where features lie comes from timm's own ``forward_intermediates``; places of the photo are found by changing a part of
it; activations, gradients and attention are caught by plain hooks on the whole graph, with fused attention off.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

THIRDS = [(row, column) for row in range(3) for column in range(3)]
Look = Callable[[Tensor], Tensor]
"""From images (B, 3, H, W) to maps (B, h, w) or activations (B, D, h, w)."""


def places(look: Look, image: Tensor) -> tuple[float, str]:
    """Change each of 3 x 3 parts of a photo (1, 3, H, W): is that part of the map changed most?

    Returns
    -------
    Mean rank of the part that was changed among the nine, 1 for always the first and 0.5 for chance; and "right", or
    which mirrored or transposed reading of the map would fit better.
    """
    H, W = image.shape[-2:]
    noise = torch.randn(image.shape[1:], generator=torch.Generator().manual_seed(1)).to(image)
    many = image.repeat(10, 1, 1, 1)
    for index, (row, column) in enumerate(THIRDS):
        part = (slice(row * H // 3, (row + 1) * H // 3), slice(column * W // 3, (column + 1) * W // 3))
        many[index][:, part[0], part[1]] = noise[:, part[0], part[1]]
    seen = look(many).double()
    change = (seen[:9] - seen[9:]).abs()
    change = change.sum(dim=1) if change.ndim == 4 else change  # (9, h, w)
    change = F.interpolate(change[:, None], scale_factor=3, mode="nearest")
    cells = F.adaptive_avg_pool2d(change, 3)[:, 0]  # (9, 3, 3)
    cells = cells / cells.flatten(1).mean(dim=1)[:, None, None].clamp(min=1e-30)
    cells = cells / cells.mean(dim=0).clamp(min=1e-30)  # places that any change moves say nothing
    scores = {}
    for turned, down, across in itertools.product((False, True), repeat=3):
        read = cells.transpose(1, 2) if turned else cells
        read = read.flip([axis for axis, flipped in ((1, down), (2, across)) if flipped]).flatten(1)
        ranks = (read.diagonal()[:, None] > read).double().mean(dim=1) * 9 / 8
        words = [word for word, is_so in (("transposed", turned), ("upside down", down), ("mirrored", across)) if is_so]
        scores[" and ".join(words) or "right"] = float(ranks.mean())
    best = max(scores, key=lambda words: scores[words])
    right = scores["right"] >= scores[best] - 0.05
    return scores["right"], "right" if right else best


class Softmaxes(TorchFunctionMode):
    """Keeps what every softmax over 4-D scores gave, in order; a graph leads to them."""

    NAMES = frozenset({torch.softmax, Tensor.softmax, F.softmax})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in self.NAMES and out.ndim == 4:
            self.found.append(out)
        return out


@contextmanager
def unfused(model: nn.Module) -> Iterator[None]:
    """Attention is computed by softmax for the duration: in timm's modules and in those of transformers."""
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")  # type: ignore[operator]
    was = [
        (module, module.fused_attn) for module in model.modules() if isinstance(vars(module).get("fused_attn"), bool)
    ]
    for module, _ in was:
        module.fused_attn = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, fused in was:
            module.fused_attn = fused


@contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """``nn.MultiheadAttention`` over one sequence computes its softmax in the open for the duration."""

    def run(x: Tensor, *_: Any, module: Any, **__: Any) -> tuple[Tensor, None]:
        q, k, v = F.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (one.unflatten(2, (module.num_heads, -1)).transpose(1, 2) for one in (q, k, v))
        attention = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, dim=-1)
        return module.out_proj((attention @ v).transpose(1, 2).flatten(2)), None

    modules = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    for module in modules:
        module.forward = partial(run, module=module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in modules:
            del module.forward


class Truth:
    """What a model does to images (B, 3, H, W), by plain hooks and autograd over the whole graph.

    Parameters
    ----------
    layer : dotted name of the layer under explanation, or "forward_features"
    grid : (Gh, Gw), timm's own
    pooling : what the classifier reads: "token", "avg", "map"
    """

    def __init__(self, model: Any, images: Tensor, target: Tensor, layer: str, grid: tuple[int, int], pooling: str):
        self.model, self.target, self.grid, self.pooling = model, target, grid, pooling
        self.N = grid[0] * grid[1]
        kept: list[Tensor] = []
        if layer == "forward_features":
            inner = model.forward_features
            model.forward_features = lambda *given, **more: kept.append(inner(*given, **more)) or kept[-1]
            release = lambda: delattr(model, "forward_features")  # noqa: E731
        else:
            hook = lambda module, given, out: kept.append(out[0] if isinstance(out, tuple) else out)  # noqa: E731
            release = model.get_submodule(layer).register_forward_hook(hook).remove
        norms: list[Tensor] = []
        norm = getattr(model, "norm", getattr(getattr(model, "base_model", None), "layernorm", None))
        norm = model.encoder.ln if hasattr(model, "encoder") and hasattr(model.encoder, "ln") else norm
        handle = norm.register_forward_hook(lambda m, a, out: norms.append(out)) if norm is not None else None
        try:
            with unfused(model), plain_attention(model), Softmaxes() as softmaxes:
                logits = model(images.clone().requires_grad_())
                logits = getattr(logits, "logits", logits)
        finally:
            release()
            if handle is not None:
                handle.remove()
        self.logits, self.layer_output, self.softmaxes = logits, kept[0], softmaxes.found
        self.normed = norms[-1] if norms else None
        self.score = logits.gather(1, target[:, None]).sum()

    def gradients(self, of: list[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(self.score, of, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for g, x in zip(found, of, strict=True)]

    def as_map(self, x: Tensor) -> Tensor:
        """Tokens, prefix first, or a map in either layout, as (B, D, h, w); the grid says which."""
        if x.ndim == 3:
            return x[:, x.shape[1] - self.N :].transpose(1, 2).unflatten(2, self.grid)
        if tuple(x.shape[2:]) == self.grid:
            return x
        if tuple(x.shape[1:3]) == self.grid:
            return x.permute(0, 3, 1, 2)
        raise LookupError("another grid")

    def cams(self) -> dict[str, Tensor]:
        """The methods on one layer's activation and gradient."""
        (gradient,) = self.gradients([self.layer_output])
        a, g = self.as_map(self.layer_output).detach(), self.as_map(gradient)
        mean = lambda x: x.mean((2, 3), keepdim=True)  # noqa: E731
        total = a.sum((2, 3), keepdim=True)
        alpha = torch.where(g == 0, 0.0, g**2 / (2 * g**2 + total * g**3 + 1e-6))
        found = {
            "grad-cam": mean(g) * a,
            "hires-cam": g * a,
            "layer-cam": g.relu() * a,
            "xgrad-cam": (g * a).sum((2, 3), keepdim=True) / (total + 1e-7) * a,
            "grad-cam++": (alpha * g.relu()).sum((2, 3), keepdim=True) * a,
        }
        maps = {name: x.sum(1) for name, x in found.items()}
        return maps | {"eigen-cam": component(a), "eigen-grad-cam": component(g * a)}

    def cam(self) -> Tensor:
        """The classifier on each position: of tokens after the last norm, or of a map as a map of one position."""
        heads = self.model.get_classifier() if hasattr(self.model, "get_classifier") else self.other_heads()
        heads = list(heads) if isinstance(heads, (tuple, list, nn.ModuleList)) else [heads]
        if self.pooling == "avg" and self.layer_output.ndim != 3 or self.normed is None:
            features = self.as_map(self.layer_output).detach()
            nhwc = tuple(self.layer_output.shape[1:3]) == self.grid and tuple(self.layer_output.shape[2:]) != self.grid
            alone = features.flatten(2).permute(2, 0, 1)  # (N, B, D)
            shaped = [x[:, None, None] if nhwc else x[:, :, None, None] for x in alone]
            logits = torch.stack([self.model.forward_head(x) for x in shaped], dim=1)  # (B, N, K)
        else:
            tokens = self.normed[:, -self.N :].detach()
            if self.pooling == "map":  # the pool and what follows, of one token alone
                logits = self.model.forward_head(tokens.flatten(0, 1)[:, None]).view(*tokens.shape[:2], -1)
            elif all(isinstance(head, nn.Linear) for head in heads):
                after = getattr(self.model, "fc_norm", nn.Identity())
                logits = sum(after(tokens) @ head.weight.T + head.bias for head in heads) / len(heads)
            else:
                raise LookupError("not linear")
        return (
            logits.gather(2, self.target[:, None, None].expand(-1, self.N, 1))[..., 0].unflatten(1, self.grid).detach()
        )

    def other_heads(self) -> Any:
        """The classifier of torchvision's ViT, and those of transformers."""
        return self.model.heads.head if hasattr(self.model, "heads") else self.model.classifier

    def attentions(self) -> tuple[list[Tensor], Tensor]:
        """Matrices (B, nh, S, S) of each block over all tokens, and the row (B, S) that the classifier reads."""
        square = [x for x in self.softmaxes if x.shape[2] == x.shape[3] >= self.N]
        if not square or len({x.shape[3] for x in square}) > 1:
            raise LookupError("no attention over all tokens")
        B, _, S, _ = square[0].shape
        start = square[0].new_zeros(B, S)
        if self.pooling == "map":
            row = [x for x in self.softmaxes if x.shape[2] == 1][-1].mean(1)[:, 0].detach()
            start[:, S - row.shape[1] :] = row
        elif self.pooling == "token":
            start[:, 0] = 1
        else:
            start[:, S - self.N :] = 1 / self.N
        return square, start

    def on_grid(self, row: Tensor) -> Tensor:
        return row[:, -self.N :].unflatten(1, self.grid).detach()

    def rows(self) -> dict[str, Tensor]:
        """The methods on attention rows: of one late query, or of whole matrices."""
        late = [x for x in self.softmaxes if x.shape[2] == 1 and x.shape[3] >= self.N]
        if late:
            each = [x.mean(1)[:, 0, -self.N :] for x in late]
        else:
            square, start = self.attentions()
            each = [torch.einsum("bs,bhst->bt", start, A) / A.shape[1] for A in square]
        return {"last-attention": self.on_grid(each[-1]), "raw-attention": self.on_grid(torch.stack(each).sum(0))}

    def products(self) -> dict[str, Tensor]:
        """The methods on products of whole matrices, formed as matrices."""
        square, start = self.attentions()
        gradients = self.gradients(square)
        same = torch.eye(square[0].shape[-1]).to(start)
        R, C, G = same, same, same
        P = same
        for index, (A, dA) in enumerate(zip(square, gradients, strict=True)):
            weighed = (A * dA).mean(1).relu() + same
            G = weighed / weighed.sum(-1, keepdim=True) @ G
            C = C + (A * dA).relu().mean(1) @ C
            R = (A.mean(1) + same) / 2 @ R
            P = A @ P if index < len(square) - 1 or len(square) == 1 else P
        row = lambda M: self.on_grid((start[:, None] @ M)[:, 0])  # noqa: E731
        per_head = self.on_grid((start[:, None, None] @ P).mean(1)[:, 0])
        return {
            "rollout": row(R),
            "gradient-rollout": row(G),
            "transformer-attribution": row(C),
            "attention-product": per_head,
        }

    def maps(self) -> dict[str, Tensor]:
        """Map (B, Gh, Gw) by method, of those that can be had of this model."""
        found: dict[str, Tensor] = {}
        for part in (self.cams, self.rows, self.products):
            with suppress(LookupError):
                found |= part()
        with suppress(Exception):  # a head of another kind
            found["cam"] = self.cam()
        if {"cam", "raw-attention"} <= set(found):
            found["ts-cam"] = found["cam"] * found["raw-attention"]
        return found


def component(x: Tensor) -> Tensor:
    """Projection of channels (B, D, h, w) on the first principal component of the places; its sign is open."""
    flat = x.flatten(2).transpose(1, 2)
    centred = flat - flat.mean(1, keepdim=True)
    _, _, v = torch.linalg.svd(centred, full_matrices=False)
    return (centred @ v[:, 0, :, None])[..., 0].view(x.shape[0], *x.shape[2:])


def difference(found: Tensor, expected: Tensor, *, signed: bool = True) -> float:
    """Largest difference of two maps (B, Gh, Gw), relative to the largest value of each image."""
    if not signed:
        sign = (found * expected).sum((1, 2), keepdim=True).sign()
        expected = expected * torch.where(sign == 0, 1.0, sign)
    scale = expected.abs().amax((1, 2)).clamp(min=1e-300)
    return float(((found - expected).abs().amax((1, 2)) / scale).max())
