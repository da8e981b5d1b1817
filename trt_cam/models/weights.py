"""Models as files: folders with model.safetensors, config.json and a card, and the names they go by.

Nothing here unpickles. Names and shapes are compared before a tensor is copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from trt_cam.backbone import Preprocessing, create_timm
from trt_cam.errors import InputError, TrtCamError, WeightsError

if TYPE_CHECKING:
    from trt_cam.models.trt import TRTLocalizer

SCHEMA = 1
EMBEDDED = "trt-lite0"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def load_model(model: str | Path | nn.Module | None = None) -> nn.Module:
    """The model meant by what a user may give, in eval mode unless it is her own object.

    Parameters
    ----------
    model
        None or "trt-lite0" for the embedded model; a folder written by ``save_pretrained``; "hf-hub:owner/name" for
        such a folder on the Hugging Face hub; a timm name; or a module, which is returned as it is.
    """
    if isinstance(model, nn.Module):
        return model
    if model is None or model == EMBEDDED:
        return from_pretrained(Path(__file__).parent.parent / "assets")
    if not isinstance(model, (str, Path)):
        raise InputError(f"a model name, folder or module was needed, got {type(model).__name__}")
    if Path(model).is_dir() or "/" in str(model) and Path(model).exists():
        return from_pretrained(model)
    if is_hub_id(str(model)):
        return from_pretrained(model)
    return pretrained_timm(str(model))


def is_hub_id(name: str) -> bool:
    """Whether a name asks for one of our folders on the hub: "hf-hub:owner/name"."""
    return name.startswith(("hf-hub:", "hf_hub:"))


def pretrained_timm(name: str) -> nn.Module:
    """A timm model with its published weights, or one line that says why they cannot be had."""
    create_timm(name, pretrained=False)  # an unknown name is reported before the network is asked
    try:
        return create_timm(name, pretrained=True).eval()
    except TrtCamError:
        raise
    except Exception as error:  # huggingface_hub, requests and timm each raise their own
        raise WeightsError(
            f"published weights of {name!r} were needed, but could not be fetched ({first_line(error)}); "
            "connect to the network, or pass a folder or a model object"
        ) from error


def save_pretrained(net: TRTLocalizer, folder: str | Path, *, half: bool = False) -> None:
    """Write a localizer as a folder.

    Parameters
    ----------
    net
        Its backbone must be one that can be built again: made by timm, ``hybrid_vit`` or ``from_official``.
    folder
        Made if missing; files of the same names are replaced.
    half
        Store float tensors as float16; they are float32 again when loaded.

    Raises
    ------
    WeightsError
        The folder cannot be written.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    config = {"schema": SCHEMA, **describe_network(net), **net.config}
    tensors = {name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()}
    if half:
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if not (folder / CARD).exists():
            (folder / CARD).write_text(card(config), encoding="utf-8")
    except OSError as error:
        raise WeightsError(
            f"a writable folder was needed for {folder}, got: {first_line(error)}; choose another"
        ) from error


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
    """How to build a backbone again: its own ``recipe``, or timm's name with the size it was made for."""
    recipe = getattr(model, "recipe", None)
    if isinstance(recipe, dict):
        return recipe
    name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    if not name:
        raise InputError(
            f"a backbone that timm can build by name was needed, got {type(model).__name__} without one; "
            "set backbone.recipe = {'builder': 'timm', 'name': ..., 'settings': {...}}"
        )
    settings: dict[str, Any] = {}
    embed = getattr(model, "patch_embed", None)
    if getattr(embed, "img_size", None) is not None and getattr(embed, "strict_img_size", True):
        settings["img_size"] = list(embed.img_size)  # type: ignore[union-attr]
    elif getattr(model, "dynamic_img_size", False):
        settings["dynamic_img_size"] = True
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


def from_pretrained(source: str | Path) -> TRTLocalizer:
    """Load a folder written by ``save_pretrained``, in eval mode.

    Raises
    ------
    WeightsError
        Files are missing, truncated or foreign, or do not belong together.
    """
    folder = fetch(str(source)) if is_hub_id(str(source)) else Path(source)
    config = read_config(folder)
    try:
        net = build(config)
    except TrtCamError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"a config.json of schema {SCHEMA} was needed in {folder}, but building from it failed "
            f"({type(error).__name__}: {first_line(error)}); write the folder again with save_pretrained"
        ) from error
    load_tensors(net, read_tensors(folder / WEIGHTS), str(folder))
    return net.eval()


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


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder, its schema checked."""
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        missing = CONFIG if not path.is_file() else WEIGHTS
        raise WeightsError(
            f"a folder with {CONFIG} and {WEIGHTS} was needed, but {folder} has no {missing}; "
            "pass a folder that save_pretrained wrote"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise WeightsError(f"readable JSON was needed in {path}, got: {first_line(error)}; restore the file") from error
    if not isinstance(config, dict) or config.get("schema") != SCHEMA:
        came = config.get("schema") if isinstance(config, dict) else type(config).__name__
        raise WeightsError(
            f"config.json of schema {SCHEMA} was needed in {folder}, got {came!r}; use a matching version"
        )
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; the header is checked against the file's size before anything is read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"a complete safetensors file was needed at {path}, got: {first_line(error)}; fetch or write it again"
        ) from error


def load_tensors(net: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a network whose names and shapes they must match exactly."""
    wanted = net.state_dict()
    missing, foreign = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or foreign:
        raise WeightsError(
            f"{len(wanted)} tensors were needed from {source}, got {len(tensors)}: missing {missing[:3]}, "
            f"foreign {foreign[:3]}; the weights belong to another network"
        )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise WeightsError(
                f"shape {tuple(wanted[name].shape)} was needed for {name!r} from {source}, got {tuple(tensor.shape)}; "
                "the weights belong to another network"
            )
    net.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()})


def fetch(name: str) -> Path:
    """Download one of our folders from the Hugging Face hub."""
    from huggingface_hub import snapshot_download

    repository = name.split(":", 1)[1]
    try:
        return Path(snapshot_download(repository, allow_patterns=[WEIGHTS, CONFIG, CARD]))
    except Exception as error:  # huggingface_hub raises a dozen kinds, network libraries more
        raise WeightsError(
            f"the hub repository {repository!r} was needed, but could not be fetched ({first_line(error)}); "
            "check the name and the network, or pass a folder"
        ) from error


def card(config: Mapping[str, Any]) -> str:
    """A model card that says no more than the config knows."""
    return (
        f"# TRT localizer\n\nBackbone `{config['backbone'].get('name', config['backbone']['builder'])}`, "
        f"{config['num_classes']} classes. Load it with `trt_cam.TRTLocalizer.from_pretrained(folder)`.\n"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
