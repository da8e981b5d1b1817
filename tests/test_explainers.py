"""Each explainer against its definition on matrices captured another way, or against another package."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import FAMILIES, SMALL
from torch import Tensor, nn

from trt_cam.backbone import describe
from trt_cam.errors import InputError, TrtCamError, UnsupportedModelError
from trt_cam.explainers import (
    Explainer,
    Explanation,
    create_explainer,
    explain_together,
    get_explainer,
    list_explainers,
    register_explainer,
)
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet

WITH_CLASSES = [name for name in FAMILIES if name != "hybrid"]


def images_for(model: nn.Module, batch: int = 2) -> Tensor:
    height, width = model.patch_embed.img_size  # type: ignore[union-attr]
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(3)).double()


def unfused_attention(model: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Attention matrices (B, nh, S, S) of a copy whose fused kernels are off, and its last normed tokens."""
    model, found, normed = copy.deepcopy(model), [], []
    for block in model.blocks:  # type: ignore[union-attr]
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, args, out: found.append(args[0]))
    model.norm.register_forward_hook(lambda module, args, out: normed.append(out))  # type: ignore[union-attr]
    with torch.no_grad():
        model(images)
    return found, normed[0]


def start_row(model: nn.Module, normed: Tensor) -> np.ndarray:
    """What the classifier reads, as weights over tokens (B, S), from the model's attributes alone."""
    B, S = normed.shape[:2]
    row = np.zeros((B, S))
    if getattr(model, "attn_pool", None) is not None:
        pool = model.attn_pool
        q = pool.q(pool.latent).reshape(1, 1, pool.num_heads, -1).permute(0, 2, 1, 3)
        k = pool.kv(normed).reshape(B, S, 2, pool.num_heads, -1).permute(2, 0, 3, 1, 4)[0]
        return (q @ k.transpose(-1, -2) * pool.scale).softmax(-1).mean(1)[:, 0].detach().numpy()
    if model.global_pool == "token":
        row[:, 0] = 1
    else:
        row[:, model.num_prefix_tokens :] = 1 / (S - model.num_prefix_tokens)
    return row


@pytest.fixture(params=WITH_CLASSES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return FAMILIES[request.param]().double()


def test_rollout_is_the_product_of_mixed_matrices(model: nn.Module) -> None:
    images = images_for(model)
    attention, normed = unfused_attention(model, images)
    expected = []
    for image, start in enumerate(start_row(model, normed)):
        rolled = np.eye(len(start))
        for matrix in attention:
            mixed = sum(head.numpy() for head in matrix[image]) / matrix.shape[1]
            rolled = (0.5 * mixed + 0.5 * np.eye(len(mixed))) @ rolled
        expected.append((start @ rolled)[describe(model).prefix :])
    got = create_explainer("rollout", model)(images).grid
    np.testing.assert_allclose(got.flatten(1).numpy(), np.stack(expected), rtol=1e-9)


@pytest.mark.parametrize("fusion", ["max", "min"])
@pytest.mark.parametrize("residual", [0.0, 0.3])
def test_rollout_settings(fusion: str, residual: float) -> None:
    model = FAMILIES["vit"]().double()
    images = images_for(model, 1)
    attention, _ = unfused_attention(model, images)
    fuse = {"max": np.max, "min": np.min}[fusion]
    rolled = np.eye(attention[0].shape[-1])
    for matrix in attention[1:]:
        fused = fuse(matrix[0].numpy(), axis=0)
        fused = fused / fused.sum(-1, keepdims=True)
        rolled = ((1 - residual) * fused + residual * np.eye(len(rolled))) @ rolled
    got = create_explainer("rollout", model, head_fusion=fusion, residual=residual, start_block=1)(images).grid
    np.testing.assert_allclose(got.flatten().numpy(), rolled[0, 1:], rtol=1e-9)


def test_raw_attention_is_the_sum_of_query_rows(model: nn.Module) -> None:
    images = images_for(model)
    attention, normed = unfused_attention(model, images)
    start = torch.from_numpy(start_row(model, normed))
    if getattr(model, "attn_pool", None) is not None:
        expected = start
    else:
        expected = sum(torch.einsum("bs,bst->bt", start, matrix.mean(1)) for matrix in attention)
    got = create_explainer("raw-attention", model)(images).grid
    np.testing.assert_allclose(got.flatten(1), expected[:, describe(model).prefix :], rtol=1e-9)


def token_logits(model: nn.Module, normed: Tensor, target: int) -> Tensor:
    """The head's answer to each token alone, one after the other, through the model's own forward_head."""
    prefix = model.num_prefix_tokens
    out = []
    for index in range(prefix, normed.shape[1]):
        alone = normed[:, index : index + 1]
        sequence = alone.expand(-1, prefix + 1, -1)  # whatever the pool reads, it reads this token
        out.append(model.forward_head(sequence)[:, target])  # type: ignore[operator]
    return torch.stack(out, dim=1).detach()


def test_cam_is_the_head_applied_to_each_token(model: nn.Module) -> None:
    if getattr(model, "attn_pool", None) is not None:
        pass  # the pool over one token reads that token
    images = images_for(model)
    _, normed = unfused_attention(model, images)
    got = create_explainer("cam", model)(images, 4)
    np.testing.assert_allclose(got.grid.flatten(1), token_logits(model, normed, 4), rtol=1e-8, atol=1e-10)
    assert got.source is not None and "classifier" in got.source


def test_ts_cam_multiplies_attention_and_class_map(model: nn.Module) -> None:
    images = images_for(model)
    product = create_explainer("raw-attention", model)(images).grid * create_explainer("cam", model)(images, 2).grid
    np.testing.assert_allclose(create_explainer("ts-cam", model)(images, 2).grid, product, rtol=1e-9)


@pytest.mark.parametrize("name", ["tscam_6x6", "tscam_14x14"])
def test_ts_cam_equals_its_authors(shared, name: str) -> None:
    z = np.load(shared / "parity" / f"{name}.npz")
    state = {key[3:]: torch.from_numpy(z[key]) for key in z.files if key.startswith("sd/")}
    heads = json.loads(str(z["config_json"])).get("num_heads", z["attn_cls"].shape[2])
    net = TSCAMNet.from_official(state, num_heads=heads)
    images, labels = torch.from_numpy(z["images"]), torch.from_numpy(z["labels"])
    found = create_explainer("ts-cam", net)(images, labels)
    np.testing.assert_allclose(found.grid, z["cam_label"], atol=2e-5)
    np.testing.assert_allclose(found.logits, z["logits"], atol=2e-5)
    np.testing.assert_allclose(create_explainer("raw-attention", net)(images).grid, z["attn_sum_map"], atol=1e-6)
    for label in range(z["cams"].shape[1]):
        every = create_explainer("ts-cam", net)(images, label).grid
        np.testing.assert_allclose(every, z["cams"][:, label], atol=2e-5)
    assert found.source == "the trained TS-CAM head"


def grad_cam_layer(model: nn.Module) -> nn.Module:
    return model.blocks[-1].norm1 if model.global_pool == "token" else model.blocks[-1]  # type: ignore[index, union-attr]


@pytest.mark.parametrize("name", ["vit", "deit-distilled", "dinov2-registers", "siglip", "vit-avg", "eva02", "beit"])
def test_grad_cam_equals_pytorch_grad_cam(name: str) -> None:
    package = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = FAMILIES[name]().double()
    images, parts = images_for(model), describe(model)
    Gh, Gw = parts.grid_size(*images.shape[-2:])
    theirs = copy.deepcopy(model)
    reshape = lambda t: t[:, parts.prefix :].reshape(len(t), Gh, Gw, -1).permute(0, 3, 1, 2)  # noqa: E731
    cam = package.GradCAM(theirs, [grad_cam_layer(theirs)], reshape_transform=reshape)
    targets = [ClassifierOutputTarget(3), ClassifierOutputTarget(5)]
    whole = cam(images.clone(), targets)
    layer_map = cam.get_cam_image(
        images, cam.target_layers[0], targets, cam.activations_and_grads.activations[0].double().numpy(),
        cam.activations_and_grads.gradients[0].double().numpy(), eigen_smooth=False,
    )  # fmt: skip
    found = create_explainer("grad-cam", model)(images, [3, 5])
    np.testing.assert_allclose(found.grid, layer_map, rtol=1e-6, atol=1e-6 * np.abs(layer_map).max())
    np.testing.assert_allclose(np.asarray(found), whole, atol=2e-5)


def test_grad_cam_of_a_cnn_equals_pytorch_grad_cam() -> None:
    package = pytest.importorskip("pytorch_grad_cam")
    import timm
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=7).double().eval()
    images = torch.randn(2, 3, 96, 64).double()
    theirs = copy.deepcopy(model)
    whole = package.GradCAM(theirs, [theirs.layer4])(images.clone(), [ClassifierOutputTarget(1)] * 2)
    np.testing.assert_allclose(np.asarray(create_explainer("grad-cam", model)(images, 1)), whole, atol=2e-5)


def test_callable_targets() -> None:
    model = FAMILIES["vit"]()
    images = images_for(model).float()
    explain = create_explainer("grad-cam", model)
    by_index = explain(images, 3)
    by_callable = explain(images, lambda logits: logits[3])
    torch.testing.assert_close(by_index.grid, by_callable.grid)
    assert by_callable.target is None
    with pytest.raises(InputError, match="callable target needs a method that scores logits"):
        create_explainer("rollout", model)(images, lambda logits: logits[3])


def test_trt_is_the_localizers_product_and_its_refinement_spreads_the_class_map() -> None:
    net = TRTLocalizer(FAMILIES["vit"]()).eval()
    images = images_for(net.backbone).float()
    target = torch.tensor([1, 6])
    with torch.no_grad():
        out = net(images, target)
    found = create_explainer("trt", net)(images, target)
    torch.testing.assert_close(found.grid, out.fused)
    torch.testing.assert_close(create_explainer("cam", net)(images, target).grid, out.m_c)
    refined = create_explainer("trt", net)(images, target, refine="affinity")
    spread = create_explainer("cam", net)(images, target, refine="affinity").grid
    torch.testing.assert_close(refined.grid, out.m_t * spread)
    assert not torch.allclose(spread, out.m_c)


@pytest.mark.parametrize("cam", ["branch", None])
@pytest.mark.parametrize("refine", [None, "affinity"])
def test_trt_for_several_targets_is_each_alone(refine: str | None, cam: str | None) -> None:
    net = TRTLocalizer(FAMILIES["vit"](), cam=cam).eval()  # type: ignore[arg-type]
    images = images_for(net.backbone).float()
    explain = create_explainer("trt", net)
    for targets in ([[1, 6], [2, 0]], [[1, 6, 3], [2, 0, 5]]):  # as many as images: no axis is taken for another
        many = explain(images, targets, refine=refine).grid
        alone = [explain(images, list(one), refine=refine).grid for one in zip(*targets, strict=True)]
        torch.testing.assert_close(many, torch.stack(alone, dim=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("refine", [None, "affinity"])
def test_trt_with_another_selection_is_another_localizer(refine: str | None) -> None:
    net, images = TRTLocalizer(FAMILIES["vit"]()).eval(), None
    other = TRTLocalizer(FAMILIES["vit"](), u=3, mode="topk").eval()
    other.load_state_dict(net.state_dict())
    images = images_for(net.backbone).float()
    target = torch.tensor([1, 6])
    found = create_explainer("trt", net, u=3, mode="topk")(images, target, refine=refine)
    expected = create_explainer("trt", other)(images, target, refine=refine)
    assert torch.equal(found.grid, expected.grid) and torch.equal(found.logits, expected.logits)
    plain = create_explainer("trt", net)(images, target, refine=refine).grid
    assert not torch.allclose(plain, found.grid)
    assert torch.equal(create_explainer("trt", net)(images, target, refine=refine).grid, plain)


def test_without_re_attention_m_takes_the_place_of_m_t() -> None:
    net = TRTLocalizer(FAMILIES["vit"](), relu=True).eval()
    images, target = images_for(net.backbone).float(), torch.tensor([[1, 6], [2, 0]])
    with torch.no_grad():
        out = net(images, target)
    found = create_explainer("trt", net, re_attention=False)(images, target)
    torch.testing.assert_close(found.grid, out.m.unflatten(1, (4, 4))[:, None] * out.m_c.relu())
    assert not torch.allclose(found.grid, out.fused)
    with pytest.raises(InputError, match="mode='topk' needs the u that it is the unit of"):
        create_explainer("trt", net, mode="topk")


def test_every_method_on_a_localizer_ranks_classes_as_the_localizer_does() -> None:
    net = TRTLocalizer(FAMILIES["vit"]()).eval()
    images = images_for(net.backbone).float()
    with torch.no_grad():
        logits = net(images).logits
        assert not torch.allclose(logits, net.backbone(images), atol=1e-3)
    for name in list_explainers():
        found = create_explainer(name, net, **SMALL.get(name, {}))(images)
        torch.testing.assert_close(found.logits, logits)
        assert found.target is not None and found.target.tolist() == logits.argmax(1).tolist()


@pytest.mark.parametrize("name", ["cam", "ts-cam", "trt-free"])
def test_dropout_in_the_pool_of_a_model_in_training_mode_takes_no_part(name: str) -> None:
    model = FAMILIES["siglip"]()
    model.attn_pool.proj_drop.p = 0.5  # type: ignore[union-attr]
    images = images_for(model).float()
    expected = create_explainer(name, model)(images, 2).grid
    torch.testing.assert_close(create_explainer(name, model.train())(images, 2).grid, expected)
    assert model.training and model.attn_pool.proj_drop.training  # type: ignore[union-attr]


def test_trt_free_by_its_formula(model: nn.Module) -> None:
    """Written again in numpy from the docstring; the block under the mask is the unfused block with logits at -inf."""
    images, target = images_for(model, 1), 2
    parts = describe(model)
    attention, normed = unfused_attention(model, images)
    if parts.pool is not None:
        m = start_row(model, normed)[0]
    else:
        start = np.zeros(normed.shape[1])
        if parts.pooling == "token":
            start[0] = 1
        else:
            start[parts.prefix :] = 1 / (len(start) - parts.prefix)
        m = sum(start @ matrix[0].mean(0).numpy() for matrix in attention[:-1])[parts.prefix :]
    m = m / m.sum()
    order = np.argsort(-m, kind="stable")
    keep = np.zeros(len(m), dtype=bool)
    keep[order[np.cumsum(m[order]) < 0.65]] = True
    scored = masked_last_block(model, images, keep)
    evidence = token_logits(model, scored, target)[0].numpy()
    weight = np.where(keep, np.exp(evidence - evidence[keep].max()), 0)
    m_t = np.where(keep, weight / weight.sum() * m[keep].sum(), m)
    m_c = token_logits(model, normed, target)[0].numpy()
    expected = m_t * (m_c - m_c.min()) / (m_c.max() - m_c.min())
    got = create_explainer("trt-free", model)(images, target).grid
    np.testing.assert_allclose(got.flatten().numpy(), expected, rtol=1e-7, atol=1e-12)


def masked_last_block(model: nn.Module, images: Tensor, keep: np.ndarray) -> Tensor:
    """Normed output of the last block with its attention logits masked by hand."""
    model = copy.deepcopy(model)
    prefix, out = model.num_prefix_tokens, []
    S = prefix + len(keep)
    readable = torch.zeros(S, dtype=torch.bool)
    readable[prefix:] = torch.from_numpy(keep)
    allowed = readable[None] | torch.eye(S, dtype=torch.bool)
    last = model.blocks[-1]
    last.attn.fused_attn = False
    last.attn.attn_drop.register_forward_hook(
        lambda module, args, _: (kept := args[0] * allowed) / kept.sum(-1, keepdim=True)
    )
    model.norm.register_forward_hook(lambda module, args, result: out.append(result))
    with torch.no_grad():
        model(images)
    return out[0]


# --------------------------------------------------------------------------------------------- the interface


@pytest.mark.parametrize("name", list_explainers())
@pytest.mark.parametrize("refine", [None, "affinity"])
def test_batch_equals_singles_and_results_are_plain(name: str, refine: str | None) -> None:
    net: nn.Module = FAMILIES["dinov2-registers"]()
    net = TRTLocalizer(net).eval() if name == "trt" else net
    images = images_for(FAMILIES["dinov2-registers"](), 3).float()
    explain = create_explainer(name, net, **SMALL.get(name, {}))
    whole = explain(images, [0, 4, 2], refine=refine)
    assert whole.grid.shape == (3, 4, 4) and not whole.grid.requires_grad and not whole.logits.requires_grad
    for index, label in enumerate([0, 4, 2]):
        single = explain(images[index : index + 1], label, refine=refine)
        torch.testing.assert_close(single.grid[0], whole.grid[index], rtol=1e-4, atol=1e-6)
    heat = np.asarray(whole)
    assert heat.shape == (3, 56, 56) and heat.dtype == np.float32 and heat.min() >= 0 and heat.max() <= 1
    assert whole.resize((30, 20)).shape == (3, 30, 20)
    assert all(boxes.shape[1] == 4 for boxes in whole.to_boxes(0.2))


def test_the_result_says_what_was_read() -> None:
    images = images_for(FAMILIES["vit"]()).float()
    explain = create_explainer("grad-cam", FAMILIES["vit"]())
    assert explain(images).layer == "blocks.2.norm1"
    assert create_explainer("grad-cam", FAMILIES["vit-avg"]())(images).layer == "blocks.2"
    assert create_explainer("rollout", FAMILIES["vit"]())(images).row == "class token"
    pooled = create_explainer("rollout", FAMILIES["siglip"]())(images)
    assert (pooled.row, pooled.blocks) == ("latent query of the attention pool", (0, 3))
    assert create_explainer("raw-attention", FAMILIES["vit"]())(images).blocks == (0, 3)
    assert create_explainer("raw-attention", FAMILIES["siglip"]())(images).blocks is None  # the pool's row alone
    predicted = explain(images)
    assert predicted.target is not None and predicted.target.tolist() == predicted.logits.argmax(1).tolist()


def test_flat_maps_are_flagged_not_nan() -> None:
    flat = Explanation(torch.ones(1, 4, 4), torch.zeros(1, 7), None, "x", (64, 64))
    assert flat.flat.tolist() == [True] and not np.asarray(flat).any() and len(flat.to_boxes(0.2)[0]) == 0


def test_how_a_map_is_brought_to_its_range() -> None:
    grid = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid[1] = -grid[1].abs() - 1  # all below zero
    grid[2] = 5.0  # flat
    plain = Explanation(grid, torch.zeros(3, 7), None, "x", (40, 60), normalize="none")
    pixels = plain.resize().numpy()
    assert pixels.shape == (3, 40, 60) and pixels[1].max() < -0.5
    np.testing.assert_allclose(pixels[2], 5.0)
    for how, tops in (
        ("max", [pixels[0].max(), np.abs(pixels[1]).max()]),
        ("quantile", [np.quantile(pixels[0], 0.995), np.abs(pixels[1]).max()]),
    ):
        heat = replace(plain, normalize=how).resize().numpy()  # type: ignore[arg-type]
        expected = [np.minimum(one / top, 1) for one, top in zip(pixels, tops, strict=False)]
        np.testing.assert_allclose(heat, [*expected, np.zeros((40, 60))], rtol=1e-9, atol=1e-12)
    shown = replace(plain, normalize="minmax", positive=True)
    assert shown.resize()[0].min() == 0 and shown.resize()[0].max() == 1 and shown.flat.tolist() == [False, True, True]
    with pytest.raises(InputError, match="normalize must be one of minmax, max, quantile, none, got 'softmax'"):
        create_explainer("cam", FAMILIES["vit"](), normalize="softmax")


def test_what_a_model_cannot_carry_is_refused_with_what_it_can() -> None:
    import timm

    cnn = timm.create_model("resnet18", num_classes=7)
    for name in ("rollout", "raw-attention", "trt-free", "ts-cam"):
        with pytest.raises(UnsupportedModelError, match="explainers that fit it: .*grad-cam"):
            create_explainer(name, cnn)
    with pytest.raises(UnsupportedModelError, match="needs \\['trt'\\].*trt-free"):
        create_explainer("trt", FAMILIES["vit"]())
    headless = FAMILIES["vit"](num_classes=0)
    for name in ("cam", "ts-cam", "trt-free"):
        with pytest.raises(UnsupportedModelError, match="classifier"):
            create_explainer(name, headless)
    images = images_for(headless).float()
    with pytest.raises(UnsupportedModelError, match="needs a class"):
        create_explainer("grad-cam", headless)(images)
    assert create_explainer("rollout", headless)(images).target is None
    with pytest.raises(UnsupportedModelError):
        create_explainer("rollout", nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("target", "said"),
    [(7, "out of range"), (-1, "out of range"), ([1], "one each"), ("no such class", "names"), (1.5, "index")],
)
def test_wrong_targets_are_one_line(target: object, said: str) -> None:
    model = FAMILIES["vit"]()
    with pytest.raises(TrtCamError, match=said) as caught:
        create_explainer("cam", model)(images_for(model).float(), target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 64, 64), torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 64, 64).byte()]
)
def test_wrong_images_are_one_line(images: Tensor) -> None:
    with pytest.raises(InputError, match="preprocessed images"):
        create_explainer("cam", FAMILIES["vit"]())(images, 1)
    with pytest.raises(InputError, match="NaN"):
        create_explainer("cam", FAMILIES["vit"]())(torch.full((1, 3, 64, 64), torch.nan), 1)


def test_a_temperature_is_above_zero() -> None:
    with pytest.raises(InputError, match="temperature must be above 0, got 0"):
        create_explainer("trt-free", nn.Identity(), temperature=0)


def test_registry() -> None:
    class Mine(Explainer):
        name = "cam"

    with pytest.raises(InputError, match="taken"):
        register_explainer(Mine)
    with pytest.raises(InputError, match="did you mean grad-cam"):
        get_explainer("gradcam")
    with pytest.raises(InputError, match="settings"):
        create_explainer("rollout", FAMILIES["vit"](), no_such=1)
    assert list_explainers("grad-cam*") == ["grad-cam", "grad-cam++"]
    model = FAMILIES["vit"]()
    given = get_explainer("rollout")(residual=0.25)  # type: ignore[call-arg]
    assert "residual=0.25" in repr(create_explainer(given, model))


ALL_CHEAP = [name for name in list_explainers() if not get_explainer(name).requires & {"forward", "replay", "trt"}]


@pytest.mark.parametrize("name", [*FAMILIES, "localizer"])
@pytest.mark.parametrize("refine", [None, "affinity"])
def test_together_is_each_alone(name: str, refine: str | None) -> None:
    model: nn.Module = TRTLocalizer(FAMILIES["vit"]()).eval() if name == "localizer" else FAMILIES[name]()
    images = images_for(model.backbone if name == "localizer" else model).float()
    methods = [*ALL_CHEAP, "trt"] if name == "localizer" else ALL_CHEAP
    methods = [method for method in methods if method != "hires-cam" or name not in ("siglip", "dinov3")]  # refused
    bound = [create_explainer(method, model) for method in methods]
    refines = [refine if index % 2 else None for index in range(len(bound))]
    forwards = []
    handle = model.register_forward_hook(lambda *_: forwards.append(1))
    found = explain_together(bound, images, [1, 4], refine=refines)
    handle.remove()
    for one, each, together in zip(bound, refines, found, strict=True):
        alone = one(images, [1, 4], refine=each)
        scale = float(alone.grid.abs().max()) or 1.0
        assert float((alone.grid - together.grid).abs().max()) <= 1e-5 * scale, together.method
        torch.testing.assert_close(alone.logits, together.logits, rtol=1e-4, atol=1e-5)
        for field in ("method", "layer", "row", "source", "refine", "blocks", "positive", "normalize", "size"):
            assert getattr(alone, field) == getattr(together, field), (together.method, field)
    assert len(forwards) == (1 if name == "localizer" else 3 + 8)  # 8 are those of smooth-grad-cam++'s noisy images


@pytest.mark.parametrize("target", [None, [1, 4]])
def test_together_with_other_selections_each_ranks_classes_by_its_own(target: list[int] | None) -> None:
    net = TRTLocalizer(FAMILIES["vit"]()).eval()
    images = images_for(net.backbone).float()
    bound = [create_explainer("trt", net, u=1, mode="topk"), create_explainer("rollout", net)]
    bound += [
        create_explainer("trt", net, u=9, mode="topk"),
        create_explainer("cam", net),
        create_explainer("trt", net),
    ]
    bound += [create_explainer("trt", net, re_attention=False), create_explainer("trt", net, u=1)]
    found = explain_together(bound, images, target)
    for one, together in zip(bound, found, strict=True):
        alone = one(images, target)
        torch.testing.assert_close(together.logits, alone.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.grid, alone.grid, rtol=1e-4, atol=1e-5)
        assert torch.equal(together.target, alone.target)  # type: ignore[arg-type]
    assert not torch.allclose(found[0].logits, found[2].logits, atol=1e-3)


def test_together_with_the_options_that_methods_were_bound_with() -> None:
    model = FAMILIES["vit"]()
    images = images_for(model).float()
    bound = [create_explainer("cam", model, refine="affinity"), create_explainer("grad-cam", model, aug_smooth=True)]
    bound += [create_explainer("grad-cam", model, normalize="max"), create_explainer("cam", model)]
    for one, together in zip(bound, explain_together(bound, images), strict=True):
        alone = one(images)
        torch.testing.assert_close(together.grid, alone.grid, rtol=1e-4, atol=1e-6)
        for field in ("refine", "normalize", "positive"):
            assert getattr(alone, field) == getattr(together, field), (one, field)


def test_together_for_the_predicted_class_and_settings_of_their_own() -> None:
    model = FAMILIES["vit"]()
    images = images_for(model).float()
    bound = [create_explainer("rollout", model, start_block=1), create_explainer("grad-cam", model)]
    bound += [create_explainer("grad-cam", model, target_layers="blocks.1"), create_explainer("rollout", model)]
    for one, together in zip(bound, explain_together(bound, images), strict=True):
        alone = one(images)
        torch.testing.assert_close(together.grid, alone.grid, rtol=1e-4, atol=1e-6)
        assert together.target is not None and torch.equal(together.target, alone.logits.argmax(1))
    with pytest.raises(InputError, match="one model were needed, got 2"):
        explain_together([bound[0], create_explainer("rollout", FAMILIES["vit"]())], images)
    with pytest.raises(InputError, match="one refinement for each of 4"):
        explain_together(bound, images, refine=["affinity"])
    with pytest.raises(InputError, match="classes were needed as targets of several methods"):
        explain_together(bound[1:3], images, lambda logits: logits[0])
