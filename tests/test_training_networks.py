"""The networks that are trained: how they begin, what each stage trains, gradients of the published code."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from small import tiny
from torch import Tensor, nn

from trt_cam.errors import InputError
from trt_cam.models.official import official_name
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.training.losses import classification_loss
from trt_cam.training.networks import Trainee, network
from trt_cam.training.settings import PRESETS, Settings, Stage, settings_for

pytestmark = pytest.mark.filterwarnings("ignore:no token selected")


@cache
def numbers(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def official(shared: Path, name: str) -> tuple[TRTLocalizer, dict[str, Tensor]]:
    file = numbers(shared / "parity" / f"{name}.npz")
    weights = {key[3:]: torch.from_numpy(array.copy()) for key, array in file.items() if key.startswith("sd/")}
    heads = json.loads(str(file["config_json"]))["num_heads"]
    batch = {"images": torch.from_numpy(file["images"]), "label": torch.from_numpy(file["labels"])}
    return TRTLocalizer.from_official(weights, num_heads=heads), batch


@pytest.mark.parametrize(
    ("stage", "run", "model", "smoothing"),
    [
        ("tpsm", "stage1_ce", "trt_6x6", 0.0),
        ("tpsm", "stage1_ls01", "trt_6x6", 0.1),
        ("cam", "stage2", "trt_fuse_6x6", 0.0),
    ],
)
def test_losses_and_gradients_are_the_authors(stage: str, run: str, model: str, smoothing: float, shared: Path) -> None:
    step = numbers(shared / "parity" / "trt_train_step.npz")
    net, batch = official(shared, model)
    trainee = Trainee(net)
    trained = trainee.begin(stage)
    trainee.ready(stage)
    logits = trainee(batch, stage)
    loss = classification_loss(logits, batch["label"], smoothing=smoothing)
    loss.backward()
    np.testing.assert_allclose(logits[stage].detach(), step[f"{run}_logits"], rtol=0, atol=2e-5)
    assert abs(float(loss.detach()) - float(step[f"{run}_loss"])) < 1e-5
    names = [official_name(str(name)) for name in step[f"{run.split('_')[0]}_param_names"]]
    assert sorted(trained) == sorted(names)
    assert len(names) == (16 if stage == "cam" else 84)
    ours = dict(net.named_parameters())
    assert all(one.grad is None for name, one in ours.items() if name not in trained)
    norms = torch.stack([ours[name].grad.norm() for name in names])  # type: ignore[union-attr]
    np.testing.assert_allclose(norms, step[f"{run}_grad_norm"], rtol=1e-3, atol=1e-5)
    whole = [key for key in step if key.startswith(f"{run}_grad/")]
    assert len(whole) == (3 if stage == "cam" else 5)
    for key in whole:
        gradient = ours[official_name(key.split("grad/", 1)[1])].grad
        np.testing.assert_allclose(gradient, step[key], rtol=1e-3, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------- beginnings


def test_new_branches_begin_as_the_authors_do() -> None:
    backbone = tiny(num_classes=7)
    lent = backbone.head.weight.clone()  # type: ignore[union-attr, operator]
    net: Any = network(backbone, "trt", 5, Settings(Stage(1, lr=1), Stage(1, lr=1), u=0.6))
    last = net.backbone.blocks[-1].state_dict()
    for branch in (net.tpsm.block, net.cam.block):
        assert all(torch.equal(one, last[name]) for name, one in branch.state_dict().items())
    for norm in (net.tpsm.norm, net.cam.norm):
        assert torch.equal(norm.weight, net.backbone.norm.weight)
        assert norm.eps == net.backbone.norm.eps
    assert net.tpsm.u == 0.6
    assert 0.015 < float(net.backbone.head.weight.detach().std()) < 0.025
    assert not net.backbone.head.bias.any()
    assert float(net.cam.head.weight.detach().abs().max()) <= 1 / math.sqrt(64 * 9)  # PyTorch's own
    assert torch.equal(backbone.head.weight, lent) and backbone.num_classes == 7  # as it was lent


def test_a_classifier_for_as_many_classes_is_kept() -> None:
    backbone: Any = tiny(num_classes=5)
    net: Any = network(backbone, "trt", ["a", "b", "c", "d", "e"], PRESETS["quick"])
    assert torch.equal(net.backbone.head.weight, backbone.head.weight)
    assert net.classes == ("a", "b", "c", "d", "e")


def test_drop_path_grows_with_depth() -> None:
    net: Any = network(tiny(), "trt", 3, settings_for("quick", {"drop_path": 0.1}))
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in net.backbone.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.1, 6))
    assert net.tpsm.block.drop_path2.drop_prob == net.cam.block.drop_path2.drop_prob == rates[-1] == 0.1


@pytest.mark.parametrize("method", ["trt", "ts-cam", "cam"])
def test_a_lent_module_is_as_it_was(method: str) -> None:
    backbone = tiny(num_classes=7).train()
    before = {name: one.clone() for name, one in backbone.state_dict().items()}
    net = network(backbone, method, 3, settings_for("quick", {"size": 48, "drop_path": 0.3}))
    nn.init.zeros_(next(net.parameters()))
    assert backbone.training and backbone.num_classes == 7 and backbone.patch_embed.img_size == (32, 32)
    assert not any(isinstance(one, timm.layers.DropPath) for one in backbone.modules())
    assert all(torch.equal(one, before[name]) for name, one in backbone.state_dict().items())


def test_a_network_of_other_classes_or_method_is_not_gone_on_from() -> None:
    net = TRTLocalizer(tiny(), 3)
    net.classes = ("a", "b", "c")
    for classes, method, said in (
        (["a", "b"], "trt", "the data's 2 classes was needed .* got one of 3"),
        (["a", "b", "d"], "trt", "its class 2 is 'c', the data's 'd'"),
        (["a", "b", "c"], "ts-cam", "one of 'trt'"),
        (["a", "b", "c"], "cam", "one of 'trt'"),
        (["a", "b", "c"], "gradcam", "method must be one of trt, ts-cam, cam"),
    ):
        with pytest.raises(InputError, match=said):
            network(net, method, classes, PRESETS["quick"])
    assert isinstance(network(net, "trt", ["a", "b", "c"], PRESETS["quick"]), TRTLocalizer)


def test_input_of_another_size() -> None:
    net: Any = network("test_vit", "trt", 3, settings_for("quick", {"size": 64}), pretrained=False)
    assert net.backbone.patch_embed.img_size == net.preprocessing.size == (64, 64)
    assert net(torch.zeros(1, 3, 64, 64)).tpsm_logits.shape == (1, 3)


def test_unread_weights_of_ts_cam_are_not_trained() -> None:
    trainee = Trainee(TSCAMNet(tiny(num_classes=4, global_pool="map", class_token=False), 3))
    trained = trainee.begin("ts-cam")
    assert len(trained) < len(list(trainee.net.parameters()))
    assert "head.weight" in trained and "backbone.norm.weight" in trained
    logits = trainee({"images": torch.zeros(1, 3, 32, 32)}, "ts-cam")["logits"]
    logits.sum().backward()
    assert all(one.grad is not None for one in trained.values())
