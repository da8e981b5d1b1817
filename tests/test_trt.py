"""TRTLocalizer and TPSM: equal to an independent float64 reference, and sound on every family."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from families import FAMILIES, family, image_size, no_onednn, torchvision_vit
from reference import Reference, trt
from torch import Tensor, nn

import trt_cam
from trt_cam.backbone import describe
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.models.heads import TPSM, CamBranch
from trt_cam.models.trt import TRTLocalizer, TRTOutput
from trt_cam.observe import run_masked

OURS = {
    "tpsm.block.": "score_layer.",
    "tpsm.norm.": "score_norm.",
    "tpsm.head.": "score_head.",
    "cam.block.": "camfuse_block.cam_tr.",
    "cam.norm.": "camfuse_block.cam_norm.",
    "cam.head.": "camfuse_block.cam_head.",
    "backbone.": "",
}


def make(name: str | nn.Module = "vit", seed: int = 3, **settings: object) -> TRTLocalizer:
    """A localizer whose branches differ from the backbone's last block, so that a mix-up shows."""
    net = TRTLocalizer(FAMILIES[name]() if isinstance(name, str) else name, **settings).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in (net.tpsm, net.cam):
            for parameter in part.parameters() if part is not None else ():
                parameter.mul_(0.7).add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return net


def images_for(net: TRTLocalizer, batch: int = 2, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *image_size(net.backbone), generator=generator)


def reference(net: TRTLocalizer, image: Tensor, **settings: object) -> Reference:
    weights = {}
    for name, tensor in net.state_dict().items():
        prefix = next(prefix for prefix in OURS if name.startswith(prefix))
        weights[OURS[prefix] + name.removeprefix(prefix)] = tensor.double().numpy()
    heads = net.backbone.blocks[0].attn.num_heads
    return trt(weights, image.double().numpy(), heads, net.tpsm.u, eps=net.tpsm.eps, **settings)


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
@pytest.mark.parametrize("u", [0.3, 0.65, 0.95, 1.0])
@pytest.mark.parametrize(("eps", "divide"), [(0.0, True), (1e-6, True), (1e-6, False), (0.0, False)])
def test_equals_the_reference_in_float64(size: tuple[int, int], u: float, eps: float, divide: bool) -> None:
    net = make(family("vit_tiny_patch16_224", img_size=size)(), u=u, eps=eps, divide=divide).double()
    images = images_for(net).double()
    every = torch.arange(net.num_classes).expand(len(images), -1)
    with torch.no_grad():
        out = net(images, every)
    for index, image in enumerate(images):
        expected = reference(net, image, divide=divide)
        assert (out.keep[index].numpy() == expected.keep).all()
        assert 0 < expected.keep.sum() <= expected.keep.size
        for name in ("m", "importance", "logits", "m_t", "m_c", "cam_logits", "fused"):
            np.testing.assert_allclose(
                getattr(out, name)[index].numpy(), getattr(expected, name), rtol=0, atol=1e-10, err_msg=name
            )


def test_tokens_of_the_cam_branch_as_the_paper_says() -> None:
    """``cam_from="penultimate-output"`` reads Z_{L-1}: the reference with one block less in front of the CAM branch."""
    code, paper = make(cam_from="penultimate-input"), make(cam_from="penultimate-output")
    images = images_for(code)
    with torch.no_grad():
        a, b = code(images), paper(images)
        assert torch.equal(a.m_t, b.m_t) and not torch.allclose(a.m_c, b.m_c)
        z_l1 = code.backbone.forward_intermediates(images, indices=[1], return_prefix_tokens=True, norm=False)[1][0]
        tokens = torch.cat([z_l1[1], z_l1[0].flatten(2).transpose(1, 2)], dim=1)
        features = paper.cam(tokens, (4, 4))
        assert torch.allclose(b.cam_logits, paper.cam.logits(features), atol=1e-5)


# ---------------------------------------------------------------------------------------------- on every family


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_and_localizes(name: str) -> None:
    net = make(name)
    images = images_for(net)
    with torch.no_grad():
        out = net(images)
    grid = describe(net.backbone).grid_size(*images.shape[-2:])
    assert out.logits.shape == out.cam_logits.shape == (2, 7)
    assert out.m_t.shape == out.m_c.shape == out.fused.shape == (2, *grid)
    assert torch.allclose(out.m.sum(1), torch.ones(2)) and torch.allclose(out.importance.sum(1), torch.ones(2))
    assert torch.allclose(out.m_t.sum((1, 2)), torch.ones(2), atol=1e-5)
    assert (out.importance[~out.keep] == 0).all() and out.keep.any(1).all()
    again = net.train()(images)
    (again.tpsm_logits.logsumexp(1).sum() + again.cam_logits.logsumexp(1).sum()).backward()
    unread = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    assert not {name for name in unread if name.startswith(("tpsm.", "cam."))} - {"tpsm.block.rel_pos"}
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert net.tpsm.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_equals_its_singles(name: str) -> None:
    net = make(name)
    images = images_for(net, batch=3)
    with torch.no_grad():
        batch = net(images)
        singles = [net(image[None]) for image in images]
    for field in ("logits", "m", "keep", "importance", "m_t", "cam_logits", "fused"):
        together = torch.cat([getattr(single, field) for single in singles])
        assert torch.allclose(getattr(batch, field).float(), together.float(), atol=1e-5), field


@pytest.mark.parametrize("name", FAMILIES)
def test_keep_grows_with_u(name: str) -> None:
    net = make(name)
    images = images_for(net)
    before = None
    for u in (0.2, 0.6, 0.9, 1.0):
        net.tpsm.u = u
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            keep = net(images).keep
        assert before is None or (keep | ~before).all()
        before = keep
    assert before.all()


@pytest.mark.parametrize("name", FAMILIES)
def test_dropped_tokens_have_no_influence(name: str) -> None:
    """Bit for bit: whatever a dropped token of Z_{L-1} says, lambda and the fusion token stay as they are."""
    net = make(name, eps=0.0)
    tokens, m, block_args = scoring_input(net, images_for(net))
    prefix = tokens.shape[1] - m.shape[1]
    with torch.no_grad():
        fusion, importance, keep = net.tpsm(tokens, m, **block_args)
        assert (~keep).any(1).all() and keep.any(1).all()
        changed = tokens.clone()
        changed[:, prefix:][~keep] = 50 * torch.randn(int((~keep).sum()), tokens.shape[2])
        changed[:, :prefix] = 3.0  # prefix tokens have none either
        again = net.tpsm(changed, m, **block_args)
    assert torch.equal(again[1], importance)
    assert torch.equal(again[0], fusion)


POSITIONED = ["eva02", "dinov3", "rope-mixed", "beit", "beit-shared"]
"""Families with positions inside attention, whose blocks cannot run without their prefix tokens."""


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in POSITIONED])
def test_a_full_mask_is_the_unmasked_block_on_patches(name: str) -> None:
    """u >= 1: the scoring block is its ordinary self, the prefix tokens left unread."""
    net = make(name, u=1.0)
    parts = describe(net.backbone)
    tokens, m, block_args = scoring_input(net, images_for(net))
    with torch.no_grad():
        fusion, importance, keep = net.tpsm(tokens, m, **block_args)
        scores = net.tpsm.head(net.tpsm.norm(net.tpsm.block(tokens[:, parts.prefix :], **block_args)))[..., 0]
    assert keep.all()
    assert torch.allclose(importance, scores.softmax(1), atol=1e-6)
    assert torch.allclose(fusion, torch.einsum("bn,bnd->bd", importance, tokens[:, parts.prefix :]), atol=1e-5)


@pytest.mark.parametrize("name", POSITIONED)
def test_full_mask_of_the_sequence(name: str) -> None:
    """A full mask over all tokens, prefix included, is the ordinary block."""
    net = make(name)
    tokens, _, block_args = scoring_input(net, images_for(net))
    everything = torch.ones(tokens.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        plain = net.tpsm.block(tokens, **block_args)
        masked = run_masked(net.tpsm.block, net.tpsm.block.attn, everything, tokens, prefix=0, **block_args)
    assert torch.allclose(masked, plain, atol=2e-5)


def scoring_input(net: TRTLocalizer, images: Tensor) -> tuple[Tensor, Tensor, dict[str, object]]:
    """What TPSM is given in a forward."""
    seen: list[tuple[Tensor, Tensor, dict[str, object]]] = []
    handle = net.tpsm.register_forward_pre_hook(lambda _, a, k: seen.append((a[0], a[1], k)), with_kwargs=True)
    with torch.no_grad():
        net(images)
    handle.remove()
    return seen[0]


def test_final_block_reads_prefix_and_fusion_token_without_positions() -> None:
    """On a rotary model the last block gets P + 1 tokens and no rotary embedding; its own forward is not in the way."""
    net = make("dinov3")
    last = net.backbone.blocks[-1]
    seen: list[object] = []
    # on a part of the block, so that it fires after the block's input has been replaced
    last.norm1.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[1]))
    last.attn.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs.get("rope")), with_kwargs=True)
    with torch.no_grad():
        net(images_for(net))
    assert seen == [5 + 1, None]


# -------------------------------------------------------------------------------------------------- inputs, forms


def test_several_classes_of_one_image() -> None:
    net = make()
    images = images_for(net)
    with torch.no_grad():
        many = net(images, torch.tensor([[0, 3], [6, 6]]))
        one = net(images, torch.tensor([3, 6]))
    assert many.m_c.shape == many.fused.shape == (2, 2, 4, 4)
    assert torch.allclose(many.fused[:, 1], one.fused)
    assert one.fused.shape == (2, 4, 4)


def test_relu_drops_negative_evidence() -> None:
    net = make(relu=True)
    with torch.no_grad():
        out = net(images_for(net))
    assert (out.fused >= 0).all() and (out.m_c < 0).any()


def test_cam_logits_are_the_mean_of_all_maps() -> None:
    net = make()
    images = images_for(net)
    with torch.no_grad():
        out = net(images, torch.arange(7).expand(2, 7))
    assert torch.allclose(out.m_c.mean((2, 3)), out.cam_logits, atol=1e-5)


def test_other_sizes_where_the_backbone_takes_them() -> None:
    net = make(family("vit_tiny_patch16_224", dynamic_img_size=True)())
    with torch.no_grad():
        out = net(torch.randn(1, 3, 96, 48))
    assert out.m_t.shape == (1, 6, 3)


def test_new_classes_draw_a_new_head() -> None:
    net = TRTLocalizer(FAMILIES["deit-distilled"](), num_classes=11)
    assert net.num_classes == 11 and net(torch.randn(1, 3, 64, 64)).logits.shape == (1, 11)
    assert net.cam.head.out_channels == 11


def test_without_cam_branch() -> None:
    net = make(cam=None)
    with torch.no_grad():
        out = net(images_for(net))
    assert out.cam_logits is None and out.m_c is None and torch.equal(out.fused, out.m_t)


def test_empty_selection_gives_m_and_says_so() -> None:
    net = make(u=0.0)
    with pytest.warns(UserWarning, match="no token selected"), torch.no_grad():
        out = net(images_for(net))
    assert torch.equal(out.m_t.flatten(1), out.m) and (out.importance == 0).all() and out.logits.isfinite().all()


def test_class_by_the_first_rank_when_none_is_asked() -> None:
    net = make()
    images = images_for(net)
    with torch.no_grad():
        out = net(images)
        assert torch.allclose(out.fused, net(images, out.logits.argmax(1)).fused)


@pytest.mark.parametrize(
    "target", [torch.tensor([7, 0]), torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor(0), torch.zeros(2, 2, 2)]
)
def test_targets_out_of_range(target: Tensor) -> None:
    net = make()
    with pytest.raises(InputError) as caught:
        net(images_for(net), target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["resnet", "torchvision", "one block"])
def test_backbones_that_cannot_carry_it(model: str) -> None:
    import timm

    build = {
        "resnet": lambda: timm.create_model("resnet18", num_classes=3),
        "torchvision": torchvision_vit,
        "one block": family("vit_tiny_patch16_224", depth=1),
    }[model]
    with pytest.raises(UnsupportedModelError, match="TRT needs"):
        TRTLocalizer(build())


def test_arguments_are_checked() -> None:
    with pytest.raises(InputError, match="num_classes"):
        TRTLocalizer(FAMILIES["vit"](num_classes=0))
    for wrong in (0, True, 2.0):
        with pytest.raises(InputError, match=f"num_classes must be an integer of at least 1, got {wrong}"):
            TRTLocalizer(FAMILIES["vit"](), num_classes=wrong)
    with pytest.raises(InputError, match="cam_from"):
        TRTLocalizer(FAMILIES["vit"](), cam_from="middle")
    with pytest.raises(InputError, match="did you mean"):
        TRTLocalizer("vit_tinny_patch16_224")
    with pytest.raises(InputError, match="finite"):
        make()(torch.full((1, 3, 64, 64), torch.nan))


def test_tpsm_by_itself() -> None:
    block, norm, head = FAMILIES["vit"]().blocks[-1], nn.LayerNorm(48), nn.Linear(48, 1)
    tpsm = TPSM(block, norm, head, u=0.5)
    fusion, importance, keep = tpsm(torch.randn(2, 17, 48), torch.rand(2, 16))
    assert fusion.shape == (2, 48) and importance.shape == keep.shape == (2, 16)
    with pytest.raises(InputError, match="tokens"):
        tpsm(torch.randn(2, 17, 48), torch.rand(2, 18))
    assert "u=0.5" in repr(tpsm)


# ------------------------------------------------------------------------------------------------------ compiling


@pytest.mark.parametrize("form", ["torch.compile", "module.compile", "blocks"])
def test_compiled_equals_eager(form: str) -> None:
    net = make()
    images = images_for(net)
    with torch.no_grad():
        eager = net(images)
        if form == "torch.compile":
            compiled = torch.compile(net, backend="eager")
        elif form == "module.compile":
            net.compile(backend="eager")
            compiled = net
        else:
            for index in range(3):
                net.backbone.blocks[index] = torch.compile(net.backbone.blocks[index], backend="eager")
            net.tpsm.block.compile(backend="eager")
            compiled = net
        out: TRTOutput = compiled(images)
    assert isinstance(out, TRTOutput)
    assert all(torch.equal(a, b) for a, b in zip(out, eager, strict=True))


def test_importing_the_package_loads_no_compiler() -> None:
    code = "import sys, trt_cam; assert 'torch' not in sys.modules, 'torch is loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert trt_cam.TRTLocalizer is TRTLocalizer


def test_autocast_and_bfloat16() -> None:
    net = make()
    images = images_for(net)
    with torch.no_grad(), no_onednn():
        plain = net(images)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(images)
        half = net.bfloat16()(images.bfloat16())
    for out in (mixed, half):
        assert (out.m - plain.m).abs().max() < 2e-2
        assert out.m_t.isfinite().all() and out.m_t.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("name", FAMILIES)
def test_same_on_the_gpu(name: str) -> None:
    net = make(name)
    images = images_for(net)
    with torch.no_grad():
        cpu, gpu = net(images), net.cuda()(images.cuda())
    for field in ("m", "importance", "logits", "m_t", "cam_logits", "fused"):
        assert torch.allclose(getattr(cpu, field), getattr(gpu, field).cpu(), atol=2e-3), field


def test_cam_branch_is_a_part_of_its_own() -> None:
    backbone = describe(FAMILIES["vit"]())
    cam = CamBranch.from_backbone(backbone, 5)
    features = cam(torch.randn(2, 17, 48), (4, 4))
    assert features.shape == (2, 48, 4, 4) and cam.logits(features).shape == (2, 5)
    assert cam.maps(features, torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, 4, 4)
