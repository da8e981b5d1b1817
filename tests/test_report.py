"""Pictures: the overlay, boxes on it, and figures of several methods."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import trt_cam
from trt_cam.data.frames import frame_of
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers import get_explainer
from trt_cam.localization import localize
from trt_cam.report import comparison
from trt_cam.report.figures import side_by_side, to_png
from trt_cam.report.overlay import colours, draw_boxes, draw_result

PHOTO = Path(trt_cam.__file__).parent / "assets" / "coffee.jpg"


@pytest.fixture(scope="module")
def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vit", pretrained=False).eval()


class TestOverlay:
    def test_is_a_blend_of_photo_and_colours(self) -> None:
        photo = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
        heat = np.linspace(0, 1, 35).reshape(5, 7)
        seen = np.asarray(trt_cam.overlay(photo, heat, alpha=0.25)).astype(float)
        wanted = 0.75 * photo + 0.25 * colours(heat)
        assert np.abs(seen - wanted).max() <= 1

    def test_cold_is_blue_and_hot_is_red(self) -> None:
        cold, hot = colours(np.array([[0.0, 1.0]]))[0].astype(int)
        assert cold[2] > 100 > cold[0] and hot[0] > 100 > hot[2]

    def test_small_heat_and_tensors_cover_the_photo(self) -> None:
        heat = torch.tensor([[0.0, 1.0]], requires_grad=True)
        seen = np.asarray(trt_cam.overlay(PHOTO, heat, alpha=1.0))
        assert seen.shape == (400, 600, 3)
        np.testing.assert_array_equal(seen[0, 0], colours(np.zeros((1, 1)))[0, 0])
        np.testing.assert_array_equal(seen[-1, -1], colours(np.ones((1, 1)))[0, 0])

    @pytest.mark.parametrize(
        ("heat", "options", "said"),
        [
            (np.zeros((2, 2, 3)), {}, "shape"),
            (np.zeros((0, 2)), {}, "shape"),
            (np.array([["a"]]), {}, "shape"),
            (np.array([[np.nan]]), {}, "nan"),
            (np.array([[2.0]]), {}, "0, 1"),
            (np.array([[-0.1]]), {}, "0, 1"),
            (np.zeros((2, 2)), {"alpha": 1.5}, "alpha"),
            (np.zeros((2, 2)), {"colormap": "jett"}, "jet"),
        ],
    )
    def test_bad_input(self, heat: np.ndarray, options: dict, said: str) -> None:
        with pytest.raises(InputError, match=said) as caught:
            trt_cam.overlay(PHOTO, heat, **options)
        assert "\n" not in str(caught.value)


class TestBoxes:
    def test_the_line_lies_on_the_boxs_own_pixels(self) -> None:
        grey = Image.new("RGB", (100, 80), (128, 128, 128))
        seen = np.asarray(draw_boxes(grey, np.array([[20, 30, 60, 70]])))
        ys, xs = np.nonzero((seen != 128).any(-1))
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (20, 30, 60, 70)
        assert (seen[50, 40] == 128).all()
        assert np.asarray(grey).min() == 128  # the given picture is not drawn on

    @pytest.mark.parametrize("box", [[0, 0, 1, 1], [0, 0, 100, 80], [99, 79, 100, 80], [0, 0, 2, 80]])
    def test_boxes_at_the_edges_with_captions(self, box: list[int]) -> None:
        seen = draw_boxes(Image.new("RGB", (100, 80), "grey"), np.array([box]), "a caption wider than the picture")
        assert seen.size == (100, 80)

    def test_no_box_but_a_caption(self) -> None:
        seen = np.asarray(draw_boxes(Image.new("RGB", (100, 80)), np.zeros((0, 4), dtype=np.int64), "blank"))
        assert seen.max() > 200

    def test_a_reduced_picture_has_its_boxes_reduced(self) -> None:
        photo = Image.new("RGB", (400, 200), (128, 128, 128))
        frame = frame_of((200, 400), (32, 32), "pad")
        picture = draw_result(
            photo, np.zeros((32, 32), np.float32), frame, np.array([[100, 40, 300, 160]]), "", max_side=100
        )
        assert picture.size == (100, 50)
        whites = np.nonzero((np.asarray(picture) == 255).all(-1))
        assert (whites[1].min(), whites[0].min(), whites[1].max(), whites[0].max()) == (26, 11, 73, 38)

    @pytest.mark.parametrize("box", [[0, 3, 50, 4], [19_990, 0, 20_000, 10], [0, 9, 20_000, 10], [7, 0, 8, 10]])
    def test_a_box_that_is_thinner_than_a_pixel_of_a_reduced_picture_is_seen(self, box: list[int]) -> None:
        photo, frame = Image.new("RGB", (20_000, 10), (128, 128, 128)), frame_of((10, 20_000), (32, 32))
        heat, none = np.zeros((32, 32), np.float32), np.zeros((0, 4), dtype=np.int64)
        pictures = [draw_result(photo, heat, frame, boxes, "", max_side=640) for boxes in (none, np.array([box]))]
        assert pictures[1].size == (640, 1)
        assert (np.asarray(pictures[0]) != np.asarray(pictures[1])).any()

    @pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
    def test_a_reduced_picture_has_its_heat_reduced(self, fit: str) -> None:
        photo = Image.new("RGB", (400, 200), (128, 128, 128))
        frame = frame_of((200, 400), (64, 64), fit)  # type: ignore[arg-type]
        heat = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        values = torch.nn.functional.interpolate(heat, size=(64, 64), mode="bilinear")[0, 0].numpy()
        none = np.zeros((0, 4), dtype=np.int64)
        whole = draw_result(photo, values, frame, none, "").resize((200, 100), Image.Resampling.BOX)
        small = draw_result(photo, values, frame, none, "", max_side=200)
        assert np.abs(np.asarray(whole).astype(int) - np.asarray(small)).mean() < 3


class TestCompare:
    def test_methods_side_by_side(self, tiny: torch.nn.Module, tmp_path: Path) -> None:
        found = trt_cam.compare(PHOTO, ["grad-cam", "rollout", "trt"], model=tiny, out=tmp_path / "c.png")
        assert list(found.results) == ["grad-cam", "rollout"]
        assert "heads" in found.refused["trt"] or "trt" in found.refused["trt"]
        assert Image.open(tmp_path / "c.png").size[0] > 600
        assert found._repr_png_()[:4] == b"\x89PNG"
        assert "grad-cam: <Localization" in repr(found) and "trt: refused" in repr(found)

    def test_all_methods_explain_the_same_class(self, tiny: torch.nn.Module) -> None:
        found = trt_cam.compare(PHOTO, ["grad-cam", "cam"], model=tiny, target="tabby").results
        assert {result.label for result in found.values()} == {"tabby, tabby cat"}

    def test_the_first_methods_class_is_every_methods(
        self, tiny: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def recorded(*args: object, target: int | None, **options: object) -> object:
            asked.append(target)
            return localize(*args, target=11 if target is None else target, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(comparison, "localize", recorded)
        trt_cam.compare(PHOTO, ["grad-cam", "cam", "rollout"], model=tiny)
        assert asked == [None, 11, 11]

    def test_one_method_with_two_settings_is_two_results(self, tiny: torch.nn.Module) -> None:
        methods = [get_explainer("grad-cam")(), get_explainer("grad-cam")(target_layers="blocks.0"), "cam"]
        found = trt_cam.compare(PHOTO, methods, model=tiny).results
        assert list(found) == ["grad-cam", "grad-cam (target_layers=blocks.0)", "cam"]
        assert not np.array_equal(*(one.grid for one in list(found.values())[:2]))

    def test_bad_input(self, tiny: torch.nn.Module, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="list of names"):
            trt_cam.compare(PHOTO, "grad-cam", model=tiny)
        with pytest.raises(InputError, match="list of names"):
            trt_cam.compare(PHOTO, [], model=tiny)
        with pytest.raises(InputError, match="did you mean"):
            trt_cam.compare(PHOTO, ["gradcam"], model=tiny)
        with pytest.raises(UnsupportedModelError, match="none of"):
            trt_cam.compare(PHOTO, ["trt"], model=tiny)
        with pytest.raises(InputError, match="cannot write"):
            trt_cam.compare(PHOTO, ["grad-cam"], model=tiny, out=tmp_path / "no" / "c.png")

    def test_a_figure_with_extreme_shapes(self) -> None:
        pictures = [Image.new("RGB", size) for size in ((1, 1), (500, 3), (3, 500), (20, 20), (9, 9))]
        png = to_png(side_by_side(pictures, list("abcde")))
        assert png[:4] == b"\x89PNG" and len(png) < 500_000


def test_drawing_leaves_pyplot_alone() -> None:
    code = (
        "import sys, numpy as np, trt_cam\n"
        "from trt_cam.report.figures import side_by_side, to_png\n"
        "picture = trt_cam.overlay(np.zeros((9, 9, 3), np.uint8), np.zeros((3, 3)))\n"
        "to_png(side_by_side([picture], ['a']))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
