"""What config.json says of a network, and the network built from it with random weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trt_cam.backbone import Preprocessing, create_timm
from trt_cam.errors import InputError, WeightsError

if TYPE_CHECKING:
    from trt_cam.models.trt import TRTLocalizer

SET_RECIPE = "set backbone.recipe = {'builder': 'timm', 'name': ..., 'settings': {...}}"
"""What to do where a backbone does not tell how it was made."""


def describe_network(net: TRTLocalizer) -> dict[str, Any]:
    """The part of config.json from which the network is built again."""
    from trt_cam.models.hybrid import TrunkCam

    cam = net.cam
    kind = None if cam is None else "trunk" if isinstance(cam, TrunkCam) else "branch"
    return {
        "backbone": backbone_recipe(net.backbone),
        "num_classes": net.num_classes,
        "trt": {
            "u": net.tpsm.u,
            "mode": net.tpsm.mode,
            "eps": net.tpsm.eps,
            "divide": net.divide,
            "relu": net.relu,
            "cam_from": net.cam_from,
            "cam": kind,
        },
        "preprocessing": {
            "size": list(net.preprocessing.size),
            "mean": list(net.preprocessing.mean),
            "std": list(net.preprocessing.std),
            "interpolation": net.preprocessing.interpolation,
        },
        "classes": list(net.classes) if net.classes else None,
    }


def backbone_recipe(model: nn.Module) -> dict[str, Any]:
    """How to build a backbone again: its own ``recipe``, or timm's name and what differs from model to model."""
    recipe = getattr(model, "recipe", None)
    if isinstance(recipe, dict):
        return recipe
    name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    if not name:
        raise InputError(
            f"a backbone that timm can build by name was needed, got {type(model).__name__} without one; {SET_RECIPE}"
        )
    embed, normed = getattr(model, "patch_embed", None), getattr(model, "fc_norm", None)
    after_pool = normed is not None and not isinstance(normed, nn.Identity)
    settings = {
        "img_size": getattr(embed, "img_size", None),
        "dynamic_img_size": getattr(model, "dynamic_img_size", False) or None,
        "dynamic_img_pad": getattr(embed, "dynamic_img_pad", False) or None,
        "global_pool": getattr(model, "global_pool", None),
        "fc_norm": after_pool,
        "use_fc_norm": after_pool,
    }
    taken = inspect.signature(type(model).__init__).parameters
    settings = {key: value for key, value in settings.items() if value is not None and key in taken}
    return {"builder": "timm", "name": name, "settings": settings}


def build_backbone(recipe: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The inverse of ``backbone_recipe``, with random weights."""
    from timm.models.vision_transformer import VisionTransformer

    given = recipe.get("settings", {})
    settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    if recipe["builder"] == "timm":
        return create_timm(recipe["name"], pretrained=False, num_classes=num_classes, **settings)
    if recipe["builder"] == "vit":
        model: nn.Module = VisionTransformer(num_classes=num_classes, **settings)
    elif recipe["builder"] == "hybrid":
        from trt_cam.models.hybrid import hybrid_vit

        model = hybrid_vit(num_classes=num_classes, **settings)
    else:
        raise WeightsError(f"a builder timm, vit or hybrid was needed in config.json, got {recipe['builder']!r}")
    model.recipe = dict(recipe)  # type: ignore[assignment]
    return model


def build(config: Mapping[str, Any]) -> TRTLocalizer:
    """A localizer with random weights from its config."""
    from trt_cam.models.hybrid import TrunkCam
    from trt_cam.models.trt import TRTLocalizer

    backbone = build_backbone(config["backbone"], config["num_classes"])
    settings = dict(config["trt"])
    kind = settings.pop("cam")
    cam: Any = TrunkCam(num_classes=config["num_classes"]) if kind == "trunk" else kind
    net = TRTLocalizer(backbone, cam=cam, **settings)
    prepared = config["preprocessing"]
    net.preprocessing = Preprocessing(
        tuple(prepared["size"]), tuple(prepared["mean"]), tuple(prepared["std"]), prepared["interpolation"]
    )
    net.classes = tuple(config["classes"]) if config.get("classes") else None
    net.config = {
        key: value
        for key, value in config.items()
        if key not in ("schema", "backbone", "num_classes", "trt", "preprocessing", "classes")
    }
    return net


def shapes_of(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes of a network's tensors, before any memory is taken; None if only a real build could tell."""
    try:
        with torch.device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}
    except NotImplementedError:  # a constructor that reads values, which tensors without memory have not
        return None


def mismatch(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> str | None:
    """In words, where names and shapes differ."""
    missing, foreign = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or foreign:
        return f"{len(given)} tensors instead of {len(wanted)}: missing {missing[:3]}, foreign {foreign[:3]}"
    for name, shape in wanted.items():
        if given[name] != shape:
            return f"shape {given[name]} instead of {shape} for {name!r}"
    return None


def card(config: Mapping[str, Any]) -> str:
    """A model card that says no more than the config knows."""
    return (
        f"# TRT localizer\n\nBackbone `{config['backbone'].get('name', config['backbone']['builder'])}`, "
        f"{config['num_classes']} classes. Load it with `trt_cam.TRTLocalizer.from_pretrained(folder)`.\n"
    )
