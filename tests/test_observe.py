"""What the one observed forward shows: equal to unfused attention, to a plain autograd graph, or refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from families import FAMILIES, family, image_size, no_onednn, torchvision_vit
from torch import Tensor, nn

from trt_cam.backbone import describe
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers import create_explainer
from trt_cam.observe import AttentionCall, Observation, observe, run_masked
from trt_cam.ops.attention import masked_attention

EVERYTHING = frozenset({"rows", "attention", "tokens", "features", "middle"})


def images_for(model: nn.Module, batch: int = 2, seed: int = 5) -> Tensor:
    return torch.randn(batch, 3, *image_size(model), generator=torch.Generator().manual_seed(seed))


def look(model: nn.Module, images: Tensor, *needs: str) -> Observation:
    return observe(describe(model), images, frozenset(needs or EVERYTHING))


def unfused_attention(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Attention (B, nh, S, S) of every block of a copy with fused kernels off, caught in front of its dropout."""
    model = copy.deepcopy(model)
    caught: list[Tensor] = []
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    for block in model.blocks:
        block.attn.attn_drop.register_forward_pre_hook(lambda _, args: caught.append(args[0].float()))
    with torch.no_grad():
        model(images)
    return caught


def pool_attention(model: nn.Module, images: Tensor) -> Tensor:
    """Attention (B, nh, 1, S) of an attention pool, from the queries and keys that its norms let through."""
    caught: list[Tensor] = []
    handles = [
        m.register_forward_hook(lambda _, a, out: caught.append(out))
        for m in (model.attn_pool.q_norm, model.attn_pool.k_norm)
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    q, k = caught
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)


def expected_rows(model: nn.Module, attention: list[Tensor]) -> list[Tensor]:
    parts = describe(model)
    if parts.pooling == "token":
        return [block[:, :, 0] for block in attention]
    return [block[:, :, parts.prefix :].mean(dim=2) for block in attention]


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_equal_the_unfused_model(name: str) -> None:
    model = FAMILIES[name]()
    images = images_for(model)
    attention = unfused_attention(model, images)
    assert len(attention) == 3
    seen = look(model, images, "rows", "attention")
    expected = [pool_attention(model, images)[:, :, 0]] if name == "siglip" else expected_rows(model, attention)
    assert len(seen.rows) == len(expected)
    for row, wanted in zip(seen.rows, expected, strict=True):
        assert row.shape == wanted.shape and (row - wanted).abs().max() < 1e-5
    for call, wanted in zip(seen.calls, attention, strict=True):
        assert (call.rows(0, call.shape[2]) - wanted).abs().max() < 1e-5
        assert (call.rows(2, 5, slice(1, 2)) - wanted[:, 1:2, 2:5]).abs().max() < 1e-5


@pytest.mark.parametrize("how", ["autocast", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_in_bfloat16(name: str, how: str) -> None:
    model = FAMILIES[name]()
    images = images_for(model)
    with no_onednn():
        context: AbstractContextManager[object] = nullcontext()
        if how == "autocast":
            context = torch.autocast("cpu", torch.bfloat16)
        else:
            model, images = model.bfloat16(), images.bfloat16()
        with context:
            attention = unfused_attention(model, images)
            seen = look(model, images, "rows", "attention")
            pulled = seen.pull(seen.query(), 1)
        expected = (
            [pool_attention(model.float(), images.float())[:, :, 0]]
            if name == "siglip"
            else expected_rows(model, attention)
        )
    for row, wanted in zip(seen.rows, expected, strict=True):
        assert row.dtype == torch.float32 and (row - wanted).abs().max() < 2e-2
        assert (row.sum(-1) - 1).abs().max() < 1e-3  # summed up in float32, also under autocast
    assert (pulled.sum(-1) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("name", ["vit", "dinov2-registers", "siglip", "vit-avg", "rope-mixed", "beit", "hybrid"])
@pytest.mark.parametrize("form", ["other size", "dynamic"])
def test_rows_of_inputs_that_are_not_square(name: str, form: str) -> None:
    size = (56, 84) if "dinov2" in name else (64, 96)
    if form == "other size":
        model = FAMILIES[name](img_size=size)
    elif name in ("beit", "hybrid"):
        pytest.skip("takes no dynamic sizes")
    else:
        model = FAMILIES[name](dynamic_img_size=True)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    seen = look(model, images)
    scale = 2 if name == "hybrid" else 1
    assert seen.grid_size == (4 * scale, 6 * scale)
    assert seen.features.shape[2:] == seen.grid_size
    if name != "siglip":
        for row, wanted in zip(seen.rows, expected_rows(model, unfused_attention(model, images)), strict=True):
            assert (row - wanted).abs().max() < 1e-5
    with torch.no_grad():
        assert torch.equal(seen.logits, model(images))


def test_rows_of_torchvision_equal_need_weights() -> None:
    model = torchvision_vit()
    images = torch.randn(2, 3, 64, 64)
    caught: list[Tensor] = []
    reference = copy.deepcopy(model)
    for layer in reference.encoder.layers:
        attention, plain = layer.self_attention, layer.self_attention.forward

        def weighted(q: Tensor, k: Tensor, v: Tensor, plain: Callable[..., object] = plain, **_: object) -> object:
            out, weights = plain(q, k, v, need_weights=True, average_attn_weights=False)
            caught.append(weights)
            return out, None

        attention.forward = weighted
    with torch.no_grad():
        reference(images)
        logits = model(images)
    seen = look(model, images, "rows", "attention", "features", "gradient")
    assert len(caught) == len(seen.rows) == 3
    for row, call, wanted in zip(seen.rows, seen.calls, caught, strict=True):
        assert (row - wanted[:, :, 0]).abs().max() < 1e-6
        assert (call.rows(0, 17) - wanted).abs().max() < 1e-6
    assert torch.allclose(seen.logits, logits, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_fused_attention_stays_on_and_logits_are_the_models(name: str) -> None:
    model = FAMILIES[name]()
    images = images_for(model)
    seen = look(model, images)
    with torch.no_grad():
        assert torch.equal(seen.logits, model(images))
    assert all(call.q is not None and call.weights is None for call in seen.calls)


def test_unfused_models_are_observed_too() -> None:
    model = FAMILIES["vit"]()
    for block in model.blocks:
        block.attn.fused_attn = False
    images = images_for(model)
    seen = look(model, images)
    for row, wanted in zip(seen.rows, unfused_attention(model, images), strict=True):
        assert (row - wanted[:, :, 0]).abs().max() < 1e-6


def test_a_softmax_whose_scores_are_given_by_name() -> None:
    class ByName(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor, **_: object) -> Tensor:
            q, k, v = self.inner.qkv(x).unflatten(2, (3, self.inner.num_heads, -1)).permute(2, 0, 3, 1, 4)
            weights = torch.softmax(input=q @ k.transpose(2, 3) * self.inner.scale, dim=-1)
            return self.inner.proj((weights @ v).transpose(1, 2).flatten(2))

    model = FAMILIES["vit"]()
    images = images_for(model)
    expected = look(model, images, "rows").rows
    for block in model.blocks:
        block.attn = ByName(block.attn)
    for row, wanted in zip(look(model, images, "rows").rows, expected, strict=True):
        assert (row - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_pulling_a_row_is_a_product_with_the_matrix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_cam.observe.calls.CHUNK", 2000)  # several pieces
    model = FAMILIES[name]()
    images = images_for(model)
    seen = look(model, images, "attention")
    row = torch.rand(2, seen.calls[0].shape[2])
    for block, matrix in enumerate(unfused_attention(model, images)):
        assert torch.allclose(seen.pull(row, block), torch.einsum("bq,bqk->bk", row, matrix.mean(1)), atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_and_features_are_those_of_the_model(name: str) -> None:
    model = FAMILIES[name]()
    images = images_for(model)
    seen = look(model, images, "tokens", "features")
    with torch.no_grad():
        final, states = model.forward_intermediates(images, indices=[1], return_prefix_tokens=True, norm=False)
        patches = states[0][0] if isinstance(states[0], tuple) else states[0]
        prefix = seen.backbone.prefix
        assert torch.equal(seen.to_grid(seen.last_input[0][0][..., 0]), patches[:, 0])
        assert torch.allclose(seen.features.flatten(2).transpose(1, 2), final[:, prefix:], atol=1e-6)


# --------------------------------------------------------------------------------------------------- masked replay


@pytest.mark.parametrize("name", FAMILIES)
def test_replaying_with_a_full_mask_hides_the_prefix_alone(name: str) -> None:
    model = FAMILIES[name]()
    seen = look(model, images_for(model))
    parts, (tokens, *_), kwargs = seen.backbone, *seen.last_input
    everything = torch.ones(tokens.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        plain = parts.blocks[-1](tokens, **kwargs)
        masked = run_masked(parts.blocks[-1], parts.attentions[-1], everything, tokens, prefix=0, **kwargs)
    assert torch.allclose(masked, plain, atol=2e-5)
    if parts.prefix == 0:
        full = torch.ones(2, 16, dtype=torch.bool)
        assert torch.allclose(seen.replay_masked(full), plain, atol=2e-5)


def test_replay_without_fused_kernels_is_the_same() -> None:
    model = FAMILIES["vit"]()
    images = images_for(model)
    keep = torch.rand(2, 16, generator=torch.Generator().manual_seed(0)) > 0.5
    fused = look(model, images).replay_masked(keep)
    for block in model.blocks:
        block.attn.fused_attn = False
    assert torch.allclose(look(model, images).replay_masked(keep), fused, atol=1e-5)


def test_unfused_replay_survives_rows_that_see_nothing() -> None:
    """All weight of a row on dropped tokens, the rest underflows: still the exact masked softmax, never NaN."""
    model = FAMILIES["vit"]()
    attention = model.blocks[-1].attn
    attention.fused_attn = False
    with torch.no_grad():
        attention.qkv.weight[:96] *= 60.0
    seen = look(model, images_for(model))
    keep = torch.zeros(2, 16, dtype=torch.bool)
    keep[:, :2] = True
    assert seen.replay_masked(keep).isfinite().all()


def test_masked_attention_under_autocast() -> None:
    q = torch.randn(1, 2, 5, 8)
    with torch.autocast("cpu", torch.bfloat16), no_onednn():
        out = masked_attention(q, q, q, torch.tensor([[True, False, True, True, False]]))
    assert out.isfinite().all()


# ------------------------------------------------------------------------------------------------------- gradients


def plain_gradient(model: nn.Module, images: Tensor, score: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Activation and gradient of the family's layer on the whole autograd graph."""
    layer = model.get_submodule(describe(model).layer)
    caught: list[Tensor] = []

    def keep(_: nn.Module, args: object, out: Tensor) -> None:
        out.retain_grad()
        caught.append(out)

    model = model.requires_grad_(True)
    handle = layer.register_forward_hook(keep)
    score(model(images)).backward()
    handle.remove()
    return caught[0].detach(), caught[0].grad


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_is_that_of_the_whole_graph(name: str) -> None:
    model = FAMILIES[name]().double()
    images, target = images_for(model).double(), torch.tensor([1, 4])
    seen = look(model, images, "gradient")
    activation, gradient = seen.gradient(target)
    by_callable = seen.gradient(lambda logits: 2 * logits[3] - logits.exp().mean())
    assert all(parameter.grad is None for parameter in model.parameters())
    expected = plain_gradient(copy.deepcopy(model), images, lambda out: out.gather(1, target[:, None]).sum())
    other = plain_gradient(model, images, lambda out: sum(2 * row[3] - row.exp().mean() for row in out))
    for ours, wanted in ((activation, expected[0]), (gradient, expected[1]), (by_callable[1], other[1])):
        assert torch.allclose(ours, seen.spatial(wanted), rtol=1e-10, atol=1e-10)
    assert gradient.abs().sum() > 0


def test_gradient_of_a_cnn() -> None:
    import timm

    model = timm.create_model("resnet18", num_classes=5).double().eval()
    images, target = torch.randn(2, 3, 64, 64).double(), torch.tensor([1, 4])
    seen = look(model, images, "gradient")
    features = model.forward_features(images).detach().requires_grad_()
    model.forward_head(features).gather(1, target[:, None]).sum().backward()
    assert torch.allclose(seen.gradient(target)[1], features.grad, atol=1e-10)


def test_target_without_gradient() -> None:
    model = FAMILIES["vit"]()
    seen = look(model, images_for(model), "gradient")
    for target in (lambda logits: torch.zeros((), requires_grad=True), lambda logits: torch.ones(())):
        with pytest.raises(UnsupportedModelError, match="gradient") as caught:
            seen.gradient(target)
        assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------- what is not expected is an error


class Twice(nn.Module):
    """An attention module that attends twice, as differential transformers do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, **kwargs: object) -> Tensor:
        return self.inner(x, **kwargs) - 0.2 * self.inner(x, **kwargs)


class Elsewhere(nn.Module):
    """An attention module without an attention call: nothing to observe."""

    def forward(self, x: Tensor, **_: object) -> Tensor:
        return x.mean(dim=1, keepdim=True).expand_as(x)


class Windowed(nn.Module):
    """Attention inside halves of the sequence."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, **kwargs: object) -> Tensor:
        return torch.cat([self.inner(x[:, :9], **kwargs), self.inner(x[:, 9:], **kwargs)[:, :0]], 1).repeat(1, 2, 1)[
            :, :17
        ]


@pytest.mark.parametrize("kind", [Twice, Elsewhere, Windowed])
def test_unexpected_attention_is_named(kind: type[nn.Module]) -> None:
    model = FAMILIES["vit"]()
    block = model.blocks[1]
    block.attn = kind() if kind is Elsewhere else kind(block.attn)
    for method in ("raw-attention", "rollout"):
        with pytest.raises(UnsupportedModelError, match=r"blocks\.1\.attn") as caught:
            create_explainer(method, model)(images_for(model))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [Twice, Elsewhere, Windowed])
def test_localizer_refuses_unexpected_attention(kind: type[nn.Module]) -> None:
    from trt_cam.models.trt import TRTLocalizer

    net = TRTLocalizer(FAMILIES["vit"]()).eval()
    block = net.backbone.blocks[0]
    block.attn = kind() if kind is Elsewhere else kind(block.attn)
    with pytest.raises(UnsupportedModelError, match=r"blocks\.0\.attn"):
        net(torch.randn(1, 3, 64, 64))


def test_causal_and_grouped_attention_are_refused() -> None:
    class Causal(nn.Module):
        def forward(self, x: Tensor, **_: object) -> Tensor:
            q = x[:, None]
            return torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)[:, 0]

    model = FAMILIES["vit"]()
    model.blocks[2].attn = Causal()
    with pytest.raises(UnsupportedModelError, match="causal"):
        look(model, images_for(model), "rows")


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 64, 64),
        torch.zeros(1, 1, 64, 64),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        torch.full((1, 3, 64, 64), torch.nan),
        torch.full((1, 3, 64, 64), torch.inf),
        "photo.jpg",
        None,
        torch.zeros(1, 3, 65, 64),
        torch.zeros(0, 3, 64, 64),
        torch.zeros(1, 3, 0, 64),
    ],
    ids=lambda value: str(getattr(value, "shape", value)),
)
def test_images_that_cannot_be_used(images: object) -> None:
    with pytest.raises(InputError) as caught:
        look(FAMILIES["vit"](), images)
    assert "\n" not in str(caught.value)


def test_dynamic_sizes_take_any_image() -> None:
    model = family("vit_tiny_patch16_224", dynamic_img_size=True, dynamic_img_pad=True)()
    images = torch.randn(1, 3, 70, 90)
    seen = look(model, images)
    assert seen.grid_size == (5, 6) and seen.features.shape[2:] == (5, 6)


def test_a_graph_keeps_nothing_for_the_gradient_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FAMILIES["dinov2"]()
    images = torch.randn(2, 3, 56, 56)

    def kept() -> tuple[int, Tensor]:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in {
                one.untyped_storage().data_ptr() for one in model.parameters()
            }:
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            grid = create_explainer("gradient-rollout", model)(images, [1, 4]).grid
        return sum(sizes.values()), grid

    few, grid = kept()
    monkeypatch.setattr("trt_cam.observe.watch.WEIGHED", frozenset())
    many, same = kept()
    assert few < 0.7 * many
    torch.testing.assert_close(grid, same)
    assert all(one.grad is None and one.requires_grad for one in model.parameters())


@pytest.mark.parametrize("factor", [0.1, 1.0, 8.0, 60.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weighed_rows_of_small_and_of_huge_scores(factor: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 3, 7, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    call = AttentionCall((factor * q).to(dtype), k.to(dtype), scale=0.25)
    row = torch.rand(2, 7, generator=generator, dtype=torch.float64)
    attention = (factor * q @ k.transpose(2, 3) * 0.25).softmax(-1)
    expected = torch.einsum("bn,bhnm->bhm", row, attention)
    found = call.weighed(row.to(dtype))
    assert found.isfinite().all()
    assert (found.double() - expected).abs().max() <= (1e-12 if dtype == torch.float64 else 5e-5) * expected.max()
