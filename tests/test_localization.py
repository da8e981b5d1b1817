"""From a photo to boxes on it, and every way that can go wrong."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import trt_cam
from trt_cam import pipeline
from trt_cam.backbone import preprocessing
from trt_cam.data.frames import fit_photo, frame_of
from trt_cam.data.photos import load_photo
from trt_cam.errors import InputError, TrtCamError, UnsupportedModelError
from trt_cam.localization import Failure, Localization, iter_localize, localize
from trt_cam.results import input_heat
from trt_cam.targets import resolve_target, resolve_targets

PHOTO = Path(trt_cam.__file__).parent / "assets" / "coffee.jpg"


@pytest.fixture(scope="module")
def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vit", pretrained=False).eval()


@pytest.fixture(scope="module")
def headless() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vit", pretrained=False, num_classes=0).eval()


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = []
    for index, size in enumerate([(60, 40), (33, 90), (160, 160), (300, 20), (8, 8)]):
        noise = np.random.default_rng(index).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(noise).save(paths[-1])
    return paths


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An explainer whose map is drawn by the test; its model says nothing."""

    class Drawn:
        classes = 1000

        def __init__(self) -> None:
            self.grid = torch.zeros(8, 8)
            self.sizes: list[int] = []
            self.explainer = SimpleNamespace(name="drawn")

        def __call__(self, images: torch.Tensor, target: Any = None, *, refine: str | None = None) -> Any:
            self.sizes.append(len(images))
            grid = self.grid.expand(len(images), -1, -1)
            asked = torch.zeros(len(images), dtype=torch.int64) if target is None else target
            return SimpleNamespace(evidence=grid, logits=torch.zeros(len(images), 1000), target=asked, method="drawn")

    explainer = Drawn()
    monkeypatch.setattr(pipeline, "bind", lambda method, model: explainer)
    return explainer


class TestOnePhoto:
    def test_what_a_result_holds(self, tiny: torch.nn.Module) -> None:
        found = localize(PHOTO, model=tiny, method="grad-cam", target="tabby")
        assert isinstance(found, Localization)
        assert (found.boxes.dtype, found.boxes.shape) == (np.int64, (1, 4))
        x0, y0, x1, y1 = found.boxes[0]
        assert 0 <= x0 < x1 <= 600 and 0 <= y0 < y1 <= 400
        assert (found.target, found.label, found.size) == (281, "tabby, tabby cat", (400, 600))
        assert found.scores.tolist() == [pytest.approx(found.score)] and 0 < found.score < 1
        assert found.mean_heat.shape == (1,) and 0 < found.mean_heat[0] <= 1
        assert (found.heat.shape, found.heat.dtype) == ((400, 600), np.float32)
        assert found.heat.min() >= 0 and found.heat.max() <= 1
        assert (found.method, found.refine, found.path, found.flat) == ("grad-cam", None, PHOTO, False)

    def test_it_is_the_explainers_map(self, tiny: torch.nn.Module) -> None:
        found = localize(PHOTO, model=tiny, method="grad-cam", target=7)
        prepared = preprocessing(tiny)
        pixels, _ = fit_photo(load_photo(PHOTO), prepared.size, interpolation=prepared.interpolation)
        images = prepared.normalize(torch.from_numpy(pixels)[None])
        seen = trt_cam.create_explainer("grad-cam", tiny)(images, 7)
        np.testing.assert_allclose(found.heat_on_input, seen.resize()[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(found.score, seen.logits.softmax(-1)[0, 7].item(), rtol=1e-5)

    def test_path_image_and_array_are_one(self, tiny: torch.nn.Module) -> None:
        image = Image.open(PHOTO)
        results = [localize(source, model=tiny) for source in (PHOTO, str(PHOTO), image, np.asarray(image))]
        for result in results[1:]:
            np.testing.assert_array_equal(result.boxes, results[0].boxes)
            np.testing.assert_array_equal(result.grid, results[0].grid)
        assert [result.path for result in results] == [PHOTO, PHOTO, None, None]
        assert results[0].source is None  # read again when it is needed
        assert all(result.photo.size == (600, 400) for result in results)

    def test_auto_takes_the_first_that_fits(self, tiny: torch.nn.Module) -> None:
        assert localize(PHOTO, model=tiny).method == "trt-free"
        assert localize(PHOTO, model=timm.create_model("test_resnet", pretrained=False).eval()).method == "grad-cam"
        net = trt_cam.TRTLocalizer("test_vit").eval()
        assert localize(PHOTO, model=net).method == "trt"
        assert net.localize(PHOTO).method == "trt"

    def test_a_models_own_configuration(self) -> None:
        net = trt_cam.TRTLocalizer("test_vit").eval()
        net.config = {"refine": "affinity", "thresholds": {"trt": {"affinity": 0.4, "none": 0.3}}, "name": "mine"}
        found = localize(PHOTO, model=net)
        assert (found.refine, found.threshold, found.model) == ("affinity", 0.4, "mine")
        found = localize(PHOTO, model=net, refine=None)
        assert (found.refine, found.threshold) == (None, 0.3)
        found = localize(PHOTO, model=net, method="rollout")
        assert (found.refine, found.threshold) == (None, pipeline.FIXED_THRESHOLDS["rollout", None])

    def test_no_classifier(self, headless: torch.nn.Module) -> None:
        found = localize(PHOTO, model=headless, method="rollout")
        assert (found.label, found.target, found.score, found.scores.tolist()) == (None, None, None, [0.0])
        assert found.to_json()["target"] == {"index": None, "name": None, "score": None}
        assert found.caption == "object"
        with pytest.raises(InputError, match="classifier"):
            localize(PHOTO, model=headless, method="rollout", target=3)
        with pytest.raises(UnsupportedModelError):
            localize(PHOTO, model=headless, method="cam")

    def test_other_precision_and_training_mode(self) -> None:
        net = timm.create_model("test_vit", pretrained=False).double().train()
        assert np.isfinite(localize(PHOTO, model=net).heat).all()
        assert net.training

    def test_a_model_without_timms_configuration(self, tiny: torch.nn.Module) -> None:
        """As one is that was put together by hand, or loaded by another package."""
        bare = timm.create_model("test_vit", pretrained=False).eval()
        bare.load_state_dict(tiny.state_dict())
        bare.pretrained_cfg = None
        assert localize(PHOTO, model=bare).size == localize(PHOTO, model=tiny).size
        with pytest.raises(InputError, match="96 x 96|multiples"):
            localize(PHOTO, model=timm.create_model("test_vit2", pretrained=False, dynamic_img_size=False), size=96)


class TestGeometry:
    @pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
    def test_a_drawn_map_gives_the_box_on_the_photo(self, drawn: Any, tiny: torch.nn.Module, fit: str) -> None:
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 160, 3), dtype=np.uint8))
        drawn.grid = torch.zeros(160, 160)
        frame = frame_of((80, 160), (160, 160), fit)  # type: ignore[arg-type]
        x0, y0, x1, y1 = 60, 16, 100, 56  # on the photo, inside of what crop shows
        (sy, sx), (oy, ox) = frame.scale, frame.offset
        drawn.grid[int(y0 * sy + oy) : int(y1 * sy + oy), int(x0 * sx + ox) : int(x1 * sx + ox)] = 1
        found = localize(photo, model=tiny, size=160, fit=fit, threshold=0.5)  # type: ignore[arg-type]
        assert found.boxes.tolist() == [[x0, y0, x1, y1]]
        ys, xs = np.nonzero(found.heat > 0.5)
        assert np.abs(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) - (x0, y0, x1, y1)).max() <= 1

    def test_heat_on_padding_is_not_the_objects(self, drawn: Any, tiny: torch.nn.Module) -> None:
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 160, 3), dtype=np.uint8))
        drawn.grid = torch.zeros(160, 160)
        drawn.grid[:30] = 9.0  # above the photo
        drawn.grid[60:80, 40:80] = 1.0
        found = localize(photo, model=tiny, size=160, fit="pad")
        assert found.boxes.tolist() == [[40, 20, 80, 40]]
        assert found.heat.max() == 1

    def test_all_boxes_have_their_scores(self, drawn: Any, tiny: torch.nn.Module) -> None:
        drawn.grid = torch.zeros(160, 160)
        drawn.grid[10:30, 60:140] = 1.0
        drawn.grid[100:160, 10:40] = 0.5
        found = localize(PHOTO, model=tiny, size=160, boxes="all_external")
        assert len(found.boxes) == len(found.scores) == len(found.mean_heat) == 2
        assert sorted(found.mean_heat.tolist()) == pytest.approx([0.5, 1.0], abs=0.05)
        assert "2 boxes" in repr(found)

    def test_a_very_wide_photo_makes_no_wide_map_until_asked(self, tiny: torch.nn.Module, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (10, 20_000, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "wide.png")
        found = localize(tmp_path / "wide.png", model=tiny)
        assert found.grid.size < 1000
        assert found.boxes[0, 2] <= 20_000
        assert found.heat.shape == (10, 20_000)

    def test_input_heat_of_a_pad_uses_its_whole_range(self) -> None:
        heat, flat = input_heat(torch.randn(2, 5, 5), frame_of((10, 40), (32, 32), "pad"))
        assert not flat.any() and heat.amin() == 0
        assert heat.amax(dim=(1, 2)).tolist() == [1.0, 1.0]
        assert heat[:, :12].max() == 0 and heat[:, 20:].max() == 0


class TestBlank:
    @pytest.mark.parametrize("size", [(1, 1), (50, 40)])
    def test_a_blank_photo_says_so(self, tiny: torch.nn.Module, size: tuple[int, int], tmp_path: Path) -> None:
        Image.new("RGB", size, (90, 100, 110)).save(tmp_path / "blank.jpg")
        found = localize(tmp_path / "blank.jpg", model=tiny)
        assert found.flat and found.boxes.shape == (0, 4) and found.scores.shape == (0,)
        assert "blank" in repr(found) and "blank" in found.to_json()["note"]
        assert np.isfinite(found.heat).all() and found.heat.max() == 0
        assert found.picture().size == size
        assert found.heat_on_input.shape == found.frame.input and not found.heat_on_input.any()  # what is drawn

    def test_a_flat_map_says_so(self, drawn: Any, tiny: torch.nn.Module) -> None:
        found = localize(PHOTO, model=tiny)
        assert found.note == "the map is flat" and found.boxes.shape == (0, 4)

    def test_a_blank_one_among_others(self, tiny: torch.nn.Module, photos: list[Path]) -> None:
        Image.new("RGB", (9, 9)).save(photos[1])
        assert [result.flat for result in localize(photos, model=tiny)] == [False, True, False, False, False]


class TestMany:
    def test_a_batch_equals_its_singles(self, tiny: torch.nn.Module, photos: list[Path]) -> None:
        targets = [3, "tabby", 5, 6, 7]
        together = localize(photos, model=tiny, method="grad-cam", target=targets, batch_size=2)
        for photo, target, result in zip(photos, targets, together, strict=True):
            single = localize(photo, model=tiny, method="grad-cam", target=target)
            np.testing.assert_array_equal(result.boxes, single.boxes)
            np.testing.assert_allclose(result.grid, single.grid, rtol=1e-3, atol=1e-7)
            assert (result.target, result.path) == (single.target, photo)
            assert result.score == pytest.approx(single.score, rel=1e-3)
        chances = {round(result.score or 0.0, 9) for result in localize(photos, model=tiny, target=3)}
        assert len(chances) == 5  # each photo's own

    def test_a_list_gives_a_list(self, tiny: torch.nn.Module) -> None:
        assert len(localize([PHOTO], model=tiny)) == 1
        assert localize([], model=tiny) == []

    def test_a_bad_photo_is_a_record_among_results(self, tiny: torch.nn.Module, photos: list[Path]) -> None:
        photos[0].write_bytes(b"")
        photos[3].write_text("no picture")
        found = list(iter_localize(photos, model=tiny, batch_size=2, target=[1, 2, 3, 4, 5]))
        assert [type(result) for result in found] == [Failure, Localization, Localization, Failure, Localization]
        assert [result.path for result in found] == photos
        assert [result.target for result in found if isinstance(result, Localization)] == [2, 3, 5]
        assert found[0].to_json() == {"path": str(photos[0]), "error": found[0].error}  # type: ignore[union-attr]
        with pytest.raises(InputError, match="empty"):
            localize(photos, model=tiny)

    @pytest.mark.parametrize(("targets", "came"), [([1], "1 for more than 1 photos"), ([1, 2, 3], "3 for 2 photos")])
    def test_a_generator_of_photos_has_a_target_for_each(
        self, tiny: torch.nn.Module, targets: list[int], came: str
    ) -> None:
        assert len(list(iter_localize(iter([PHOTO, PHOTO]), model=tiny, target=[1, 2]))) == 2
        with pytest.raises(InputError, match=f"one entry for each photo, got {came}"):
            list(iter_localize(iter([PHOTO, PHOTO]), model=tiny, target=targets))

    def test_a_map_that_is_not_finite_fails_its_photo_alone(self, tiny: torch.nn.Module, photos: list[Path]) -> None:
        line = pipeline.Pipeline.build(tiny, "auto", None)
        whole = line.explain

        def holed(images: torch.Tensor, *args: Any, **options: Any) -> Any:
            seen = whole(images, *args, **options)
            seen.grid[1] = torch.nan
            return seen

        object.__setattr__(line, "explain", holed)
        pairs = [(photo, None) for photo in photos]
        found = list(line.stream(pairs, 5, strict=False))
        assert [type(result) for result in found] == [Localization, Failure] + [Localization] * 3
        assert str(photos[1]) in found[1].error and "finite" in found[1].error  # type: ignore[union-attr]
        with pytest.raises(InputError, match="finite"):
            list(line.stream(pairs, 5, strict=True))

    def test_the_bytes_of_a_file_are_a_photo(self, tiny: torch.nn.Module, photos: list[Path]) -> None:
        there, from_bytes = localize(photos[0], model=tiny), localize(photos[0].read_bytes(), model=tiny)
        np.testing.assert_array_equal(from_bytes.grid, there.grid)
        assert from_bytes.path is None and from_bytes.photo.size == there.photo.size

    def test_a_stream_is_read_one_batch_at_a_time(self, drawn: Any, tiny: torch.nn.Module) -> None:
        read = []

        def endless() -> Iterator[Path]:
            while True:
                read.append(1)
                yield PHOTO

        stream = iter_localize(endless(), model=tiny, batch_size=3)
        for _ in range(4):
            next(stream)
        assert len(read) == 6

    def test_results_let_go_of_what_is_large(self, tiny: torch.nn.Module) -> None:
        image = Image.open(PHOTO)
        kept = weakref.ref(image)
        found = localize(PHOTO, model=tiny)
        fields = [value for value in vars(found).values() if isinstance(value, (torch.Tensor, Image.Image))]
        assert not fields and found.grid.nbytes < 10_000
        del image
        gc.collect()
        assert kept() is None

    def test_a_batch_shrinks_when_a_gpu_is_full(self, drawn: Any, tiny: torch.nn.Module, photos: list[Path]) -> None:
        line = pipeline.Pipeline.build(tiny, "auto", None)
        whole = line.explain

        def small(images: torch.Tensor, *args: Any, **options: Any) -> Any:
            if len(images) > 2:
                raise torch.cuda.OutOfMemoryError("full")
            return whole(images, *args, **options)

        object.__setattr__(line, "explain", small)
        found = list(line.stream(((photo, None) for photo in photos), 5, strict=True))
        assert [result.path for result in found] == photos
        assert drawn.sizes == [2, 1, 2]


class TestTensors:
    def test_a_preprocessed_batch(self, tiny: torch.nn.Module) -> None:
        prepared = preprocessing(tiny)
        pixels, _ = fit_photo(load_photo(PHOTO), prepared.size, interpolation=prepared.interpolation)
        images = prepared.normalize(torch.from_numpy(pixels)[None])
        (found,) = localize(images, model=tiny)
        assert found.size == prepared.size
        np.testing.assert_array_equal(found.grid, localize(PHOTO, model=tiny).grid)
        assert np.abs(np.asarray(found.photo) / 255 - pixels.transpose(1, 2, 0)).max() < 0.004

    @pytest.mark.parametrize(
        "images",
        [
            torch.zeros(3, 8, 8),
            torch.zeros(1, 1, 8, 8),
            torch.zeros(1, 8, 8, 3),
            torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
            torch.zeros(0, 3, 8, 8),
            torch.full((1, 3, 8, 8), torch.nan),
        ],
    )
    def test_bad_ones(self, tiny: torch.nn.Module, images: torch.Tensor) -> None:
        with pytest.raises(InputError) as caught:
            localize(images, model=tiny)
        assert "\n" not in str(caught.value)


class TestBadOptions:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"target": 1000}, "out of range"),
            ({"target": -1}, "out of range"),
            ({"target": "tabbi"}, "did you mean 'tabby'"),
            ({"target": "crane"}, "several"),
            ({"target": 1.5}, "index or a class name"),
            ({"target": [1, 2]}, "one each"),
            ({"threshold": 1.0}, "threshold"),
            ({"threshold": -0.1}, "threshold"),
            ({"threshold": float("nan")}, "threshold"),
            ({"boxes": "biggest"}, "largest"),
            ({"fit": "stretch"}, "squash"),
            ({"size": 0}, "size"),
            ({"size": (1, 2, 3)}, "size"),
            ({"size": "big"}, "size"),
            ({"batch_size": 0}, "batch_size"),
            ({"device": "cuda:77"}, "device"),
            ({"device": "gpu"}, "device"),
            ({"method": "gradcam"}, "grad-cam"),
            ({"refine": "afinity"}, "affinity"),
            ({"model": "deit_smal_patch16_224"}, "deit_small_patch16_224"),
            ({"model": 7}, "model"),
        ],
    )
    def test_one_clear_line(self, tiny: torch.nn.Module, options: dict[str, Any], said: str) -> None:
        with pytest.raises(TrtCamError, match=said) as caught:
            localize([PHOTO], **({"model": tiny} | options))
        assert "\n" not in str(caught.value)

    def test_options_are_checked_before_any_photo(self, tiny: torch.nn.Module) -> None:
        for options in ({"target": 1000}, {"refine": "afinity"}, {"method": "x"}, {"threshold": 2}):
            with pytest.raises(InputError):
                iter_localize(iter([PHOTO]), model=tiny, **options)

    def test_a_size_that_the_model_cannot_take(self, tiny: torch.nn.Module) -> None:
        with pytest.raises(TrtCamError) as caught:
            localize(PHOTO, model=timm.create_model("test_vit2", pretrained=False, dynamic_img_size=False), size=96)
        assert "\n" not in str(caught.value)

    def test_a_callers_module_is_not_moved(self, tiny: torch.nn.Module) -> None:
        assert localize(PHOTO, model=tiny, device="cpu").boxes.shape == (1, 4)
        with pytest.raises(InputError, match="move it"):
            localize(PHOTO, model=tiny, device="meta")


class TestShowing:
    def test_a_notebook_shows_it(self, tiny: torch.nn.Module) -> None:
        found = localize(PHOTO, model=tiny, target="tabby")
        assert found._repr_png_()[:4] == b"\x89PNG"
        assert "data:image/png;base64" in found._repr_html_() and "&lt;Localization" in found._repr_html_()
        assert "tabby" in repr(found) and "trt-free" in repr(found) and "coffee.jpg" in repr(found)

    def test_saving(self, tiny: torch.nn.Module, tmp_path: Path) -> None:
        found = localize(PHOTO, model=tiny)
        assert Image.open(found.save(tmp_path / "out.jpg")).size == (600, 400)
        for place in (tmp_path / "no" / "out.png", tmp_path / "out.xyz", tmp_path / "out"):
            with pytest.raises(InputError, match="cannot write") as caught:
                found.save(place)
            assert "\n" not in str(caught.value)

    def test_json(self, tiny: torch.nn.Module) -> None:
        found = localize(PHOTO, model=tiny, target="tabby", boxes="all_external")
        line = json.loads(json.dumps(found.to_json()))
        keys = ["path", "width", "height", "model", "method", "refine", "target", "boxes", "scores", "threshold"]
        assert list(line) == keys
        assert (line["width"], line["height"], line["target"]["index"]) == (600, 400, 281)
        assert line["boxes"] == found.boxes.tolist() and len(line["scores"]) == len(line["boxes"])

    def test_a_photo_that_has_gone(self, tiny: torch.nn.Module, photos: list[Path]) -> None:
        found = localize(photos[0], model=tiny)
        photos[0].unlink()
        assert found.heat.shape == (40, 60)
        with pytest.raises(InputError, match="does not exist"):
            found.picture()


class TestTargets:
    names = ("tabby, tabby cat", "crane", "crane", "maillot", "maillot, tank suit", "Golden_Retriever")

    @pytest.mark.parametrize(
        ("target", "index"),
        [("tabby", 0), ("Tabby  Cat", 0), ("tabby, tabby cat", 0), ("golden retriever", 5), ("4", 4), (np.int64(2), 2)]
        + [("maillot", 3), ("tank_suit", 4)],
    )
    def test_found(self, target: Any, index: int) -> None:
        assert resolve_target(target, self.names, 6) == index

    @pytest.mark.parametrize(
        ("target", "said"),
        [("crane", "several classes: 1"), ("taby", "did you mean 'tabby'"), ("zzz", "another name"), (True, "index")]
        + [(None, "index"), ("6", "out of range")],
    )
    def test_not_found(self, target: Any, said: str) -> None:
        with pytest.raises(InputError, match=said):
            resolve_target(target, self.names, 6)

    def test_no_names(self) -> None:
        with pytest.raises(InputError, match="does not know"):
            resolve_target("tabby", None, 6)

    def test_one_each(self) -> None:
        assert resolve_targets(["crane", "tabby"][1:] + [3], self.names, 6, 2) == [0, 3]
        assert resolve_targets(torch.tensor([1, 2]), None, 6, 2) == [1, 2]
        assert resolve_targets(np.int64(4), None, 6, 2) == 4
        assert resolve_targets(torch.tensor(4), None, 6, None) == 4
        assert resolve_targets(None, None, 6, 2) is None
