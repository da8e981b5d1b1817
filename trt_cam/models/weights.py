"""Models as files: folders with model.safetensors, config.json and a card, and the names they go by.

Nothing here unpickles. Names and shapes are compared before a tensor is copied.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from trt_cam.backbone import create_timm
from trt_cam.errors import InputError, TrtCamError, WeightsError
from trt_cam.models.recipes import SET_RECIPE, build, card, describe_network, mismatch, shapes_of

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
        return copy.deepcopy(embedded())
    if not isinstance(model, (str, Path)):
        raise InputError(f"a model name, folder or module was needed, got {type(model).__name__}")
    if Path(model).exists() or is_hub_id(str(model)):
        return from_pretrained(model)
    return pretrained_timm(str(model))


@lru_cache(maxsize=1)
def embedded() -> TRTLocalizer:
    """The model that the package carries, read once; callers are given copies."""
    return from_pretrained(Path(__file__).parent.parent / "assets")


def is_hub_id(name: str) -> bool:
    """Whether a name asks for one of our folders on the hub: "hf-hub:owner/name"."""
    return name.startswith(("hf-hub:", "hf_hub:"))


def pretrained_timm(name: str) -> nn.Module:
    """A timm model with its published weights, or one line that says why they cannot be had."""
    create_timm(name, pretrained=False)  # an unknown name is reported before the network is asked
    with from_hub(f"published weights of {name!r}"):
        return create_timm(name, pretrained=True).eval()


@contextmanager
def from_hub(wanted: str) -> Iterator[None]:
    """Say in one line why ``wanted`` cannot be had; without a network at once, not after a minute of new tries."""
    from huggingface_hub import constants, get_session

    offline, reachable = constants.HF_HUB_OFFLINE, True
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # whatever its HTTP library raises
        constants.HF_HUB_OFFLINE, reachable = True, False  # what was fetched before is still found
    try:
        yield
    except TrtCamError:
        raise
    except Exception as error:  # huggingface_hub, its HTTP library and timm each raise their own
        why = first_line(error) if reachable else "no connection to the hub, and not fetched before"
        raise WeightsError(
            f"{wanted} were needed, but could not be fetched ({why}); "
            "check name and network, or pass a folder or a model object"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline


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
    InputError
        The backbone does not tell how to build it again.
    WeightsError
        The folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = Path(folder)
    config = {"schema": SCHEMA, **describe_network(net), **net.config}
    tensors = {name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()}
    check_recipe(config, tensors)
    if half:
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if not (folder / CARD).exists():
            (folder / CARD).write_text(card(config), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"a writable folder was needed for {folder}, got: {first_line(error)}; choose another"
        ) from error


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


def fetch(name: str) -> Path:
    """Download one of our folders from the Hugging Face hub."""
    from huggingface_hub import snapshot_download

    repository = name.split(":", 1)[1]
    with from_hub(f"files of the hub repository {repository!r}"):
        return Path(snapshot_download(repository, allow_patterns=[WEIGHTS, CONFIG, CARD]))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
