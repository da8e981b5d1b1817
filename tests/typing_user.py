"""A user's script with every public name, which ``mypy --strict`` must accept; tests/test_typing.py runs it.

``assert_type`` says what each call gives. A line with ``type: ignore`` is one that must be refused: strict mode reports
those that are not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

import trt_cam
from trt_cam.errors import TrtCamError


def photos(path: Path, many: list[Path]) -> None:
    found = trt_cam.localize(path, method="grad-cam", target="tabby", refine="affinity", threshold=0.2)
    assert_type(found, trt_cam.Localization)
    assert_type(found.boxes, npt.NDArray[np.int64])
    assert_type(found.label, str | None)
    assert_type(found.heat, npt.NDArray[np.float32])
    found.save("found.png")
    for one in trt_cam.localize(many, batch_size=4):
        assert_type(one, trt_cam.Localization)
    assert_type(trt_cam.localize("photo.jpg").score, float | None)
    assert_type(trt_cam.localize(np.zeros((8, 8, 3), dtype=np.uint8)), trt_cam.Localization)
    assert_type(trt_cam.localize(["a.jpg", "b.jpg"]), list[trt_cam.Localization])
    assert_type(trt_cam.localize(torch.zeros(1, 3, 8, 8)), list[trt_cam.Localization])
    assert_type(trt_cam.overlay(path, found.heat, alpha=0.4), Image.Image)
    compared = trt_cam.compare(path, ["trt", "cam"], target=found.target)
    assert_type(compared.results["trt"], trt_cam.Localization)
    rows = trt_cam.BatchLocalizer(batch_size=2)({"path": [str(path)]})
    assert_type(rows, dict[str, Any])


def explanations(model: nn.Module, images: Tensor) -> None:
    assert_type(trt_cam.list_explainers("*cam"), list[str])
    explain = trt_cam.create_explainer("rollout", model, residual=0.3)
    explanation = explain(images, target=[1, 2], refine="affinity")
    assert_type(explanation, trt_cam.Explanation)
    assert_type(explanation.grid, Tensor)
    assert_type(explanation.to_boxes(0.3, select="all"), list[Tensor])
    explain(images, target=lambda logits: logits[3])


@trt_cam.register_explainer
class Norm(trt_cam.Explainer):
    """The length of every patch's features."""

    name = "norm"
    requires = frozenset({"features"})
    class_specific = False

    def __init__(self, order: float = 2.0) -> None:
        self.order = order

    def grid(self, seen: Any, target: Any) -> Tensor:
        features: Tensor = seen.features
        return features.abs().pow(self.order).sum(dim=1)


@trt_cam.register_function("first", requires={"features"}, class_specific=False)
def first(seen: Any, target: Any) -> Any:
    return seen.features[:, 0]


@trt_cam.register_foreign("theirs")
def theirs(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    return images.mean(dim=1)


def methods(model: nn.Module) -> None:
    assert_type(Norm(order=1.0).order, float)
    assert_type(first, type[trt_cam.Explainer])
    trt_cam.create_explainer(Norm, model)
    trt_cam.create_explainer(Norm(), model)
    assert_type(trt_cam.testing.check_explainer("norm", model, calls=3), list[str])


def networks(images: Tensor, folder: Path) -> None:
    net = trt_cam.TRTLocalizer("deit_small_patch16_224", num_classes=200, u=0.65, mode="mass")
    out = net(images, target=torch.tensor([3]))
    assert_type(out, trt_cam.TRTOutput)
    assert_type(out.logits, Tensor)
    assert_type(out.m_c, Tensor | None)
    net.save_pretrained(folder, card={"data": "photos"})
    again = trt_cam.TRTLocalizer.from_pretrained(folder)
    assert_type(again, trt_cam.TRTLocalizer)
    assert_type(again.eval().to("cpu"), trt_cam.TRTLocalizer)
    assert_type(again.localize("photo.jpg", threshold=0.1), trt_cam.Localization)
    assert_type(trt_cam.TRTLocalizer.from_official({}, num_heads=6), trt_cam.TRTLocalizer)


def formulas(tokens: Tensor, m: Tensor, block: nn.Module, norm: nn.Module, head: nn.Module) -> None:
    keep = trt_cam.cdf_threshold(m, 0.65, mode="mass")
    assert_type(keep, Tensor)
    assert_type(trt_cam.masked_attention(tokens, tokens, tokens, keep, eps=1e-6), Tensor)
    fusion, importance, kept = trt_cam.TPSM(block, norm, head, u=0.65)(tokens, m)
    assert_type(fusion, Tensor)
    assert_type(kept, Tensor)
    boxes = trt_cam.boxes_from_map(np.zeros((8, 8)), 0.2, select="largest")
    assert not isinstance(boxes, list)
    assert_type(trt_cam.box_iou(torch.zeros(1, 4), torch.zeros(2, 4)), Tensor)
    overlaps = trt_cam.box_iou(boxes, boxes)
    print(importance.sum(), overlaps.max())


def data(folder: Path) -> None:
    try:
        birds = trt_cam.load_dataset(folder / "CUB_200_2011", split="test")
        assert_type(birds[0].path, Path)
        done = trt_cam.evaluate(birds, methods=["trt", Norm()], limit=8, out=folder / "run")
    except trt_cam.errors.DatasetError as error:
        raise SystemExit(str(error)) from error
    except TrtCamError:
        raise
    for name, results in done.results.items():
        if not hasattr(results, "pixels"):
            print(name)
    trained = trt_cam.train(folder, "deit_tiny_patch16_224", freeze_backbone=True, out=folder / "mine", epochs=(1, 1))
    assert_type(trained.folder, Path)
    assert_type(trained.model, nn.Module)


def thresholds(results: Any) -> None:
    print(trt_cam.search_threshold(results, split="val"), trt_cam.__version__.split("."))


def mistakes(model: nn.Module, images: Tensor, m: Tensor, net: trt_cam.TRTLocalizer) -> None:
    trt_cam.localize(3)  # type: ignore[call-overload]
    trt_cam.localize("photo.jpg", treshold=0.2)  # type: ignore[call-overload]
    trt_cam.localize("photo.jpg", boxes="biggest")  # type: ignore[call-overload]
    print(trt_cam.localize("photo.jpg").box)  # type: ignore[attr-defined]
    trt_cam.locate("photo.jpg")  # type: ignore[attr-defined]
    trt_cam.create_explainer("cam")  # type: ignore[call-arg]
    trt_cam.create_explainer(3, model)  # type: ignore[arg-type]
    trt_cam.create_explainer("cam", model)(images, normalize="softmax")  # type: ignore[arg-type]
    trt_cam.cdf_threshold(m, "all")  # type: ignore[arg-type]
    trt_cam.cdf_threshold(m, 0.5, mode="share")  # type: ignore[arg-type]
    trt_cam.boxes_from_map([[0.0]])  # type: ignore[call-overload]
    trt_cam.register_explainer(Norm())  # type: ignore[arg-type]
    trt_cam.TRTLocalizer("deit_small_patch16_224", cam_from="last")  # type: ignore[arg-type]
    trt_cam.train("photos", "deit_small_patch16_224")  # type: ignore[call-arg]
    net(images, tragt=None)  # type: ignore[call-arg]
    net("photo.jpg")  # type: ignore[arg-type]
    print(net(images).heat)  # type: ignore[attr-defined]
    net.localize("photo.jpg", treshold=0.2)  # type: ignore[call-overload]
    trt_cam.load_dataset(7)  # type: ignore[arg-type]
    trt_cam.BatchLocalizer("deit_small_patch16_224")  # type: ignore[call-arg]
