"""What a model is made of: blocks, attention modules, prefix tokens, pooling, classifier, preprocessing.

Every other file asks this one instead of guessing. A model family is one entry of ``FAMILIES``: a function that
recognises the model and names its parts. Nothing here runs the model, hooks it or changes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trt_cam.errors import InputError, UnsupportedModelError

Pooling = Literal["token", "avg", "map", "none"]

ROWS: dict[Pooling, str] = {
    "token": "class token",
    "avg": "mean over patch tokens",
    "map": "latent query of the attention pool",
    "none": "mean over patch tokens",
}


@dataclass(frozen=True)
class Backbone:
    """The parts of one model that explainers need.

    Attributes
    ----------
    model : the model itself, without wrappers (DataParallel, ``torch.compile``)
    family : name of the entry that recognised it
    blocks, attentions : the transformer's blocks and, one per block, the module in whose forward attention happens
    pool : the attention pool of a "map" model, else None
    prefix : number P of tokens before the patch tokens (class, distillation, registers)
    pooling : what the classifier reads: "token", "avg", "map", or "none" where there is no classifier to tell
    layer : dotted name of the layer whose activation gradient methods differentiate
    middle : dotted names of the middle layers whose tokens say which places belong together
    gives : what can be observed, in the words of ``Explainer.requires``
    class_token : whether the classifier reads a class token
    channels_last : whether the spatial features are (B, h, w, D)
    """

    model: nn.Module
    family: str
    blocks: tuple[nn.Module, ...] = ()
    attentions: tuple[nn.Module, ...] = ()
    pool: nn.Module | None = None
    prefix: int = 0
    pooling: Pooling = "avg"
    layer: str = ""
    middle: tuple[str, ...] = ()
    gives: frozenset[str] = frozenset()
    class_token: bool = False
    channels_last: bool = False
    grid_of: Callable[[int, int], tuple[int, int]] | None = field(default=None, repr=False)

    @property
    def row(self) -> str:
        """In words, the attention row that stands for the classifier's view."""
        return ROWS[self.pooling]

    @property
    def num_classes(self) -> int:
        """Number K of classes; 0 for a headless model."""
        return count_classes(self.model)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Patch grid (Gh, Gw) of an input of ``height`` by ``width`` pixels; an error if the model cannot take it."""
        if self.grid_of is None:
            raise UnsupportedModelError(
                f"a patch grid needs a transformer over patches, but {type(self.model).__name__} has none"
            )
        return self.grid_of(height, width)


def unwrap(model: Any) -> Any:
    """The model inside DataParallel, DistributedDataParallel and ``torch.compile`` wrappers."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def describe(model: nn.Module) -> Backbone:
    """Recognise a model.

    Parameters
    ----------
    model
        A timm transformer or timm CNN, or torchvision's VisionTransformer, wrapped or not.

    Raises
    ------
    UnsupportedModelError
        No family fits.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"a model must be a torch.nn.Module, got {type(model).__name__}; make one with timm")
    inner = unwrap(model)
    for recognise in FAMILIES:
        found = recognise(inner)
        if found is not None:
            return found
    raise UnsupportedModelError(
        f"no model family fits {type(inner).__name__}: needed a timm model (forward_features and forward_head) "
        "or torchvision's VisionTransformer; pass one of these"
    )


# ---------------------------------------------------------------------------------------------------- families


def timm_transformer(model: Any) -> Backbone | None:
    """ViT, DeiT, DeiT-III, DINOv2, SigLIP, hybrids (timm's VisionTransformer), EVA-02 and DINOv3 (Eva), BEiT."""
    kinds = timm_kinds()
    family = next((name for name, kind in kinds.items() if isinstance(model, kind)), None)
    if family is None:
        return None
    blocks = tuple(unwrap(block) for block in model.blocks)
    attentions = tuple(getattr(block, "attn", None) for block in blocks)
    if not blocks or not all(isinstance(attention, nn.Module) for attention in attentions):
        return None
    pool = getattr(model, "attn_pool", None)
    pooling = timm_pooling(model, pool)
    class_token = getattr(model, "cls_token", None) is not None and pooling == "token"
    last = len(blocks) - 1
    before_attention = pooling == "token" and hasattr(blocks[last], "norm1")
    gives = {"rows", "attention", "tokens", "features", "gradient", "middle"}
    if class_token:
        gives.add("class token")
    if count_classes(model):
        gives.add("classifier")
    return Backbone(
        model=model,
        family=family,
        blocks=blocks,
        attentions=tuple(unwrap(attention) for attention in attentions),  # type: ignore[arg-type]
        pool=pool,
        prefix=int(model.num_prefix_tokens),
        pooling=pooling,
        layer=f"blocks.{last}.norm1" if before_attention else f"blocks.{last}",
        middle=trunk_stages(model) or (f"blocks.{2 * len(blocks) // 3 - 1}", f"blocks.{last - 1}"),
        gives=frozenset(gives),
        class_token=class_token,
        grid_of=partial(timm_grid, model),
    )


def timm_grid(model: Any, height: int, width: int) -> tuple[int, int]:
    """Patch grid of an input, or one line that says which sizes the model takes."""
    embed = model.patch_embed
    fixed = embed.img_size if getattr(embed, "strict_img_size", False) else None
    if fixed is not None and (height, width) != tuple(fixed):
        raise InputError(
            f"images of {fixed[0]} x {fixed[1]} pixels were needed by {type(model).__name__}, got {height} x {width}; "
            "resize them, or build the model with img_size=(height, width) or dynamic_img_size=True"
        )
    step = embed.feat_ratio(as_scalar=False)
    if not getattr(embed, "dynamic_img_pad", True) and (height % step[0] or width % step[1]):
        raise InputError(
            f"image sides that are multiples of {step[0]} and {step[1]} pixels were needed by "
            f"{type(model).__name__}, got {height} x {width}; resize them, or build the model with dynamic_img_pad=True"
        )
    return tuple(embed.dynamic_feat_size((height, width)))  # type: ignore[return-value]


def torchvision_vit(model: Any) -> Backbone | None:
    """torchvision.models.VisionTransformer, whose attention is ``nn.MultiheadAttention``."""
    if type(model).__name__ != "VisionTransformer" or not hasattr(model, "encoder") or not hasattr(model, "conv_proj"):
        return None
    blocks = tuple(model.encoder.layers)
    gives = {"rows", "attention", "features", "gradient", "middle", "class token", "classifier"}
    return Backbone(
        model=model,
        family="torchvision-vit",
        blocks=blocks,
        attentions=tuple(block.self_attention for block in blocks),
        prefix=1,
        pooling="token",
        layer=f"encoder.layers.encoder_layer_{len(blocks) - 1}.ln_1",
        middle=tuple(f"encoder.layers.encoder_layer_{i}" for i in (2 * len(blocks) // 3 - 1, len(blocks) - 2)),
        gives=frozenset(gives),
        class_token=True,
        grid_of=partial(torchvision_grid, model),
    )


def torchvision_grid(model: Any, height: int, width: int) -> tuple[int, int]:
    """Patch grid of the one size that the model takes."""
    if (height, width) != (model.image_size, model.image_size):
        raise InputError(
            f"images of {model.image_size} x {model.image_size} pixels were needed by torchvision's "
            f"{type(model).__name__}, got {height} x {width}; resize them"
        )
    return height // model.patch_size, width // model.patch_size


def timm_spatial(model: nn.Module) -> Backbone | None:
    """Any other timm model whose ``forward_features`` is a spatial map: CNNs, and hierarchical transformers."""
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head") and hasattr(model, "num_features")):
        return None
    middle = conv_stages(model)
    gives = {"features", "gradient"} | ({"classifier"} if count_classes(model) else set())
    return Backbone(
        model=model,
        family="spatial",
        pooling="avg",
        layer="forward_features",
        middle=middle,
        gives=frozenset(gives | ({"middle"} if middle else set())),
        channels_last=getattr(model, "output_fmt", "NCHW") == "NHWC",
    )


def conv_stages(model: nn.Module) -> tuple[str, ...]:
    """The two stages before the last one of a CNN: middle features carry an object's extent, the last ones do not."""
    for container in ("blocks", "stages", "layers"):
        stages = getattr(model, container, None)
        if isinstance(stages, (nn.Sequential, nn.ModuleList)) and len(stages) > 2:
            return tuple(f"{container}.{index}" for index in (len(stages) - 3, len(stages) - 2))
    return tuple(name for name in ("layer2", "layer3") if hasattr(model, name))


def trunk_stages(model: nn.Module) -> tuple[str, ...]:
    """The same of a hybrid's convolutional trunk, at ``patch_embed.trunk``; none for other transformers."""
    trunk = getattr(getattr(model, "patch_embed", None), "trunk", None)
    return tuple(f"patch_embed.trunk.{name}" for name in conv_stages(trunk)) if isinstance(trunk, nn.Module) else ()


FAMILIES: tuple[Callable[[nn.Module], Backbone | None], ...] = (timm_transformer, torchvision_vit, timm_spatial)


@lru_cache(maxsize=1)
def timm_kinds() -> dict[str, type[nn.Module]]:
    """timm's classes of plain transformers, by family name."""
    from timm.models.beit import Beit
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    return {"vit": VisionTransformer, "eva": Eva, "beit": Beit}


def timm_pooling(model: nn.Module, pool: nn.Module | None) -> Pooling:
    """What timm's head reads: an attention pool, the class token, or an average of patch tokens."""
    if pool is not None:
        return "map"
    named = getattr(model, "global_pool", "")
    if named == "token":
        return "token" if getattr(model, "cls_token", None) is not None else "avg"
    if named:
        return "avg"
    return "token" if getattr(model, "cls_token", None) is not None else "none"


# ---------------------------------------------------------------------------------------------- classifier parts


def count_classes(model: nn.Module) -> int:
    """Number of classes of a model's classifier; 0 without one."""
    heads = classifiers(model)
    if heads:
        return int(heads[0].out_features)
    return int(getattr(model, "num_classes", 0) or 0)


def classifiers(model: Any) -> tuple[nn.Linear, ...]:
    """The linear classifier of a model; both of them for a distilled one (their mean is the model's answer)."""
    if hasattr(model, "heads") and hasattr(model.heads, "head"):
        found: Any = model.heads.head  # torchvision
    elif hasattr(model, "get_classifier"):
        found = model.get_classifier()
    else:
        found = None
    heads = found if isinstance(found, (tuple, list)) else (found,)
    return tuple(head for head in heads if isinstance(head, nn.Linear))


def class_evidence(backbone: Backbone, features: Tensor, target: Tensor) -> Tensor:
    """The linear classifier applied to every position instead of to the pooled vector.

    Parameters
    ----------
    backbone
        A model whose classifier is linear.
    features : (B, D, Gh, Gw)
        Features of the kind that the classifier reads (after the model's last norm).
    target : (B,)
        Class whose evidence is asked for.

    Returns
    -------
    (B, Gh, Gw)
        Logit of ``target`` at each position, bias included.
    """
    heads = classifiers(backbone.model)
    if not heads:
        raise UnsupportedModelError(
            f"class evidence needs a linear classifier, but {type(backbone.model).__name__} has none; "
            "methods that do without: raw-attention, rollout"
        )
    features = pooled_alone(backbone, features)
    weight = torch.stack([head.weight for head in heads]).mean(0)[target]  # (B, D)
    grid = torch.einsum("bdhw,bd->bhw", features, weight.to(features.dtype))
    biases = [head.bias[target] for head in heads if head.bias is not None]
    return grid + torch.stack(biases).mean(0)[:, None, None] if biases else grid


def pooled_alone(backbone: Backbone, features: Tensor) -> Tensor:
    """What the classifier would read if each position were the only one: pool and norm of the head, (B, D, Gh, Gw)."""
    tokens = features.movedim(1, -1).to(classifiers(backbone.model)[0].weight.dtype)  # (B, Gh, Gw, D)
    if backbone.pool is not None:
        tokens = backbone.pool(tokens.flatten(0, 2)[:, None]).view_as(tokens)
    norm: Any = getattr(backbone.model, "fc_norm", None)
    return (norm(tokens) if isinstance(norm, nn.Module) else tokens).movedim(-1, 1).to(features.dtype)


# ------------------------------------------------------------------------------------------------- preprocessing


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
    if not hasattr(inner, "pretrained_cfg"):
        return Preprocessing()
    from timm.data import resolve_data_config

    config = resolve_data_config({}, model=inner)
    height, width = config["input_size"][-2:]
    own_size = getattr(getattr(inner, "patch_embed", None), "img_size", None)
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


def create_timm(name: str, **settings: Any) -> nn.Module:
    """A timm model by name.

    Raises
    ------
    InputError
        timm knows no such model; the nearest names are suggested.
    """
    import difflib

    import timm

    bare = name.removeprefix("timm/").split(".")[0]
    if not name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and not timm.is_model(bare):
        near = difflib.get_close_matches(bare, timm.list_models(), n=3, cutoff=0.5)
        raise InputError(
            f"a model name known to timm, or a folder, was needed, got {name!r}; "
            f"did you mean {' or '.join(near) if near else 'one of `trt-cam models`'}?"
        )
    return timm.create_model(name.removeprefix("timm/"), **settings)
