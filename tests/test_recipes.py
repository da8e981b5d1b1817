"""Explainers of one's own and of other packages: what the pages make is right; foreign functions; plugins."""

from __future__ import annotations

import copy
import pickle
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES
from pages import ROOT
from running import ran
from torch import Tensor, nn

from trt_cam.errors import InputError
from trt_cam.explainers import (
    Explainer,
    create_explainer,
    get_explainer,
    list_explainers,
    register_explainer,
    register_foreign,
    register_function,
    registry,
)
from trt_cam.testing import check_explainer


@pytest.fixture(autouse=True)
def registry_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    list_explainers()
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    monkeypatch.setattr(registry, "_loaded", set(registry._loaded))


def names_of(page: str, *needed: str) -> dict[str, Any]:
    """What a page's blocks made; skipped where they need a package that is not installed."""
    found = ran(page)
    for name in needed:
        if name not in found.names:
            pytest.skip("; ".join(f"{place} needs {what}" for place, what in found.left_out.items()))
    return found.names


def assert_as_it_was(model: nn.Module) -> None:
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._backward_hooks or m.training for m in model.modules())


# ------------------------------------------------------------------------------------------------ what the pages make

ADD, FROM, ELSEWHERE = "docs/add-an-explainer.md", "docs/coming-from.md", "docs/from-another-repository.md"


def test_a_class_of_ones_own() -> None:
    names = names_of(ADD)
    vit, images = names["vit"], names["images"]
    (block,) = [part for part in (ROOT / ADD).read_text().split("```") if "class SaliencyRollout" in part]
    written = block.partition("@register_explainer")[2].partition("\n\n\n")[0]
    assert len(written.strip().splitlines()) <= 24
    rollout = create_explainer("rollout", vit, residual=0.3)(images).grid
    evidence = create_explainer("grad-cam", vit)(images, [1, 4]).grid.relu()
    found = names["explanation"]
    torch.testing.assert_close(found.grid, rollout * evidence)
    assert found.layer == "blocks.2.norm1" and found.row == "class token" and found.grid.any()
    made = pickle.dumps(names["SaliencyRollout"](0.3).settings())
    assert pickle.loads(made) == {"residual": 0.3}


def test_a_function_of_ones_own() -> None:
    names = names_of(ADD)
    images, cnn, method = names["images"], names["cnn"], names["feature_norm"]
    with torch.no_grad():
        features = cnn.forward_features(images)
    torch.testing.assert_close(create_explainer(method, cnn, order=1.0)(images).grid, features.abs().sum(dim=1))
    torch.testing.assert_close(create_explainer(method, cnn)(images).grid, features.norm(dim=1))
    assert repr(method()) == "feature_norm(order=2.0)"


def test_the_words_of_the_page_are_those_of_requires() -> None:
    text = (ROOT / ADD).read_text()
    named = set(re.findall(r'"([\w ]+)"', text.partition("| word of `requires` |")[2].partition("\n\n")[0]))
    methods = [get_explainer(name) for name in list_explainers()]
    known = set().union(*(method.requires | method.wants for method in methods))
    assert known <= named and named - known <= {"keys"}  # of clustering, as its settings say


def test_grad_cam_of_its_own_package() -> None:
    names = names_of(ADD, "their_hires_cam")
    vit, images = names["vit"], names["images"]
    ours = create_explainer("hires-cam", vit)(images, [1, 4])
    theirs = create_explainer(names["their_hires_cam"], vit)(images, [1, 4])
    np.testing.assert_allclose(np.asarray(theirs), np.asarray(ours), atol=1e-5)
    assert theirs.grid.shape == (2, 64, 64)
    assert_as_it_was(vit)


def test_captum() -> None:
    names = names_of(ADD, "captum_grad_cam", "integrated_gradients")
    cnn, images = copy.deepcopy(names["cnn"]).double(), names["images"].double()
    ours = create_explainer("grad-cam", cnn)(images, [1, 4]).grid
    theirs = create_explainer(names["captum_grad_cam"], cnn)(images, [1, 4]).grid
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-12)
    found = create_explainer(names["integrated_gradients"], cnn, steps=64)(images, [1, 4])
    with torch.no_grad():
        change = (cnn(images) - cnn(torch.zeros_like(images)))[[0, 1], [1, 4]]
    torch.testing.assert_close(found.grid.sum(dim=(1, 2)), change, rtol=0.02, atol=1e-4)  # completeness, 64 steps
    assert_as_it_was(cnn)


def test_quantus() -> None:
    names = names_of(ELSEWHERE, "scores")
    vit, images = names["small"], names["images"]
    heat = np.asarray(create_explainer("rollout", vit)(images))[:, None]
    batch = {"model": vit, "x_batch": images.numpy(), "y_batch": np.array([1, 4])}
    assert np.shape(names["scores"]) == (2, 24) and np.ptp(names["scores"]) > 0
    np.testing.assert_allclose(names["scores"], names["metric"](**batch, a_batch=heat), rtol=1e-6)
    other = names["metric"](**batch, a_batch=-heat)
    assert not np.allclose(names["scores"], other, rtol=1e-3)
    assert_as_it_was(vit)


def test_two_changed_lines() -> None:
    names = names_of(FROM, "after")
    assert names["after"].shape == names["before"].shape == (2, 64, 64) and names["before"].any()
    assert names["after"].dtype == names["before"].dtype
    np.testing.assert_allclose(names["after"], names["before"], atol=1e-5)


def test_from_torchcam() -> None:
    names = names_of(FROM, "after_torchcam")
    before, after = names["before_torchcam"].detach(), names["after_torchcam"]
    assert before.any()
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))


def test_from_captum() -> None:
    names = names_of(FROM, "after_captum")
    before, after = names["before_captum"].detach()[:, 0], names["after_captum"]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))


def test_methods_that_the_tables_name_are_there() -> None:
    text = (ROOT / FROM).read_text()
    tables = [line for line in text.splitlines() if line.startswith("| `")]
    ours = {name for line in tables for name in re.findall(r"`([a-z+-]+)`", line.split(" | ")[1])}
    methods = {name for name in ours if "-" in name or name in ("cam", "occlusion")}
    assert len(methods) > 12 and methods <= set(list_explainers())


# --------------------------------------------------------------------------------------------------- foreign functions


@register_foreign("rude", class_specific=False)
def rude(model: nn.Module, images: Tensor, target: Tensor, *, power: float = 1.0) -> Tensor:
    """Leaves everything behind that a method can leave behind."""
    model.train()
    model.register_forward_hook(lambda *_: None)
    model.requires_grad_(False)
    list(model.parameters())[-1].requires_grad_(True)
    model(images)[:, 0].sum().backward()
    model.added = True
    images.mul_(2)
    torch.manual_seed(77)
    np.random.seed(77)
    noise = torch.rand(images.shape[1:]) * float(np.random.rand())
    return (images.detach() * noise).abs().mean(dim=1) ** power


registry._registry.pop("rude")


def test_a_rude_function_does_no_harm() -> None:
    register_explainer(rude)
    assert check_explainer("rude", calls=3)
    model, images = FAMILIES["vit"]().double(), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert "added" not in vars(model)
    copy, torch_state, numpy_state = images.clone(), torch.get_rng_state(), np.random.get_state()
    weights = [p.clone() for p in model.parameters()]
    with torch.inference_mode():
        found = create_explainer("rude", model, power=2.0)(images)
    assert torch.equal(images, copy) and torch.equal(torch.get_rng_state(), torch_state)
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy_state, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert found.grid.dtype == torch.float64 and not found.grid.requires_grad
    assert_as_it_was(model)
    assert pickle.loads(pickle.dumps(rude(power=3.0))).power == 3.0


def test_weights_are_shared_not_copied() -> None:
    seen: list[nn.Module] = []

    @register_foreign("looks", class_specific=False)
    def looks(model: nn.Module, images: Tensor, target: Any) -> np.ndarray:
        seen.append(model)
        return np.ones((len(images), 2, 3), dtype=np.float16)

    model = FAMILIES["beit"]()
    grid = create_explainer("looks", model)(torch.randn(2, 3, 64, 64)).grid
    assert grid.shape == (2, 2, 3) and grid.dtype == torch.float32
    for one, other in zip(model.parameters(), seen[0].parameters(), strict=True):
        assert one.data_ptr() == other.data_ptr()
    assert seen[0] is not model and not seen[0].training


def test_random_numbers_are_the_same_in_every_thread() -> None:
    @register_foreign("draws", class_specific=False)
    def draws(model: nn.Module, images: Tensor, target: Any) -> Tensor:
        return torch.stack([torch.rand(3, 3) for _ in images])

    explain, found = create_explainer("draws", FAMILIES["vit"]()), []
    images = torch.randn(2, 3, 64, 64)
    threads = [threading.Thread(target=lambda: found.append(explain(images).grid)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(torch.equal(one, explain(images).grid) for one in found)


def test_what_a_foreign_function_is_asked_for() -> None:
    asked: list[Any] = []

    def score(logits: Tensor) -> Tensor:
        return logits[2]

    @register_foreign("asks", callables=True)
    def asks(model: nn.Module, images: Tensor, target: Any) -> Tensor:
        asked.append(target)
        return images[:, 0]

    explain, images = create_explainer("asks", FAMILIES["vit"]()), torch.randn(2, 3, 64, 64)
    predicted = explain(images).logits.argmax(1)
    for target in (3, [[1, 2], [3, 4]], score, [score, score]):
        explain(images, target)
    assert [one.tolist() if isinstance(one, Tensor) else one for one in asked] == [
        predicted.tolist(), [3, 3], [1, 3], [2, 4], score, [score, score],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("result", "came"),
    [
        (torch.zeros(2, 3, 64, 64), r"got \(2, 3, 64, 64\)"),
        (np.zeros((1, 4, 4)), r"got \(1, 4, 4\)"),
        (None, "got NoneType"),
        (torch.zeros(2, 4, 4, dtype=torch.complex64), r"got \(2, 4, 4\) torch.complex64"),
    ],
)
def test_a_function_that_returns_something_else(result: Any, came: str) -> None:
    register_foreign("wrong")(lambda model, images, target: result)
    register_function("wrong too", requires={"features"})(lambda seen, target: result)
    for name in ("wrong", "wrong too"):
        with pytest.raises(InputError, match=rf"maps \(B, h, w\) with B = 2 .* {name!r}, {came}"):
            create_explainer(name, FAMILIES["vit"]())(torch.randn(2, 3, 64, 64), 1)


def test_settings_of_functions() -> None:
    @register_function("needy")
    def needy(seen: Any, target: Any, *, sides: int, order: float = 2.0) -> Tensor:
        return seen.images[:, 0, :sides, :sides] ** order

    model, images = FAMILIES["vit"](), torch.randn(1, 3, 64, 64)
    assert torch.equal(create_explainer("needy", model, sides=3)(images, 1).grid, images[:, 0, :3, :3] ** 2)
    with pytest.raises(InputError, match="'needy' needs a value for sides"):
        create_explainer("needy", model)
    with pytest.raises(InputError, match="among sides, order were needed, got side"):
        create_explainer("needy", model, side=3)
    with pytest.raises(InputError, match="other names than an explainer's own, got name"):
        register_function("clash")(lambda seen, target, name=1: None)
    with pytest.raises(InputError, match="a function was needed"):
        register_function("no function")(3)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ registry


def define(module: str) -> type[Explainer]:
    return type("Again", (Explainer,), {"name": "again", "__module__": module})


def test_a_class_that_is_defined_again_replaces_itself() -> None:
    first, second = define("notebook"), define("notebook")
    register_explainer(first)
    assert register_explainer(second) is second and get_explainer("again") is second
    with pytest.raises(InputError, match="taken by Again"):
        register_explainer(define("elsewhere"))
    with pytest.raises(InputError, match="subclass of Explainer was needed.*register_function"):
        register_explainer(lambda: None)  # type: ignore[arg-type]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Install a package with one module and its entry points."""
    monkeypatch.syspath_prepend(tmp_path)
    modules: list[str] = []

    def install(name: str, source: str, points: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        facts = tmp_path / f"{name}-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[trt_cam.explainers]\n{points}\n")
        modules.append(name)

    yield install
    for name in modules:
        sys.modules.pop(name, None)


GOOD = """
from trt_cam import Explainer, register_function
class Mine(Explainer):
    name = "plugged"
    requires = frozenset({"features"})
    class_specific = False
    def grid(self, seen, target):
        return seen.features.mean(dim=1)
"""


def test_plugins(installed: Callable[[str, str, str], None]) -> None:
    installed("good_plugin", GOOD, "plugged = good_plugin:Mine")
    more = (
        "\n@register_function('more', requires={'features'})\ndef more(seen, target):\n    return seen.features[:, 0]\n"
    )
    installed("module_plugin", GOOD.replace("plugged", "other") + more, "all = module_plugin")
    installed("broken_plugin", "raise RuntimeError('no\\nlibrary')", "broken = broken_plugin:Mine")
    installed("missing_plugin", "", "missing = missing_plugin:Mine")
    installed("rival_plugin", GOOD.replace("plugged", "cam"), "cam2 = rival_plugin:Mine")
    installed("odd_plugin", "Mine = 3", "odd = odd_plugin:Mine")
    with pytest.warns(UserWarning, match="is left out") as caught:
        names = list_explainers()
    said = {str(one.message) for one in caught}
    assert {"plugged", "more", "cam"} <= set(names) and not {"broken", "missing", "odd"} & set(names)
    assert get_explainer("cam").__module__.startswith("trt_cam")
    assert len(said) == 4 and not any("\n" in line for line in said)
    assert "explainer 'broken' of package 'broken_plugin' is left out: RuntimeError: no library" in said
    for package, reason in (
        ("missing_plugin", "AttributeError"),
        ("rival_plugin", "taken"),
        ("odd_plugin", "subclass"),
    ):
        assert any(f"package {package!r}" in line and reason in line for line in said), package
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list_explainers() == names  # said once
    assert check_explainer("plugged", FAMILIES["vit"](), calls=3)
