"""Localizers as folders: they come back as they were, and what is damaged or foreign is refused in one line."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from families import shaken
from huggingface_hub import constants
from torch import nn

from trt_cam.backbone import Preprocessing
from trt_cam.errors import InputError, TrtCamError, WeightsError
from trt_cam.models import hub
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.weights import load_model, save_pretrained


def localizer(name: str = "test_vit", *, cam: object = "branch", **settings: object) -> TRTLocalizer:
    """timm's own tiny models can be built again by name."""
    torch.manual_seed(0)
    backbone = shaken(timm.create_model(name, num_classes=5, **settings))
    return TRTLocalizer(backbone, u=0.8, mode="mass", cam=cam).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    localizer(img_size=64).save_pretrained(tmp_path / "net")
    return tmp_path / "net"


BUILDS: dict[str, tuple[Callable[[], TRTLocalizer], tuple[int, int]]] = {
    "plain": (lambda: localizer(), (160, 160)),
    "size": (lambda: localizer(img_size=(64, 96)), (64, 96)),
    "dynamic": (lambda: localizer(dynamic_img_size=True), (96, 64)),
    "dynamic of another size": (lambda: localizer(img_size=(96, 96), dynamic_img_size=True), (96, 64)),
    "padding": (lambda: localizer(dynamic_img_size=True, dynamic_img_pad=True), (100, 70)),
    "average pool": (lambda: localizer(global_pool="avg"), (160, 160)),
    "average pool, norm first": (lambda: localizer(global_pool="avg", fc_norm=False), (160, 160)),
    "registers and map pool": (lambda: localizer("test_vit3"), (160, 160)),
    "no CAM branch": (lambda: localizer(cam=None), (160, 160)),
    "rotary": (lambda: localizer("vit_small_patch16_rope_224", img_size=64, depth=2), (64, 64)),
}


@pytest.mark.parametrize("name", BUILDS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    build, size = BUILDS[name]
    net = build()
    if name == "rotary":  # not what its name says: the user tells how it is built
        recipe = {"img_size": 64, "depth": 2}
        net.backbone.recipe = {"builder": "timm", "name": "vit_small_patch16_rope_224", "settings": recipe}
    net.config = {"threshold": 0.2, "refine": "affinity", "note": "naïve"}
    net.classes = ("a", "b", "c", "d", "e")
    net.preprocessing = Preprocessing(size, (0.5,) * 3, (0.25,) * 3, "bilinear")
    net.save_pretrained(tmp_path / "net")
    again = TRTLocalizer.from_pretrained(tmp_path / "net")
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        before, after = net(images), again(images)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not again.training and again.config == net.config and again.classes == net.classes
    assert again.preprocessing == net.preprocessing
    assert (again.tpsm.u, again.tpsm.mode, again.cam_from) == (0.8, "mass", net.cam_from)
    assert {file.name for file in (tmp_path / "net").iterdir()} == {"model.safetensors", "config.json", "README.md"}


def test_official_checkpoint_round_trip(tmp_path: Path, data: Path) -> None:
    import numpy as np

    with np.load(data / "trt_fuse_peaked.npz") as file:
        state = {name[3:]: torch.from_numpy(file[name]) for name in file.files if name.startswith("sd/")}
        images = torch.from_numpy(file["images"])
    net = TRTLocalizer.from_official(state, num_heads=1, u=0.95)
    net.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, TRTLocalizer)
    assert (again.tpsm.eps, again.divide, again.tpsm.u) == (1e-6, False, 0.95)
    with torch.no_grad():
        assert torch.equal(again(images).fused, net(images).fused)


def test_half_precision_on_disk(tmp_path: Path) -> None:
    net = localizer(img_size=64)
    net.save_pretrained(tmp_path / "full")
    save_pretrained(net, tmp_path / "half", half=True)
    sizes = [(tmp_path / kind / "model.safetensors").stat().st_size for kind in ("full", "half")]
    again = TRTLocalizer.from_pretrained(tmp_path / "half")
    assert sizes[1] < 0.6 * sizes[0]
    for ours, theirs in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert theirs.dtype == ours.dtype == torch.float32 and torch.equal(theirs, ours.half().float())


def test_a_card_that_the_user_wrote_stays(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    localizer(img_size=64).save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


def test_backbones_that_cannot_be_built_again(tmp_path: Path) -> None:
    """Said when saving, not when loading."""
    altered = localizer("vit_tiny_patch16_224", img_size=32, depth=2)
    unknown = TRTLocalizer(timm.models.VisionTransformer(img_size=32, depth=2, embed_dim=32, num_heads=2))
    for net in (altered, unknown):
        with pytest.raises(InputError, match="recipe") as caught:
            net.save_pretrained(tmp_path / "net")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "net").exists()


# ------------------------------------------------------------------------------------------ damaged, foreign, absent


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


class Bomb:
    """Tells if anybody unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("a file was unpickled",)


def other_network(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"fc.weight": torch.zeros(3, 3)}, folder / "model.safetensors")


def other_shape(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "tpsm.head.weight": torch.zeros(2, 2)}, folder / "model.safetensors")


def cut(folder: Path, keep: float) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: int(len(data) * keep)])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda folder: cut(folder, 0.7),
    "header only": lambda folder: cut(folder, 0.001),
    "empty": lambda folder: cut(folder, 0),
    "random bytes": lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 500),
    "pickle": lambda folder: (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb())),
    "torch pickle": lambda folder: torch.save({"x": torch.zeros(2)}, folder / "model.safetensors"),
    "foreign": other_network,
    "other shape": other_shape,
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "not json": lambda folder: (folder / "config.json").write_text("{"),
    "not text": lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"),
    "a list": lambda folder: (folder / "config.json").write_text("[]"),
    "other schema": lambda folder: edit(folder, lambda config: config.update(schema=99)),
    "no schema": lambda folder: edit(folder, lambda config: config.pop("schema")),
    "no backbone": lambda folder: edit(folder, lambda config: config.pop("backbone")),
    "unknown builder": lambda folder: edit(folder, lambda config: config["backbone"].update(builder="exec")),
    "unknown timm name": lambda folder: edit(folder, lambda config: config["backbone"].update(name="vit_nobody")),
    "odd settings": lambda folder: edit(folder, lambda config: config["backbone"]["settings"].update(colour=3)),
    "odd trt": lambda folder: edit(folder, lambda config: config["trt"].update(colour=3)),
    "odd types": lambda folder: edit(folder, lambda config: config.update(trt=None)),
    "odd cam": lambda folder: edit(folder, lambda config: config["trt"].update(cam="sam")),
    "other classes": lambda folder: edit(folder, lambda config: config.update(num_classes=3)),
    "huge": lambda folder: edit(folder, lambda config: config.update(num_classes=10**11)),
    "odd size": lambda folder: edit(folder, lambda config: config["backbone"]["settings"].update(img_size=[-3, 5])),
    "odd preprocessing": lambda folder: edit(folder, lambda config: config["preprocessing"].update(size=3)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folders(damage: str, folder: Path) -> None:
    DAMAGE[damage](folder)
    with pytest.raises(WeightsError) as caught:
        TRTLocalizer.from_pretrained(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_config_that_asks_for_terabytes_is_refused_before_memory_is_taken(folder: Path) -> None:
    DAMAGE["huge"](folder)
    with pytest.raises(WeightsError, match="another network"):
        TRTLocalizer.from_pretrained(folder)


@pytest.mark.parametrize("source", ["nowhere", "no/where", ""])
def test_folders_that_do_not_exist(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    offline(monkeypatch, tmp_path)  # one of them might be a repository of the hub
    with pytest.raises(WeightsError, match="config.json") as caught:
        TRTLocalizer.from_pretrained(source)
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    net = localizer(img_size=64)
    for target in (tmp_path / "file", tmp_path / "file" / "net"):
        with pytest.raises(WeightsError, match="writable folder") as caught:
            net.save_pretrained(target)
        assert "\n" not in str(caught.value)


def test_unwritable_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors
    import safetensors.torch

    def refuse(*_: object, **__: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)")

    monkeypatch.setattr(safetensors.torch, "save_file", refuse)
    with pytest.raises(WeightsError, match="Permission denied"):
        localizer(img_size=64).save_pretrained(folder)


@pytest.mark.parametrize("name", ["hf-hub:nobody/nothing", "hf_hub:nobody/nothing", "hf-hub:", "hf-hub:a b/..c"])
def test_hub_without_network(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offline(monkeypatch, tmp_path)
    for load in (TRTLocalizer.from_pretrained, load_model):
        with pytest.raises(WeightsError) as caught:
            load(name)
        assert "\n" not in str(caught.value)


def test_published_weights_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offline(monkeypatch, tmp_path)
    with pytest.raises(WeightsError, match="published weights") as caught:
        load_model("test_vit")
    assert "\n" not in str(caught.value)


def offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """No socket, and no cache that could help out."""
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))


def test_two_threads_without_network_leave_the_hubs_setting_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "reached", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with hub.from_hub("weights"):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with hub.from_hub("weights"):
        thread.start()
        entered.wait(0.2)  # it is in at once where threads do not take turns
        assert constants.HF_HUB_OFFLINE
    leave.set()
    thread.join()
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(("name", "near"), [("deit_smal_patch16_224", "deit_small_patch16_224"), ("zzz", "models")])
def test_unknown_names(name: str, near: str) -> None:
    with pytest.raises(InputError, match=near) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


def test_what_a_model_may_be(folder: Path) -> None:
    module = nn.Linear(2, 2)
    assert load_model(module) is module
    assert isinstance(load_model(folder), TRTLocalizer) and isinstance(load_model(str(folder)), TRTLocalizer)
    for odd in (3, b"x", ["deit"]):
        with pytest.raises(InputError):
            load_model(odd)


def test_every_error_is_one_of_ours() -> None:
    assert issubclass(WeightsError, TrtCamError) and issubclass(WeightsError, OSError)


def test_the_folder_around_a_network_names_it(tmp_path: Path) -> None:
    save_pretrained(TRTLocalizer("test_vit", 3), tmp_path / "run" / "model")
    with pytest.raises(WeightsError, match=r"run has no config.json; pass .*run/model$"):
        load_model(tmp_path / "run")
