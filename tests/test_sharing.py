"""Networks as folders and repositories of the hub, their cards, and checkpoints of other people's training."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from families import shaken
from huggingface_hub import ModelCard
from stand_ins import Hub, official
from torch import Tensor, nn

import trt_cam
from trt_cam import cli
from trt_cam.backbone import Preprocessing, class_names, preprocessing
from trt_cam.errors import InputError, OutputError, WeightsError
from trt_cam.models.importing import import_checkpoint
from trt_cam.models.sharing import push_to_hub
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.models.weights import from_pretrained, load_model, save_pretrained

NAMES = ("ant", "bee", "cat", "dog", "eel")
CARD = {
    "data": "a folder of 60 photos",
    "datasets": ["imagenet-1k"],
    "supervision": "image labels only",
    "selection": "best top-1 on a fifth of the photos",
    "metrics": {"top-1": 0.8125, "GT-known@0.5": np.float32(0.7)},
    "command": "trt-cam train --data DIR",
}


def vit(name: str = "test_vit", **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return shaken(timm.create_model(name, num_classes=5, **settings))


def answer(net: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        found = net.eval()(images)
    return found if isinstance(found, Tensor) else found.logits


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], str]] = {
    "trt": (lambda: TRTLocalizer(vit(img_size=64)), (64, 64), "trt"),
    "ts-cam": (lambda: TSCAMNet(vit(img_size=64), 5), (64, 64), "ts-cam"),
    "ts-cam, average pool": (lambda: TSCAMNet(vit(img_size=(64, 96), global_pool="avg")), (64, 96), "ts-cam"),
    "ts-cam, two heads": (lambda: TSCAMNet(vit("test_vit2", img_size=64)), (64, 64), "ts-cam"),
    "vit": (lambda: vit(img_size=64), (64, 64), "timm"),
    "convolutions": (lambda: vit("test_resnet"), (96, 96), "timm"),
    "distilled": (lambda: vit("deit_tiny_distilled_patch16_224", img_size=64), (64, 64), "timm"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    build, size, kind = NETWORKS[name]
    net: Any = build()
    net.classes, net.config = NAMES, {"thresholds": {"cam": {"none": 0.3}}}
    net.preprocessing = Preprocessing(size, (0.5,) * 3, (0.25,) * 3, "bilinear")
    save_pretrained(net, tmp_path / "net", card=CARD)
    again: Any = load_model(tmp_path / "net")
    assert type(again) is type(net) and not again.training
    images = torch.randn(2, 3, *size)
    assert torch.equal(answer(net, images), answer(again, images))
    assert class_names(again) == NAMES and preprocessing(again) == net.preprocessing
    assert again.config["thresholds"] == net.config["thresholds"]
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    assert (config["schema"], config["network"], config["num_classes"]) == (1, kind, 5)
    save_pretrained(again, tmp_path / "again")
    for file in ("config.json", "README.md"):
        assert (tmp_path / "again" / file).read_text() == (tmp_path / "net" / file).read_text()


@pytest.mark.parametrize("name", ["vit", "convolutions", "distilled"])
def test_a_classifiers_folder_is_one_of_timm_as_well(name: str, tmp_path: Path) -> None:
    build, size, _ = NETWORKS[name]
    net: Any = build()
    net.classes = NAMES
    net.preprocessing = Preprocessing(size, (0.5,) * 3, (0.25,) * 3, "bilinear")
    save_pretrained(net, tmp_path)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    images = torch.randn(1, 3, *size)
    assert torch.equal(answer(theirs, images), answer(net, images))
    data = timm.data.resolve_model_data_config(theirs)
    assert tuple(data["input_size"]) == (3, *size) and tuple(data["std"]) == (0.25,) * 3


def test_a_folder_of_before_there_were_kinds_is_trt(tmp_path: Path) -> None:
    TRTLocalizer(vit(img_size=64)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["network"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert isinstance(load_model(tmp_path), TRTLocalizer)


def test_a_kind_that_is_not_known_or_not_the_one_asked_for(tmp_path: Path) -> None:
    TSCAMNet(vit(img_size=64)).save_pretrained(tmp_path)
    assert isinstance(TSCAMNet.from_pretrained(tmp_path), TSCAMNet)
    with pytest.raises(WeightsError, match="a TRTLocalizer was needed in .*, got a TSCAMNet"):
        TRTLocalizer.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "network": "gan"}))
    with pytest.raises(WeightsError, match="trt, ts-cam or timm was needed"):
        from_pretrained(tmp_path)


def test_a_trained_classifier_is_localized_by_name_of_its_folder(tmp_path: Path) -> None:
    net: Any = vit(img_size=64)
    net.classes = NAMES
    save_pretrained(net, tmp_path)
    photo = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    found = trt_cam.localize(photo, model=tmp_path, method="cam")
    assert isinstance(found, trt_cam.Localization) and found.label in NAMES


@pytest.mark.parametrize("kind", ["ts-cam", "cam"])
def test_thresholds_of_its_config_count_for_every_kind(kind: str, tmp_path: Path) -> None:
    net: Any = TSCAMNet(vit(img_size=64)) if kind == "ts-cam" else vit(img_size=64)
    net.config = {"thresholds": {kind: {"none": 0.31, "affinity": 0.47}}, "refine": "affinity"}
    save_pretrained(net, tmp_path)
    photo = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    for refine, threshold in ((None, 0.31), ("affinity", 0.47)):
        found = trt_cam.localize(photo, model=tmp_path, method=kind, refine=refine)
        assert isinstance(found, trt_cam.Localization) and found.threshold == threshold
    found = trt_cam.localize(photo, model=tmp_path)
    assert isinstance(found, trt_cam.Localization)
    assert (found.method, found.refine) == (("ts-cam", "affinity") if kind == "ts-cam" else ("trt-free", None))


def test_ts_cam_has_one_classifier() -> None:
    """Two would differ in what trains, and one of them would be saved for nothing."""
    net = TSCAMNet(vit("test_vit"))
    assert net.num_classes == 5 and not any("backbone.head" in name for name in net.state_dict())
    for wrong in (0, -1, "5"):
        with pytest.raises(InputError, match="num_classes"):
            TSCAMNet(vit(), wrong)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------- cards


def test_the_card_says_what_it_was_told_in_the_hubs_form(tmp_path: Path) -> None:
    TRTLocalizer(vit(img_size=64)).save_pretrained(tmp_path, card=CARD)
    card = ModelCard.load(tmp_path / "README.md")
    front = card.data.to_dict()
    assert (front["license"], front["library_name"], front["pipeline_tag"]) == (
        "apache-2.0",
        "trt_cam",
        "object-detection",
    )
    assert front["datasets"] == CARD["datasets"] and front["metrics"] == ["top-1", "GT-known@0.5"]
    assert "weakly-supervised-localization" in front["tags"] and "trt" in front["tags"]
    for told in ("a folder of 60 photos", "image labels only", "best top-1", "| top-1 | 0.8125 |", "| 0.7 |", "--data"):
        assert told in card.text


def test_a_card_without_a_training_is_still_a_card(tmp_path: Path) -> None:
    save_pretrained(vit("test_resnet"), tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.to_dict()["pipeline_tag"] == "image-classification"
    assert "Results" not in card.text and "Command" not in card.text


def test_a_card_that_somebody_wrote_or_changed_stays(tmp_path: Path) -> None:
    net, readme = TRTLocalizer(vit(img_size=64)), tmp_path / "README.md"
    net.save_pretrained(tmp_path)
    net.save_pretrained(tmp_path, card=CARD)  # nobody has touched the first one
    assert "60 photos" in readme.read_text()
    readme.write_text(readme.read_text().replace("60 photos", "60 fine photos"))
    net.save_pretrained(tmp_path, card={**CARD, "data": "other photos"})
    assert "60 fine photos" in readme.read_text()
    net.save_pretrained(tmp_path, new_card=True)
    assert "other photos" not in readme.read_text() and "fine" not in readme.read_text()


@pytest.mark.parametrize("card", [{"colour": "red"}, {"metrics": 0.5}, {"datasets": "imagenet-1k"}, "a text"])
def test_what_a_card_has_no_place_for(card: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="card") as caught:
        save_pretrained(vit(img_size=64), tmp_path / "net", card=card)
    assert "\n" not in str(caught.value) and not (tmp_path / "net").exists()


# --------------------------------------------------------------------------------------------------------------- hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", made)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    return made


def test_pushed_and_loaded_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    net = TRTLocalizer(vit(img_size=64))
    address = net.push_to_hub("owner/name", token="secret", private=True, card=CARD, commit_message="first")
    assert address == "https://hub/owner/name/commit/1"
    assert hub.asked == [("token", "secret"), ("create", True), ("upload", None, "first")]
    assert {file.name for file in (hub.folder / "owner/name").iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    fetched: list[Any] = []

    def snapshot(name: str, **how: Any) -> str:
        fetched.append((name, how["revision"], how["token"]))
        return str(hub.folder / name)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    images = torch.randn(1, 3, 64, 64)
    for again in (
        load_model("hf-hub:owner/name"),
        TRTLocalizer.from_pretrained("owner/name", revision="v1", token="t"),
    ):
        assert torch.equal(answer(again, images), answer(net, images))
    load_model("hf-hub:owner/name@v2")
    assert fetched == [("owner/name", None, None), ("owner/name", "v1", "t"), ("owner/name", "v2", None)]


def test_a_branch_and_every_kind(hub: Hub) -> None:
    for net in (TSCAMNet(vit(img_size=64)), vit("test_resnet")):
        push_to_hub(net, "owner/name", token="secret", revision="next")
        assert ("branch", "next") in hub.asked and hub.asked[-1] == ("upload", "next", "A network of trt_cam")
        assert isinstance(load_model(hub.folder / "owner/name"), type(net))


def test_a_card_that_was_changed_on_the_hub_stays(hub: Hub) -> None:
    net, readme = TRTLocalizer(vit(img_size=64)), hub.folder / "owner/name/README.md"
    net.push_to_hub("owner/name", token="secret")
    net.push_to_hub("owner/name", token="secret", card=CARD)
    assert "60 photos" in readme.read_text()
    readme.write_text("mine")
    net.push_to_hub("owner/name", token="secret")
    assert readme.read_text() == "mine"
    net.push_to_hub("owner/name", token="secret", new_card=True)
    assert readme.read_text() != "mine"


def test_what_keeps_a_network_from_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    net = vit("test_resnet")
    cases: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        ("owner/name", {}, InputError, "a token that may write"),
        ("name", {"token": "t"}, InputError, "owner/name"),
        ("owner/name@v1", {"token": "t"}, InputError, "owner/name"),
        ("a b/../c", {"token": "t"}, InputError, "owner/name"),
    ]
    hub.fails = "403 Forbidden: you may not"
    cases.append(("owner/name", {"token": "t"}, OutputError, "cannot write to the hub repository .*403 Forbidden"))
    for name, how, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            push_to_hub(net, name, **how)
        assert "\n" not in str(caught.value) and "details" not in str(caught.value)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "from the environment")
    hub.fails = ""
    push_to_hub(net, "owner/name")
    assert hub.asked[-2] == ("create", False)


def test_nothing_is_made_on_the_hub_for_a_network_that_cannot_be_built_again(hub: Hub) -> None:
    with pytest.raises(InputError, match="recipe"):
        push_to_hub(vit("vit_tiny_patch16_224", img_size=32, depth=2), "owner/name", token="secret")
    assert hub.asked == []


# ------------------------------------------------------------------------------------------------- others' checkpoints


def left_beside(kind: str, state: dict[str, Tensor]) -> Any:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(2))])
    return {
        "alone": state,
        "ts-cam": {"epoch": 3, "state_dict": state, "best_map": np.float64(87.5)},
        "deit": {"model": state, "optimizer": optimizer.state_dict(), "epoch": 3, "args": argparse.Namespace(lr=1e-3)},
        "timm": {"epoch": 3, "arch": "deit", "state_dict": state, "version": 2, "args": argparse.Namespace(x=[1, {}])},
        "arrays": {"state_dict": state, "history": np.arange(3.0), "out": Path("ckpt"), "best": np.float32(1)},
    }[kind]


@pytest.mark.parametrize("kind", ["alone", "ts-cam", "deit", "timm", "arrays"])
@pytest.mark.parametrize("method", ["trt", "ts-cam"])
def test_checkpoints_as_training_scripts_leave_them(kind: str, method: str, tmp_path: Path) -> None:
    state = official(method)
    torch.save(left_beside(kind, state), tmp_path / "best.pth")
    net = import_checkpoint(tmp_path / "best.pth", u=0.8)
    bare = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    same = TRTLocalizer.from_official(bare, u=0.8) if method == "trt" else TSCAMNet.from_official(bare)
    assert type(net) is type(same) and net.preprocessing.size == (32, 32)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(answer(net, images), answer(same, images))


def test_files_of_before_2020(tmp_path: Path) -> None:
    torch.save(left_beside("ts-cam", official("ts-cam")), tmp_path / "best.pth", _use_new_zipfile_serialization=False)
    assert isinstance(import_checkpoint(tmp_path / "best.pth"), TSCAMNet)


class Bomb:
    """Tells if anybody makes it."""

    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("code of a checkpoint was run",)


class Config(dict):
    """A class of the training script's own."""


@pytest.mark.parametrize("value", [Bomb(), Config(x=1), os.system])
def test_objects_beside_the_weights_are_refused_and_not_made(value: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": official("ts-cam"), "config": value}, tmp_path / "best.pth")
    with pytest.raises(WeightsError) as caught:
        import_checkpoint(tmp_path / "best.pth")
    assert "\n" not in str(caught.value) and "state dict alone" in str(caught.value)


def damaged(folder: Path) -> dict[str, Path]:
    files = {name: folder / f"{name}.pth" for name in ("pickle", "cut", "empty", "noise", "list", "foreign", "absent")}
    torch.save(official("trt"), files["cut"])
    files["cut"].write_bytes(files["cut"].read_bytes()[:5000])
    files["pickle"].write_bytes(pickle.dumps(Bomb()))
    files["empty"].write_bytes(b"")
    files["noise"].write_bytes(bytes(range(256)))
    torch.save([1, 2], files["list"])
    torch.save(timm.create_model("test_resnet").state_dict(), files["foreign"])
    return files


@pytest.mark.parametrize("name", ["pickle", "cut", "empty", "noise", "list", "foreign", "absent"])
def test_files_that_are_no_checkpoints(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = damaged(tmp_path)[name]
    with pytest.raises(WeightsError) as caught:
        import_checkpoint(file)
    assert "\n" not in str(caught.value)
    assert cli.main(["import", str(file), "--out", str(tmp_path / "net")]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "net").exists()


def test_the_command_writes_a_folder_for_every_other_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "best.pth", tmp_path / "net"
    torch.save({"state_dict": official("trt"), "best_map": np.float64(0.5)}, file)
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    words = ["import", file, "--out", out, "--num-heads", "2", "--u", "0.95", "--classes", tmp_path / "names.txt"]
    words += ["--size", "48", "64", "--mean", "0.5", "0.5", "0.5", "--std", "0.25", "0.25", "0.25"]
    assert cli.main([str(word) for word in words]) == 0
    assert "TRTLocalizer of 5 classes, input 48 x 64" in capsys.readouterr().out
    net = TRTLocalizer.from_pretrained(out)
    assert net.classes == NAMES and net.tpsm.u == 0.95 and net.backbone.blocks[0].attn.num_heads == 2
    assert net.preprocessing == Preprocessing((48, 64), (0.5,) * 3, (0.25,) * 3, "bicubic")
    assert "best.pth" in (out / "README.md").read_text()
    photo = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    found = trt_cam.localize(photo, model=net)
    assert isinstance(found, trt_cam.Localization) and found.grid.shape == (6, 8)


def test_positions_at_the_trained_size_are_as_they_were(tmp_path: Path) -> None:
    torch.save(official("trt"), tmp_path / "best.pth")
    plain, wide = (import_checkpoint(tmp_path / "best.pth", size=size) for size in (None, (48, 48)))
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(answer(plain, images), answer(wide, images))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "vgg"], "--method needs one of auto, trt, ts-cam"),
        (["--num-heads", "5"], "num_heads"),
        (["--u", "-1"], "--u needs a share"),
        (["--size", "30"], "multiples of the patch, 8"),
        (["--size", "8", "8", "8"], "--size needs"),
        (["--std", "0", "1", "1"], "--std needs a number above 0"),
        (["--classes", "two.txt"], "5 class names were needed, got 2"),
        (["--classes", "none.txt"], "--classes needs a file of names, but none.txt"),
        (["--classes", "odd.json"], "a name in each line"),
    ],
)
def test_arguments_that_do_not_fit(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(official("trt"), "best.pth")
    Path("two.txt").write_text("a\nb\n")
    Path("odd.json").write_text("[1, 2, 3, 4, 5]")
    assert cli.main(["import", "best.pth", "--out", "net", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not Path("net").exists()
