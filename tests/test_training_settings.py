"""The numbers of training: published presets, what is refused, optimizers and schedules."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small import tiny
from torch import nn

from trt_cam.errors import InputError
from trt_cam.models.trt import TRTLocalizer
from trt_cam.training.networks import parameter_groups
from trt_cam.training.schedules import make_optimizer, make_schedule
from trt_cam.training.settings import PRESETS, Stage, decayed, settings_for

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


def test_a_plan_has_the_stages_of_a_method() -> None:
    assert PRESETS["quick"].plan("trt") == {"tpsm": PRESETS["quick"].first, "cam": PRESETS["quick"].second}
    assert list(PRESETS["quick"].plan("trt", cam=False)) == ["tpsm"]
    assert list(PRESETS["quick"].plan("ts-cam")) == ["ts-cam"]
