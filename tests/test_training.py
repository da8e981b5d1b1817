"""From a folder of photos to a folder of a network, by labels alone."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import trt_cam
from trt_cam.cli import main
from trt_cam.errors import DatasetError, InputError, OutputError
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.models.weights import load_model
from trt_cam.runs import alone
from trt_cam.training.material import named_alike

pytestmark = pytest.mark.filterwarnings("ignore:no token selected")


def train(photos: Path, out: Path, method: str = "trt", **settings: Any) -> Any:
    usual: dict[str, Any] = {"preset": "quick", "epochs": (2, 1), "batch": 6, "size": 32, "val_share": 0.25}
    usual |= {"pretrained": False, "threads": 1}
    return trt_cam.train(photos, settings.pop("model", "test_vit"), method, out=out, **usual | settings)


def test_a_second_process_does_not_work_in_the_same_folder(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(photos, out, epochs=(1, 1))
    before = sorted(out.rglob("*"))
    with alone(out), pytest.raises(InputError, match="another process works in .* now; wait for it"):
        train(photos, out, epochs=(1, 1), resume=True)
    assert sorted(out.rglob("*")) == before  # its record too
    train(photos, out, epochs=(1, 1), resume=True)


def test_room_for_both_caches_is_asked_for_before_the_first_is_begun(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, 24_000))
    with pytest.raises(OutputError, match=r"a cache of 18 photos needs 23 kB, and 8 kB besides for later, in"):
        train(photos, tmp_path / "run", freeze_backbone=True, say=asked.append)
    assert not any((tmp_path / "run").rglob("*.npy")) and len(asked) == 1


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("method", "settings", "kind", "stages"),
    [
        ("trt", {}, TRTLocalizer, ["tpsm", "cam"]),
        ("trt", {"joint": True, "freeze_backbone": True}, TRTLocalizer, ["joint"]),
        ("ts-cam", {}, TSCAMNet, ["ts-cam"]),
        ("cam", {"freeze_backbone": True}, nn.Module, ["classifier"]),
    ],
)
def test_a_folder_of_photos_becomes_a_folder_of_a_network(
    method: str, settings: dict[str, Any], kind: type, stages: list[str], photos: Path, tmp_path: Path
) -> None:
    found = train(photos, tmp_path, method, **settings)
    assert list(found.metrics) == stages
    assert isinstance(found.model, kind) and not found.model.training
    assert found.model.classes == ("blue", "green", "red")
    again = load_model(tmp_path / "model")
    images = torch.randn(2, 3, 32, 32)
    ours, theirs = (net(images)[0] if method == "trt" else net(images) for net in (found.model, again))
    assert torch.equal(ours, theirs)
    epochs = table(tmp_path / "epochs.csv")
    assert [row["epoch"] for row in epochs] == [str(number) for number in range(4 if len(stages) == 2 else 3)]
    assert all(0 <= float(row["top1"]) <= 1 for row in epochs)
    assert (tmp_path / "samples" / "epoch_001.png").exists()
    card = (tmp_path / "model" / "README.md").read_text()
    assert "18 photos of 3 classes" in card and "began from new weights of `test_vit`" in card
    assert "Image labels only" in card and "top-1 classification on 6" in card
    located = trt_cam.localize(next(photos.rglob("*.png")), model=tmp_path / "model")
    assert located.label in ("blue", "green", "red")


def test_frozen_training_leaves_the_trunk(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone: Any = timm.create_model("test_vit", img_size=32)
    begun = {name: one.clone() for name, one in backbone.state_dict().items()}
    found = train(photos, tmp_path, model=backbone, freeze_backbone=True)
    ours = found.model.backbone.state_dict()
    for name in ("blocks.0.attn.qkv.weight", "blocks.4.mlp.fc2.weight", "pos_embed"):
        assert torch.equal(ours[name], begun[name])
    assert not torch.equal(ours["blocks.5.mlp.fc2.weight"], begun["blocks.5.mlp.fc2.weight"])
    assert all(torch.equal(one, begun[name]) for name, one in backbone.state_dict().items())


def test_on_the_command_line(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", str(photos), "--model", "test_vit", "--from-scratch", "--size", "32", "--threads", "1"]
    words += [
        "--epochs",
        "2",
        "1",
        "--batch-size",
        "6",
        "--val-share",
        "0.25",
        "--out",
        str(tmp_path / "run"),
        "--u",
        "0.8",
    ]
    words += ["--freeze-backbone"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out.startswith("tpsm: epoch ") and f"-> {tmp_path / 'run' / 'model'}" in said.out
    assert "cache of 18 photos" in said.err
    assert "trt-cam train --data" in (tmp_path / "run" / "model" / "README.md").read_text()
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert (settings["u"], settings["batch"], settings["first"]["epochs"], settings["second"]["epochs"]) == (
        0.8,
        6,
        2,
        1,
    )
    assert main(words) == 2
    assert "holds this run already; add --resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert main([*words, "--resume", "--seed", "1"]) == 2
    assert "holds another run, whose settings.seed was 0, not 1; give another folder" in capsys.readouterr().err
    assert main([*words[:-3], "--out", str(tmp_path / "other"), "--optimizer", "adamm"]) == 2
    assert "unknown optimizer 'adamm'" in capsys.readouterr().err


def test_a_finished_run_is_not_trained_again(photos: Path, tmp_path: Path) -> None:
    first = train(photos, tmp_path)
    log = (tmp_path / "log.csv").read_bytes()
    again = train(photos, tmp_path, resume=True, progress=lambda *_: pytest.fail("trained"))
    assert again.metrics == first.metrics
    assert (tmp_path / "log.csv").read_bytes() == log


def test_chosen_by_boxes_only_if_asked_and_said_so(photos: Path, tmp_path: Path) -> None:
    boxed = tmp_path / "boxed"
    for path in photos.rglob("[01].png"):
        place = boxed / "images" / f"{path.parent.name}_{path.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
        (boxed / "labels").mkdir(exist_ok=True)
        number = ("red", "blue", "green").index(path.parent.name)
        (boxed / "labels" / f"{place.stem}.txt").write_text(f"{number} 0.5 0.5 0.5 0.5\n")
    (boxed / "classes.txt").write_text("red\nblue\ngreen\n")
    with pytest.raises(InputError, match="needs photos with boxes to choose by, got none"):
        train(photos, tmp_path / "none", select="boxes")
    with pytest.raises(InputError, match="needs photos with boxes to choose by, got photos"):
        train(photos, tmp_path / "labels", select="boxes", val=photos)
    found = train(photos, tmp_path / "run", select="boxes", val=boxed)
    rows = table(tmp_path / "run" / "epochs.csv")
    scores = [float(row["boxes"]) for row in rows[1:]]
    assert found.metrics["tpsm"]["score"] == max(scores[:2]) and found.metrics["cam"]["score"] == scores[2]
    assert any(scores)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    labels = np.array([0, 0, 1, 1, 2, 2])  # of blue, green and red: in the order of the photos' names, as they train
    assert run["val"]["labels"] == hashlib.sha256(labels.tobytes()).hexdigest()[:16]
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "boxes of the validation photos chose the epoch" in card and "by boxes, on 6 photos of boxed" in card
    found = train(photos, tmp_path / "labelled", val=boxed, epochs=1)
    assert "by top-1 classification on 6 photos of boxed" in (tmp_path / "labelled" / "model" / "README.md").read_text()


def test_labels_of_other_photos_are_found_by_name(photos: Path) -> None:
    others = trt_cam.load_dataset(photos)
    assert named_alike(others, ["red", "blue", "grey"]).tolist() == [1, -1, 0]
    numbered = types.SimpleNamespace(classes=None)
    assert named_alike(numbered, ["a", "b"]).tolist() == [0, 1]
    of_imagenet = named_alike(numbered, ["n01443537", "n01440764"])
    assert len(of_imagenet) == 1000 and of_imagenet[:3].tolist() == [1, 0, -1]


def test_a_damaged_checkpoint_costs_an_epoch(photos: Path, tmp_path: Path) -> None:
    whole = train(photos, tmp_path)
    tables = [(tmp_path / name).read_bytes() for name in ("log.csv", "epochs.csv")]
    newest = max((tmp_path / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    said: list[str] = []
    steps: list[int] = []
    again = train(photos, tmp_path, resume=True, say=said.append, progress=lambda done, *_: steps.append(done))
    assert len(said) == 1 and f"{newest.name} cannot be used" in said[0] and "of step 6, is taken" in said[0]
    assert steps == [7, 8, 9]
    assert again.metrics == whole.metrics
    assert [(tmp_path / name).read_bytes() for name in ("log.csv", "epochs.csv")] == tables


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch": 64}, "batch must be at most 18"),
        ({"batch": 64, "freeze_backbone": True}, "batch must be at most 18"),
        ({"joint": True, "method": "cam"}, "joint is a way to train trt, not cam"),
        ({"mixup": 0.5, "freeze_backbone": True}, "mixup and cutmix need photos"),
        ({"mixup": 0.5, "batch": 5}, "even number"),
        ({"accumulate": 7}, "accumulate must be at most the 6 photos"),
        ({"lr": math.inf}, "lr must be over 0 and finite, got inf"),
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm'; did you mean .*adam"),
        ({"schedule": "plateau"}, "unknown schedule 'plateau'; there are steps, cosine"),
        ({"augment": "mirror"}, "augment must be"),
        ({"policy": "rnd", "augment": "timm"}, "policy must be"),
        ({"sharing": "zero"}, "sharing must be ddp or fsdp"),
        ({"sharing": "fsdp", "ema": 0.9}, "fsdp goes with"),
        ({"model": "test_vitt"}, "did you mean test_vit"),
        ({"device": "cuda:99"}, "not to be had here"),
    ],
)
def test_what_does_not_go_together_is_said_first(
    settings: dict[str, Any], said: str, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        train(photos, tmp_path / "run", settings.pop("method", "trt"), **settings)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.*"))  # so that the corrected command can have the folder


def test_data_that_cannot_be_trained_on(photos: Path, tmp_path: Path) -> None:
    one = tmp_path / "one" / "only"
    one.mkdir(parents=True)
    for path in (photos / "red").iterdir():
        (one / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DatasetError, match="at least two classes"):
        train(tmp_path / "one", tmp_path / "run")
    (tmp_path / "one" / "empty").mkdir()
    with pytest.raises(DatasetError, match="'empty' of 2 in .* has none"):
        train(tmp_path / "one", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_other_labels(photos: Path, tmp_path: Path) -> None:
    net = TRTLocalizer(timm.create_model("test_vit", img_size=32), 4)
    net.save_pretrained(tmp_path / "four")
    with pytest.raises(InputError, match="the data's 3 classes was needed to go on from, got one of 4"):
        train(photos, tmp_path / "run", model=tmp_path / "four")


def test_a_model_keeps_its_classes_if_told_to(photos: Path, tmp_path: Path) -> None:
    backbone: Any = timm.create_model("test_vit", img_size=32, num_classes=5)
    backbone.classes = ("black", "red", "green", "blue", "white")
    settings = {"model": backbone, "epochs": 1, "freeze_backbone": True, "precision": "fp32", "say": lambda _: None}
    found = train(photos, tmp_path / "run", classes="model", **settings)
    assert found.model.classes == backbone.classes and found.model.num_classes == 5
    assert found.metrics["tpsm"]["top1"] >= 0
    backbone.classes = ("schwarz", "rot", "grün", "blau", "weiß")
    named = {"red": 1, "green": "grün", "blue": 3}
    again = train(photos, tmp_path / "named", classes=named, **settings)
    assert again.metrics == found.metrics
