"""The rules of trt_cam, and the formula: ``pytest`` in this folder, once the package is installed."""

from typing import Any

import timm
import torch

import trt_cam
from trt_cam.testing import check_explainer


def test_rules() -> None:
    assert check_explainer("norm-attention", calls=3)


def test_formula() -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model("test_vit", num_classes=3).eval()
    images = torch.randn(2, 3, 160, 160)
    attention = trt_cam.create_explainer("norm-attention", model, power=0.0)(images).grid
    features = model.forward_features(images)[:, model.num_prefix_tokens :]
    expected = attention.flatten(1) * features.norm(dim=2) ** 2
    found = trt_cam.create_explainer("norm-attention", model, power=2.0)(images).grid
    assert torch.allclose(found.flatten(1), expected.detach(), rtol=1e-4)
