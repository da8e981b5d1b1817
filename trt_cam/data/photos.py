"""Picture files, PIL images and arrays become upright 8-bit RGB photos, or one clear error."""

from __future__ import annotations

import glob
import io
import os
import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trt_cam.errors import InputError

Source = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[Any]

MAX_PIXELS = 178_956_970  # where PIL itself refuses by default; 0.54 GB once decoded
SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm")
    + (".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp")
)
LARGE = 25_000_000  # pixels above which a JPEG may be decoded at a smaller scale

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_opening = threading.Lock()  # the warning filter below belongs to the whole process


@dataclass(frozen=True)
class Photo:
    """An upright RGB picture, and the (H, W) of the photo on disk where the picture is a reduced copy of it."""

    image: Image.Image
    size: tuple[int, int]


def load_photo(source: Source) -> Image.Image:
    """Read one photo.

    Parameters
    ----------
    source : path, bytes of a file, PIL image, or (H, W, 3) uint8 RGB array
        Any mode PIL reads: transparency is laid on white, 16 bits are scaled to 8, of an animation the first
        frame is taken, and the picture is turned upright by its EXIF orientation.

    Returns
    -------
    RGB image, upright

    Raises
    ------
    InputError
        The file is missing, empty, damaged, no picture or too large to decode, or the array is not as above.
    """
    return open_photo(source).image


def open_photo(source: Source, *, at_least: tuple[int, int] | None = None, large: int = LARGE) -> Photo:
    """Like `load_photo`, but a JPEG of over ``large`` pixels may come reduced, to no less than ``at_least`` (H, W)."""
    if isinstance(source, np.ndarray):
        image = _from_array(source)
        return Photo(image, (image.height, image.width))
    if isinstance(source, Image.Image):
        _check_pixels(source.size, "the image")
        return _upright(source, "the image")
    if isinstance(source, bytes):
        return _decoded(io.BytesIO(source), "the file", at_least, large)
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"a photo must be a path, bytes, a PIL image or a uint8 array (H, W, 3), got {type(source).__name__}; "
            "a preprocessed tensor must be (B, 3, H, W)"
        )
    return _from_file(os.fspath(source), at_least, large)


def expand_photos(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The photos that paths, folders and patterns stand for.

    Parameters
    ----------
    paths : files, folders or glob patterns
        A folder stands for the pictures below it by file suffix, sorted, hidden files left out; a pattern
        (``*``, ``?``, ``[]``, ``**``) for its sorted matches.

    Returns
    -------
    Each photo once, in the order asked for; what matches nothing stays as it is, so that reading it names it.
    """
    found: dict[Path, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_expand(os.path.expanduser(os.fspath(path)))))
    return list(found)


def _expand(path: str) -> Iterable[Path]:
    if os.path.isdir(path):
        return list(_below(path)) or [Path(path)]
    if glob.has_magic(path) and not os.path.exists(path):
        matches = sorted(glob.glob(path, recursive=True))
        return [photo for match in matches for photo in _expand(match)] or [Path(path)]
    return [Path(path)]


def _below(folder: str) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(here, name)


def _from_file(path: str, at_least: tuple[int, int] | None, large: int) -> Photo:
    path = os.path.expanduser(path)
    _check_file(path)
    return _decoded(path, path, at_least, large)


def _decoded(file: str | IO[bytes], name: str, at_least: tuple[int, int] | None, large: int) -> Photo:
    try:
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is our own
            image = Image.open(file)
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        raise _too_large(name, int(count.group()) if count else None) from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise InputError(f"{name} is not a picture that PIL can read; check that it opens in a viewer") from error
    with image:
        _check_pixels(image.size, name)
        full = image.size
        if at_least is not None and full[0] * full[1] > large:
            image.draft("RGB", (max(at_least), max(at_least)))  # upright or not, neither side gets too short
        return _upright(image, name, reduced_from=full if image.size != full else None)


def _check_file(path: str) -> None:
    try:
        missing, folder = not os.path.exists(path), os.path.isdir(path)
        empty = not missing and not folder and os.path.getsize(path) == 0
    except (ValueError, OSError) as error:
        raise InputError(f"{path!r} is not a path that can be read ({error})") from error
    if path.startswith(("http://", "https://")):
        raise InputError(f"{path} is an address; download the photo first and give its path")
    if missing:
        matched = "matches no file; check the pattern" if glob.has_magic(path) else "does not exist; check the path"
        raise InputError(f"{path} {matched}")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read (no permission); change its mode, or give another")
    if folder:
        held = "" if any(_below(path)) else f", in which there is none ({' '.join(sorted(SUFFIXES))})"
        raise InputError(f"a photo was needed, got the folder {path}{held}; name a file")
    if empty:
        raise InputError(f"{path} is empty (0 bytes); it was probably not copied to its end")


def _check_pixels(size: tuple[int, int], name: str) -> None:
    if min(size) < 1:
        raise InputError(f"{name} has no pixels ({size[0]}x{size[1]}); give a photo")
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(name, size[0] * size[1])


def _too_large(name: str, pixels: int | None) -> InputError:
    count = f"{pixels / 1e6:.0f} megapixels" if pixels else "too many pixels"
    return InputError(f"{name} has {count} and is not decoded; the limit is {MAX_PIXELS / 1e6:.0f}, shrink it first")


def _upright(image: Image.Image, name: str, reduced_from: tuple[int, int] | None = None) -> Photo:
    try:
        image.load()
        turn = _orientation(image)
        rgb = _to_rgb(image, name)
    except InputError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise InputError(f"{name} is damaged or cut short ({error}); get a whole copy") from error
    width, height = reduced_from or rgb.size
    if turn in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[turn])
    rgb.info = {}  # with the orientation left inside, it would be turned again by the next reader
    return Photo(rgb, (width, height) if turn >= 5 else (height, width))


def _orientation(image: Image.Image) -> int:
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF does not make the picture unreadable
        return 1
    return turn if turn in _UPRIGHT else 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_integers(np.asarray(image), name).convert("RGB")
    if image.mode == "F":
        raise InputError(f"{name} has floating-point pixels; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        layer, white = image.convert("RGBA"), Image.new("RGB", image.size, "white")
        white.paste(layer, mask=layer)
        return white
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _from_integers(values: npt.NDArray[Any], name: str) -> Image.Image:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(f"{name} has pixels from {low} to {high}; save it with 8 or 16 bits a channel")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _from_array(values: npt.NDArray[Any]) -> Image.Image:
    came = f"got {values.dtype} of shape {values.shape}"
    if values.ndim != 3 or values.shape[2] != 3:
        hint = {2: "stack a grey one three times on the last axis", 4: "give a list of photos"}.get(values.ndim)
        raise InputError(f"an array photo must be (H, W, 3) uint8 RGB, {came}; {hint or 'put the colours last'}")
    if values.dtype != np.uint8:
        raise InputError(
            f"an array photo must be uint8 in 0..255, {came}; for one in [0, 1] give (255 * a).round().astype('uint8')"
        )
    _check_pixels((values.shape[1], values.shape[0]), "the array")
    return Image.fromarray(np.ascontiguousarray(values))
