"""Spreading over affinity against a loop over pairs of tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import FAMILIES

from trt_cam.backbone import describe
from trt_cam.errors import InputError
from trt_cam.explainers import create_explainer
from trt_cam.refine import affinity, spread


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


def test_unknown_refinement() -> None:
    with pytest.raises(InputError, match="refine must be None or one of affinity, got 'blur'"):
        create_explainer("cam", FAMILIES["vit"]())(torch.randn(1, 3, 64, 64), 1, refine="blur")
