"""Perturbation methods against pytorch-grad-cam, and against plain loops over the papers' definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import FAMILIES, small_cnn
from test_cam_family import MODELS, SCALED, assert_same, cnn, images_of, tokens_to_map, vit
from test_explainers import images_for
from torch import Tensor, nn

from trt_cam.backbone import describe
from trt_cam.errors import InputError
from trt_cam.explainers import create_explainer
from trt_cam.observe import observe
from trt_cam.observe import replay as replaying


def whole_replay(model: nn.Module, layer: str, raw: Tensor, image: Tensor) -> Tensor:
    handle = model.get_submodule(layer).register_forward_hook(lambda module, args, out: raw)
    with torch.no_grad():
        logits = model(image.expand(len(raw), -1, -1, -1))
    handle.remove()
    return logits


@pytest.mark.parametrize("where", ["blocks.0", "blocks.1.norm1", "blocks.2.norm1", "blocks.2", "blocks.1.mlp"])
@pytest.mark.parametrize("name", FAMILIES)
def test_replay_is_the_whole_model_with_the_output_replaced(name: str, where: str) -> None:
    model = FAMILIES[name]().double()
    images = images_for(model)
    seen = observe(describe(model), images, frozenset({"activation", "replay"}), target_layers=where)
    raw = seen.raw[1] * torch.rand(3, *seen.raw.shape[1:], generator=torch.Generator().manual_seed(0)).double()
    got = seen.replay(raw, 1)
    torch.testing.assert_close(got, whole_replay(model, where, raw, images[1:2]), rtol=1e-10, atol=1e-10)
    assert not model.blocks[0]._forward_hooks
    assert not model.blocks[-1]._forward_pre_hooks


def test_replay_of_a_cnn_and_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = cnn(), images_of()
    for layer in (None, "layer3"):
        seen = observe(describe(model), images, frozenset({"activation", "replay"}), target_layers=layer)
        raw = seen.raw[0] * torch.rand(5, *seen.raw.shape[1:], generator=torch.Generator().manual_seed(0)).double()
        whole = seen.replay(raw, 0)
        torch.testing.assert_close(whole, whole_replay(model, layer or "layer4", raw, images[:1]))
        monkeypatch.setattr(replaying, "BUDGET", 1)  # one at a time
        torch.testing.assert_close(seen.replay(raw, 0), whole)
        monkeypatch.undo()


@pytest.mark.parametrize("kind", MODELS)
def test_score_cam_is_pytorch_grad_cams(kind: str) -> None:
    package = pytest.importorskip("pytorch_grad_cam", reason="needs the package grad-cam")
    make, layer = MODELS[kind]
    model, images = make(), images_of(1)
    cam = package.ScoreCAM(model=model, target_layers=[model.get_submodule(layer)], reshape_transform=tokens_to_map)
    found = []
    inner = cam.get_cam_image
    cam.get_cam_image = lambda *args: found.append(inner(*args)) or found[-1]
    targets = [lambda logits: 10 * logits[4]]
    cam(input_tensor=images, targets=targets)
    assert_same(create_explainer("score-cam", model)(images, targets).grid, found[0])


def test_ablation_cam_is_the_papers_zero_ablation() -> None:
    for make, layer in MODELS.values():
        model, images = make(), images_of(1)
        found = []
        for image, target in zip(images, [4], strict=True):
            kept: list[Tensor] = []
            handle = model.get_submodule(layer).register_forward_hook(lambda m, a, out, kept=kept: kept.append(out))
            with torch.no_grad():
                y = model(image[None])[0, target]
            handle.remove()
            raw, total = kept[0], 0.0
            axis = 2 if raw.ndim == 3 else 1
            for d in range(raw.shape[axis]):
                changed = raw.clone()
                changed.select(axis, d).zero_()
                weight = (y - whole_replay(model, layer, changed, image[None])[0, target]) / y
                total = total + weight * tokens_to_map(raw)[0, d]
            found.append(total)
        assert_same(create_explainer("ablation-cam", model)(images, 4).grid, torch.stack(found))


@pytest.mark.parametrize("inference", [False, True])
def test_ablation_cam_before_a_relu_in_place(inference: bool) -> None:
    """What is tried is what the layer gave, also once it went through a ReLU that writes into it."""
    model, images = small_cnn().double(), images_of()
    with torch.no_grad():
        raw, y = model.conv(images), model(images)[:, 4]
        expected = torch.zeros(2, 8, 8).double()
        for d in range(5):
            ablated = raw.clone()
            ablated[:, d] = 0
            without = model.head(ablated.relu().mean((2, 3)))[:, 4]
            expected += ((y - without) / y)[:, None, None] * raw[:, d]
    explain = create_explainer("ablation-cam", model, target_layers="conv")
    with torch.inference_mode(inference):
        found = explain(images.clone(), 4).grid
    assert_same(found, expected)


def test_ablation_cam_is_pytorch_grad_cams_on_a_relu_cnn() -> None:
    package = pytest.importorskip("pytorch_grad_cam", reason="needs the package grad-cam")
    model, images = cnn(), images_of(1)
    cam = package.AblationCAM(model=model, target_layers=[model.layer4])
    found = []
    inner = cam.get_cam_image
    cam.get_cam_image = lambda *args: found.append(inner(*args)) or found[-1]
    cam(input_tensor=images, targets=SCALED[:1])
    theirs = np.float64(found[0])
    ours = create_explainer("ablation-cam", model)(images, SCALED[:1]).grid.numpy()
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()


def masked_scores(model: nn.Module, image: Tensor, masks: Tensor, target: int) -> Tensor:
    with torch.no_grad():
        return torch.stack([model((image * mask)[None])[0, target] for mask in masks])


def test_is_cam_and_ss_cam_are_their_papers_means() -> None:
    model, images = vit(), images_of(1)
    a = create_explainer("eigen-cam", model).look(images, frozenset({"activation"}), None).activation()[0]

    def mask(maps: Tensor) -> Tensor:
        up = nn.functional.interpolate(maps[None], size=(64, 64), mode="bilinear", align_corners=True)[0]
        low, high = up.amin((1, 2), keepdim=True), up.amax((1, 2), keepdim=True)
        return (up - low) / (high - low + 1e-8)

    strengths = [masked_scores(model, images[0], mask(a) * i / 3, 4) for i in (1, 2, 3)]
    expected = torch.einsum("d,dhw->hw", torch.stack(strengths).mean(0).softmax(0), a)
    assert_same(create_explainer("is-cam", model, samples=3)(images, 4).grid[0], expected)
    generator, scores = torch.Generator().manual_seed(2), []
    for _ in range(2):
        noise = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        span = a.amax((1, 2), keepdim=True) - a.amin((1, 2), keepdim=True)
        scores.append(masked_scores(model, images[0], mask(a + 0.2 * span * noise), 4))
    expected = torch.einsum("d,dhw->hw", torch.stack(scores).mean(0).softmax(0), a)
    assert_same(create_explainer("ss-cam", model, samples=2, sigma=0.2, seed=2)(images, 4).grid[0], expected)


@pytest.mark.parametrize("method", ["ss-cam", "rise"])
def test_seeded_noise_does_not_depend_on_the_budget(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = vit(), images_of(1)
    settings = {"samples": 2} if method == "ss-cam" else {"masks": 9}
    explain = create_explainer(method, model, **settings)
    before = torch.get_rng_state()
    whole = explain(images, 1).grid
    monkeypatch.setattr(replaying, "BUDGET", 3 * 48 * 64 * 64 * 8)
    torch.testing.assert_close(explain(images, 1).grid, whole)
    assert torch.equal(before, torch.get_rng_state())


def test_occlusion_is_the_mean_drop_of_the_windows_over_a_pixel() -> None:
    model, images = cnn(), images_of(1)
    side, stride = 20, 16
    places = [0, 16, 32, 44]
    total, covered = torch.zeros(64, 64).double(), torch.zeros(64, 64)
    with torch.no_grad():
        y = model(images)[0, 3]
        for top in places:
            for left in places:
                hidden = images.clone()
                hidden[:, :, top : top + side, left : left + side] = 0.5
                total[top : top + side, left : left + side] += y - model(hidden)[0, 3]
                covered[top : top + side, left : left + side] += 1
    expected = nn.functional.avg_pool2d((total / covered)[None], 32)
    explain = create_explainer("occlusion", model, window=side, stride=stride, baseline=0.5)
    assert_same(explain(images, 3).grid, expected)


def test_rise_is_the_papers_sum_and_finds_what_counts() -> None:
    class Corner(nn.Module):
        """Scores the brightness of the upper left quarter."""

        num_classes, num_features = 2, 3

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(4.0))

        def forward_features(self, x: Tensor) -> Tensor:
            return nn.functional.avg_pool2d(x, 8)

        def forward_head(self, x: Tensor) -> Tensor:
            bright = self.scale * (x[:, :, :4, :4].mean((1, 2, 3)) - 0.5)
            return torch.stack([bright, -bright], dim=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.forward_head(self.forward_features(x))

    model, images = Corner(), torch.ones(1, 3, 64, 64)
    explain = create_explainer("rise", model, masks=400, cells=4)
    grid = explain(images, 0).grid[0]
    assert grid[:4, :4].mean() > 1.1 * grid[4:, 4:].mean()
    masks = explain.explainer.upsampled(*explain.explainer.drawn((64, 64)), (64, 64))
    assert abs(float(masks.mean()) - 0.5) < 0.02
    scores = torch.stack([model(images * mask).softmax(1)[0, 0] for mask in masks])
    expected = nn.functional.avg_pool2d((scores[:, None, None] * masks).sum(0)[None] / 200, 8)[0]
    torch.testing.assert_close(grid, expected.detach(), rtol=1e-4, atol=1e-5)
    occluded = create_explainer("occlusion", model)(images, 0).grid[0]
    assert occluded[:4, :4].min() > occluded[4:, 4:].max()


def test_channels_is_an_approximation_by_the_strongest() -> None:
    model, images = vit(), images_of(1)
    explain = create_explainer("ablation-cam", model)
    seen = explain.look(images, explain.explainer.requires, None)
    a = seen.activation()[0]
    every = explain.explainer.weights(seen, torch.tensor([4]), 0, torch.arange(48), a)
    strongest = a.abs().mean((1, 2)).sort(descending=True).indices[:10]
    expected = sum(every[d] * a[d] for d in strongest)
    torch.testing.assert_close(create_explainer("ablation-cam", model, channels=10)(images, 4).grid[0], expected)
    assert torch.equal(create_explainer("ablation-cam", model, channels=999)(images, 4).grid, explain(images, 4).grid)


def test_untried_channels_count_as_the_mean_of_the_tried_in_a_softmax() -> None:
    model, images = vit(), images_of(1)
    explain = create_explainer("score-cam", model)
    seen = explain.look(images, explain.explainer.requires, None)
    a = seen.activation()[0]
    scores = explain.explainer.scores(seen, torch.tensor([4]), 0, a)
    strongest = set(a.abs().mean((1, 2)).sort(descending=True).indices[:10].tolist())
    mean = sum(float(scores[d]) for d in strongest) / 10
    total = torch.tensor([float(scores[d]) if d in strongest else mean for d in range(48)], dtype=a.dtype)
    expected = sum(weight * a[d] for d, weight in enumerate(total.exp() / total.exp().sum()))
    torch.testing.assert_close(create_explainer("score-cam", model, channels=10)(images, 4).grid[0], expected)


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("score-cam", {"channels": 0}, "channels, if not None, must be an integer of at least 1, got 0"),
        ("ss-cam", {"samples": 0}, "samples must be an integer of at least 1"),
        ("is-cam", {"samples": 1.5}, "samples must be an integer"),
        ("ss-cam", {"sigma": 0}, "sigma must be above 0, got 0"),
        ("smooth-grad-cam++", {"sigma": "wide"}, "sigma must be above 0, got 'wide'"),
        ("score-cam", {"reshape_transform": 3}, "reshape_transform must be callable or None, got 3"),
        ("occlusion", {"window": -3}, "window, if not None, must be an integer"),
        ("rise", {"p": 1.0}, r"p must be in \(0, 1\), got 1.0"),
        ("rise", {"masks": 0}, "masks must be an integer"),
        ("occlusion", {"baseline": float("nan")}, "baseline must be a finite number"),
        ("occlusion", {"baseline": "mean"}, "baseline must be a finite number"),
    ],
)
def test_bad_settings(method: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        create_explainer(method, vit(), **settings)
