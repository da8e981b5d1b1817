"""Class and box of the object in a photo, by a file that `trt-cam export --out model.onnx` wrote: no torch is needed.

python examples/boxes_with_onnxruntime.py model.onnx [PHOTO]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def largest_region(mask):
    """x0, y0, x1, y1 around the largest 8-connected region of a mask (H, W)."""
    waiting, largest = set(map(tuple, np.argwhere(mask).tolist())), []
    while waiting:
        region = [waiting.pop()]
        for y, x in region:  # it grows while it is walked
            near = waiting.intersection((y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1))
            waiting -= near
            region += near
        largest = max(largest, region, key=len)
    ys, xs = zip(*largest, strict=True)
    return np.array([min(xs), min(ys), max(xs) + 1, max(ys) + 1])


def main(model, photo):
    onnxruntime.set_default_logger_severity(3)  # it would say that `target`, a class to look for, may be left out
    session = onnxruntime.InferenceSession(model)
    about, (_, height, width, _) = session.get_modelmeta().custom_metadata_map, session.get_inputs()[0].shape
    photo = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
    pixels = np.asarray(photo.resize((width, height), Image.Resampling[about["interpolation"].upper()]))
    logits, heat = session.run(None, {"photo": pixels[None]})  # (1, K), (1, H, W)
    names, best = json.loads(about["classes"]), int(logits[0].argmax())
    grey = (heat[0] * 255).astype(np.uint8)
    mask = grey > int(float(about["threshold"]) * int(grey.max()))
    box = largest_region(mask) * np.array([photo.width / width, photo.height / height] * 2) if mask.any() else []
    corners = [*np.floor(box[:2]).astype(int).tolist(), *np.ceil(box[2:]).astype(int).tolist()]
    print(names[best] if names else best, corners)


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("model", metavar="model.onnx")
    words.add_argument("photo", nargs="?", default=Path(__file__).parent.parent / "trt_cam" / "assets" / "coffee.jpg")
    main(**vars(words.parse_args()))
