"""Spreading over affinity against a loop over pairs of tokens, and the cut against scipy's generalised problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import FAMILIES, torchvision_vit
from scipy.linalg import eigh

from trt_cam.backbone import describe
from trt_cam.errors import InputError
from trt_cam.explainers import create_explainer
from trt_cam.ops.spectral import biased_cut
from trt_cam.refine import affinity, ncut, refinement, spread


def test_affinity_by_pairs(rng: np.random.Generator) -> None:
    features = [rng.normal(size=(1, 5, 3, 2)), rng.normal(size=(1, 4, 3, 2))]
    tokens = [f.reshape(f.shape[1], -1).T for f in features]
    expected = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            cosines = [max(0.0, t[i] @ t[j] / np.linalg.norm(t[i]) / np.linalg.norm(t[j])) for t in tokens]
            expected[i, j] = np.prod(cosines) ** 0.75
        expected[i] /= expected[i].sum()
    got = affinity([torch.from_numpy(f) for f in features], (3, 2))
    np.testing.assert_allclose(got[0], expected, rtol=1e-12)

    seed = rng.normal(size=(3, 2))
    stretched = (seed - seed.min()) / (seed.max() - seed.min())
    walked = expected @ stretched.ravel()
    walked = (walked - walked.min()) / (walked.max() - walked.min())
    np.testing.assert_allclose(spread(torch.from_numpy(seed)[None], got).flatten(), walked, rtol=1e-12)


def test_features_of_another_size_are_brought_to_the_grid() -> None:
    assert affinity([torch.rand(2, 3, 8, 8), torch.rand(2, 3, 4, 4)], (4, 4)).shape == (2, 16, 16)


def test_evidence_reaches_what_looks_alike() -> None:
    left = torch.zeros(1, 2, 1, 6)
    left[:, 0, :, :3], left[:, 1, :, 3:] = 1, 1  # two kinds of tokens
    seed = torch.tensor([[[1.0, 0, 0, 0, 0, 0]]])
    assert spread(seed, affinity([left], (1, 6))).flatten().tolist() == [1, 1, 1, 0, 0, 0]


def test_a_flat_seed_stays_zero_and_orthogonal_tokens_stay_finite() -> None:
    weights = affinity([torch.zeros(1, 2, 2, 2)], (2, 2))
    assert weights.isfinite().all()
    assert not spread(torch.ones(1, 2, 2), weights).any()


def test_middle_layers_are_recorded_in_the_same_forward() -> None:
    model = FAMILIES["vit"]()
    assert describe(model).middle == ("blocks.1", "blocks.1")
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    images = torch.randn(1, 3, 64, 64)
    assert create_explainer("cam", model)(images, 1, refine="affinity").refine == "affinity"
    assert len(calls) == 1


@pytest.mark.parametrize("refine", ["affinity", "ncut"])
@pytest.mark.parametrize("name", ["vit", "vit-avg", "beit", "torchvision"])
def test_a_transformer_of_one_block_has_that_block_in_the_middle(name: str, refine: str) -> None:
    model = torchvision_vit(depth=1) if name == "torchvision" else FAMILIES[name](depth=1)
    assert len(set(describe(model).middle)) == 1
    found = create_explainer("cam", model)(torch.randn(2, 3, 64, 64), [1, 2], refine=refine)
    assert found.grid.shape == (2, 4, 4) and found.grid.isfinite().all()


@pytest.mark.parametrize("N", [30, 6])
def test_the_cut_by_the_generalised_problem(rng: np.random.Generator, N: int) -> None:
    """Maji et al.'s formula: without the constant eigenvector, and up to a factor, which [0, 1] does not show."""
    size = (N // 3, 3)
    features = [rng.normal(size=(2, 4, *size)) + 2, rng.normal(size=(2, 3, *size)) + 2]
    seeds = rng.normal(size=(2, *size))
    for b in range(2):
        W = np.ones((N, N))
        for layer in features:
            tokens = layer[b].reshape(layer.shape[1], N).T
            tokens = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
            W *= np.maximum(tokens @ tokens.T, 0)
        W = W**4
        D = np.diag(W.sum(axis=1))
        values, X = eigh(D - W, D)
        assert values[1] > 1e-9, "in one part"
        gamma = -values[min(8, N) - 1]
        expected = sum(X[:, i] * (X[:, i] @ D @ seeds[b].ravel()) / (values[i] - gamma) for i in range(1, N))
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        matrix = ncut([torch.from_numpy(layer[b : b + 1]) for layer in features], size)
        got = spread(torch.from_numpy(seeds[b : b + 1]), matrix).flatten()
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(matrix.sum(dim=-1), 1, rtol=1e-9)
        both = ncut([torch.from_numpy(layer) for layer in features], size)
        np.testing.assert_allclose(matrix[0], both[b], rtol=1e-9, atol=1e-12)


def test_the_cut_is_the_smoothest_map_near_the_seed(rng: np.random.Generator) -> None:
    half = rng.random((1, 12, 12))
    W = torch.from_numpy(half + half.transpose(0, 2, 1))
    seed = torch.from_numpy(rng.normal(size=(12,)))
    D = torch.diag(W[0].sum(dim=1))
    cost = eigh((D - W[0]).numpy(), D.numpy(), eigvals_only=True)[2]
    solved = torch.linalg.solve(D + (D - W[0]) / cost, D @ seed)
    np.testing.assert_allclose(biased_cut(W, 3)[0] @ seed, solved, rtol=1e-9)


def test_parts_that_do_not_touch_and_places_without_weight(rng: np.random.Generator) -> None:
    parts = torch.tensor([0, 0, 1, 1, 1, 2, 3])  # the last two are alone, one of them without any weight
    W = (parts[:, None] == parts).double()[None]
    W[0, 6, 6] = 0
    seed = torch.from_numpy(rng.normal(size=7))
    means = torch.stack([seed[parts == part].mean() for part in parts])
    np.testing.assert_allclose(biased_cut(W, 4)[0] @ seed, means, atol=1e-8)
    assert biased_cut(torch.zeros(1, 5, 5), 8).equal(torch.eye(5).double()[None])
    same = spread(seed[None, None], biased_cut(torch.ones(1, 7, 7), 3))
    np.testing.assert_allclose(same.flatten(), (seed - seed.min()) / (seed.max() - seed.min()), rtol=1e-9)


@pytest.mark.parametrize("method", ["cam", "raw-attention", "lost"])
@pytest.mark.parametrize("name", ["vit", "siglip", "hybrid"])
def test_the_cut_after_any_method(method: str, name: str) -> None:
    model = FAMILIES[name]()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    explain = create_explainer(method, model)
    plain, found = explain(images, 1), explain(images, 1, refine="ncut")
    assert found.refine == "ncut" and found.grid.shape == plain.grid.shape and found.grid.dtype == plain.grid.dtype
    singles = [explain(image[None], 1, refine="ncut").grid for image in images]
    torch.testing.assert_close(found.grid, torch.cat(singles), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found.grid, explain(images, 1, refine="affinity").grid, atol=1e-2)
    flat = explain(torch.zeros(1, 3, 64, 64), 1, refine="ncut").grid
    assert flat.isfinite().all() and flat.min() >= 0 and flat.max() <= 1


def test_unknown_refinement() -> None:
    with pytest.raises(InputError, match="refine must be None or one of affinity, ncut, got 'blur'"):
        create_explainer("cam", FAMILIES["vit"]())(torch.randn(1, 3, 64, 64), 1, refine="blur")
    with pytest.raises(InputError, match="got 'blur'"):
        refinement("blur", [torch.ones(1, 2, 2, 2)], (2, 2))
