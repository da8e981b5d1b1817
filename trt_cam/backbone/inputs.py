"""What goes into a model and what its classes are called: preprocessing, names, timm models by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from trt_cam.backbone.anatomy import count_classes, unwrap
from trt_cam.errors import InputError, WeightsError


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes a model's input.

    Attributes
    ----------
    size : (H, W) pixels
    mean, std : three floats, of RGB values in [0, 1]
    interpolation : "bicubic" or "bilinear"
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"

    def normalize(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to the model's scale."""
        mean = torch.as_tensor(self.mean, dtype=image.dtype, device=image.device)[:, None, None]
        std = torch.as_tensor(self.std, dtype=image.dtype, device=image.device)[:, None, None]
        return (image - mean) / std


def preprocessing(model: nn.Module) -> Preprocessing:
    """The preprocessing that a model was trained with: its own ``preprocessing``, timm's config, or ImageNet's."""
    inner = unwrap(model)
    own = getattr(inner, "preprocessing", None)
    if isinstance(own, Preprocessing):
        return own
    own_size = getattr(getattr(inner, "patch_embed", None), "img_size", None)
    if not getattr(inner, "pretrained_cfg", None):
        return Preprocessing(own_size) if isinstance(own_size, tuple) else Preprocessing()
    from timm.data import resolve_data_config

    config = resolve_data_config({}, model=inner)
    height, width = config["input_size"][-2:]
    if isinstance(own_size, tuple):
        height, width = own_size
    kind = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
    return Preprocessing((int(height), int(width)), tuple(config["mean"]), tuple(config["std"]), kind)


def class_names(model: nn.Module) -> tuple[str, ...] | None:
    """Names of a model's classes by index: its own ``classes``, ImageNet's for 1,000 classes, else None."""
    inner = unwrap(model)
    own = getattr(inner, "classes", None)
    if isinstance(own, (tuple, list)) and own:
        return tuple(own)
    return imagenet_names() if count_classes(inner) == 1000 else None


@lru_cache(maxsize=1)
def imagenet_names() -> tuple[str, ...]:
    """The 1,000 class names of ImageNet-1k as timm ships them."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))


@lru_cache(maxsize=1)
def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids of the same classes, such as n01440764."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def import_timm() -> Any:
    """timm, or one line on why it cannot be imported; it imports torchvision, which may be another build than torch."""
    try:
        import timm
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise WeightsError(
            f"timm was needed to build a model, but importing it failed ({reason}); "
            "install torch, torchvision and timm again, the first two from one index"
        ) from error
    return timm


def create_timm(name: str, **settings: Any) -> nn.Module:
    """A timm model by name.

    Raises
    ------
    InputError
        timm knows no such model; the nearest names are suggested.
    """
    import difflib

    timm = import_timm()
    bare = name.removeprefix("timm/").split(".")[0]
    if not name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and not timm.is_model(bare):
        near = difflib.get_close_matches(bare, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`trt-cam models` lists names"
        raise InputError(f"a model name known to timm, or a folder that is there, was needed, got {name!r}; {hint}")
    model: nn.Module = timm.create_model(name.removeprefix("timm/"), **settings)
    return model
