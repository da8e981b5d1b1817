"""Frozen training: the same logits and gradients as the whole network gives, from a cache that survives accidents."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from families import FAMILIES, image_size, no_onednn, shaken
from PIL import Image
from torch import Tensor, nn

from trt_cam.backbone import preprocessing
from trt_cam.errors import DatasetError, InputError, OutputError, UnsupportedModelError
from trt_cam.models.hybrid import TrunkCam, hybrid_vit
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.training import pace
from trt_cam.training.cache import Cache, CachedBatches
from trt_cam.training.examples import Examples, open_examples
from trt_cam.training.frozen import FrozenTrainee
from trt_cam.training.networks import Trainee
from trt_cam.training.order import Order
from trt_cam.training.parts import ROWS, Parts
from trt_cam.training.photos import Reading
from trt_cam.training.views import View

SIZE = (32, 48)
COUNT = 2 * ROWS + 6  # photos: three parts a view


def tiny(**settings: Any) -> nn.Module:
    """A ViT of 3 blocks that takes ``SIZE``."""
    model = timm.create_model("test_vit", img_size=SIZE, num_classes=2, depth=3, embed_dim=24, num_heads=2, **settings)
    return shaken(model).eval()


def network(method: str, backbone: nn.Module) -> nn.Module:
    made = {"trt": TRTLocalizer, "ts-cam": lambda one: TSCAMNet(one, 7), "cam": lambda one: one}
    return made[method](backbone).eval()


def hybrid(**settings: Any) -> TRTLocalizer:
    backbone = hybrid_vit(7, img_size=(32, 64), embed_dim=24, depth=2, num_heads=2)
    return TRTLocalizer(shaken(backbone), **settings).eval()


def gradients(trainee: Trainee, batch: Mapping[str, Tensor], stage: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Logits by branch, and the gradient of every parameter that has one."""
    trainee.zero_grad()
    logits = trainee(batch, stage)
    torch.stack([one.logsumexp(1).sum() for one in logits.values()]).sum().backward()
    return logits, {name: p.grad.clone() for name, p in trainee.net.named_parameters() if p.grad is not None}


def check_same(trainee: FrozenTrainee, tensors: Mapping[str, Tensor], images: Tensor, stage: str) -> None:
    """Logits and gradients from cached tensors are those of the whole network on the images."""
    trained = trainee.begin(stage)
    trainee.eval()
    logits, found = gradients(trainee, {name: tensors[name] for name in trainee.reads(stage)}, stage)
    expected_logits, expected = gradients(Trainee(trainee.net), {"images": images}, stage)
    assert logits.keys() == expected_logits.keys() and found.keys() == expected.keys() == trained.keys()
    for name, one in logits.items():
        assert one.shape[0] == len(images)
        torch.testing.assert_close(one, expected_logits[name], rtol=1e-6, atol=1e-6)
    for name, one in found.items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(one, expected[name], rtol=1e-6, atol=1e-6 * scale, msg=name)
    assert any(one.any() for one in found.values())


# -------------------------------------------------------------------------------------- equal to the whole network


@pytest.mark.parametrize("method", ["trt", "ts-cam", "cam"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_halves_make_the_network(name: str, method: str) -> None:
    net = network(method, FAMILIES[name]())
    size = image_size(getattr(net, "backbone", net))
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(5))
    trainee = FrozenTrainee(net, size)
    tensors = trainee.record(images)
    for stage in trainee.stages:
        check_same(trainee, tensors, images, stage)


@pytest.mark.parametrize("cam_from", ["penultimate-input", "penultimate-output"])
def test_the_cam_branch_reads_what_the_network_says(cam_from: Any) -> None:
    trainee = FrozenTrainee(TRTLocalizer(tiny(), u=0.9, cam_from=cam_from).eval(), SIZE)
    images = torch.randn(2, 3, *SIZE)
    assert trainee.reads("cam") == (("source",) if cam_from == "penultimate-input" else ("tokens",))
    check_same(trainee, trainee.record(images), images, "cam")


def test_behind_a_frozen_trunk_all_of_the_transformer_is_trained() -> None:
    trainee = FrozenTrainee(hybrid(), (32, 64))
    images = torch.randn(3, 3, 32, 64)
    tensors = trainee.record(images)
    for stage in trainee.stages:
        check_same(trainee, tensors, images, stage)
    assert trainee.trained("cam") and all(name.startswith("cam.") for name in trainee.trained("cam"))
    trained = trainee.trained("tpsm")
    rest = {name for name, _ in trainee.net.named_parameters() if not name.startswith("cam.")} - trained.keys()
    assert rest and all(name.startswith("backbone.patch_embed.trunk.") for name in rest)


def test_of_a_trunk_only_what_is_read_is_kept() -> None:
    trainee = FrozenTrainee(hybrid(cam=TrunkCam(7)), (32, 64))
    assert trainee.reads("tpsm") == ("trunk.0", "trunk.1", "trunk.2")
    assert trainee.reads("tpsm", "joint") == ("trunk.0", "trunk.1", "trunk.2", "trunk.3")
    assert not trainee.trained("cam")  # the trunk's own classifier is its class map
    images = torch.randn(2, 3, 32, 64)
    check_same(trainee, trainee.record(images), images, "tpsm")


def test_what_is_trained() -> None:
    trainee = FrozenTrainee(TRTLocalizer(tiny(), u=0.9), SIZE)
    names = [name for name, _ in trainee.net.named_parameters()]
    begins = ("tpsm.", "backbone.blocks.2.", "backbone.norm.", "backbone.head.", "backbone.fc_norm.")
    assert [*trainee.trained("tpsm")] == [name for name in names if name.startswith(begins)]
    assert [*trainee.trained("cam")] == [name for name in names if name.startswith("cam.")]
    assert trainee.trained("joint").keys() == trainee.trained("tpsm").keys() | trainee.trained("cam").keys()


def test_the_trunk_runs_as_it_is_evaluated() -> None:
    trainee = FrozenTrainee(TRTLocalizer(tiny(proj_drop_rate=0.5, drop_path_rate=0.5), u=0.9), SIZE)
    images = torch.randn(2, 3, *SIZE)
    expected = trainee.eval().record(images)
    found = trainee.train().record(images)
    assert all(torch.equal(found[name], one) and not one.requires_grad for name, one in expected.items())
    assert trainee.net.training and trainee.net.backbone.blocks[0].training


@pytest.mark.parametrize(("stage", "idle"), [("tpsm", "cam"), ("cam", "tpsm")])
def test_a_stage_runs_its_own_branch_only(stage: str, idle: str) -> None:
    trainee = FrozenTrainee(TRTLocalizer(tiny(), u=0.9), SIZE)
    batch = trainee.record(torch.randn(2, 3, *SIZE))
    ran = []
    for name, module in trainee.net.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    trainee({name: batch[name] for name in trainee.reads(stage)}, stage)
    assert any(name.startswith(stage) for name in ran) and not any(name.startswith(idle) for name in ran)
    assert ("backbone.blocks.2" in ran) == (stage == "tpsm") and "backbone.blocks.1" not in ran


def test_the_trained_network_is_the_network() -> None:
    net = TRTLocalizer(tiny(), u=0.9)
    before = {name: one.clone() for name, one in net.state_dict().items()}
    trainee = copy.deepcopy(FrozenTrainee(net, SIZE))  # as a moving average is made
    images, label = torch.randn(8, 3, *SIZE), torch.arange(8) % 2
    tensors = trainee.record(images)
    for stage in ("tpsm", "cam"):
        optimizer = torch.optim.AdamW(trainee.begin(stage).values(), lr=1e-2)
        trainee.ready(stage)
        losses = []
        for _ in range(8):
            loss = nn.functional.cross_entropy(trainee(tensors, stage)[stage], label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
    changed = {name for name, one in trainee.net.state_dict().items() if not torch.equal(one, before[name])}
    assert changed == trainee.trained("joint").keys()
    assert all(torch.equal(one, before[name]) for name, one in net.state_dict().items())
    with torch.no_grad():
        found, expected = trainee.eval()(tensors, "joint"), trainee.net(images)
    assert torch.allclose(found["tpsm"], expected.tpsm_logits) and torch.allclose(found["cam"], expected.cam_logits)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"timm transformer of at least 2 blocks .* got spatial ResNet"):
        FrozenTrainee(timm.create_model("test_resnet"), (64, 64))
    model: Any = tiny()
    model.forward_head = lambda tokens, forward=model.forward_head: forward(tokens) * (1.0 + (len(tokens[0]) > 3))
    forward = model.forward
    model.forward = lambda images: forward(images) + 1
    with pytest.raises(UnsupportedModelError, match=r"its forward must be its blocks, norm and head, .* 1 off") as said:
        FrozenTrainee(model, SIZE)
    assert "\n" not in str(said.value)


# ------------------------------------------------------------------------------------------------------- the cache


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two classes."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for index in range(COUNT):
        place = root / "ab"[index % 2]
        place.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (36, 52, 3), dtype=np.uint8)).save(place / f"{index}.png")
    return root


@pytest.fixture
def examples(folder: Path) -> Examples:
    return open_examples(folder)


@pytest.fixture(scope="module")
def trainee() -> FrozenTrainee:
    return FrozenTrainee(TRTLocalizer(tiny(), u=0.9).eval(), SIZE)


def cache_of(place: Path, trainee: FrozenTrainee, examples: Examples, augment: str = "crop", **more: Any) -> Cache:
    view = View(preprocessing(trainee.net), augment, size=SIZE)
    return Cache(place, trainee, ("tpsm", "cam"), examples, view, **{"precision": "fp32", **more})


def filled(*args: Any, **more: Any) -> Cache:
    cache = cache_of(*args, **more)
    cache.fill(say=lambda _: None)
    return cache


def contents(cache: Cache) -> list[np.ndarray]:
    return [np.array(cache.parts.open(number)) for number in range(len(cache.parts))]


def test_batches_are_those_of_the_photos(tmp_path: Path, trainee: FrozenTrainee, examples: Examples) -> None:
    """From disk in full precision, over more epochs than views: what the whole network gives of the same views."""
    cache = filled(tmp_path / "cache", trainee, examples, views=2, seed=3, half=False)
    order = Order(COUNT, 16, seed=4)
    cached, views = CachedBatches(cache, order, trainee.reads("joint")), Reading(examples, cache.view, seed=3)
    assert len(cached) == COUNT // 16
    for epoch, start in ((0, 0), (1, 2), (4, 1)):
        batch, places = next(cached.epoch(epoch, start)), next(order.steps(epoch, start))
        items = [views[epoch % 2, int(place)] for place in places]
        assert batch["index"].tolist() == [item.row for item in items] == places.tolist()
        assert batch["label"].tolist() == [item.label for item in items]
        check_same(trainee, batch, torch.stack([item.image for item in items if item.image is not None]), "joint")


def test_all_photos_in_turn_and_none_where_there_is_none(
    tmp_path: Path, trainee: FrozenTrainee, examples: Examples
) -> None:
    cache = filled(tmp_path / "cache", trainee, examples, augment="none")
    batches = list(CachedBatches(cache, Order(COUNT, 16, shuffle=False), ["m"]).epoch(0))
    assert torch.cat([one["index"] for one in batches]).tolist() == list(range(COUNT))
    assert torch.cat([one["label"] for one in batches]).tolist() == examples.labels.tolist()
    assert {*batches[0]} == {"m", "label", "index"}
    order = Order(COUNT, 16, shuffle=False)
    object.__setattr__(order, "steps", lambda *_: iter([np.array([-1])]))
    (nobody,) = CachedBatches(cache, order, ["m"]).epoch(0)
    assert nobody["label"].tolist() == nobody["index"].tolist() == [-1] and nobody["m"].shape == (1, 6)


def test_fewer_photos_than_a_part(tmp_path: Path, trainee: FrozenTrainee, examples: Examples) -> None:
    some = examples.at(np.array([69, 3, 40]))
    cache = filled(tmp_path / "cache", trainee, some, augment="none")
    (batch,) = CachedBatches(cache, Order(3, 16, shuffle=False), ["m"]).epoch(0)
    whole = filled(tmp_path / "whole", trainee, examples, augment="none").parts
    assert batch["index"].tolist() == some.rows.tolist() and len(cache.parts) == 1
    assert torch.allclose(batch["m"], whole.read(some.rows, 0, ["m"])["m"])


def test_half_precision_is_off_by_its_rounding(tmp_path: Path, trainee: FrozenTrainee, examples: Examples) -> None:
    half = filled(tmp_path / "half", trainee, examples)
    full = filled(tmp_path / "full", trainee, examples, half=False)
    assert half.parts.dtype["tokens"].base == np.float16 and half.parts.dtype["m"].base == np.float32
    order = Order(COUNT, 32, shuffle=False)
    names = trainee.reads("joint")
    (ours, *_), (exact, *_) = (list(CachedBatches(one, order, names).epoch(0)) for one in (half, full))
    assert torch.equal(ours["m"], exact["m"])  # so the selection is the same
    for name in ("tokens", "source"):
        off = (ours[name].float() - exact[name]).abs()
        assert off.max() > 0 and (off <= 2**-11 * exact[name].abs() + 2**-25).all()
    with torch.no_grad():
        found, expected = (trainee.eval()(one, "joint") for one in (ours, exact))
    for branch in ("tpsm", "cam"):
        assert (found[branch] - expected[branch]).abs().max() <= 2**-8 * expected[branch].abs().max()


def test_a_cache_that_was_cut_short_goes_on(
    tmp_path: Path, trainee: FrozenTrainee, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, done = Parts.write, []

    def killed(self: Parts, number: int, tensors: Any) -> None:
        if len(done) == 2:
            (self.folder / ".half-written").touch()
            raise KeyboardInterrupt
        done.append(number)
        write(self, number, tensors)

    monkeypatch.setattr(Parts, "write", killed)
    cache = cache_of(tmp_path / "cache", trainee, examples, views=2)
    with pytest.raises(KeyboardInterrupt):
        cache.fill(say=lambda _: None)
    assert cache.parts.missing == [2, 3, 4, 5]
    stamps = {number: cache.parts.path(number).stat().st_mtime_ns for number in done}
    monkeypatch.setattr(Parts, "write", write)
    lines: list[str] = []
    again = cache_of(tmp_path / "cache", trainee, examples, views=2)
    needed = again.needed
    again.fill(say=lines.append)
    assert needed == (6 + COUNT) * cache.parts.dtype.itemsize and again.needed == 0
    assert {number: again.parts.path(number).stat().st_mtime_ns for number in done} == stamps
    assert sorted(path.name for path in again.parts.folder.iterdir()) == [f"{n:08d}.npy" for n in range(6)]
    at_once = filled(tmp_path / "at-once", trainee, examples, views=2)
    assert all(np.array_equal(one, other) for one, other in zip(contents(again), contents(at_once), strict=True))


def test_another_cache_is_refused_in_one_line(tmp_path: Path, trainee: FrozenTrainee, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "photos")
    examples, place = open_examples(tmp_path / "photos"), tmp_path / "cache"
    filled(place, trainee, examples)
    trained, other = copy.deepcopy(trainee.net), copy.deepcopy(trainee.net)
    with torch.no_grad():
        trained.backbone.head.weight += 1
        trained.tpsm.head.bias += 1
        other.backbone.blocks[0].mlp.fc1.bias[0] += 1e-3
    filled(place, FrozenTrainee(trained, SIZE), examples)  # what is trained is not what is kept
    for reason, more in {
        "trunk was": {"trainee": FrozenTrainee(other, SIZE)},
        'view.augment was "crop", not "none"': {"augment": "none"},
        "views was 1, not 2": {"views": 2},
        "seed was 0, not 1": {"seed": 1},
        'precision was "fp32", not "bf16"': {"precision": "bf16"},
        "tensors was": {"half": False},
    }.items():
        with pytest.raises(InputError, match=f"holds another run, whose {reason}") as said:
            filled(place, **{"trainee": trainee, "examples": examples, **more})
        assert "\n" not in str(said.value)
    path = next((tmp_path / "photos").rglob("*.png"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    with pytest.raises(InputError, match="holds another run, whose photos was .*; delete it, and the same command"):
        filled(place, trainee, open_examples(tmp_path / "photos"))


def test_too_little_room_is_refused_before_anything_is_written(
    tmp_path: Path, trainee: FrozenTrainee, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(tmp_path / "deep" / "cache", trainee, examples)
    lines: list[str] = []
    needed = COUNT * (6 * 4 + 2 * 7 * 24 * 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, needed - 1))
    with pytest.raises(OutputError, match=r"a cache of 70 photos needs 49 kB in .*, where 49 kB are free; make room"):
        cache.fill(say=lines.append)
    assert not (tmp_path / "deep").exists() and "49 kB to write" in lines[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, needed))
    cache.fill(epochs={"tpsm": 2, "cam": 1}, say=lines.append)
    told = r"about \d+ s in fp32: \d+ s for the trunk, \d+ s for 2 epochs of tpsm, \d+ s for 1 epoch of cam"
    assert re.fullmatch(told, lines[-1])
    files = sum(path.stat().st_size for path in cache.parts.folder.iterdir())
    assert needed < files < needed + 1000 * len(cache.parts)  # beside their headers


def test_a_part_that_cannot_be_written_to_its_end_says_why(
    tmp_path: Path, trainee: FrozenTrainee, examples: Examples
) -> None:
    resource = pytest.importorskip("resource")
    cache = filled(tmp_path / "cache", trainee, examples)
    cache.parts.path(1).unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"00000001.npy \(File too large\); what is done is kept"):
            cache.fill(say=lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert cache.parts.missing == [1]


def test_values_beyond_half_precision_are_refused(tmp_path: Path, examples: Examples) -> None:
    model = tiny()
    with torch.no_grad():
        model.blocks[1].mlp.fc2.bias += 1e5
    with pytest.raises(InputError, match=r"within 6.55e\+04 were needed of the trunk, got up to 1e\+05 in tokens"):
        filled(tmp_path / "cache", FrozenTrainee(TRTLocalizer(model), SIZE), examples)
    assert not list((tmp_path / "cache" / "parts").iterdir())
    filled(tmp_path / "full", FrozenTrainee(TRTLocalizer(model), SIZE), examples, half=False)


def test_a_damaged_part_is_named(tmp_path: Path, trainee: FrozenTrainee, examples: Examples) -> None:
    cache = filled(tmp_path / "cache", trainee, examples)
    batches = CachedBatches(cache, Order(COUNT, 16, shuffle=False), ["m"])
    cache.parts.path(1).write_bytes(cache.parts.path(1).read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"00000001.npy is damaged .*; delete it"):
        list(batches.epoch(0))
    shutil.copy(cache.parts.path(0), cache.parts.path(2))
    with pytest.raises(DatasetError, match=r"00000002.npy holds something else"):
        cache.parts.read(np.array([COUNT - 1]), 0, ["m"])


# ------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("name", ["vit", "dinov3", "rope-mixed", "beit-shared"])
def test_a_trunk_in_bfloat16_is_off_by_its_rounding(name: str) -> None:
    net = TRTLocalizer(FAMILIES[name]())
    trainee = FrozenTrainee(net, image_size(net.backbone))
    images = torch.randn(3, 3, *image_size(net.backbone), generator=torch.Generator().manual_seed(5))
    exact = trainee.record(images)
    with no_onednn():
        rounded = trainee.record(images, "bf16")
    for tensor, one in exact.items():
        assert 2**-12 < (rounded[tensor] - one).abs().max() / one.abs().max() < 0.02


def test_the_faster_precision_is_taken_and_kept(
    tmp_path: Path, trainee: FrozenTrainee, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = {"fp32": 2.0, "bf16": 1.0}
    monkeypatch.setattr(pace, "seconds", lambda run: took[run.args[1]])
    monkeypatch.setattr(pace, "knows_bf16", lambda device: False)
    assert cache_of(tmp_path / "a", trainee, examples, precision="auto").precision == "fp32"
    monkeypatch.setattr(pace, "knows_bf16", lambda device: True)
    assert cache_of(tmp_path / "a", trainee, examples, precision="auto").precision == "bf16"
    filled(tmp_path / "b", trainee, examples, precision="fp32")
    assert filled(tmp_path / "b", trainee, examples, precision="auto").precision == "fp32"  # as it began
