"""The model inside the package, as a user meets it: one call, the right thing in the right place."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import trt_cam
from trt_cam import cli
from trt_cam.backbone import create_timm
from trt_cam.models.weights import from_pretrained, load_model

ASSETS = Path(trt_cam.__file__).parent / "assets"
PHOTO = ASSETS / "coffee.jpg"
CUP = np.array([[155, 25, 440, 335]])  # drawn by hand, handle and spoon included


@pytest.fixture(scope="module")
def found() -> trt_cam.Localization:
    result = trt_cam.localize(PHOTO)
    assert isinstance(result, trt_cam.Localization)
    return result


def test_the_box_is_around_the_cup(found: trt_cam.Localization) -> None:
    assert found.label == "espresso" and found.score is not None and found.score > 0.5
    assert (found.method, found.refine, found.model) == ("trt", None, "trt-lite0")
    assert float(trt_cam.box_iou(found.boxes, CUP).max()) > 0.7


def test_the_heat_is_on_the_cup(found: trt_cam.Localization) -> None:
    x0, y0, x1, y1 = CUP[0]
    assert found.heat.shape == (400, 600)
    assert found.heat[y0:y1, x0:x1].mean() > 4 * np.delete(found.heat, slice(x0, x1), axis=1).mean()


def test_a_mirrored_photo_gives_the_mirrored_box(found: trt_cam.Localization) -> None:
    mirrored = trt_cam.localize(np.ascontiguousarray(np.asarray(found.photo)[:, ::-1]))
    assert isinstance(mirrored, trt_cam.Localization)
    back = mirrored.boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1]) + np.array([600, 0, 600, 0])
    assert float(trt_cam.box_iou(back, found.boxes).max()) > 0.7


def test_the_wheel_stays_small() -> None:
    assert sum(path.stat().st_size for path in ASSETS.iterdir() if path.is_file()) < 16 * 2**20


def test_each_caller_has_a_copy() -> None:
    first, second = load_model(), load_model()
    assert first is not second and not first.training
    with torch.no_grad():
        next(first.parameters()).add_(1)
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


def test_config_and_card_belong_to_the_weights() -> None:
    config = json.loads((ASSETS / "config.json").read_text(encoding="utf-8"))
    assert config["name"] == "trt-lite0" and len(config["classes"]) == 1000
    assert set(config["thresholds"]["trt"]) == {"none", "affinity"}
    own, card = config["thresholds"]["trt"], (ASSETS / "README.md").read_text("utf-8")
    assert f"({own['none']} of the maximum; {own['affinity']} with" in card


def test_a_warning_of_the_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["localize", str(PHOTO), "--size", "3"]) == 0
    out, err = capsys.readouterr()
    assert "the map is flat  no box" in out
    assert err.startswith("trt-cam: warning: no token selected at u = 0.65") and err.count("\n") == 1


def test_packages_that_do_not_fit_together_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as a torchvision built for another torch makes it
    with pytest.raises(trt_cam.errors.WeightsError, match="importing it failed .*install torch, torchvision and timm"):
        create_timm("vit_tiny_patch16_224")
    with pytest.raises(trt_cam.errors.WeightsError, match="importing it failed"):
        from_pretrained(ASSETS)
