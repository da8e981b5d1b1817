"""Transformers over tokens whose parts are elsewhere than a plain ViT's: each against a computation of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import timm
import torch
from families import TINY, shaken
from torch import Tensor, nn

from trt_cam.backbone import describe
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers import create_explainer

TARGET = torch.tensor([1, 4])
SMALL = {"embed_dim": 48, "num_heads": 3, "depth": 3, "num_classes": 7}


def made(name: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return shaken(timm.create_model(name, **{"num_classes": 7, **settings})).double().eval()


def photos(height: int = 64, width: int = 64, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(3)).double()


def inputs_of(modules: Sequence[nn.Module], model: nn.Module, images: Tensor) -> list[Tensor]:
    """What modules are given in one forward."""
    given: list[Tensor] = []
    handles = [module.register_forward_pre_hook(lambda m, a: given.append(a[0])) for module in modules]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return given


def whole_graph(model: nn.Module, images: Tensor, layer: str) -> Tensor:
    """LayerCAM of a layer's tokens, from the plain graph of the whole model, (B, S)."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, a, out: kept.append(out))
    (gradient,) = torch.autograd.grad(model(images).gather(1, TARGET[:, None]).sum(), kept)
    handle.remove()
    return (gradient.relu() * kept[0]).sum(-1).detach()


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.view_as(found), rtol=1e-9, atol=1e-12)


METHODS = ["raw-attention", "rollout", "gradient-rollout", "transformer-attribution", "cam", "layer-cam", "trt-free"]
AS_NAFLEX: dict[str, tuple[str, dict[str, Any]]] = {
    "token": ("vit_tiny_patch16_224", {"no_embed_class": True}),
    "average": ("vit_tiny_patch16_224", {"global_pool": "avg", "no_embed_class": True}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 56}),
    "map": ("vit_base_patch16_siglip_224", {}),
}


@pytest.mark.parametrize("kind", AS_NAFLEX)
def test_naflex_equals_the_vit_whose_weights_it_was_given(kind: str) -> None:
    from timm.models.naflexvit import checkpoint_filter_fn

    name, more = AS_NAFLEX[kind]
    plain = made(name, **{**TINY, **more})
    flexible = timm.create_model(name, **{**TINY, **more}, use_naflex=True).double().eval()
    flexible.load_state_dict(checkpoint_filter_fn(plain.state_dict(), flexible))
    images = photos(more.get("img_size", 64), more.get("img_size", 64))
    torch.testing.assert_close(flexible(images), plain(images), rtol=1e-9, atol=1e-9)
    assert type(flexible).__name__ == "NaFlexVit"
    for method in METHODS:
        mine, other = (create_explainer(method, one)(images, TARGET) for one in (flexible, plain))
        assert mine.row == other.row and mine.layer == other.layer
        torch.testing.assert_close(mine.grid, other.grid, rtol=1e-7, atol=1e-10)


def test_naflex_takes_other_sizes() -> None:
    model = made("naflexvit_base_patch16_gap", **SMALL)
    assert create_explainer("rollout", model)(photos(64, 96)).grid_size == (4, 6)
    with pytest.raises(InputError, match="multiples of 16 and 16"):
        create_explainer("rollout", model)(photos(64, 100))


BY_TOKEN: dict[str, tuple[dict[str, Any], int]] = {
    "convit_tiny": ({"depth": 4, "local_up_to_layer": 2, "img_size": 64}, 2),
    "tnt_s_legacy_patch16_224": ({"depth": 3, "img_size": 64}, 3),
    "pit_ti_distilled_224": ({"img_size": 112, "depth": (1, 1, 3)}, 3),
}


def class_row(attention: nn.Module, x: Tensor) -> Tensor:
    """Attention matrices of a module of timm from its weights, (B, nh, S, S)."""
    both = attention.qk if hasattr(attention, "qk") else attention.qkv
    nh, D = attention.num_heads, x.shape[2]
    q, k = (one.unflatten(2, (nh, -1)).transpose(1, 2) for one in both(x)[..., : 2 * D].chunk(2, dim=2))
    return (q @ k.transpose(2, 3) / (D // nh) ** 0.5).softmax(-1).detach()


def test_rows_of_models_read_by_a_class_token() -> None:
    for name, (settings, count) in BY_TOKEN.items():
        model = made(name, **settings)
        images = photos(settings["img_size"], settings["img_size"])
        named = [n for n, _ in model.named_modules() if n.endswith((".attn", ".attn_out"))][-count:]
        modules = [model.get_submodule(one) for one in named]
        matrices = [class_row(*each) for each in zip(modules, inputs_of(modules, model, images), strict=True)]
        found = create_explainer("raw-attention", model)(images)
        N = found.grid.flatten(1).shape[1]
        same(found.grid, sum(matrix.mean(1)[:, 0, -N:] for matrix in matrices))
        assert found.row == "class token"
        if not name.startswith("tnt"):  # patches attend in other ways before: no product of all matrices
            with pytest.raises(UnsupportedModelError, match="explainers that fit it: .*raw-attention"):
                create_explainer("rollout", model)
            continue
        R = torch.eye(N + 1).double()
        for matrix in matrices:
            R = (matrix.mean(1) + torch.eye(N + 1).double()) / 2 @ R
        same(create_explainer("rollout", model)(images).grid, R[:, 0, 1:])


@pytest.mark.parametrize("name", [*BY_TOKEN, "mvitv2_small_cls"])
def test_gradients_and_classifier_of_models_read_by_a_class_token(name: str) -> None:
    settings = BY_TOKEN[name][0] if name in BY_TOKEN else {}
    model, size = made(name, **settings), settings.get("img_size", 224)
    images, parts = photos(size, size), describe(model)
    found = create_explainer("layer-cam", model)(images, TARGET)
    N = found.grid.flatten(1).shape[1]
    expected = whole_graph(model, images, parts.layer)[:, -N:]
    assert expected.abs().max() > 0
    same(found.grid, expected)
    if name.startswith("pit"):
        with pytest.raises(UnsupportedModelError, match="explainers that fit it: .*grad-cam"):
            create_explainer("cam", model)
        return
    with torch.no_grad():
        tokens = model.forward_features(images)[:, -N:]
        expected = model.get_classifier()(tokens)[torch.arange(2), :, TARGET]
    same(create_explainer("cam", model)(images, TARGET).grid, expected)


def test_tnt_by_attention_gradient() -> None:
    name = "tnt_s_legacy_patch16_224"
    model, images = made(name, **BY_TOKEN[name][0]), photos()
    kept: list[Tensor] = []
    handles = [
        block.attn_out.attn_drop.register_forward_pre_hook(lambda m, a: kept.append(a[0])) for block in model.blocks
    ]
    gradients = torch.autograd.grad(model(images).gather(1, TARGET[:, None]).sum(), kept)
    for handle in handles:
        handle.remove()
    R = torch.eye(17).double().expand(2, 17, 17)
    for A, dA in zip(kept, gradients, strict=True):
        R = R + (A * dA).clamp(min=0).mean(1).detach() @ R
    same(create_explainer("transformer-attribution", model)(images, TARGET).grid, R[:, 0, 1:])


ENCODERS: dict[str, dict[str, Any]] = {
    "qwen3_vit_88m": {**SMALL, "embed_dim": 96, "num_heads": 3, "patch_size": 16, "encoder_pool": ""},
    "deepseek_vit_412m": {**SMALL, "embed_dim": 96, "num_heads": 3, "patch_size": 16},
    "gemma4_vit_167m": {**SMALL, "embed_dim": 96, "num_heads": 3, "head_dim": 32, "intermediate_size": 96},
}


@pytest.mark.parametrize("name", ENCODERS)
def test_vision_encoders_of_language_models(name: str) -> None:
    model, images = made(name, **ENCODERS[name]), photos(64, 96)
    kept: list[Tensor] = []
    attentions = [block.attn for block in model.encoder.blocks]
    for attention in attentions:
        attention.fused_attn = False  # matrices then pass through the dropout
        attention.attn_drop.register_forward_pre_hook(lambda m, a: kept.append(a[0].detach()))
    with torch.no_grad():
        model(images)
    R = torch.eye(24).double()
    for A in kept:
        R = (A.mean(1) + torch.eye(24).double()) / 2 @ R
    for attention in attentions:
        attention.fused_attn = True
    found = create_explainer("rollout", model)(images)
    assert found.grid_size == (4, 6) and found.row == "mean over patch tokens"
    same(found.grid, R.mean(1))
    same(create_explainer("layer-cam", model)(images, TARGET).grid, whole_graph(model, images, describe(model).layer))
    with torch.no_grad():
        tokens = model.forward_features(images).reshape(2, 24, -1)
        expected = model.head(model.norm(tokens))[torch.arange(2), :, TARGET]
    same(create_explainer("cam", model)(images, TARGET).grid, expected)


def test_blocks_that_are_their_own_attention() -> None:
    model, images = made(XP, **TINY), photos()
    kept: list[Tensor] = []
    for block in model.blocks:
        block.fused_attn = False
        block.attn_drop.register_forward_pre_hook(lambda m, a: kept.append(a[0].detach()))
    unfused = create_explainer("trt-free", model)(images, TARGET).grid
    kept.clear()
    with torch.no_grad():
        model(images)
    R = torch.eye(kept[0].shape[-1]).double()
    for A in kept:
        R = (A.mean(1) + torch.eye(A.shape[-1]).double()) / 2 @ R
    for block in model.blocks:
        block.fused_attn = True
    found = create_explainer("rollout", model)(images)
    prefix = describe(model).prefix
    same(found.grid, R[:, 0, prefix:] if describe(model).pooling == "token" else R[:, prefix:, prefix:].mean(1))
    same(create_explainer("trt-free", model)(images, TARGET).grid, unfused)


XP = next(name for name in timm.list_models("*_xp_*") if "diff" not in name)


def test_blocks_whose_attention_is_no_one_matrix_carry_gradients_and_classifier() -> None:
    for name in (TWICE, DIFFERENTIAL):
        model, images = made(name, **TINY), photos()
        parts = describe(model)
        expected = whole_graph(model, images, parts.layer)[:, parts.prefix :]
        assert expected.abs().max() > 0
        same(create_explainer("layer-cam", model)(images, TARGET).grid, expected)
        with pytest.raises(UnsupportedModelError, match="explainers that fit it: .*grad-cam"):
            create_explainer("rollout", model)


TWICE = timm.list_models("*_18x2_*")[0]
DIFFERENTIAL = timm.list_models("*_dwee_*")[0]


@pytest.mark.parametrize("name", ["hiera_tiny_224", "swin_tiny_patch4_window7_224", "mvitv2_tiny", "volo_d1_224"])
def test_a_size_that_a_model_cannot_take_is_one_line(name: str) -> None:
    model = timm.create_model(name, num_classes=7).eval()
    with pytest.raises(InputError, match=r"224 x 224 pixels.* were needed.* got 224 x 320"):
        create_explainer("grad-cam", model)(torch.zeros(1, 3, 224, 320))


@pytest.mark.parametrize("name", ["qwen3_vit_88m_enc", "mobilenetv5_300m_enc"])
def test_encoders_without_a_head_are_refused(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(UnsupportedModelError, match="an encoder without one"):
        describe(model)
