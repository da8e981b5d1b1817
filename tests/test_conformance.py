"""Every built-in explainer keeps the rules on every family that it claims; each rule catches who breaks it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, image_size
from torch import Tensor, nn

from trt_cam.errors import UnsupportedModelError
from trt_cam.explainers import Explainer, create_explainer, list_explainers
from trt_cam.models.trt import TRTLocalizer
from trt_cam.observe import Observation
from trt_cam.testing import ConformanceError, check_explainer

SMALL: dict[str, dict[str, Any]] = {
    "score-cam": {"channels": 3},
    "ss-cam": {"channels": 2, "samples": 2},
    "is-cam": {"channels": 2, "samples": 2},
    "ablation-cam": {"channels": 3},
    "occlusion": {"window": 32, "stride": 32},
    "rise": {"masks": 4},
    "smooth-grad-cam++": {"samples": 2},
}
METHODS = [name for name in list_explainers() if name != "trt"]


@pytest.mark.parametrize("method", METHODS)
def test_built_in(method: str) -> None:
    made = check_explainer(method, calls=8, **SMALL.get(method, {}))
    assert any(line.startswith("class token") for line in made)


def test_trt_on_a_localizer() -> None:
    assert check_explainer("trt", TRTLocalizer(FAMILIES["vit"]()).eval(), calls=8)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_on_every_family_that_it_claims(family: str) -> None:
    model = FAMILIES[family]()
    images = torch.randn(2, 3, *image_size(model), generator=torch.Generator().manual_seed(2))
    carried = 0
    for method in METHODS:
        try:
            explain = create_explainer(method, model, **SMALL.get(method, {}))
        except UnsupportedModelError as error:
            assert "explainers that fit it" in str(error)
            continue
        target = [1, 0] if explain.classes else None
        if target is None and explain.explainer.class_specific:
            continue
        carried += 1
        found = explain(images, target)
        assert found.grid.shape == (2, *explain.backbone.grid_size(*images.shape[-2:])), method
        assert found.grid.isfinite().all(), method
        alone = explain(images[1:], None if target is None else target[1:]).grid
        assert (alone - found.grid[1:]).abs().max() <= 2e-3 * found.grid[1:].abs().max() + 1e-6, method
    assert carried >= 8


class Good(Explainer):
    """A method that breaks nothing, and is broken below."""

    name = "good"
    requires = frozenset({"features"})
    class_specific = False

    def grid(self, seen: Observation, target: Any) -> Tensor:
        assert seen.features is not None
        return seen.features.mean(dim=1)


def test_a_method_of_ones_own_passes() -> None:
    assert len(check_explainer(Good, calls=5)) == 36


class Flattened(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        return super().grid(seen, target).flatten(1)


class Half(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        return super().grid(seen, target).half()


class NotFinite(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        return super().grid(seen, target) / 0


class OfTheBatch(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        grid = super().grid(seen, target)
        return grid - grid.mean(dim=0) * (len(grid) > 1)


class Random(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        return super().grid(seen, target) * (1 + 1e-6 * torch.rand(()))


class RandomState(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        torch.rand(())
        return super().grid(seen, target)


class Training(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        seen.backbone.model.eval()
        return super().grid(seen, target)


class Hooked(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        seen.backbone.model.register_forward_hook(lambda *_: None)
        return super().grid(seen, target)


class Growing(Good):
    kept: list[Tensor] = []

    def grid(self, seen: Observation, target: Any) -> Tensor:
        grid = super().grid(seen, target)
        self.kept.append(grid.clone())
        return grid


class Divides(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        return super().grid(seen, target) / (seen.images.abs().amax() > 0)


class Careless(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        return super().grid(seen, target)

    def __init__(self, **anything: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Flattened, "shape and type"),
        (Half, "shape and type"),
        (NotFinite, "finite"),
        (OfTheBatch, "batch equals singles"),
        (Random, "the same again"),
        (RandomState, "random state"),
        (Training, "training mode"),
        (Hooked, "hooks of"),
        (Growing, "nothing grows"),
        (Divides, "constant image"),
        (Careless, "unknown setting"),
    ],
)
def test_who_breaks_a_rule_is_caught(broken: type[Explainer], said: str) -> None:
    with pytest.raises(ConformanceError, match=said):
        check_explainer(broken, calls=5)


def test_a_method_that_takes_no_model_is_said() -> None:
    class Impossible(Good):
        requires = frozenset({"the moon"})

    with pytest.raises(UnsupportedModelError, match="a model that the method takes was needed"):
        check_explainer(Impossible)


def test_a_headless_model_asked_for_its_predicted_class() -> None:
    model = FAMILIES["vit"](num_classes=0)
    images = torch.randn(1, 3, 64, 64)
    for method in METHODS:
        try:
            explain = create_explainer(method, model, **SMALL.get(method, {}))
        except UnsupportedModelError as error:
            assert "classifier" in str(error)
            continue
        if explain.explainer.class_specific:
            with pytest.raises(UnsupportedModelError, match="has no classifier"):
                explain(images)
        else:
            assert explain(images).grid.isfinite().all()


def test_models_in_half_precision() -> None:
    model: nn.Module = FAMILIES["vit"]().to(torch.float16)
    images = torch.randn(1, 3, 64, 64).half()
    for method in ("grad-cam", "rollout", "transformer-attribution", "cam", "eigen-cam"):
        grid = create_explainer(method, model)(images, 1).grid
        assert grid.dtype == torch.float32
        assert grid.isfinite().all()
