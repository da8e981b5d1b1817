"""The CAM family against pytorch-grad-cam and torchcam, and against loops over the papers' sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from families import FAMILIES, image_size, small_cnn
from torch import Tensor, nn

from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers import create_explainer

PEERS = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "xgrad-cam": "XGradCAM",
    "layer-cam": "LayerCAM",
    "hires-cam": "HiResCAM",
    "eigen-cam": "EigenCAM",
    "eigen-grad-cam": "EigenGradCAM",
}
TORCHCAM = {"grad-cam": "GradCAM", "xgrad-cam": "XGradCAM", "layer-cam": "LayerCAM"}  # its Grad-CAM++ divides nothing
TARGET = torch.tensor([1, 4])
SCALED = [lambda logits: 1e4 * logits[1], lambda logits: 1e4 * logits[4]]
"""The same as callables, large enough for the 1e-7 that pytorch-grad-cam adds to a map's maximum not to count."""


def vit() -> nn.Module:
    return FAMILIES["vit"]().double()


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=7).double().eval()


MODELS = {"vit": (vit, "blocks.2.norm1"), "cnn": (cnn, "layer4")}


def images_of(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(3)).double()


def tokens_to_map(x: Tensor) -> Tensor:
    return x[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) if x.ndim == 3 else x


def peer(name: str, model: nn.Module, layers: list[str], **options: Any) -> Any:
    package = pytest.importorskip("pytorch_grad_cam", reason="needs the package grad-cam")
    cam = getattr(package, PEERS[name])(
        model=model, target_layers=[model.get_submodule(one) for one in layers], reshape_transform=tokens_to_map
    )
    return cam, lambda images: cam(input_tensor=images, targets=SCALED, **options)


def raw_peer(name: str, model: nn.Module, layer: str, images: Tensor, eigen_smooth: bool) -> np.ndarray:
    """The peer's map before its ReLU and its scaling."""
    cam, run = peer(name, model, [layer], eigen_smooth=eigen_smooth)
    found = []
    inner = cam.get_cam_image
    cam.get_cam_image = lambda *args: found.append(inner(*args)) or found[-1]
    run(images)
    return np.asarray(found[0])


def assert_same(ours: Any, theirs: Any) -> None:
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 0
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()


SMOOTHED = [(name, smooth) for name in PEERS for smooth in (False, True) if not (smooth and name.startswith("eigen"))]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("name", "eigen_smooth"), SMOOTHED)
def test_equal_to_pytorch_grad_cam(name: str, kind: str, eigen_smooth: bool) -> None:
    make, layer = MODELS[kind]
    model, images = make(), images_of()
    settings = {} if name.startswith("eigen") else {"eigen_smooth": eigen_smooth}
    theirs = raw_peer(name, model, layer, images, eigen_smooth)
    ours = create_explainer(name, model, **settings)(images, None if name == "eigen-cam" else SCALED)
    assert ours.layer in (layer, "forward_features")
    grid = ours.grid.numpy()
    if eigen_smooth or name.startswith("eigen"):  # their sign is that of a singular vector
        sign = np.sign((grid * theirs).sum(axis=(1, 2), keepdims=True))
        theirs = sign * theirs
    assert_same(grid, theirs)


@pytest.mark.parametrize("name", TORCHCAM)
def test_equal_to_torchcam(name: str) -> None:
    methods = pytest.importorskip("torchcam.methods", reason="needs the package torchcam")
    model, images = cnn(), images_of(1)
    with getattr(methods, TORCHCAM[name])(model, "layer4") as extractor:
        scores = model(images.requires_grad_())
        (theirs,) = extractor(3, scores, normalized=False)
    ours = create_explainer(name, model)(images.detach(), 3)
    assert_same(ours.evidence, theirs.detach())


def loops_smooth_plus_plus(model: nn.Module, layer: str, images: Tensor, samples: int, sigma: float) -> Tensor:
    """Eq. 2 and 3 of arXiv:1908.01224, pixel by pixel of the noise and channel by channel."""
    generator = torch.Generator().manual_seed(5)
    noises = [torch.randn(3, 64, 64, generator=generator, dtype=torch.float64) for _ in range(samples)]
    maps = []
    for image, target in zip(images, TARGET, strict=True):
        gradients: list[Tensor] = []
        kept: list[Tensor] = []
        handle = model.get_submodule(layer).register_forward_hook(lambda m, a, out, kept=kept: kept.append(out))
        for noise in [*noises, None]:
            noisy = image if noise is None else image + sigma * (image.max() - image.min()) * noise
            score = model(noisy[None])[0, target]
            gradients.append(torch.autograd.grad(score, kept[-1])[0][0, 1:])
        handle.remove()
        a, g = kept[-1][0, 1:].detach(), torch.stack(gradients[:-1])  # (N, D), (samples, N, D)
        total = torch.zeros(16, dtype=torch.float64)
        for d in range(a.shape[1]):
            d1, d2, d3 = (sum(g[s, :, d] ** power for s in range(samples)) / samples for power in (1, 2, 3))
            alpha = d2 / (2 * d2 + a[:, d].sum() * d3 + 1e-6)
            total += (alpha * d1.clamp(min=0)).sum() * a[:, d]
        maps.append(total.view(4, 4))
    return torch.stack(maps)


def test_smooth_grad_cam_plus_plus_is_the_papers_sum() -> None:
    model, images = vit(), images_of()
    expected = loops_smooth_plus_plus(model, "blocks.2.norm1", images, 3, 0.1)
    before = torch.get_rng_state()
    explain = create_explainer("smooth-grad-cam++", model, samples=3, sigma=0.1, seed=5)
    assert_same(explain(images, TARGET).grid, expected)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", MODELS)
def test_aug_smooth_is_pytorch_grad_cams(kind: str) -> None:
    make, layer = MODELS[kind]
    model, images = make(), images_of()
    _, run = peer("grad-cam", model, [layer], aug_smooth=True)
    ours = create_explainer("grad-cam", model)(images, SCALED, aug_smooth=True)
    np.testing.assert_allclose(np.asarray(ours), run(images), atol=2e-5)  # theirs is float32 and resized by OpenCV


@pytest.mark.parametrize("name", ["grad-cam", "layer-cam", "eigen-grad-cam"])
def test_several_layers_are_averaged_as_in_pytorch_grad_cam(name: str) -> None:
    model, images = vit(), images_of()
    layers = ["blocks.0", "blocks.1.norm2", "blocks.2.norm1"]
    ours = create_explainer(name, model, target_layers=layers)(images, SCALED)
    assert ours.layer == ", ".join(layers)
    if name != "eigen-grad-cam":
        _, run = peer(name, model, layers)
        np.testing.assert_allclose(np.asarray(ours), run(images), atol=2e-5)
    alone = [create_explainer(name, model, target_layers=[layer])(images, SCALED) for layer in layers]
    np.testing.assert_allclose(ours.grid, np.mean([one.resize((4, 4)).numpy() for one in alone], axis=0), atol=1e-9)


def test_layers_of_several_sizes_come_to_the_finest_grid() -> None:
    model = cnn()
    ours = create_explainer("grad-cam", model, target_layers=["layer3", model.layer4])(images_of(), TARGET)
    assert ours.grid_size == (4, 4)
    assert ours.grid.isfinite().all()


def test_relu_in_place_after_the_layer() -> None:
    """The activation is what the layer gave, not what the ReLU made of it, and a leaf may not be changed in place."""
    model, images = small_cnn().double(), images_of()
    a = model.conv(images).detach().requires_grad_()
    model.head(a.relu().mean((2, 3))).gather(1, TARGET[:, None]).sum().backward()
    assert a.grad is not None
    ours = create_explainer("hires-cam", model, target_layers="conv")(images, TARGET)
    assert_same(ours.grid, (a.grad * a).sum(1).detach())
    assert_same(
        create_explainer("eigen-cam", model, target_layers="conv")(images).grid.abs() > 0, a[:, 0].detach() != 99
    )


def test_layers_as_modules_reshape_transform_and_targets_as_they_are_called_elsewhere() -> None:
    model, images = vit(), images_of()
    plain = create_explainer("grad-cam", model)(images, TARGET)
    wrapped = nn.DataParallel(model)
    given = create_explainer(
        "grad-cam", wrapped, target_layers=[model.blocks[-1].norm1], reshape_transform=tokens_to_map
    )
    assert torch.equal(given(images, targets=TARGET).grid, plain.grid)
    each = [lambda logits: logits[1], lambda logits: logits[4]]
    assert torch.equal(given(images, targets=each).grid, plain.grid)


def test_several_targets_of_an_image_share_the_forward() -> None:
    model, images = vit(), images_of()
    forwards = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    explain = create_explainer("grad-cam", model)
    many = explain(images, [[1, 2, 0], [4, 4, 6]])
    assert len(forwards) == 1
    assert many.grid.shape == (2, 3, 4, 4)
    assert torch.equal(many.grid[:, 0], explain(images, TARGET).grid)
    assert torch.equal(many.grid[:, 1], explain(images, [2, 4]).grid)
    assert np.asarray(many).shape == (2, 3, 64, 64)
    assert len(many.to_boxes()) == 6


def test_bad_layers_are_refused_in_one_line() -> None:
    model, images = vit(), images_of()
    with pytest.raises(InputError, match=r"did you mean .*blocks\.2\.norm1"):
        create_explainer("grad-cam", model, target_layers=["blocks.2.norm"])
    with pytest.raises(InputError, match="by name or as modules, got 3; leave target_layers out"):
        create_explainer("grad-cam", model, target_layers=3)
    with pytest.raises(InputError, match="not part of it"):
        create_explainer("grad-cam", model, target_layers=[nn.Linear(2, 2)])
    with pytest.raises(UnsupportedModelError, match=r"exactly zero.*target_layers=\['blocks\.2\.norm1'\]"):
        create_explainer("grad-cam", model, target_layers=["blocks.2"])(images)
    with pytest.raises(UnsupportedModelError, match=r"output over patches"):
        create_explainer("grad-cam", model, target_layers=["head"])(images)
    with pytest.raises(InputError, match=r"reshape_transform must give"):
        create_explainer("grad-cam", model, reshape_transform=lambda x: x)(images)
    with pytest.raises(InputError, match="3 targets"):
        create_explainer("grad-cam", model)(images, [lambda logits: logits[0]] * 3)
    with pytest.raises(InputError, match="precision"):
        create_explainer("grad-cam", model)(images.float())


def test_a_flat_image_gives_finite_maps() -> None:
    for make, _ in MODELS.values():
        for name in [*PEERS, "smooth-grad-cam++"]:
            found = create_explainer(name, make())(torch.zeros(1, 3, 64, 64).double(), 1)
            assert found.grid.isfinite().all()
            assert np.isfinite(np.asarray(found)).all()


@pytest.mark.parametrize("name", ["siglip", "dinov3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hires_cam_before_a_norm_of_each_token_is_refused_with_the_layer_to_use(name: str, dtype: torch.dtype) -> None:
    model = FAMILIES[name]().to(dtype)
    images = torch.randn(2, 3, *image_size(model), generator=torch.Generator().manual_seed(1)).to(dtype)
    with pytest.raises(UnsupportedModelError, match=r"sums to zero at every place, .* use target_layers=\['norm'\]"):
        create_explainer("hires-cam", model)(images, [0, 1])
    found = create_explainer("hires-cam", model, target_layers="norm")(images, [0, 1])
    assert found.layer == "norm" and float(found.grid.abs().max()) > 0.05


def test_hires_cam_before_class_attention_names_other_methods() -> None:
    model = timm.create_model("cait_xxs24_224", img_size=64, depth=2, num_classes=7).eval()
    with pytest.raises(UnsupportedModelError, match="for a norm follows; use grad-cam or layer-cam$"):
        create_explainer("hires-cam", model)(torch.randn(1, 3, 64, 64), 1)
