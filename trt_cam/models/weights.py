"""Models as files: folders with model.safetensors, config.json and a card, and the names they go by.

Nothing here unpickles. Names and shapes are compared before a tensor is copied.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trt_cam.backbone import create_timm, unwrap
from trt_cam.errors import InputError, WeightsError
from trt_cam.models.cards import check_card, model_card, untouched
from trt_cam.models.hub import CARD, CONFIG, WEIGHTS, fetch, first_line, from_hub, is_hub_id, is_repository
from trt_cam.models.recipes import SET_RECIPE, build, describe_network, license_of, mismatch, shapes_of

SCHEMA = 1
EMBEDDED = "trt-lite0"


def load_model(model: str | Path | nn.Module | None = None) -> nn.Module:
    """The model meant by what a user may give, in eval mode unless it is her own object.

    Parameters
    ----------
    model
        None or "trt-lite0" for the embedded model; a folder written by ``save_pretrained``, of whichever network;
        "hf-hub:owner/name" or "hf-hub:owner/name@revision" for such a folder on the Hugging Face hub; a timm name; or a
        module, which is returned as it is.
    """
    if isinstance(model, nn.Module):
        return model
    if model is None or model == EMBEDDED:
        return copy.deepcopy(embedded())
    if not isinstance(model, (str, Path)):
        raise InputError(f"a model name, folder or module was needed, got {type(model).__name__}")
    if Path(model).exists() or is_hub_id(str(model)):
        return from_pretrained(model)
    return pretrained_timm(str(model))


@lru_cache(maxsize=1)
def embedded() -> nn.Module:
    """The model that the package carries, read once; callers are given copies."""
    return from_pretrained(Path(__file__).parent.parent / "assets")


def pretrained_timm(name: str) -> nn.Module:
    """A timm model with its published weights, or one line that says why they cannot be had."""
    create_timm(name, pretrained=False)  # an unknown name is reported before the network is asked
    with from_hub(f"published weights of {name!r}"):
        return create_timm(name, pretrained=True).eval()


def save_pretrained(
    net: nn.Module,
    folder: str | Path,
    *,
    card: Mapping[str, Any] | None = None,
    half: bool = False,
    new_card: bool = False,
) -> None:
    """Write a network as a folder: model.safetensors, config.json and a model card, README.md.

    Parameters
    ----------
    net
        A ``TRTLocalizer``, a ``TSCAMNet``, or a classifier of timm, which timm then loads as well. Its backbone must be
        one that can be built again: made by timm, ``hybrid_vit`` or ``from_official``. Its ``classes``,
        ``preprocessing`` and ``config`` are written too, if it has them.
    folder
        Made if missing; weights and config that are there are replaced.
    card
        What its training says of itself, all of it optional: texts ``data``, ``supervision``, ``selection``,
        ``command``, ``title`` and ``notes`` (Markdown); ``metrics``, a dict of names to values; lists ``datasets`` and
        ``tags``; ``license`` (the backbone's own by default). Kept in ``config["card"]``, so it outlives loading.
    half
        Store float tensors as float16; they are float32 again when loaded.
    new_card
        Replace also a card that somebody wrote or changed.

    Raises
    ------
    InputError
        The backbone does not tell how to build it again, or the card says what a card has no place for.
    WeightsError
        The folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    net, folder = unwrap(net), Path(folder)
    config = full_config(net, card)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    check_recipe(config, tensors)
    if half:
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        readme = folder / CARD
        if new_card or not readme.exists() or untouched(readme.read_text(encoding="utf-8", errors="replace")):
            readme.write_text(model_card(config, license_of(net)), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"a writable folder was needed for {folder}, got: {first_line(error)}; choose another"
        ) from error


def own_config(net: nn.Module) -> dict[str, Any]:
    """What belongs to a model beside the network, such as thresholds; empty for one that is from elsewhere."""
    found = getattr(unwrap(net), "config", None)
    return found if isinstance(found, dict) else {}


def full_config(net: nn.Module, card: Mapping[str, Any] | None) -> dict[str, Any]:
    """What config.json says of a network."""
    config = {"schema": SCHEMA, **describe_network(net), **own_config(net)}
    told = {**config.get("card", {}), **check_card(card)}
    return {**config, "card": told} if told else config


def from_pretrained(source: str | Path, *, revision: str | None = None, token: str | None = None) -> nn.Module:
    """Load a folder written by ``save_pretrained``, or a repository of the hub, in eval mode.

    Returns
    -------
    nn.Module
        A ``TRTLocalizer``, a ``TSCAMNet`` or a timm model, as ``network`` in its config.json says.

    Raises
    ------
    WeightsError
        Files are missing, truncated or foreign, or do not belong together.
    """
    folder = fetch(str(source), revision=revision, token=token) if is_repository(source) else Path(source)
    config = read_config(folder)
    try:
        shapes = shapes_of(config)
        if shapes is not None:
            check_shapes(shapes, read_shapes(folder / WEIGHTS), str(folder))
        net = build(config)
    except WeightsError:
        raise
    except Exception as error:  # constructors of timm raise anything on settings that are not theirs
        raise WeightsError(
            f"a config.json of schema {SCHEMA} was needed in {folder}, but building from it failed "
            f"({type(error).__name__}: {first_line(error)}); write the folder again with save_pretrained"
        ) from error
    load_tensors(net, read_tensors(folder / WEIGHTS), str(folder))
    return net.eval()


def check_recipe(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Whether the network can be built again from what is about to be written: better said now than when loading."""
    try:
        shapes = shapes_of(config)
        different = shapes and mismatch({name: tuple(tensor.shape) for name, tensor in tensors.items()}, shapes)
    except Exception as error:
        different = f"{type(error).__name__}: {first_line(error)}"
    if different:
        raise InputError(
            f"a backbone built again by {config['backbone']} was needed, but that gives {different}; {SET_RECIPE}"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder, its schema checked."""
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        missing = CONFIG if not path.is_file() else WEIGHTS
        inner = sorted(folder.glob(f"*/{WEIGHTS}"))  # a training's folder was given in place of its network's
        raise WeightsError(
            f"a folder with {CONFIG} and {WEIGHTS} was needed, but {folder} has no {missing}; "
            f"pass {inner[0].parent if inner else 'a folder that save_pretrained wrote'}"
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
        raise damaged(path, error) from error


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, from its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> WeightsError:
    """What to say of a file that is no whole safetensors file."""
    return WeightsError(
        f"a complete safetensors file was needed at {path}, got: {first_line(error)}; fetch or write it again"
    )


def check_shapes(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Refuse tensors that belong to another network."""
    different = mismatch(wanted, given)
    if different:
        raise WeightsError(
            f"{len(wanted)} tensors of the right shapes were needed from {source}, got {different}; "
            "the weights belong to another network"
        )


def load_tensors(net: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a network whose names and shapes they must match exactly."""
    wanted = net.state_dict()
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_shapes({name: tuple(tensor.shape) for name, tensor in wanted.items()}, given, source)
    net.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()})
