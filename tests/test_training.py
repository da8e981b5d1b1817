"""Training from labels: published numbers, what each stage trains, the loop, and what it refuses."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trt_cam
from trt_cam.cli import main
from trt_cam.errors import DatasetError, InputError, OutputError, TrtCamError
from trt_cam.models.official import official_name
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.models.weights import load_model
from trt_cam.runs import World, alone
from trt_cam.training.checkpoints import Checkpoints
from trt_cam.training.loop import Loop
from trt_cam.training.losses import Mixing, classification_loss
from trt_cam.training.material import Site, named_alike
from trt_cam.training.networks import Trainee, network, parameter_groups
from trt_cam.training.schedules import make_optimizer, make_schedule
from trt_cam.training.settings import PRESETS, Settings, Stage, decayed, settings_for

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:no token selected")


def tiny(**settings: Any) -> nn.Module:
    """A transformer of 6 blocks, 64 wide, on 32 x 32 pixels: 4 patches."""
    return timm.create_model("test_vit", img_size=32, **settings)


# --------------------------------------------------------------------------------- the numbers of the published code


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


# ------------------------------------------------------------------------------------------------- published settings

PUBLISHED = {  # u, size, resize, batch, lr; by stage: epochs, factor, smoothing, epochs at whose start the rate falls
    "cub-224": (0.6, 224, 256, 128, 5e-5, (30, 0.1, 0.0, {15, 30}), (20, 0.1, 0.0, {10, 20})),
    "cub-384": (0.65, 384, 448, 128, 5e-5, (30, 0.2, 0.0, {15, 30}), (20, 0.1, 0.0, {10, 20})),
    "ilsvrc-224": (
        0.95,
        224,
        None,
        512,
        5e-4,
        (12, 0.4, 0.1, {2, 4, 6, 8, 10, 12}),
        (12, 0.4, 0.0, {2, 4, 6, 8, 10, 12}),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_hold_the_authors_numbers(name: str) -> None:
    u, size, resize, batch, lr, *both = PUBLISHED[name]
    preset = PRESETS[name]
    assert (preset.u, preset.size, preset.resize, preset.batch) == (u, size, resize, batch)
    for stage, (epochs, factor, smoothing, falls) in zip((preset.first, preset.second), both, strict=True):
        assert (stage.epochs, stage.lr, stage.factor, stage.smoothing) == (epochs, lr, factor, smoothing)
        rates = [1.0] + [decayed(epoch, stage.steps, stage.factor) for epoch in range(1, epochs + 1)]
        assert {epoch for epoch in range(1, epochs + 1) if rates[epoch] != rates[epoch - 1]} == falls
        assert rates[-1] == pytest.approx(factor ** len(falls))
    assert (preset.optimizer, preset.weight_decay, preset.drop_path, preset.schedule) == ("adamw", 0.05, 0.1, "steps")
    assert (preset.mixup, preset.cutmix, preset.ema, preset.clip, preset.warmup) == (0, 0, None, None, 0)
    assert (preset.layer_decay, preset.precision, preset.accumulate) == (None, "fp32", 1)


def test_presets_of_the_papers_own_words() -> None:
    for name, epochs, u in (("cub-224-paper", (30, 15), 0.65), ("ilsvrc-224-paper", (12, 10), 0.95)):
        preset = PRESETS[name]
        assert (preset.first.epochs, preset.second.epochs, preset.u) == (*epochs, u)
        assert (preset.optimizer, preset.weight_decay) == ("adam", 5e-4)
    assert PRESETS["ilsvrc-224"].augment == PRESETS["ilsvrc-224-paper"].augment == "timm"
    assert (PRESETS["ilsvrc-224"].policy, PRESETS["ilsvrc-224-paper"].policy) == ("rand-m9-mstd0.5-inc1", "original")
    assert (PRESETS["ilsvrc-224"].scale, PRESETS["ilsvrc-224"].erasing) == ((0.8, 1.0), 0.25)
    assert PRESETS["cub-224"].augment == "crop"


def test_the_authors_rule_goes_by_updates_too() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    stage = Stage(5, lr=2.0, steps=(2, 3), factor=0.5)
    schedule = make_schedule(optimizer, stage, PRESETS["cub-224"], updates=3)
    seen = []
    for number in range(15):
        schedule.step_update(number)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == [2.0] * 3 + [1.0] * 3 + [0.5] * 3 + [0.25] * 3 + [0.25] * 3  # at 2, 3, 4, not at 5


def test_cosine_warms_up_and_falls() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    settings = settings_for("full", {"warmup": 1, "epochs": 4, "lr": 1.0})
    schedule = make_schedule(optimizer, settings.first, settings, updates=10)
    rates = []
    for number in range(40):
        schedule.step_update(number)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.01)
    assert all(b > a for a, b in zip(rates[:9], rates[1:10], strict=True))
    assert max(rates) == rates[9] > 0.8
    assert rates[-1] < 0.01
    assert all(b < a for a, b in zip(rates[10:], rates[11:], strict=False))


def test_the_optimizer_is_the_authors() -> None:
    net = TRTLocalizer(tiny(), 3)
    optimizer = make_optimizer("adamw", parameter_groups(net, dict(net.named_parameters()), 0.05, None), 5e-5)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.999)] * 2
    assert [group["eps"] for group in optimizer.param_groups] == [1e-8] * 2
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]


def test_no_decay_where_there_should_be_none() -> None:
    net = TRTLocalizer(tiny(), 3)
    named = dict(net.named_parameters())
    decayed_group, spared = parameter_groups(net, named, 0.05, None)
    names = {id(one): name for name, one in named.items()}
    kept = {names[id(one)] for one in spared["params"]}
    assert {"backbone.pos_embed", "backbone.cls_token", "backbone.norm.weight", "cam.head.bias"} <= kept
    assert all(named[name].ndim == 1 or name.endswith(("pos_embed", "cls_token")) for name in kept)
    assert all(one.ndim > 1 for one in decayed_group["params"])
    assert len(spared["params"]) + len(decayed_group["params"]) == len(named)


def test_layers_learn_the_slower_the_lower() -> None:
    net = TRTLocalizer(tiny(), 3)
    named = dict(net.named_parameters())
    groups = parameter_groups(net, named, 0.05, 0.5)
    scale = {id(one): group.get("lr_scale", 1.0) for group in groups for one in group["params"]}
    assert len(scale) == len(named)
    rates = [scale[id(block.attn.qkv.weight)] for block in net.backbone.blocks]
    assert rates == [0.5 ** (6 - depth) for depth in range(6)]
    assert scale[id(net.backbone.patch_embed.proj.weight)] == 0.5**7
    assert scale[id(net.tpsm.block.attn.qkv.weight)] == scale[id(net.backbone.head.weight)] == 1.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": (1, 2, 3)}, "epochs"),
        ({"epochs": 0}, "epochs"),
        ({"lr": -1.0}, "lr"),
        ({"u": 0.0}, "u must"),
        ({"batch": 0}, "batch"),
        ({"precision": "fp8"}, "fp32, bf16, fp16"),
        ({"learning_rate": 1.0}, "unknown setting 'learning_rate'"),
        ({"ema": 1.5}, "ema"),
        ({"size": 0}, "size must be 1 to 8192 pixels, got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number of at least 1, got 1.5"),
        ({"lr": "fast"}, "lr must be over 0 and finite, got 'fast'"),
        ({"batch": True}, "batch must be a whole number"),
        ({"precision": ["bf16"]}, "precision must be one of fp32"),
        ({"resize": -1}, "resize must be 1 to 8192 pixels"),
        ({"val_share": 0.6}, r"val_share must be in \[0, 0.5\], got 0.6"),
        ({"weight_decay": math.inf}, "weight_decay must be at least 0 and finite, got inf"),
        ({"mixup": math.nan}, "mixup must be at least 0 and finite, got nan"),
    ],
)
def test_settings_that_cannot_be_trained_with(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        settings_for("quick", changes)
    assert "\n" not in str(caught.value)


def test_changes_go_where_they_belong() -> None:
    found = settings_for("quick", {"epochs": (3, 2), "lr": 0.1, "batch": 7})
    assert (found.first.epochs, found.second.epochs, found.first.lr, found.second.lr, found.batch) == (
        3,
        2,
        0.1,
        0.1,
        7,
    )
    assert found.second.smoothing == PRESETS["quick"].second.smoothing
    assert settings_for(found, {"epochs": [5]}).second.epochs == 5
    with pytest.raises(InputError, match="unknown preset 'quik'; there are quick, full, cub-224"):
        settings_for("quik", {})


# --------------------------------------------------------------------------------------------------------- networks


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


# ------------------------------------------------------------------------------------------------------------ losses


def test_losses_of_both_branches_are_summed(generator: torch.Generator) -> None:
    logits = {name: torch.randn(4, 3, generator=generator) for name in ("tpsm", "cam")}
    label = torch.tensor([0, 2, 1, 1])
    both = sum(F.nll_loss(F.log_softmax(one, 1), label) for one in logits.values())
    torch.testing.assert_close(classification_loss(logits, label), both)
    soft = F.one_hot(label, 3).float()
    torch.testing.assert_close(
        classification_loss(logits, soft, smoothing=0.2), classification_loss(logits, label, smoothing=0.2)
    )
    named = -(F.log_softmax(logits["cam"], 1) * (0.8 * soft + 0.2 / 3)).sum(1).mean()
    torch.testing.assert_close(classification_loss({"cam": logits["cam"]}, label, smoothing=0.2), named)


def test_mixed_labels_are_shares(generator: torch.Generator) -> None:
    batch = {"images": torch.randn(4, 3, 8, 8, generator=generator), "label": torch.tensor([0, 1, 2, 2])}
    before = batch["images"].clone()
    np.random.seed(0)
    mixed = Mixing(1.0, 0.0, 3)(batch)
    torch.testing.assert_close(mixed["label"].sum(dim=1), torch.ones(4))
    share = mixed["label"][0, 0]
    assert 0 < share < 1
    torch.testing.assert_close(mixed["images"], share * before + (1 - share) * before.flip(0))
    assert torch.equal(batch["images"], before)


# -------------------------------------------------------------------------------------------------------- the loop


class Fixed:
    """Batches of fixed images, in an order of the epoch's own."""

    def __init__(self, count: int = 12, batch: int = 4, classes: int = 3) -> None:
        generator = torch.Generator().manual_seed(0)
        self.label = torch.arange(count) % classes
        self.images = torch.randn(count, 3, 32, 32, generator=generator) + self.label[:, None, None, None]
        self.batch = batch

    def __len__(self) -> int:
        return len(self.label) // self.batch

    def epoch(self, number: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        order = torch.randperm(len(self.label), generator=torch.Generator().manual_seed(number))
        for rows in order.split(self.batch)[start:]:
            yield {"images": self.images[rows], "label": self.label[rows], "index": rows}


class Notes:
    """A journal in memory."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = {}
        self.epochs: dict[int, dict[str, float]] = {}

    def step(self, step: int, values: dict[str, float]) -> None:
        self.steps[step] = values

    def epoch(self, epoch: int, values: dict[str, float]) -> None:
        self.epochs[epoch] = values


def loop(net: nn.Module, folder: Path, method: str = "trt", batches: Any = None, **changes: Any) -> tuple[Loop, Notes]:
    """A loop on tiny batches, validated on the first of them."""
    joint = changes.pop("joint", False)
    usual: dict[str, Any] = {"epochs": (2, 1), "lr": 1e-3, "batch": 4, "warmup": 0, "drop_path": 0.0}
    settings = settings_for("quick", usual | changes)
    notes = Notes()
    made = Loop(
        Trainee(net),
        batches or Fixed(),
        Fixed(),
        settings.plan(method, joint=joint),
        settings,
        site=Site(folder, World(), CPU, 0, pytest.fail),
        checkpoints=Checkpoints(folder, say=pytest.fail),
        journal=notes,
    )
    return made, notes


def seeded(method: str = "trt", **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return network(tiny(depth=3), method, 3, settings_for("quick", settings))


def test_stages_train_what_is_theirs(tmp_path: Path) -> None:
    net: Any = seeded()
    before = {name: one.clone() for name, one in net.state_dict().items()}
    made, notes = loop(net, tmp_path)
    stages: dict[int, dict[str, Tensor]] = {}
    made.after = lambda epoch, judged, _: stages.update({epoch: {k: v.clone() for k, v in judged.state_dict().items()}})
    made.run()
    cam = {name for name in before if name.startswith("cam.")}
    assert len(cam) == 16
    assert all(torch.equal(before[name], stages[2][name]) for name in cam)  # the pretrained block, not the tuned one
    others = before.keys() - cam
    assert sum(not torch.equal(before[name], stages[2][name]) for name in others) == len(others)
    best = 1 if made.at.best["tpsm"]["epoch"] == 1 else 2
    assert all(torch.equal(stages[best][name], stages[3][name]) for name in others)
    assert all(not torch.equal(stages[2][name], stages[3][name]) for name in cam)
    assert list(notes.epochs) == [0, 1, 2, 3]
    assert list(notes.steps) == list(range(1, 10))
    assert set(notes.epochs[0]) == {"val_loss", "top1", "top1_cam"}


@pytest.mark.parametrize("method", ["trt", "ts-cam", "cam"])
def test_it_learns(method: str, tmp_path: Path) -> None:
    made, notes = loop(seeded(method), tmp_path, method, joint=method == "trt", epochs=8)
    made.run()
    last = max(notes.epochs)
    assert notes.epochs[last]["val_loss"] < 0.8 * notes.epochs[0]["val_loss"]
    assert made.at.best[list(made.plan)[0]]["top1"] > notes.epochs[0]["top1"]


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    net = seeded("cam")
    made, _ = loop(net, tmp_path, "cam", epochs=4)
    weights: dict[int, Tensor] = {}

    def score(judged: Any, epoch: int) -> float:
        weights[epoch] = judged.head.weight.detach().clone()
        return {1: 1.0, 2: 5.0, 3: 2.0, 4: 5.0}[epoch]

    made.score = score
    assert made.run().best["classifier"]["epoch"] == 2
    assert torch.equal(net.head.weight, weights[2])  # type: ignore[union-attr]
    assert not torch.equal(weights[2], weights[4])


def test_without_photos_to_choose_by_the_last_epoch_is_kept(tmp_path: Path) -> None:
    made, notes = loop(seeded("cam"), tmp_path, "cam")
    made.val = None
    assert made.run().best["classifier"]["epoch"] == 2
    assert notes.epochs[2] == {}


def test_parts_of_a_batch_add_up(tmp_path: Path) -> None:
    whole, expected = loop(seeded(), tmp_path / "whole", optimizer="sgd")
    whole.run()
    for count in (2, 3):  # parts of the same number of photos, and not
        parts, found = loop(seeded(), tmp_path / str(count), optimizer="sgd", accumulate=count)
        parts.run()
        for step, values in expected.steps.items():
            assert found.steps[step]["loss"] == pytest.approx(values["loss"], rel=1e-5)
            assert found.steps[step]["gradient"] == pytest.approx(values["gradient"], rel=1e-4)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    net = seeded("cam")
    made, notes = loop(net, tmp_path, "cam", clip=1e-3, optimizer="sgd", lr=1.0, weight_decay=0.0, epochs=1)
    before = torch.cat([one.detach().flatten().clone() for one in net.parameters()])
    made.batches = Fixed(count=4)
    made.run()
    moved = torch.cat([one.detach().flatten() for one in net.parameters()]) - before
    assert notes.steps[1]["gradient"] > 0.1
    assert 1e-5 < float(moved.norm()) < 2e-3  # momentum aside, the rate times the norm that is allowed


@pytest.mark.parametrize(
    "changes", [{"precision": "bf16"}, {"mixup": 0.8, "cutmix": 1.0}, {"ema": 0.9}, {"layer_decay": 0.7}]
)
def test_options_train(changes: dict[str, Any], tmp_path: Path) -> None:
    made, notes = loop(seeded(), tmp_path, epochs=(3, 1), **changes)
    made.run()
    assert all(math.isfinite(values["loss"]) for values in notes.steps.values())
    assert notes.epochs[3]["val_loss"] < notes.epochs[0]["val_loss"]


def test_what_is_averaged_is_what_is_kept(tmp_path: Path) -> None:
    net: Any = seeded("cam")
    made, _ = loop(net, tmp_path, "cam", ema=0.9, epochs=1)
    begun = net.head.weight.detach().clone()
    seen = []
    original = made.update

    def update(batch: Any) -> None:
        original(batch)
        seen.append(made.inner.net.head.weight.detach().clone())

    made.update = update  # type: ignore[method-assign]
    made.run()
    expected = begun
    for number, weights in enumerate(seen, start=1):  # timm's: nothing of the beginning, then the warm-up's decay
        decay = 0.0 if number == 1 else min(0.9, 1 - number ** (-2 / 3))
        expected = decay * expected + (1 - decay) * weights
    torch.testing.assert_close(net.head.weight.detach(), expected)


def test_random_numbers_of_the_caller_are_left_alone(tmp_path: Path) -> None:
    made, _ = loop(seeded(drop_path=0.5), tmp_path, drop_path=0.5)
    before = torch.get_rng_state()
    made.run()
    assert torch.equal(torch.get_rng_state(), before)


class Cut(Exception):
    """Stands for a power cut."""


def interrupted(folder: Path, cut: int) -> tuple[Loop, Notes, Notes | None]:
    """A loop with all that has a state; cut after an update and begun again, but for 0."""
    options: dict[str, Any] = {"ema": 0.9, "drop_path": 0.3, "mixup": 0.5, "warmup": 1, "accumulate": 2}
    made, noted = loop(seeded(drop_path=0.3), folder, **options)
    keep = noted.step

    def step(number: int, values: dict[str, float]) -> None:
        keep(number, values)
        if number == cut:
            raise Cut

    noted.step = step  # type: ignore[method-assign]
    if not cut:
        made.run()
        return made, noted, None
    with pytest.raises(Cut):
        made.run()
    again, found = loop(seeded(drop_path=0.3), folder, **options)
    again.run()
    return again, noted, found


def test_a_loop_that_was_cut_goes_on_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_cam.training.loop.CHECKPOINT_EVERY", 2)
    whole, expected, _ = interrupted(tmp_path / "whole", 0)
    for cut in (1, 4, 5, 8):  # before a checkpoint, in the first and the second epoch, and in the second stage
        again, noted, found = interrupted(tmp_path / str(cut), cut)
        assert found is not None
        assert min(found.steps, default=0) == {1: 1, 4: 4, 5: 5, 8: 7}[cut]
        assert noted.steps | found.steps == expected.steps
        assert noted.epochs | found.epochs == expected.epochs
        assert again.at == whole.at
        for ours, theirs in zip(again.trainee.state_dict().values(), whole.trainee.state_dict().values(), strict=True):
            assert torch.equal(ours, theirs)


class Breaking(torch.optim.SGD):
    """Leaves a weight infinite, as an update that overflows does."""

    def step(self, closure: Any = None) -> None:
        self.param_groups[0]["params"][0].data.flatten()[0] = torch.inf


@pytest.mark.parametrize(
    ("method", "changes", "update"),
    [
        ("trt", {"lr": 1e30}, 1),
        ("trt", {"lr": 1e12}, 2),  # after the first update the weights can be held, but nothing computed with them
        ("trt", {"lr": 1.0, "optimizer": "breaking"}, 1),
        ("cam", {"lr": 1e30, "precision": "bf16"}, 1),
    ],
)
def test_a_loss_that_is_not_finite_stops_at_once(
    method: str, changes: dict[str, Any], update: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if changes.get("optimizer") == "breaking":
        monkeypatch.setattr("trt_cam.training.loop.CHECKPOINT_EVERY", 1)
        monkeypatch.setattr("trt_cam.training.loop.make_optimizer", lambda name, groups, lr: Breaking(groups, lr=lr))
    usual = {"schedule": "constant", "optimizer": "sgd", "clip": None}
    made, notes = loop(seeded(method), tmp_path, method, **usual | changes)
    with pytest.raises(TrtCamError, match=rf"at update {update} \(stage .*, epoch 1\): .*lower --lr") as caught:
        made.run()
    assert f"rate of {changes['lr']:g} is likely too high: lower --lr, or add --clip 1 or --warmup 1" in str(
        caught.value
    )
    assert str(caught.value).endswith("the state of update 0 is kept")
    assert "\n" not in str(caught.value)
    assert len(notes.steps) == update - 1
    step, state = Checkpoints(tmp_path, say=pytest.fail).latest() or (None, {})
    assert step == 0
    assert all(one.isfinite().all() for one in state["model"].values())


def test_what_is_done_against_divergence_is_not_advised(tmp_path: Path) -> None:
    made, _ = loop(seeded(), tmp_path, lr=1e30, schedule="steps", optimizer="sgd", clip=1.0)
    with pytest.raises(TrtCamError, match="too high: lower --lr; the state of update 0"):
        made.run()


def test_photos_that_are_not_finite_are_named_as_the_cause(tmp_path: Path) -> None:
    batches = Fixed()
    batches.images[5, 0, 0, 0] = torch.nan
    made, _ = loop(seeded("cam"), tmp_path, "cam", batches)
    with pytest.raises(TrtCamError, match="loss nan.*the photos hold values that are not finite"):
        made.run()


def test_norms_of_batches_can_be_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for frozen in (True, False):
        net = network(timm.create_model("test_resnet"), "cam", 3, PRESETS["quick"])
        norm = next(one for one in net.modules() if isinstance(one, nn.BatchNorm2d))
        before = norm.running_mean.clone()  # type: ignore[union-attr]
        made, _ = loop(net, tmp_path / str(frozen), "cam", epochs=1, batch_norm="frozen" if frozen else "train")
        made.run()
        assert torch.equal(norm.running_mean, before) == frozen  # type: ignore[arg-type]


def test_what_is_lent_frozen_stays_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net: Any = network(timm.create_model("test_resnet"), "cam", 3, PRESETS["quick"])
    net.conv1.requires_grad_(False)
    for part in (net.bn1, net.layer1):
        part.requires_grad_(False)
    before = {name: one.clone() for name, one in net.state_dict().items()}
    loop(net, tmp_path, "cam", epochs=1)[0].run()
    same = {name for name, one in net.state_dict().items() if torch.equal(one, before[name])}
    frozen = {name for name in before if name.startswith(("conv1.", "bn1.", "layer1."))}
    assert same == frozen
    net.requires_grad_(False)
    with pytest.raises(InputError, match="in stage classifier, got none"):
        loop(net, tmp_path / "none", "cam")[0].run()


# ---------------------------------------------------------------------------------------------- from folder to folder


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
    found = train(photos, tmp_path / "run", model=backbone, classes="model")
    assert found.model.classes == backbone.classes and found.model.num_classes == 5
    assert found.metrics["tpsm"]["top1"] >= 0
    backbone.classes = ("schwarz", "rot", "grün", "blau", "weiß")
    named = {"red": 1, "green": "grün", "blue": 3}
    again = train(photos, tmp_path / "named", model=backbone, classes=named)
    assert again.metrics == found.metrics


def test_unread_weights_of_ts_cam_are_not_trained() -> None:
    trainee = Trainee(TSCAMNet(tiny(num_classes=4, global_pool="map", class_token=False), 3))
    trained = trainee.begin("ts-cam")
    assert len(trained) < len(list(trainee.net.parameters()))
    assert "head.weight" in trained and "backbone.norm.weight" in trained
    logits = trainee({"images": torch.zeros(1, 3, 32, 32)}, "ts-cam")["logits"]
    logits.sum().backward()
    assert all(one.grad is not None for one in trained.values())


def test_a_plan_has_the_stages_of_a_method() -> None:
    assert PRESETS["quick"].plan("trt") == {"tpsm": PRESETS["quick"].first, "cam": PRESETS["quick"].second}
    assert list(PRESETS["quick"].plan("trt", cam=False)) == ["tpsm"]
    assert list(PRESETS["quick"].plan("ts-cam")) == ["ts-cam"]
