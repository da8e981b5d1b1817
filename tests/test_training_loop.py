"""Losses and the loop: stages, updates, the best epoch, cuts, divergence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from small import tiny
from torch import Tensor, nn

from trt_cam.errors import InputError, TrtCamError
from trt_cam.runs import World
from trt_cam.training.checkpoints import Checkpoints
from trt_cam.training.loop import Loop
from trt_cam.training.losses import Mixing, classification_loss
from trt_cam.training.material import Site
from trt_cam.training.networks import Trainee, network
from trt_cam.training.settings import PRESETS, settings_for

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:no token selected")


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


# ------------------------------------------------------------------------------------------------------------- the loop


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


@pytest.mark.parametrize(("last_loss", "expected"), [(0.5, 2), (0.7, 2), (0.3, 4)])
def test_the_best_epoch_is_kept_and_of_equals_that_of_least_loss(
    last_loss: float, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = seeded("cam")
    made, _ = loop(net, tmp_path, "cam", epochs=4)
    weights: dict[int, Tensor] = {}

    def score(judged: Any, epoch: int) -> float:
        weights[epoch] = judged.head.weight.detach().clone()
        return {1: 1.0, 2: 5.0, 3: 2.0, 4: 5.0}[epoch]

    made.score = score
    losses = iter([0.9, 0.1, 0.5, 0.2, last_loss])  # before the first epoch, and after each
    monkeypatch.setattr(made, "validate", lambda: {"val_loss": next(losses), "top1": 0.5})
    assert made.run().best["classifier"]["epoch"] == expected
    assert torch.equal(net.head.weight, weights[expected])  # type: ignore[union-attr]
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
