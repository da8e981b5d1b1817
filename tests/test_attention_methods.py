"""Methods on attention against explicit S x S matrices, captured with fused kernels off and kept in the graph."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from families import FAMILIES, shaken, torchvision_vit
from test_explainers import images_for, start_row
from torch import Tensor, nn

from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers import create_explainer
from trt_cam.observe import observe

NAMES = [*FAMILIES, "torchvision"]
TARGET = torch.tensor([1, 4])


def build(name: str) -> tuple[nn.Module, Tensor]:
    if name == "torchvision":
        return shaken(torchvision_vit()).double(), torch.randn(
            2, 3, 64, 64, generator=torch.Generator().manual_seed(3)
        ).double()
    model = FAMILIES[name]().double()
    return model, images_for(model)


def matrices(model: nn.Module, images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Attention (B, nh, S, S), its gradient, and the row (B, S) that stands for the classifier."""
    model, found, normed = copy.deepcopy(model), [], []
    if hasattr(model, "encoder"):
        for block in model.encoder.layers:
            block.self_attention = Explicit(block.self_attention, found)
        start = torch.zeros(2, 17).double()
        start[:, 0] = 1
    else:
        for block in model.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda module, args, out: found.append(args[0]) or args[0])
        model.norm.register_forward_hook(lambda module, args, out: normed.append(out))
    with torch.enable_grad():
        score = model(images).gather(1, TARGET[:, None]).sum()
    if normed:
        start = torch.from_numpy(start_row(model, normed[0]))
    gradients = torch.autograd.grad(score, found, allow_unused=True)
    zeros = [torch.zeros_like(A) if g is None else g for A, g in zip(found, gradients, strict=True)]
    return [A.detach() for A in found], zeros, start


class Explicit(nn.Module):
    """nn.MultiheadAttention written out."""

    def __init__(self, inner: nn.MultiheadAttention, found: list[Tensor]) -> None:
        super().__init__()
        self.inner, self.found = inner, found

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, None]:
        B, S, D = x.shape
        nh = self.inner.num_heads
        q, k, v = (
            (x @ self.inner.in_proj_weight.T + self.inner.in_proj_bias)
            .view(B, S, 3, nh, D // nh)
            .permute(2, 0, 3, 1, 4)
        )
        A = (q @ k.transpose(-1, -2) / (D // nh) ** 0.5).softmax(-1)
        self.found.append(A)
        return self.inner.out_proj((A @ v).transpose(1, 2).reshape(B, S, D)), None


def product(factors: list[Tensor]) -> Tensor:
    out = torch.eye(factors[0].shape[-1]).double().expand_as(factors[0])
    for factor in factors:
        out = factor @ out
    return out


def drop(matrix: Tensor, ratio: float) -> Tensor:
    matrix = matrix.clone()
    for one in matrix.view(len(matrix), -1):
        one[one.sort().indices[: int(one.numel() * ratio)]] = 0
    return matrix


def rollout(A: list[Tensor], g: list[Tensor], start: Tensor, fuse: Callable[[Tensor], Tensor], ratio: float) -> Tensor:
    eye = torch.eye(A[0].shape[-1]).double()
    fused = [drop(fuse(one), ratio) for one in A]
    R = product([(0.5 * one / one.sum(-1, keepdim=True)).nan_to_num() + 0.5 * eye for one in fused])
    return (start[:, None] @ R)[:, 0]


def gradient_rollout(A: list[Tensor], g: list[Tensor], start: Tensor, ratio: float) -> Tensor:
    eye = torch.eye(A[0].shape[-1]).double()
    fused = [drop((a * d).mean(1).clamp(min=0), ratio) + eye for a, d in zip(A, g, strict=True)]
    return (start[:, None] @ product([one / one.sum(-1, keepdim=True) for one in fused]))[:, 0]


def chefer(A: list[Tensor], g: list[Tensor], start: Tensor) -> Tensor:
    R = torch.eye(A[0].shape[-1]).double().expand(2, -1, -1)
    for a, d in zip(A, g, strict=True):  # as the paper: R <- R + mean_h (dA A)^+ R, first block to last
        R = R + (a * d).clamp(min=0).mean(1) @ R
    return (start[:, None] @ R)[:, 0]


def transfg(A: list[Tensor], g: list[Tensor], start: Tensor) -> Tensor:
    return (start[:, None, None] @ product(A[:-1])).mean(1)[:, 0]


CASES: dict[str, tuple[str, dict[str, object], Callable[..., Tensor]]] = {
    "rollout": ("rollout", {}, lambda *x: rollout(*x, lambda a: a.mean(1), 0)),
    "rollout max": ("rollout", {"head_fusion": "max"}, lambda *x: rollout(*x, lambda a: a.amax(1), 0)),
    "rollout discard": ("rollout", {"discard_ratio": 0.7}, lambda *x: rollout(*x, lambda a: a.mean(1), 0.7)),
    "rollout min discard": (
        "rollout",
        {"discard_ratio": 0.5, "head_fusion": "min"},
        lambda *x: rollout(*x, lambda a: a.amin(1), 0.5),
    ),
    "gradient rollout": ("gradient-rollout", {}, lambda *x: gradient_rollout(*x, 0)),
    "gradient rollout discard": ("gradient-rollout", {"discard_ratio": 0.6}, lambda *x: gradient_rollout(*x, 0.6)),
    "attribution": ("transformer-attribution", {}, chefer),
    "attribution from block 1": (
        "transformer-attribution",
        {"start_block": 1},
        lambda A, g, start: chefer(A[1:], g[1:], start),
    ),
    "product": ("attention-product", {}, transfg),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_equal_to_explicit_matrices(name: str, case: str) -> None:
    model, images = build(name)
    method, settings, reference = CASES[case]
    if name == "hybrid" and case != "attribution":
        pytest.skip("slow, and like vit")
    A, g, start = matrices(model, images)
    ours = create_explainer(method, model, **settings)(images, TARGET).grid.flatten(1)
    expected = reference(A, g, start)[:, -ours.shape[1] :]
    assert (ours - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert expected.std() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["vit", "vit-avg", "torchvision"])
def test_last_attention_and_raw_attention_from_a_block(name: str) -> None:
    model, images = build(name)
    A, _, start = matrices(model, images)
    rows = [(start[:, None] @ a.mean(1))[:, 0, -16:] for a in A]
    torch.testing.assert_close(create_explainer("last-attention", model)(images).grid.flatten(1), rows[-1])
    late = create_explainer("raw-attention", model, start_block=1)(images)
    torch.testing.assert_close(late.grid.flatten(1), rows[1] + rows[2])
    assert late.blocks == (1, 3)


def test_attention_gradients_of_unfused_calls() -> None:
    model, images = build("vit")
    fused = create_explainer("transformer-attribution", model)(images, TARGET).grid
    for block in model.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(create_explainer("transformer-attribution", model)(images, TARGET).grid, fused)


def test_attention_gradients_are_of_what_follows_the_first_block_read_alone() -> None:
    model, images = build("vit")
    seen = observe(
        create_explainer("rollout", model).backbone, images, frozenset({"attention gradient"}), start_block=2
    )
    assert [call.differentiable().requires_grad for call in seen.calls] == [False, False, True]


def test_plain_multihead_attention_is_what_it_returns_otherwise() -> None:
    """The fused way round ``nn.MultiheadAttention`` gives the same logits, and unusual calls are left as they are."""
    model, images = build("torchvision")
    with torch.no_grad():
        torch.testing.assert_close(create_explainer("rollout", model)(images).logits, model(images))
    model.encoder.layers[1].self_attention.add_zero_attn = True
    with pytest.raises(UnsupportedModelError, match="17 tokens"):
        create_explainer("rollout", model)(images)


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("rollout", {"discard_ratio": 1.0}, r"discard_ratio must be in \[0, 1\)"),
        ("rollout", {"head_fusion": "median"}, "head_fusion must be one of mean, max, min"),
        ("gradient-rollout", {"start_block": -1}, "start_block must be an integer of at least 0"),
        ("raw-attention", {"start_block": 1.5}, "start_block must be an integer"),
    ],
)
def test_bad_settings(method: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        create_explainer(method, build("vit")[0], **settings)


def test_targets_that_do_not_reach_attention() -> None:
    model, images = build("vit")
    with pytest.raises(UnsupportedModelError, match="does not reach"):
        create_explainer("gradient-rollout", model)(images, lambda logits: torch.ones(()))
    for method in ("rollout", "gradient-rollout", "attention-product"):
        with pytest.raises(InputError, match="start_block must be below"):
            create_explainer(method, model, start_block=3)(images, 1)
