"""Faithfulness metrics against plain loops over their definitions, and against Quantus and captum where these agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import FAMILIES
from torch import Tensor, nn

from trt_cam.errors import InputError
from trt_cam.explainers import create_explainer
from trt_cam.metrics import (
    average_drop,
    deletion,
    energy_in_box,
    faithfulness,
    insertion,
    max_sensitivity,
    pointing_game,
)

TARGET = torch.tensor([1, 4])


def model_and_images() -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    heat = torch.rand(2, 64, 64, generator=generator).double()
    return FAMILIES["vit"]().double(), torch.randn(2, 3, 64, 64, generator=generator).double(), heat


def plain(model: nn.Module, image: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(model(image[None]).softmax(1)[0, target])


@pytest.mark.parametrize("kind", ["insertion", "deletion"])
def test_curves_are_the_papers_areas(kind: str) -> None:
    model, images, heat = model_and_images()
    steps, expected = 8, []
    for image, one, target in zip(images.numpy(), heat.numpy(), TARGET.tolist(), strict=True):
        order = np.argsort(-one.ravel(), kind="stable")
        values = []
        for step in range(steps + 1):
            marked = order[: round(64 * 64 * step / steps)]
            mixed = np.zeros_like(image) if kind == "insertion" else image.copy()
            for channel in range(3):
                mixed[channel].ravel()[marked] = image[channel].ravel()[marked] if kind == "insertion" else 0
            values.append(plain(model, torch.from_numpy(mixed), target))
        expected.append(sum((a + b) / 2 for a, b in zip(values, values[1:], strict=False)) / steps)
    measure = insertion if kind == "insertion" else deletion
    found = measure(model, images, heat, TARGET, steps=steps, baseline="zero", batch_size=3)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_blur_is_a_gaussian_of_the_authors_size() -> None:
    from scipy.ndimage import gaussian_filter

    model, images, heat = model_and_images()
    blurred = np.stack([gaussian_filter(one.numpy(), 5.0, axes=(1, 2), mode="nearest", radius=5) for one in images])
    expected = [plain(model, torch.from_numpy(one), target) for one, target in zip(blurred, (1, 4), strict=True)]
    whole = [plain(model, one, target) for one, target in zip(images, (1, 4), strict=True)]
    found = insertion(model, images, heat, TARGET, steps=1)
    np.testing.assert_allclose(found, [(a + b) / 2 for a, b in zip(expected, whole, strict=True)], rtol=1e-6)


def test_average_drop_and_increase() -> None:
    model, images, heat = model_and_images()
    drop, increase = average_drop(model, images, heat, TARGET)
    for index, target in enumerate(TARGET.tolist()):
        y, o = plain(model, images[index], target), plain(model, images[index] * heat[index], target)
        assert float(drop[index]) == pytest.approx(max(0, y - o) / y)
        assert float(increase[index]) == float(o > y)
    shown, more = average_drop(model, images, torch.ones(2, 64, 64).double(), TARGET)
    assert shown.tolist() == [0, 0]
    assert more.tolist() == [0, 0]


def test_pointing_game_and_energy() -> None:
    heat = torch.zeros(3, 20, 30)
    heat[0, 5, 8], heat[1, 19, 29] = 2.0, 1.0
    heat[0, 10, 20] = 1.0
    boxes = [[[6, 4, 9, 6]], [[0, 0, 20, 15], [27, 0, 28, 19]], [[0, 0, 5, 5]]]
    assert pointing_game(heat, boxes, tolerance=0).tolist() == [1, 0, 0]
    assert pointing_game(heat, boxes, tolerance=2.2).tolist() == [1, 0, 0]
    assert pointing_game(heat, boxes, tolerance=2.3).tolist() == [1, 1, 0]  # sqrt(2^2 + 1^2) from the second box
    np.testing.assert_allclose(energy_in_box(heat, boxes), [2 / 3, 0, 0])


def test_max_sensitivity_is_captums() -> None:
    metrics = pytest.importorskip("captum.metrics", reason="needs the package captum")
    images = model_and_images()[1][:1]

    def explain(x: Tensor) -> Tensor:
        return x.pow(3).mean(dim=1)

    generator, kept = torch.Generator().manual_seed(7), []
    for _ in range(3):
        kept.append((torch.rand(images.shape, generator=generator, dtype=torch.float64) * 2 - 1) * 0.1)
    given = iter(kept)
    theirs = metrics.sensitivity_max(
        lambda x: (explain(x[0]),),
        (images,),
        perturb_func=lambda x, radius: (x[0] + next(given),),
        n_perturb_samples=3,
        max_examples_per_batch=1,
    )
    found = max_sensitivity(explain, images, radius=0.1, samples=3, seed=7)
    np.testing.assert_allclose(found, theirs, rtol=1e-6)


def test_all_of_them_for_an_explainer() -> None:
    model, images, _ = model_and_images()
    explain = create_explainer("grad-cam", model)
    before = torch.get_rng_state()
    found = faithfulness(explain, images, [1, 4], boxes=[[[0, 0, 64, 64]]] * 2, steps=4, samples=2)
    assert torch.equal(before, torch.get_rng_state())
    heat = explain(images, [1, 4]).resize(mode="bilinear")
    torch.testing.assert_close(found["insertion"], insertion(model, images, heat, TARGET, steps=4))
    torch.testing.assert_close(found["deletion"], deletion(model, images, heat, TARGET, steps=4))
    assert found["pointing game"].tolist() == [1, 1]
    assert found["energy in box"].tolist() == pytest.approx([1, 1])
    assert set(found) >= {"average drop", "average increase", "max-sensitivity"}


def test_bad_input() -> None:
    model, images, heat = model_and_images()
    with pytest.raises(InputError, match=r"use explanation\.resize"):
        insertion(model, images, heat[:, :32], TARGET)
    with pytest.raises(InputError, match="heat must be finite"):
        deletion(model, images, heat / 0 * 0, TARGET)
    with pytest.raises(InputError, match="target must be one for each of 2 images"):
        average_drop(model, images, heat, TARGET[:1])
    with pytest.raises(InputError, match="baseline must be"):
        insertion(model, images, heat, TARGET, baseline="grey")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"each of its maps, got \(2, 64, 64\) and 1"):
        pointing_game(heat, [[[0, 0, 1, 1]]])
    with pytest.raises(InputError, match="with x0 < x1"):
        energy_in_box(heat, [[[0, 0, 0, 1]], [[0, 0, 1, 1]]])
    for corner in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="boxes must be finite, .* with x0 < x1"):
            pointing_game(heat, [[[0, 0, corner, 1]], [[0, 0, 1, 1]]])
    with pytest.raises(InputError, match="tolerance must be a number at least 0, got -1"):
        pointing_game(heat, [[[0, 0, 1, 1]]] * 2, tolerance=-1)
    with pytest.raises(InputError, match="steps must be an integer of at least 1, got 0"):
        insertion(model, images, heat, TARGET, steps=0)
    for measure in (insertion, deletion, average_drop):
        with pytest.raises(InputError, match="batch_size must be an integer of at least 1, got 0"):
            measure(model, images, heat, TARGET, batch_size=0)
    with pytest.raises(InputError, match="samples must be an integer of at least 1, got 0"):
        max_sensitivity(lambda x: x[:, 0], images, samples=0)
    with pytest.raises(InputError, match="radius must be above 0, got 0"):
        max_sensitivity(lambda x: x[:, 0], images, radius=0)
    with pytest.raises(InputError, match="at least one image was needed"):
        average_drop(model, images[:0], heat[:0], TARGET[:0])
    with pytest.raises(InputError, match="one class for each image"):
        faithfulness(create_explainer("grad-cam", model), images, lambda logits: logits[0])
