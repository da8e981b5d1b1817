"""TokenCut, LOST and the first component against references from the papers, in numpy and scipy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, no_onednn
from scipy.linalg import eigh
from scipy.ndimage import label
from torch import Tensor, nn

from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers import create_explainer
from trt_cam.explainers.clustering import PCA, final_tokens, last_keys, seed_positive
from trt_cam.ops.spectral import connected_region, normalised_cut

METHODS = ("token-cut", "lost", "pca")


def model_of(name: str) -> nn.Module:
    return FAMILIES[name]().double()


def cnn(**settings: Any) -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=7, **settings).eval()


def images_of(side: int = 64, batch: int = 2, seed: int = 3) -> Tensor:
    """Images of a few large blobs: noise would be alike everywhere."""
    blobs = torch.randn(batch, 3, 5, 5, generator=torch.Generator().manual_seed(seed)).double()
    return 5 * nn.functional.interpolate(blobs, size=(side, side), mode="bicubic")


def keys_of(model: Any, images: Tensor) -> np.ndarray:
    """Keys of the patches in a ViT's last block, as the projection gives them: (B, N, nh d)."""
    qkv: list[Tensor] = []
    with torch.no_grad():
        handle = model.blocks[-1].attn.qkv.register_forward_hook(lambda *args: qkv.append(args[2]))
        model(images)
        handle.remove()
    width = qkv[0].shape[2] // 3
    return qkv[0][:, 1:, width : 2 * width].numpy()


def tokens_of(model: Any, images: Tensor) -> np.ndarray:
    """Final features of the patches, less their mean: (B, N, D)."""
    with torch.no_grad():
        out = model.forward_features(images)
    out = out[:, 1:] if out.ndim == 3 else out.flatten(2).transpose(1, 2)
    return (out - out.mean(dim=1, keepdim=True)).numpy()


def token_cut(f: np.ndarray, size: tuple[int, int], tau: float = 0.2, eps: float = 1e-5) -> tuple[Any, Any]:
    """The paper's algorithm for features (N, D) of one image: x - mean(x), and the object's component."""
    f = f / np.linalg.norm(f, axis=1, keepdims=True)
    W = np.where(f @ f.T > tau, 1.0, eps)
    assert 0 < (W < 1).mean() < 1, "a graph with no structure tests nothing"
    D = np.diag(W.sum(axis=1))
    x = eigh(D - W, D, subset_by_index=[1, 2])[1][:, 0]
    side = x > x.mean()
    seed = np.flatnonzero(np.isclose(np.abs(x), np.abs(x).max(), rtol=1e-9, atol=0))[
        0
    ]  # patches may be interchangeable
    if not side[seed]:
        x, side = -x, ~side
    parts, _ = label(side.reshape(size))
    return (x - x.mean()).reshape(size), parts == parts.flat[seed]


def lost(f: np.ndarray, size: tuple[int, int], k: int = 100) -> tuple[Any, Any]:
    """The same of LOST: the sum of correlations with the seeds, and the object's component."""
    N = len(f)
    degree = [sum(f[p] @ f[q] >= 0 for q in range(N)) for p in range(N)]
    by_degree = sorted(range(N), key=lambda p: degree[p])  # stable
    first = by_degree[0]
    seeds = [s for s in by_degree[:k] if f[s] @ f[first] >= 0]
    assert 1 < len(seeds) < N
    total = np.array([sum(f[q] @ f[s] for s in seeds) for q in range(N)]).reshape(size)
    parts, _ = label(total >= 0)
    assert parts.flat[first] > 0
    return total, parts == parts.flat[first]


def first_component(f: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scores of the first principal component, the border negative on average."""
    u, s, _ = np.linalg.svd(f - f.mean(axis=0), full_matrices=False)
    scores = (u[:, 0] * s[0]).reshape(size)
    border = np.concatenate([scores[0], scores[-1], scores[1:-1, 0], scores[1:-1, -1]])
    return -scores if border.mean() > 0 else scores


def assert_same(ours: Any, theirs: Any) -> None:
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 0
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()


REFERENCES = {"token-cut": token_cut, "lost": lost}
SETTINGS = [("token-cut", {}), ("token-cut", {"tau": 0.05, "eps": 1e-3}), ("lost", {}), ("lost", {"k": 7})]


@pytest.mark.parametrize(("method", "settings"), SETTINGS)
@pytest.mark.parametrize("features", ["keys", "tokens"])
def test_as_in_the_papers(method: str, settings: dict[str, Any], features: str) -> None:
    model, images = model_of("vit"), images_of(64, 3)
    given = (keys_of if features == "keys" else tokens_of)(model, images)
    expected = [REFERENCES[method](f, (4, 4), **settings) for f in given]
    for region in ("side", "component"):
        explain = create_explainer(method, model, features=features, region=region, **settings)
        grid = explain(images).grid
        assert_same(grid if region == "side" else grid.relu(), np.stack([_kept(e, region) for e in expected]))


def _kept(expected: tuple[Any, Any], region: str) -> np.ndarray:
    values, component = expected
    return values if region == "side" else np.where(component, values, 0).clip(min=0)


@pytest.mark.parametrize("method", REFERENCES)
def test_a_larger_grid_with_more_patches_than_seeds(method: str) -> None:
    model = FAMILIES["vit"](img_size=224).double()
    images = images_of(224, 2, seed=5)
    expected = [REFERENCES[method](f, (14, 14)) for f in keys_of(model, images)]
    assert_same(create_explainer(method, model)(images).grid, np.stack([e[0] for e in expected]))
    regions = create_explainer(method, model, region="component")(images).grid > 0
    components = np.stack([component & (values > 0) for values, component in expected])
    assert (np.asarray(regions) == components).all()
    assert components.sum() < sum((e[0] > 0).sum() for e in expected), "the component must be a part of the side"


@pytest.mark.parametrize("name", ["vit", "cnn"])
def test_the_first_component(name: str) -> None:
    model = cnn().double() if name == "cnn" else model_of(name)
    images = images_of(128 if name == "cnn" else 64, 3)
    size = (4, 4)
    expected = np.stack([first_component(f, size) for f in tokens_of(model, images)])
    assert_same(create_explainer("pca", model)(images).grid, expected)


def test_the_first_component_of_fewer_channels_than_patches() -> None:
    model = FAMILIES["vit"](img_size=224).double()  # 48 channels, 196 patches
    images = images_of(224, 1)
    expected = np.stack([first_component(f, (14, 14)) for f in tokens_of(model, images)])
    assert_same(create_explainer("pca", model)(images).grid, expected)


@pytest.mark.parametrize("method", REFERENCES)
def test_a_cnn_falls_back_to_its_final_features_and_says_so(method: str) -> None:
    model, images = cnn().double(), images_of(128)
    found = create_explainer(method, model)(images)
    assert found.source == "the final features, for the model shows no keys"
    assert_same(found.grid, np.stack([REFERENCES[method](f, (4, 4))[0] for f in tokens_of(model, images)]))
    assert create_explainer(method, model_of("vit"))(images_of()).source == "the keys of the last attention"
    with pytest.raises(UnsupportedModelError, match="ResNet.*features='tokens'"):
        create_explainer(method, model, features="keys")(images)


FEW = {"dinov2-registers": 56, "siglip": 64, "eva02": 56, "beit-shared": 64, "hybrid": 64}
"""A family of each kind, and its images' side; finite on all families is tested with all methods."""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FEW)
def test_a_batch_equals_its_singles(method: str, name: str) -> None:
    model, images = model_of(name), images_of(FEW[name])
    found = create_explainer(method, model)(images)
    assert found.grid.isfinite().all() and found.grid.dtype == torch.float64
    singles = [create_explainer(method, model)(image[None]).grid for image in images]
    assert_same(found.grid, torch.cat(singles))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["vit", "cnn"])
def test_patches_that_are_all_the_same_give_a_flat_map(method: str, name: str) -> None:
    model = cnn() if name == "cnn" else FAMILIES["vit"]()
    if name == "vit":
        with torch.no_grad():
            model.pos_embed.zero_()
    side = 32 if name == "cnn" else 64  # one position of the CNN
    found = create_explainer(method, model)(torch.full((2, 3, side, side), 0.7))
    assert found.grid.isfinite().all()
    assert not np.asarray(found).any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FEW)
def test_constant_images_stay_finite(method: str, name: str) -> None:
    for value in (0.0, 1.0):
        found = create_explainer(method, FAMILIES[name]())(torch.full((1, 3, FEW[name], FEW[name]), value))
        assert np.isfinite(np.asarray(found)).all()


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_and_no_classifier(method: str) -> None:
    with no_onednn():
        found = create_explainer(method, FAMILIES["vit"]().bfloat16())(images_of().bfloat16())
    assert found.grid.dtype == torch.float32 and found.grid.isfinite().all()
    headless = create_explainer(method, FAMILIES["vit"](num_classes=0))(images_of().float())
    assert headless.target is None and headless.grid.shape == (2, 4, 4)


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("token-cut", {"tau": 1.0}, "tau must be in"),
        ("token-cut", {"eps": 0}, "eps must be in"),
        ("token-cut", {"features": "values"}, "None or one of keys, tokens, got 'values'"),
        ("lost", {"region": "box"}, "one of side, component, got 'box'"),
        ("lost", {"k": 0}, "k must be an integer of at least 1"),
        ("lost", {"k": True}, "k must be an integer of at least 1"),
    ],
)
def test_bad_settings(method: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        create_explainer(method, FAMILIES["vit"](), **settings)


def test_a_cut_that_is_no_better_than_another_is_no_cut() -> None:
    ring = torch.zeros(4, 4)
    for i in range(4):
        ring[i, i] = ring[i, (i + 1) % 4] = ring[(i + 1) % 4, i] = 1
    x, found = normalised_cut(torch.stack([ring, torch.ones(4, 4), torch.diag(torch.tensor([1.0, 2, 3, 4])) + 0.1]))
    assert found.tolist() == [False, False, True]
    assert not x[:2].any() and x[2].any()
    assert normalised_cut(torch.ones(1, 1, 1))[0].tolist() == [[0.0]]


def test_of_equal_values_the_first_is_the_seed() -> None:
    x, seed = seed_positive(torch.tensor([[0.5, -1.0, 0.2, 1 + 1e-12], [0.1, 0.3, -0.2, -0.4]], dtype=torch.float64))
    assert seed.tolist() == [1, 3]
    assert x.sign().tolist() == [[-1, 1, -1, -1], [-1, -1, 1, 1]]


def seen_of(features: Tensor, **more: Any) -> Any:
    size = tuple(features.shape[-2:])
    return SimpleNamespace(features=features, grid_size=size, to_grid=lambda row: row.unflatten(1, size), **more)


def test_rounding_of_constant_features_is_no_structure() -> None:
    noise = torch.randn(1, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    assert not final_tokens(seen_of(1 + 1e-7 * noise)).any()
    assert final_tokens(seen_of(1 + 1e-3 * noise)).any()


def test_the_sign_of_a_component_that_is_all_border() -> None:
    features = torch.tensor([[[[1.0, 1.1], [1.2, -5.0]]]]).double()
    for signed in (features, -features):
        grid = PCA().grid(seen_of(signed), torch.zeros(1))
        assert_same(grid, (features.mean() - features)[0])


def test_keys_over_fewer_tokens_than_patches_are_no_keys_of_patches() -> None:
    features, keys = torch.zeros(1, 5, 3, 3), torch.randn(1, 2, 10, 4)
    for count, shown in ((10, True), (9, True), (4, False)):
        call = SimpleNamespace(k=keys[:, :, :count])
        assert (last_keys(seen_of(features, calls=[call])) is not None) == shown
    assert last_keys(seen_of(features, calls=[])) is None


def test_the_region_of_a_seed() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((6, 9, 7)) < 0.6
    seeds = rng.integers(0, 63, 6)
    found = connected_region(torch.from_numpy(masks), torch.from_numpy(seeds))
    for mask, seed, one in zip(masks, seeds, found.numpy(), strict=True):
        parts, _ = label(mask)
        assert (one == ((parts == parts.flat[seed]) & mask)).all()
    assert found.any() and not masks.reshape(6, -1)[np.arange(6), seeds].all()
