"""What config.json says of a network, and the network built from it with random weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from trt_cam.backbone import Preprocessing, count_classes, create_timm, import_timm, preprocessing
from trt_cam.errors import InputError, WeightsError

SET_RECIPE = "set backbone.recipe = {'builder': 'timm', 'name': ..., 'settings': {...}}"
"""What to do where a backbone does not tell how it was made."""


OF_NETWORK = ("schema", "network", "backbone", "num_classes", "trt", "preprocessing", "classes")
OF_TIMM = ("architecture", "model_args", "pretrained_cfg", "label_names")
"""What timm itself reads of a folder's config.json; said beside ``backbone`` and ``preprocessing`` for its sake."""
ELSEWHERE = {"checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"}
"""Arguments of ``timm.create_model`` that lead to files which are not the folder's."""


def describe_network(net: nn.Module) -> dict[str, Any]:
    """The part of config.json from which the network is built again."""
    from trt_cam.models.trt import TRTLocalizer
    from trt_cam.models.tscam import TSCAMNet

    prepared, classes = preprocessing(net), getattr(net, "classes", None)
    described = {
        "network": "trt" if isinstance(net, TRTLocalizer) else "ts-cam" if isinstance(net, TSCAMNet) else "timm",
        "backbone": backbone_recipe(net.backbone if isinstance(net, (TRTLocalizer, TSCAMNet)) else net),
        "num_classes": net.num_classes if isinstance(net, (TRTLocalizer, TSCAMNet)) else count_classes(net),
        **({"trt": trt_settings(net)} if isinstance(net, TRTLocalizer) else {}),
        "preprocessing": {
            "size": list(prepared.size),
            "mean": list(prepared.mean),
            "std": list(prepared.std),
            "interpolation": prepared.interpolation,
        },
        "classes": list(classes) if classes else None,
    }
    return described | (for_timm(described) if described["network"] == "timm" else {})


def trt_settings(net: Any) -> dict[str, Any]:
    """Of a ``TRTLocalizer`` what its constructor is told beside the backbone."""
    from trt_cam.models.hybrid import TrunkCam

    spreader = getattr(net.cam, "spreader", None)
    return {
        "u": net.tpsm.u,
        "mode": net.tpsm.mode,
        "eps": net.tpsm.eps,
        "divide": net.divide,
        "relu": net.relu,
        "cam_from": net.cam_from,
        "cam": None if net.cam is None else "trunk" if isinstance(net.cam, TrunkCam) else "branch",
        **({} if spreader is None else {"spread_width": spreader.width}),
    }


def for_timm(described: Mapping[str, Any]) -> dict[str, Any]:
    """The same in timm's words, so that ``timm.create_model("hf-hub:owner/name")`` loads the folder as well."""
    backbone, prepared = described["backbone"], described["preprocessing"]
    if backbone["builder"] != "timm":
        return {}
    settings, own = backbone.get("settings", {}), {key: prepared[key] for key in ("mean", "std", "interpolation")}
    told = {"input_size": [3, *prepared["size"]], "num_classes": described["num_classes"]}
    fixed = {"fixed_input_size": True} if "img_size" in settings else {}
    names = {"label_names": described["classes"]} if described["classes"] else {}
    return {
        "architecture": backbone["name"],
        "model_args": settings,
        "pretrained_cfg": {**own, **told, **fixed},
        **names,
    }


def license_of(net: nn.Module) -> str | None:
    """The licence of the weights that timm publishes for a backbone, where timm says."""
    told = getattr(getattr(net, "backbone", net), "pretrained_cfg", None) or {}
    return told.get("license") or None


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
    pooled = getattr(model, "global_pool", None)
    after_pool = normed is not None and not isinstance(normed, nn.Identity)
    settings = {
        "img_size": getattr(embed, "img_size", None),
        "dynamic_img_size": getattr(model, "dynamic_img_size", False) or None,
        "dynamic_img_pad": getattr(embed, "dynamic_img_pad", False) or None,
        "global_pool": pooled if isinstance(pooled, str) else getattr(pooled, "pool_type", None),
        "fc_norm": after_pool,
        "use_fc_norm": after_pool,
    }
    taken = arguments(type(model))
    settings = {key: value for key, value in settings.items() if value is not None and key in taken}
    return {"builder": "timm", "name": name, "settings": settings}


def arguments(kind: type) -> set[str]:
    """What a class is constructed with, by name; with those of its base classes where it hands them on."""
    taken: set[str] = set()
    for one in kind.__mro__:
        own = inspect.signature(one.__init__).parameters  # type: ignore[misc]
        taken |= own.keys()
        if not any(each.kind is each.VAR_KEYWORD for each in own.values()):
            break
    return taken


def build_backbone(recipe: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The inverse of ``backbone_recipe``, with random weights."""
    import_timm()
    from timm.models.vision_transformer import VisionTransformer

    given = recipe.get("settings", {})
    settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    if recipe["builder"] == "timm":
        check_own(recipe["name"], settings)
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


def check_own(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse a recipe by which timm would open another file or address: a folder is a model by itself."""
    if wrong := ([name] if ":" in name else []) + sorted(ELSEWHERE & settings.keys()):
        raise WeightsError(
            f"a timm model's name and its own settings were needed in config.json, got {', '.join(map(repr, wrong))}, "
            "which would open other files; write the folder again with save_pretrained"
        )


def build(config: Mapping[str, Any]) -> nn.Module:
    """A network with random weights from its config; a config that names none is of the first kind."""
    net = unprepared(config)
    prepared = config["preprocessing"]
    net.preprocessing = Preprocessing(  # type: ignore[assignment]
        tuple(prepared["size"]), tuple(prepared["mean"]), tuple(prepared["std"]), prepared["interpolation"]
    )
    net.classes = tuple(config["classes"]) if config.get("classes") else None  # type: ignore[assignment]
    net.config = {key: value for key, value in config.items() if key not in OF_NETWORK + OF_TIMM}  # type: ignore[assignment]
    return net


def unprepared(config: Mapping[str, Any]) -> nn.Module:
    """The modules alone."""
    from trt_cam.models.hybrid import TrunkCam
    from trt_cam.models.trt import TRTLocalizer
    from trt_cam.models.tscam import TSCAMNet

    network, classes = config.get("network", "trt"), config["num_classes"]
    if network not in ("trt", "ts-cam", "timm"):
        raise WeightsError(f"a network trt, ts-cam or timm was needed in config.json, got {network!r}; update trt_cam")
    backbone = build_backbone(config["backbone"], classes)
    if network == "timm":
        return backbone
    if network == "ts-cam":
        return TSCAMNet(backbone, classes)
    settings = dict(config["trt"])
    kind, width = settings.pop("cam"), settings.pop("spread_width", None)
    cam: Any = TrunkCam(num_classes=classes, spread_width=width) if kind == "trunk" else kind
    return TRTLocalizer(backbone, cam=cam, **settings)


def shapes_of(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes of a network's tensors, before any memory is taken; None if only a real build could tell."""
    try:
        with torch.device("meta"), ReadableRanges():
            return {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}
    except (NotImplementedError, RuntimeError):  # a constructor that reads values: without memory there are none
        return None


class ReadableRanges(TorchFunctionMode):
    """``torch.linspace`` has values also where other tensors have none: constructors of older timm read them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        placed = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **(placed | (kwargs or {})))


def mismatch(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> str | None:
    """In words, where names and shapes differ."""
    missing, foreign = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or foreign:
        return f"{len(given)} tensors instead of {len(wanted)}: missing {missing[:3]}, foreign {foreign[:3]}"
    for name, shape in wanted.items():
        if given[name] != shape:
            return f"shape {given[name]} instead of {shape} for {name!r}"
    return None
