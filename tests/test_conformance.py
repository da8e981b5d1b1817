"""Every built-in explainer keeps the rules on every family that it claims; each rule catches who breaks it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from families import FAMILIES, SMALL, image_size, no_onednn, small_cnn
from torch import Tensor, nn

from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers import Explainer, create_explainer, list_explainers
from trt_cam.explainers.asked import resolve_asked
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.observe import Observation
from trt_cam.testing import ConformanceError, check_explainer, tiny_models
from trt_cam.testing.checks import CHECKS, refused

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
            target = [1, 0] if explain.classes else None
            if target is None and explain.explainer.class_specific:
                continue
            found = explain(images, target)
        except UnsupportedModelError as error:
            assert "explainers that fit it" in str(error) or "grad-cam or layer-cam" in str(error)
            continue
        carried += 1
        assert found.grid.shape == (2, *explain.backbone.grid_size(*images.shape[-2:])), method
        assert found.grid.isfinite().all(), method
        alone = explain(images[1:], None if target is None else target[1:]).grid
        assert (alone - found.grid[1:]).abs().max() <= 2e-3 * found.grid[1:].abs().max() + 1e-6, method
    assert carried >= 8


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_suite_on_every_family(family: str, method: str) -> None:
    model = FAMILIES[family]()
    try:
        made = check_explainer(method, model, size=image_size(model), calls=3, **SMALL.get(method, {}))
    except UnsupportedModelError:
        pytest.skip(f"{method} does not claim {family}")
    assert len(made) == len(CHECKS)


class Good(Explainer):
    """A method that breaks nothing, and is broken below."""

    name = "good"
    requires = frozenset({"features"})
    class_specific = False

    def grid(self, seen: Observation, target: Any) -> Tensor:
        assert seen.features is not None
        return seen.features.mean(dim=1)


def test_a_method_of_ones_own_passes() -> None:
    assert len(check_explainer(Good, calls=5)) == 39


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


class OnMeta(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        return super().grid(seen, target).to("meta")


class ReadsMemory(Good):
    """Takes a target for a row of memory, which that of (B, T) is not."""

    requires = frozenset({"features", "classifier"})
    class_specific = True

    def grid(self, seen: Observation, target: Any) -> Tensor:
        assert seen.features is not None
        return seen.class_map(seen.features, target) * (1 if target.is_contiguous() else 2)


class FirstCallable(Good):
    requires = frozenset({"features", "gradient"})
    class_specific = True

    def grid(self, seen: Observation, target: Any) -> Tensor:
        activation, gradient = seen.gradient(target)
        return (activation * gradient).sum(dim=1) * (2 if isinstance(target, list) else 1)


class ImagesChanged(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        grid = super().grid(seen, target)
        seen.images.add_(1e-6)
        return grid


class HoldsData(Good):
    def __init__(self) -> None:
        self.seen = 0

    def grid(self, seen: Observation, target: Any) -> Tensor:
        self.seen += 1
        return super().grid(seen, target)


class Swallows(Good):
    """Runs the model once more, and takes any failure for an empty map."""

    def grid(self, seen: Observation, target: Any) -> Tensor:
        try:
            seen.forward(seen.images)
        except Exception:
            return torch.zeros_like(super().grid(seen, target))
        return super().grid(seen, target)


class LeavesAHook(Good):
    """Its own hook is left where the second forward fails."""

    def grid(self, seen: Observation, target: Any) -> Tensor:
        handle = seen.backbone.model.register_forward_hook(lambda *_: None)
        seen.forward(seen.images)
        handle.remove()
        return super().grid(seen, target)


class Frozen(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        seen.backbone.model.requires_grad_(False)
        return super().grid(seen, target)


class ForgetsGradients(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        seen.backbone.model.zero_grad()
        return super().grid(seen, target)


class Marks(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        seen.backbone.model.explained = True
        return super().grid(seen, target)


class SetsAFlag(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        torch.use_deterministic_algorithms(True)
        return super().grid(seen, target)


class Writes(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        next(seen.backbone.model.parameters()).data.add_(1e-3)
        return super().grid(seen, target)


class ReadsMode(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        return super().grid(seen, target) * (2 if seen.backbone.model.training else 1)


class OneThread(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        return super().grid(seen, target) * (threading.current_thread() is threading.main_thread())


class FailsInThreads(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        assert threading.current_thread() is threading.main_thread()
        return super().grid(seen, target)


class Nameless(Good):
    def __repr__(self) -> str:
        return "an explainer"


class Careless(Good):
    def __init__(self, **anything: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    Growing.kept.clear()


BROKEN: list[tuple[type[Explainer], str]] = [
    (Flattened, "shape and type: a grid"),
    (Half, "shape and type: at least float32"),
    (OnMeta, "shape and type: a grid on the images' device"),
    (NotFinite, "shape and type: finite"),
    (OfTheBatch, "batch equals singles"),
    (ReadsMemory, "targets: one target beside a list"),
    (FirstCallable, "callable targets: one callable per image"),
    (Random, "the same again: the same map"),
    (RandomState, "the same again: torch's random state"),
    (ImagesChanged, "model as it was: the images"),
    (HoldsData, "the same again: settings"),
    (Training, "model in training: .*mode of"),
    (Hooked, "model as it was: .*hooks of"),
    (Frozen, "model as it was: .*requires_grad of"),
    (ForgetsGradients, "model in training: .*grad of"),
    (Marks, "model as it was: .*attributes of"),
    (SetsAFlag, "model as it was: .*deterministic"),
    (Writes, "model as it was: .*values of"),
    (Swallows, "model as it was after an exception: an exception in the model's forward was needed to come through"),
    (LeavesAHook, "model as it was after an exception: .*hooks of"),
    (Growing, "nothing grows"),
    (OneThread, "two threads: in a thread"),
    (FailsInThreads, "two threads: a map from each"),
    (Divides, "a constant image"),
    (Nameless, "settings: a repr"),
    (Careless, "settings: an unknown setting"),
]


@pytest.mark.parametrize(("broken", "said"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_who_breaks_a_rule_is_caught(broken: type[Explainer], said: str) -> None:
    with pytest.raises(ConformanceError, match=said) as caught:
        check_explainer(broken, tiny("class token"), calls=5)
    assert str(caught.value).startswith("'good' on VisionTransformer: ")


def tiny(kind: str) -> nn.Module:
    return dict(tiny_models())[kind]


def accept(*_: Any, **__: Any) -> None:
    """A check of input that lets everything through."""


@pytest.mark.parametrize(
    ("place", "name", "instead", "said"),
    [
        ("trt_cam.observe.passes", "check_images", accept, "errors: "),
        ("trt_cam.observe.passes", "check_placed", accept, "errors: another precision"),
        (
            "trt_cam.explainers.binding",
            "resolve_asked",
            lambda asked, *more: resolve_asked(0 if isinstance(asked, int) else asked, *more),
            "targets: one target",
        ),
        ("trt_cam.observe.quiet", "eval_mode", lambda _: nullcontext(), "model in training: "),
        ("trt_cam.explainers.base", "normalized", lambda maps, _: maps + 1, r"np.asarray in \[0, 1\]"),
    ],
)
def test_a_library_that_breaks_a_rule_is_caught(
    monkeypatch: pytest.MonkeyPatch, place: str, name: str, instead: Any, said: str
) -> None:
    if (place, name) == ("trt_cam.observe.passes", "check_images"):  # the binding checks too: both are needed away
        monkeypatch.setattr("trt_cam.explainers.binding.check_images", accept)
    monkeypatch.setattr(f"{place}.{name}", instead)
    models = {"eval_mode": dropping, "check_placed": lambda: tiny("class token")}
    with pytest.raises(ConformanceError, match=said):
        check_explainer("cam", models.get(name, lambda: tiny("CNN"))(), calls=2)


def dropping() -> nn.Module:
    import timm

    return timm.create_model("resnet10t", num_classes=7, drop_rate=0.5).eval()


def test_errors_need_the_librarys_own_kind_in_one_line() -> None:
    def fail(error: Exception) -> Callable[[], None]:
        def call() -> None:
            raise error

        return call

    refused("this", fail(InputError("something was needed, got nothing; give something")))
    for call, said in (
        (fail(ValueError("something was needed, got nothing")), "got ValueError"),
        (fail(InputError("too short")), "one line that says what to do"),
        (fail(InputError("something was needed,\ngot nothing; give something")), "one line"),
        (lambda: None, "got a result"),
    ):
        with pytest.raises(ConformanceError, match=f"this: .*{said}"):
            refused("this", call)


def test_every_check_is_broken_by_somebody() -> None:
    said = [words.split(":")[0] for _, words in BROKEN]
    assert {check.__name__.replace("_", " ") for check in CHECKS} - set(said) == {"errors"}  # the library's own


class Fails(Good):
    def grid(self, seen: Observation, target: Any) -> Tensor:
        raise KeyError("nothing here")


def test_a_method_that_fails_is_named_with_its_error() -> None:
    with pytest.raises(ConformanceError, match="'good' on class token: model as it was: .*KeyError.*nothing here"):
        check_explainer(Fails)


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


LOWER: dict[str, tuple[Callable[[], nn.Module], torch.dtype, bool]] = {
    "a transformer in float16": (lambda: FAMILIES["vit"]().half(), torch.float16, False),
    "a CNN in float16": (lambda: small_cnn().half(), torch.float16, False),
    "TS-CAM's network in float16": (lambda: TSCAMNet(FAMILIES["vit"]()).eval().half(), torch.float16, False),
    "a transformer under autocast": (lambda: FAMILIES["vit"](), torch.float32, True),
    "a CNN under autocast": (small_cnn, torch.float32, True),
}


@pytest.mark.parametrize("kind", LOWER)
def test_maps_are_float32_at_least_whatever_a_model_runs_in(kind: str) -> None:
    build, dtype, autocast = LOWER[kind]
    model, images = build(), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for method in METHODS:
        try:
            explain = create_explainer(method, model, **SMALL.get(method, {}))
        except UnsupportedModelError:
            continue
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), no_onednn():
            grid = explain(images.to(dtype), [1, 2]).grid
        assert grid.dtype == torch.float32 and grid.isfinite().all(), method
        if method in ("rollout", "rise", "score-cam", "ablation-cam", "ts-cam"):  # sums of many answers
            assert (grid != grid.bfloat16()).any() and (grid != grid.half()).any(), f"{method} was rounded on its way"
