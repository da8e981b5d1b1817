"""Families whose maps other packages get wrong without a word: here they are right, or refused with the reason.

And the checks behind the table of models see what they are there to see.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from families import shaken
from torch import Tensor, nn

from trt_cam.errors import UnsupportedModelError
from trt_cam.explainers import create_explainer, get_explainer, list_explainers

sys.path.append(str(Path(__file__).parent.parent / "examples"))
from model_checks import Truth, difference, places, unfused  # noqa: E402

TARGET = torch.tensor([1, 4])

FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[int, int], int]] = {
    "class token": ("vit_tiny_patch16_224", {"img_size": 96, "depth": 3}, (6, 6), 1),
    "class and distillation token": ("deit_tiny_distilled_patch16_224", {"img_size": 96, "depth": 3}, (6, 6), 2),
    "registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 84, "depth": 3}, (6, 6), 5),
    "attention pool": ("vit_base_patch16_siglip_224", {"img_size": 64, "depth": 2, "embed_dim": 96}, (4, 4), 0),
    "not square": ("vit_tiny_patch16_224", {"img_size": (64, 96), "depth": 3}, (4, 6), 1),
    "no class token": ("vit_relpos_small_patch16_224", {"img_size": 64, "depth": 2, "embed_dim": 96}, (4, 4), 0),
    "class attention": ("cait_xxs24_224", {"img_size": 64, "depth": 3}, (4, 4), 0),
    "channel attention": ("xcit_nano_12_p16_224", {"img_size": 64, "depth": 3}, (4, 4), 1),
    "windows": ("swin_tiny_patch4_window7_224", {"img_size": 128, "depths": (1, 1, 1, 1), "embed_dim": 48}, (4, 4), 0),
}
"""Model, settings, patch grid (Gh, Gw), and tokens before the patches, by what is particular."""

ROWS = ["last-attention", "raw-attention", "rollout"]


def made(kind: str) -> tuple[nn.Module, Tensor]:
    name, settings, _, _ = FAMILIES[kind]
    torch.manual_seed(0)
    model = shaken(timm.create_model(name, num_classes=7, **settings)).double().eval()
    size = settings["img_size"]
    sides = (size, size) if isinstance(size, int) else size
    return model, torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(3)).double()


def expected(model: Any, images: Tensor, kind: str) -> dict[str, Tensor]:
    layer = create_explainer("grad-cam", model).backbone
    return Truth(model, images, TARGET, layer.layer, FAMILIES[kind][2], layer.pooling).maps()


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_map_is_that_of_its_formula_or_refused(kind: str) -> None:
    model, images = made(kind)
    truth = expected(model, images, kind)
    assert {"grad-cam", "hires-cam", "eigen-cam"} <= set(truth)
    for method in ["grad-cam", "hires-cam", "eigen-cam", "cam", *ROWS]:
        try:
            found = create_explainer(method, model)(images, [1, 4]).grid
        except UnsupportedModelError as error:
            cancels = method == "hires-cam" and float(truth[method].abs().max()) < 1e-5
            assert method in ROWS or cancels, f"{method}: {error}"
            assert "\n" not in str(error) and (
                "explainers that fit it" in str(error) or "grad-cam or layer-cam" in str(error)
            )
            continue
        assert found.shape == (2, *FAMILIES[kind][2]), method
        assert method in truth, f"{method} gives a map of {kind} that has no formula here"
        assert difference(found, truth[method], signed=method != "eigen-cam") < 1e-6, method


REFUSED = {"class attention": {"rollout"}, "channel attention": {"rollout"}, "windows": set(ROWS)}


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("method", ROWS)
def test_rows_are_refused_where_no_row_stands_for_the_classifier(kind: str, method: str) -> None:
    """Elsewhere patches of 13 x 15, of 16 x 16, or of a matrix over channels, are shown for these."""
    model, images = made(kind)
    if method in REFUSED.get(kind, ()):
        with pytest.raises(UnsupportedModelError, match="explainers that fit it: .*grad-cam"):
            create_explainer(method, model)
        return
    found = create_explainer(method, model)(images)
    assert found.grid_size == FAMILIES[kind][2]
    assert len(found.grid) == 2 and not torch.allclose(found.grid[0], found.grid[1])


@pytest.mark.parametrize("kind", FAMILIES)
def test_no_token_before_the_patches_takes_part(kind: str) -> None:
    """A map of rows sums to the share of attention on patches, counted on timm's own matrices."""
    model, images = made(kind)
    prefix = FAMILIES[kind][3]
    if prefix == 0 or kind in REFUSED:
        pytest.skip("nothing before the patches, or no matrix over all tokens")
    kept: list[Tensor] = []
    with unfused(model), torch.no_grad():
        handle = model.blocks[-1].attn.attn_drop.register_forward_hook(lambda m, a, out: kept.append(out))
        model(images)
        handle.remove()
    share = kept[0][:, :, 0, prefix:].mean(1).sum(-1)
    assert (share < 0.999).all()  # so that a map that counts them would be seen
    torch.testing.assert_close(create_explainer("last-attention", model)(images).grid.sum((1, 2)), share)


@pytest.mark.parametrize("method", [name for name in list_explainers() if "gradient" in get_explainer(name).requires])
@pytest.mark.parametrize("kind", ["class token", "class and distillation token", "registers"])
def test_the_last_block_of_a_class_token_has_no_gradient_and_that_is_said(kind: str, method: str) -> None:
    """Elsewhere the map is zero everywhere, without a warning."""
    model, images = made(kind)
    with pytest.raises(UnsupportedModelError, match="exactly zero.*target_layers=.*norm1"):
        create_explainer(method, model, target_layers="blocks.2")(images, [1, 4])
    assert create_explainer(method, model)(images, [1, 4]).layer == "blocks.2.norm1"


def test_targets_that_are_fewer_than_images_are_refused_and_all_images_have_maps() -> None:
    model, images = made("class token")
    with pytest.raises(ValueError, match="2"):
        create_explainer("grad-cam", model)(images, [1])
    assert (np.asarray(create_explainer("grad-cam", model)(images, [1, 4])).max((1, 2)) > 0.9).all()


def test_rollout_divides_rows_by_their_own_sum() -> None:
    """Elsewhere columns are scaled, so that a row does not sum to 1; here all of it is on tokens."""
    model, images = made("no class token")
    total = create_explainer("rollout", model)(images).grid.sum((1, 2))
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda x: x, "right"),
        (lambda x: x.transpose(-1, -2), "transposed"),
        (lambda x: x.flip(-1), "mirrored"),
        (lambda x: x.flip(-2), "upside down"),
    ],
)
def test_the_check_of_places_names_a_wrong_layout(wrong: Any, word: str) -> None:
    pool = nn.AvgPool2d(16)
    score, found = places(lambda x: wrong(pool(x)), torch.randn(1, 3, 96, 96))
    assert found == word
    assert (score == 1.0) == (word == "right")


def test_the_check_of_places_gives_a_shuffled_map_no_more_than_chance() -> None:
    order = torch.randperm(36, generator=torch.Generator().manual_seed(0))
    look = lambda x: nn.functional.avg_pool2d(x, 16).flatten(2)[:, :, order].unflatten(2, (6, 6))  # noqa: E731
    assert places(look, torch.randn(1, 3, 96, 96))[0] < 0.7


def test_the_table_of_one_small_model_is_made(tmp_path: Path) -> None:
    import model_table

    rows, out = tmp_path / "rows.jsonl", tmp_path / "models.md"
    threads, argv = torch.get_num_threads(), sys.argv
    sys.argv = [
        "model_table.py",
        "--resume",
        str(rows),
        "--only",
        "vision_transformer, patch mean",
        "--write",
        str(out),
    ]
    try:
        model_table.main()
        model_table.main()  # nothing is left to do
    finally:
        sys.argv = argv
        torch.set_num_threads(threads)
    assert len(rows.read_text().splitlines()) == 1
    text = out.read_text()
    assert "| vision_transformer, patch mean | `vit_tiny_patch16_224`" in text and "96x128 | 6x8" in text
    assert "✗ 0." in text and "● 0" not in text
