"""Find the object in one photo: its class, its box, its heat map, and a picture of them.

python examples/localize_one_image.py [photo] [--out found.png] [--model NAME] [--target CLASS]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import trt_cam

BUNDLED = Path(trt_cam.__file__).parent / "assets" / "coffee.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description="Find the object in one photo, and draw its box and heat map.")
    parser.add_argument("photo", nargs="?", default=BUNDLED, help="a file (default: the photo inside the package)")
    parser.add_argument("--out", default="found.png", metavar="FILE", help="of the picture (default: %(default)s)")
    parser.add_argument("--model", metavar="NAME", help="a timm name or a folder (default: the embedded model)")
    parser.add_argument("--target", metavar="CLASS", help="class name or index (default: the predicted class)")
    chosen = parser.parse_args()

    found = trt_cam.localize(chosen.photo, model=chosen.model, target=chosen.target)
    print(f"{found.label}, probability {found.score:.2f}, by {found.method} of {found.model}")
    for box, heat in zip(found.boxes, found.mean_heat, strict=True):
        print(f"box {box.tolist()} (x0, y0, x1, y1 in pixels), mean heat {heat:.2f}")
    print(f"picture: {found.save(chosen.out)}")


if __name__ == "__main__":
    main()
