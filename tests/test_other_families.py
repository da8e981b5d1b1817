"""Families beyond the plain ViT: class attention, hierarchical models and CNNs, transformers' ViTs."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from families import shaken
from torch import Tensor, nn

from trt_cam.backbone import describe
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers import create_explainer

TARGET = torch.tensor([1, 4])


def made(name: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return shaken(timm.create_model(name, num_classes=7, **settings)).double().eval()


LATE = {
    "cait_xxs24_224": ({"img_size": 64, "depth": 2}, "blocks_token_only", (4, 4)),
    "xcit_nano_12_p8_224": ({"depth": 2}, "cls_attn_blocks", (8, 8)),
    "volo_d1_224": ({"img_size": 64}, "post_network", (4, 4)),
}


def photos(size: int = 64, batch: int = 2, width: int | None = None) -> Tensor:
    shape = (batch, 3, size, width or size)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3)).double()


@pytest.mark.parametrize("name", LATE)
def test_rows_of_class_attention_are_those_of_its_weights(name: str) -> None:
    settings, where, grid = LATE[name]
    model, images = made(name, **settings), photos()
    given: list[Tensor] = []
    handles = [block.attn.register_forward_pre_hook(lambda m, a: given.append(a[0])) for block in getattr(model, where)]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    expected = torch.zeros(2, grid[0] * grid[1]).double()
    for block, x in zip(getattr(model, where), given, strict=True):
        nh, D = block.attn.num_heads, x.shape[2]
        k = block.attn.kv(x)[..., :D] if hasattr(block.attn, "kv") else block.attn.k(x)
        q = block.attn.q(x[:, :1]).view(2, nh, 1, D // nh)
        k = k.view(2, -1, nh, D // nh).transpose(1, 2)
        rows = (q @ k.transpose(2, 3) / (D // nh) ** 0.5).softmax(-1)
        expected += rows.mean(1)[:, 0, 1:].detach()
    found = create_explainer("raw-attention", model)(images)
    assert found.grid_size == grid
    torch.testing.assert_close(found.grid.flatten(1), expected, rtol=1e-9, atol=1e-12)
    assert found.row == "class token"


@pytest.mark.parametrize("name", LATE)
def test_gradient_of_the_blocks_before_class_attention(name: str) -> None:
    settings, _, grid = LATE[name]
    model, images = made(name, **settings), photos()
    explain = create_explainer("layer-cam", model)
    kept: list[Tensor] = []
    handle = model.get_submodule(describe(model).layer).register_forward_hook(lambda m, a, out: kept.append(out))
    score = model(images).gather(1, TARGET[:, None]).sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept)
    expected = (gradient.relu() * kept[0]).sum(-1).view(2, *grid).detach()
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(explain(images, TARGET).grid, expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(UnsupportedModelError, match="explainers that fit it: .*raw-attention"):
        create_explainer("rollout", model)


SPATIAL = {
    "convnext_atto": {},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1), "img_size": 64},
    "mvitv2_tiny": {"img_size": 64},
    "twins_svt_small": {"depths": (1, 1, 1, 1)},
    "hiera_tiny_224": {"stages": (1, 1, 1, 1), "img_size": 64},
    "levit_128s": {},
    "pvt_v2_b0": {},
    "efficientformer_l1": {},
    "mobilenetv3_small_050": {},
    "gmlp_ti16_224": {"img_size": 64},
}


def spatial(name: str) -> tuple[nn.Module, Tensor]:
    model = made(name, **SPATIAL[name])
    return model, photos(224 if name in ("levit_128s", "efficientformer_l1") else 64)


@pytest.mark.parametrize("name", SPATIAL)
def test_cam_is_the_head_on_single_positions_and_grad_cam_the_whole_graphs(name: str) -> None:
    model, images = spatial(name)
    with torch.no_grad():
        features = model.forward_features(images)
    tokens = features
    if features.ndim == 4:
        tokens = features if features.shape[-1] == model.num_features else features.permute(0, 2, 3, 1)
        tokens = tokens.flatten(1, 2)
    place = 3  # any position as a map of its own
    alone = tokens[:, place : place + 1]
    if features.ndim == 4:
        alone = alone[:, None] if features.shape[-1] == model.num_features else alone.transpose(1, 2)[..., None]
    with torch.no_grad():
        expected = model.forward_head(alone).gather(1, TARGET[:, None])[:, 0]
    got = create_explainer("cam", model)(images, TARGET).grid.flatten(1)[:, place]
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    leaf = features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.forward_head(leaf).gather(1, TARGET[:, None]).sum(), leaf)
    product = gradient * features
    if features.ndim == 4 and features.shape[-1] != model.num_features:
        product = product.permute(0, 2, 3, 1)
    expected = product.sum(-1).flatten(1)
    found = create_explainer("hires-cam", model)(images, TARGET)
    torch.testing.assert_close(found.grid.flatten(1), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*SPATIAL, *LATE])
def test_places_of_the_grid_are_places_of_the_photo(name: str) -> None:
    """Whatever the layout: a change in one corner of the photo changes that corner of the activation most."""
    if name in SPATIAL:
        model, images = spatial(name)
    else:
        model, images = made(name, **LATE[name][0]), photos()
    for parameter_name, parameter in model.named_parameters():  # attention spreads a change: keep it weak
        if parameter_name.endswith((".proj.weight", ".proj_out.weight", ".proj_spatial.weight")):
            parameter.data *= 0.05
    explain = create_explainer("eigen-cam", model)
    look = lambda x: explain.look(x, frozenset({"activation"}), None).activation()  # noqa: E731
    plain, side = look(images), images.shape[-1] // 4
    for rows, columns in ((slice(0, side), slice(-side, None)), (slice(-side, None), slice(0, side))):
        changed = images.clone()
        changed[:, :, rows, columns] += 0.5 * torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
        change = (look(changed) - plain).abs().sum(1)  # (B, h, w)
        h, w = change.shape[1] // 2, change.shape[2] // 2
        upper = change[:, :h, w:].mean(), change[:, h:, :w].mean()
        assert (upper[0] > upper[1]) == (rows.start == 0), name


@pytest.mark.parametrize("name", ["crossvit_tiny_240", "coat_tiny", "efficientvim_m1"])
def test_models_of_several_grids_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="reads several"):
        create_explainer("grad-cam", timm.create_model(name))


TINY = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 64, "patch_size": 16}
KINDS = ["ViT", "DeiT", "DeiT-teacher", "Dinov2", "Dinov2WithRegisters", "Dinov2-headless"]


def transformer(kind: str, **more: Any) -> nn.Module:
    package = pytest.importorskip("transformers", reason="needs the extra transformers")
    name, _, tail = kind.partition("-")
    config = getattr(package, f"{name}Config")(**TINY, num_labels=7, **more)
    ending = {"": "ForImageClassification", "teacher": "ForImageClassificationWithTeacher", "headless": "Model"}[tail]
    torch.manual_seed(0)
    return shaken(getattr(package, name + ending)(config)).double().eval()


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_rollout_is_that_of_the_attentions_it_returns(kind: str) -> None:
    model, images = transformer(kind), photos()
    eager = transformer(kind, attn_implementation="eager")
    eager.load_state_dict(model.state_dict())
    with torch.no_grad():
        attentions = eager(images, output_attentions=True).attentions
    R = torch.eye(attentions[0].shape[-1]).double()
    for A in attentions:
        R = (0.5 * A.mean(1) + 0.5 * torch.eye(A.shape[-1]).double()) @ R
    expected = R[:, 0, -16:]
    for one in (model, eager):
        torch.testing.assert_close(create_explainer("rollout", one)(images).grid.flatten(1), expected)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_transformers_grad_cam_and_cam(kind: str) -> None:
    model, images = transformer(kind), photos()
    explain = create_explainer("hires-cam", model)
    kept: list[Tensor] = []
    handle = model.get_submodule(explain.backbone.layer).register_forward_hook(lambda m, a, out: kept.append(out))
    (gradient,) = torch.autograd.grad(model(images).logits.gather(1, TARGET[:, None]).sum(), kept)
    handle.remove()
    expected = (gradient * kept[0]).sum(-1)[:, -16:].detach()
    torch.testing.assert_close(explain(images, TARGET).grid.flatten(1), expected)
    if kind.startswith("Dinov2"):
        with pytest.raises(UnsupportedModelError, match="classifier"):
            create_explainer("cam", model)
        return
    with torch.no_grad():
        normed = model.base_model(images).last_hidden_state[:, -16:]
        heads = (
            [model.classifier]
            if hasattr(model, "classifier")
            else [model.cls_classifier, model.distillation_classifier]
        )
        expected = sum(head(normed) for head in heads) / len(heads)
    expected = expected.gather(2, TARGET[:, None, None].expand(-1, 16, 1))[..., 0]
    torch.testing.assert_close(create_explainer("cam", model)(images, TARGET).grid.flatten(1), expected)
    create_explainer("transformer-attribution", model)(images, TARGET)


def test_transformers_sizes() -> None:
    with pytest.raises(InputError, match="64 x 64 pixels were needed"):
        create_explainer("rollout", transformer("ViT"))(photos(64, 1, 96))
    assert create_explainer("rollout", transformer("Dinov2"))(photos(64, 1, 96)).grid_size == (4, 6)
