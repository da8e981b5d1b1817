"""The formulas of the script that makes the embedded model, without its photos."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trt_cam
from trt_cam.models.hybrid import TrunkCam, hybrid_vit

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True, scope="module")
def examples_path():
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


def test_heads_on_cached_features_are_the_network() -> None:
    from embedded.heads import run_heads

    torch.manual_seed(0)
    vit = hybrid_vit(7, img_size=64, embed_dim=24, depth=3, num_heads=2)
    net = trt_cam.TRTLocalizer(vit, cam=TrunkCam(7)).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = torch.cat(vit.patch_embed.trunk(images)[:3], dim=1)
        cached, whole = run_heads(net, features), net(images)
        every = run_heads(net, features, torch.arange(24).expand(2, 24))
    for seen in (cached, every):
        torch.testing.assert_close(seen["m"], whole.m)
        torch.testing.assert_close(seen["importance"], whole.importance)
        torch.testing.assert_close(seen["m_t"], whole.m_t.flatten(1))
        torch.testing.assert_close(seen["logits"], whole.tpsm_logits)
        assert torch.equal(seen["keep"], whole.keep)


def test_otsu_parts_two_levels() -> None:
    from embedded.maps import otsu

    maps = torch.tensor([[0.1, 0.1, 0.12, 0.8, 0.82], [0.0, 0.55, 0.6, 0.6, 0.58]])
    cut = otsu(maps)
    assert 0.12 <= cut[0] < 0.8 and 0.0 <= cut[1] < 0.55


def test_warp_follows_the_view() -> None:
    from embedded.maps import warp

    maps = torch.rand(3, 22, 22)
    whole, mirrored = torch.tensor([[0.0, 0, 1, 1, 0]]), torch.tensor([[0.0, 0, 1, 1, 1]])
    torch.testing.assert_close(warp(maps[:1], whole, 22), maps[:1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(warp(maps[:1], mirrored, 22), maps[:1].flip(-1), rtol=1e-4, atol=1e-4)
    shrunk = warp(torch.ones(1, 22, 22), torch.tensor([[-1.0, 0, 1, 1, 0]]), 10)  # the photo fills the right half
    assert shrunk[0, :, :5].sum() == 0 and shrunk[0, :, 5:].min() > 0.99


def test_views_say_where_the_photo_is() -> None:
    from embedded.views import hard_view

    pixels = np.zeros((100, 120, 3), dtype=np.uint8)
    pixels[:, 60:] = 255  # white to the right
    photo = Image.fromarray(pixels)
    for seed in range(12):
        view, (x0, _, x1, _, mirrored) = hard_view(photo, lambda: photo, random.Random(seed))
        assert view.size == (288, 288)
        edge = (0.5 - x0) / (x1 - x0)  # where white begins in the view, before mirroring
        if 0.1 < edge < 0.9 and x0 >= 0 and x1 <= 1:
            row = np.asarray(view)[144, :, 0].astype(float)
            row = row[::-1] if mirrored else row
            assert abs(np.abs(np.diff(row)).argmax() / 288 - edge) < 0.02


def test_nothing_is_lost_where_targets_equal_maps() -> None:
    from embedded.heads import divergence

    maps = torch.rand(2, 30) + 0.1
    torch.testing.assert_close(divergence(maps, 3 * maps), torch.zeros(2), rtol=0, atol=1e-5)
    assert (divergence(maps, maps.flip(1)) > 0.01).all()


def test_schedule_warms_up_and_falls() -> None:
    from embedded.maps import schedule

    rates = [schedule(step, 100, 10) for step in range(100)]
    assert rates.index(max(rates)) in (9, 10) and rates[-1] < 0.01 and all(rate > 0 for rate in rates)
