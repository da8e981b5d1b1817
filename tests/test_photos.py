"""Every kind of picture becomes one upright RGB photo, or one clear line."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from trt_cam.data import photos
from trt_cam.data.frames import Frame, fit_photo, frame_of
from trt_cam.data.photos import expand_photos, load_photo, open_photo
from trt_cam.errors import InputError

RED = (200, 30, 40)


def corners(width: int = 40, height: int = 20) -> Image.Image:
    """Black with a red block in the upper left corner."""
    image = Image.new("RGB", (width, height))
    image.paste(RED, (0, 0, width // 4, height // 4))
    return image


def one_line(source: object) -> str:
    with pytest.raises(InputError) as caught:
        load_photo(source)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


class TestFiles:
    def test_a_path_a_string_and_an_image_give_the_same_pixels(self, tmp_path: Path) -> None:
        corners().save(tmp_path / "a.png")
        for source in (tmp_path / "a.png", str(tmp_path / "a.png"), corners(), np.asarray(corners())):
            np.testing.assert_array_equal(np.asarray(load_photo(source)), np.asarray(corners()))

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert "does not exist" in one_line(tmp_path / "no.jpg")

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").touch()
        assert "empty" in one_line(tmp_path / "a.jpg")

    def test_a_text_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_text("not a picture")
        assert "not a picture" in one_line(tmp_path / "a.jpg")

    @pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp"])
    def test_a_truncated_file(self, tmp_path: Path, suffix: str) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        message = one_line(path)
        assert "damaged" in message or "not a picture" in message

    def test_bytes_that_are_no_picture(self) -> None:
        noise = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(noise, "png")
        assert "the file is not a picture" in one_line(b"")
        assert "the file is not a picture" in one_line(b"not a picture")
        assert "the file is damaged" in one_line(noise.getvalue()[:5000])
        assert "the file has 3600 megapixels" in one_line(png_header(60_000, 60_000))

    def test_an_address_a_null_byte_and_an_empty_folder(self, tmp_path: Path) -> None:
        assert "download" in one_line("https://example.org/cat.jpg")
        assert "path" in one_line("a\0b.jpg")
        assert "folder" in one_line(tmp_path)

    @pytest.mark.parametrize("size", [(60_000, 60_000), (14_000, 13_500)])
    def test_a_bomb_is_refused_before_it_is_decoded(
        self, tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "bomb.png").write_bytes(png_header(*size))
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
        assert "megapixels" in one_line(tmp_path / "bomb.png")

    def test_the_limit_is_ours_where_pil_has_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "bomb.png").write_bytes(png_header(60_000, 60_000))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert "3600 megapixels" in one_line(tmp_path / "bomb.png")

    def test_pil_is_left_as_it_was(self, tmp_path: Path) -> None:
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
        (tmp_path / "a.png").write_bytes(png_header(10_000, 10_000))  # more than PIL warns at
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert "damaged" in one_line(tmp_path / "a.png")
        assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before

    def test_a_very_wide_photo(self, tmp_path: Path) -> None:
        Image.new("RGB", (20_000, 10), RED).save(tmp_path / "wide.png")
        assert load_photo(tmp_path / "wide.png").size == (20_000, 10)

    def test_a_very_large_jpeg_is_decoded_smaller(self, tmp_path: Path) -> None:
        corners(6000, 5000).save(tmp_path / "a.jpg", exif=_turned(6))
        photo = open_photo(tmp_path / "a.jpg", at_least=(352, 352))
        assert photo.size == (6000, 5000)  # (H, W): upright, as on disk
        assert photo.image.size == (625, 750)
        assert open_photo(tmp_path / "a.jpg").image.size == (5000, 6000)

    def test_many_threads_read_at_once(self, tmp_path: Path) -> None:
        corners().save(tmp_path / "a.png")
        filters, sizes = list(warnings.filters), []
        threads = [threading.Thread(target=lambda: sizes.append(load_photo(tmp_path / "a.png").size)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sizes == [(40, 20)] * 8
        assert list(warnings.filters) == filters


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


class TestModes:
    def test_transparency_is_laid_on_white(self, tmp_path: Path) -> None:
        image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
        image.putpixel((1, 1), (10, 20, 30, 255))
        image.putpixel((2, 2), (0, 0, 0, 128))
        image.save(tmp_path / "a.png")
        seen = load_photo(tmp_path / "a.png")
        assert [seen.getpixel((i, i)) for i in range(3)] == [(255,) * 3, (10, 20, 30), (127,) * 3]

    @pytest.mark.parametrize("mode", ["LA", "PA", "P"])
    def test_other_transparent_modes(self, mode: str) -> None:
        image = Image.new(mode, (4, 4), 0 if mode == "P" else (0, 0))
        if mode == "P":
            image.info["transparency"] = 0
        assert load_photo(image).getpixel((0, 0)) == (255, 255, 255)

    @pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB"])
    def test_opaque_modes(self, mode: str) -> None:
        seen = load_photo(Image.new("RGB", (3, 2), "white").convert(mode))
        assert (seen.mode, seen.size) == ("RGB", (3, 2))
        assert min(seen.getpixel((0, 0))) >= 253  # type: ignore[type-var]

    def test_a_cmyk_jpeg(self, tmp_path: Path) -> None:
        Image.new("RGB", (16, 16), RED).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
        seen = np.asarray(load_photo(tmp_path / "a.jpg")).astype(int)
        assert np.abs(seen - RED).max() < 20

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_sixteen_bits_are_scaled(self, tmp_path: Path, suffix: str) -> None:
        values = np.array([[0, 257, 386, 32768, 65535]], dtype=np.uint16)
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
        seen = np.asarray(load_photo(tmp_path / f"a.{suffix}"))
        np.testing.assert_array_equal(seen, np.array([[0, 1, 2, 128, 255]])[..., None].repeat(3, -1))

    def test_integers_beyond_sixteen_bits_and_floats_are_refused(self) -> None:
        assert "8 or 16 bits" in one_line(Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)))
        assert "floating-point" in one_line(Image.fromarray(np.zeros((2, 2), dtype=np.float32)))

    @pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, tmp_path: Path, orientation: int, suffix: str) -> None:
        stored = corners()
        if orientation in photos._UPRIGHT:
            inverse = {6: 8, 8: 6}.get(orientation, orientation)
            stored = stored.transpose(photos._UPRIGHT[inverse])
        path = tmp_path / f"a.{suffix}"
        stored.save(path, exif=_turned(orientation), quality=98)
        for source in (path, Image.open(path)):
            photo = open_photo(source)
            assert (photo.image.size, photo.size) == ((40, 20), (20, 40))
            assert photo.image.getpixel((2, 1))[0] > 150  # type: ignore[index]
            assert load_photo(photo.image).size == (40, 20)  # not turned twice

    def test_damaged_exif_is_no_reason_to_refuse(self, tmp_path: Path) -> None:
        corners().save(tmp_path / "a.jpg", exif=b"Exif\0\0nonsense")
        assert load_photo(tmp_path / "a.jpg").size == (40, 20)

    def test_the_first_frame_of_an_animation(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
        for suffix in ("gif", "webp", "png"):
            frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
            assert load_photo(tmp_path / f"a.{suffix}").getpixel((0, 0)) == (255, 0, 0)

    def test_the_given_image_is_not_changed(self) -> None:
        image = corners()
        image.info["exif"] = _turned(6).tobytes()
        seen = load_photo(image)
        seen.putpixel((0, 0), (1, 2, 3))
        assert image.getpixel((0, 0)) == RED
        assert "exif" in image.info


class TestArrays:
    @pytest.mark.parametrize(
        ("values", "hint"),
        [
            (np.zeros((4, 4, 3)), "uint8"),
            (np.full((4, 4, 3), np.nan, dtype=np.float32), "uint8"),
            (np.zeros((4, 4, 3), dtype=np.uint16), "uint8"),
            (np.zeros((4, 4), dtype=np.uint8), "stack"),
            (np.zeros((3, 4, 4), dtype=np.uint8), "colours last"),
            (np.zeros((4, 4, 4), dtype=np.uint8), "colours last"),
            (np.zeros((2, 4, 4, 3), dtype=np.uint8), "list of photos"),
            (np.zeros((0, 4, 3), dtype=np.uint8), "no pixels"),
        ],
    )
    def test_refused(self, values: np.ndarray, hint: str) -> None:
        assert hint in one_line(values)

    def test_other_types_are_refused(self) -> None:
        assert "got int" in one_line(3)
        assert "got NoneType" in one_line(None)

    def test_a_reversed_view_is_read(self) -> None:
        values = np.asarray(corners())[:, ::-1]
        np.testing.assert_array_equal(np.asarray(load_photo(values)), values)


class TestExpand:
    def test_folders_globs_and_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "sub/c.jpeg", ".git/d.jpg"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        monkeypatch.chdir(tmp_path)
        names = ["a.PNG", "b.jpg", "sub/c.jpeg"]
        assert [str(path.relative_to(tmp_path)) for path in expand_photos([tmp_path])] == names
        assert [str(path) for path in expand_photos(["*.jpg", "b.jpg", "gone.jpg"])] == ["b.jpg", "gone.jpg"]
        assert [path.name for path in expand_photos(["**/*.jp*"])] == ["b.jpg", "c.jpeg"]

    def test_what_matches_nothing_is_named_when_read(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for path in expand_photos([tmp_path / "empty", str(tmp_path / "*.jpg")]):
            assert str(path) in one_line(path)

    def test_a_file_whose_name_looks_like_a_pattern(self, tmp_path: Path) -> None:
        (tmp_path / "a[1].jpg").touch()
        assert expand_photos([tmp_path / "a[1].jpg"]) == [tmp_path / "a[1].jpg"]


class TestFrames:
    @pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
    @pytest.mark.parametrize("size", [(40, 20), (20, 40), (33, 33), (1, 1), (20_000, 10), (7, 1000)])
    def test_a_box_comes_back(self, fit: str, size: tuple[int, int]) -> None:
        width, height = size
        photo = Image.new("RGB", size, RED)
        array, frame = fit_photo(photo, (48, 64), fit)  # type: ignore[arg-type]
        assert (array.shape, array.dtype) == ((3, 48, 64), np.float32)
        assert array.min() >= 0 and array.max() <= 1
        x0, y0, x1, y1 = frame.content()
        (back,) = frame.boxes_to_photo([[x0, y0, x1, y1]])
        if fit == "crop":
            assert (back >= 0).all() and back[2] <= width and back[3] <= height
        else:
            assert back.tolist() == [0, 0, width, height]

    def test_rounding_is_outwards_clipped_and_never_empty(self) -> None:
        frame = frame_of((100, 100), (10, 10))
        assert frame.boxes_to_photo([[0.09, 0.0, 0.91, 0.5]]).tolist() == [[0, 0, 10, 5]]
        assert frame.boxes_to_photo([[0.19, 0.0, 0.99, 12.0]]).tolist() == [[1, 0, 10, 100]]
        assert frame_of((5, 5), (10, 10)).boxes_to_photo([[9.9, 9.9, 10, 10]]).tolist() == [[4, 4, 5, 5]]
        assert frame.boxes_to_photo([[11, -3, 12, -2]]).tolist() == [[99, 0, 100, 1]]
        assert frame.boxes_to_photo(np.zeros((0, 4))).shape == (0, 4)
        assert frame.boxes_to_photo([[0, 0, 7, 7]]).dtype == np.int64

    def test_exact_multiples_are_not_rounded_up(self) -> None:
        frame = frame_of(
            (100, 110), (224, 224)
        )  # 112 pixels of 224 are 55.00000000000001 of 110, 56 are 24.99... of 100
        assert frame.boxes_to_photo([[0, 56, 112, 112]]).tolist() == [[0, 25, 55, 50]]

    def test_squash_is_pils_resize(self) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 61, 3), dtype=np.uint8))
        array, _ = fit_photo(noise, (32, 32), interpolation="bilinear")
        wanted = np.asarray(noise.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / np.float32(255)
        np.testing.assert_array_equal(array, wanted)

    @pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
    def test_pixels_land_where_the_frame_says(self, fit: str) -> None:
        photo = Image.new("RGB", (90, 60))
        photo.paste((255, 255, 255), (40, 20, 60, 40))
        array, frame = fit_photo(photo, (48, 48), fit)  # type: ignore[arg-type]
        heat = array[0] * frame.inside()
        ys, xs = np.nonzero(heat > 0.5)
        (box,) = frame.boxes_to_photo([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]])
        assert np.abs(box - [40, 20, 60, 40]).max() <= 2
        back = frame.heat_to_photo(heat)
        assert (back.shape, back.dtype) == ((60, 90), np.float32)
        ys, xs = np.nonzero(back > 0.5)
        assert np.abs(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) - [40, 20, 60, 40]).max() <= 2

    def test_padding_is_outside(self) -> None:
        _, frame = fit_photo(Image.new("RGB", (40, 20)), (40, 40), "pad")
        assert frame.inside().sum() == 40 * 20
        assert not frame.inside()[0].any()

    def test_heat_of_another_resolution(self) -> None:
        frame = frame_of((30, 40), (32, 32))
        np.testing.assert_allclose(frame.heat_to_photo(np.ones((8, 8))), np.ones((30, 40)))
        frame = frame_of((20, 40), (32, 32), "pad")  # the photo is in rows 8 to 24
        coarse = np.repeat(np.arange(8.0), 4).reshape(8, 4)
        wanted = np.linspace(2.0, 6.0, 41)[1::2] - 0.5  # rows 2 to 6, centres at halves
        np.testing.assert_allclose(frame.heat_to_photo(coarse)[2:-2, 5], wanted[2:-2], atol=1e-6)

    def test_a_reduced_copy_keeps_the_photos_frame(self) -> None:
        _, frame = fit_photo(Image.new("RGB", (50, 25)), (32, 32), "pad", photo_size=(2500, 5000))
        assert frame == Frame((2500, 5000), (32, 32), (0.0064, 0.0064), (8.0, 0.0))

    def test_bad_options(self) -> None:
        photo = Image.new("RGB", (5, 5))
        with pytest.raises(InputError, match="squash, pad, crop"):
            fit_photo(photo, (8, 8), "stretch")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="bicubic"):
            fit_photo(photo, (8, 8), interpolation="cubic")
        with pytest.raises(InputError, match="positive"):
            fit_photo(photo, (0, 8))
