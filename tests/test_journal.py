"""What is written of a training reads as if it had never been cut, and the network is not disturbed by being drawn."""

from __future__ import annotations

import errno
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from trt_cam import runs
from trt_cam.cli.output import Counter
from trt_cam.errors import InputError, OutputError
from trt_cam.localization import localize
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.training.journal import Journal


def values(step: int) -> dict[str, float]:
    return {"loss": 1 / step, "lr": 1e-5 * step}


def written(folder: Path) -> str:
    return (folder / "log.csv").read_text()


class TestTables:
    def test_a_row_for_each_step(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "run", total=2)
        for step in (1, 2):
            journal.step(step, {"loss": torch.tensor(step / 8), "lr": np.float32(0.5)})  # type: ignore[dict-item]
        assert written(tmp_path / "run") == "step,loss,lr\n1,0.125,0.5\n2,0.25,0.5\n"

    def test_numbers_come_back_exactly(self, tmp_path: Path) -> None:
        exact = {"third": 1 / 3, "tiny": 5e-324, "none": float("nan"), "much": float("inf")}
        Journal(tmp_path, total=1).epoch(0, exact)
        read = (tmp_path / "epochs.csv").read_text().splitlines()[1].split(",")
        assert read[0] == "0"
        np.testing.assert_array_equal([float(one) for one in read[1:]], list(exact.values()))

    @pytest.mark.parametrize("torn", ["", "8", "8,0.125,0.0000", "8,0.125"])
    @pytest.mark.parametrize("again", [1, 5, 8])
    def test_as_if_it_had_never_been_cut(self, tmp_path: Path, again: int, torn: str) -> None:
        whole, first = Journal(tmp_path / "whole", total=12), Journal(tmp_path / "cut", total=12)
        for step in range(1, 13):
            whole.step(step, values(step))
        for step in range(1, 8):
            first.step(step, values(step))
        with open(tmp_path / "cut" / "log.csv", "a") as file:
            file.write(torn)
        second = Journal(tmp_path / "cut", total=12)
        for step in range(again, 13):
            second.step(step, values(step))
        assert written(tmp_path / "cut") == written(tmp_path / "whole")

    def test_a_torn_row_is_none_even_where_it_looks_whole(self, tmp_path: Path) -> None:
        Journal(tmp_path, total=3).step(1, values(1))
        with open(tmp_path / "log.csv", "a") as file:
            file.write("2,0.5,0.0000")
        Journal(tmp_path, total=3).step(3, values(3))
        assert [line.split(",")[0] for line in written(tmp_path).splitlines()] == ["step", "1", "3"]

    @pytest.mark.parametrize("again", [2, 4, 6])
    def test_a_stage_may_have_columns_of_its_own(self, tmp_path: Path, again: int) -> None:
        def row(step: int) -> Mapping[str, float]:
            return {"loss": step} | ({"cam": -step} if step > 3 else {})

        whole, first = Journal(tmp_path / "whole", total=7), Journal(tmp_path / "cut", total=7)
        for step in range(1, 8):
            whole.step(step, row(step))
        for step in range(1, 6):
            first.step(step, row(step))
        second = Journal(tmp_path / "cut", total=7)
        for step in range(again, 8):
            second.step(step, row(step))
        assert written(tmp_path / "whole") == written(tmp_path / "cut")
        assert written(tmp_path / "whole").splitlines()[::3] == ["step,loss,cam", "3,3.0,", "6,6.0,-6.0"]

    def test_epochs_go_on_too(self, tmp_path: Path) -> None:
        for start in (0, 2):
            journal = Journal(tmp_path, total=1)
            for epoch in range(start, 4):
                journal.epoch(epoch, {"top1": epoch / 4, "by": start})
        assert (tmp_path / "epochs.csv").read_text() == "epoch,top1,by\n0,0.0,0.0\n1,0.25,0.0\n2,0.5,2.0\n3,0.75,2.0\n"

    def test_a_full_disk_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*given: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(runs.os, "fsync", full)
        with pytest.raises(OutputError, match=r"cannot write .*log.csv \(No space left on device\)"):
            Journal(tmp_path, total=1).step(1, values(1))


def test_the_time_left_is_told_as_evaluations_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path, total=3, progress=Counter("steps"))
    for step in (2, 3):
        journal.step(step, values(step))
    lines = capsys.readouterr().err.split("\r")[1:]
    assert lines[0].startswith("2/3 steps, 0.0/s") and lines[1].startswith("3/3 steps, ") and " left" in lines[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten photos, 60 wide and 40 high, with a block somewhere."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(10):
        picture = Image.new("RGB", (60, 40), (0, 90, 0))
        picture.paste((250, 20 * number, 0), (4 * number, 5, 4 * number + 20, 30))
        picture.save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def network(kind: str) -> nn.Module:
    """A tiny one in the middle of its training: modes and gradients are mixed, some parameters rest."""
    torch.manual_seed(0)
    made: nn.Module = timm.create_model("test_vit", img_size=32, num_classes=5, drop_path_rate=0.1)
    if kind != "cam":
        made = TRTLocalizer(made) if kind == "trt" else TSCAMNet(made)
    for number, (_, one) in enumerate(made.named_parameters()):
        one.requires_grad_(number % 3 > 0)
        one.grad = torch.full_like(one, number) if number % 2 else None
    for number, module in enumerate(made.modules()):
        module.training = number % 2 > 0
    return made


def all_of(net: nn.Module) -> list[Any]:
    """All that a training could notice."""
    parameters = [
        (name, one.requires_grad, one.data_ptr(), None if one.grad is None else one.grad.tolist(), one.tolist())
        for name, one in net.named_parameters()
    ]
    modes = [module.training for module in net.modules()]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()]
    return [parameters, [one.tolist() for one in net.buffers()], modes, hooks]


class TestPictures:
    @pytest.mark.parametrize("kind", ["trt", "ts-cam", "cam"])
    def test_the_network_and_the_generators_are_left_as_they_were(
        self, tmp_path: Path, photos: list[Path], kind: str
    ) -> None:
        net = network(kind)
        before = all_of(net), torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
        assert Journal(tmp_path, total=1).pictures(3, net, photos[:2], [0, 4]) == tmp_path / "samples" / "epoch_003.png"
        after = all_of(net), torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
        assert before == after

    def test_a_photo_beside_its_heat_and_box(self, tmp_path: Path, photos: list[Path]) -> None:
        net = network("trt")
        path = Journal(tmp_path, total=1).pictures(0, net, photos[3:4], [2])
        assert path is not None
        sheet = np.asarray(Image.open(path))
        wanted = localize(photos[3], model=net, target=2).picture(max_side=224)
        places = [
            (top, left)
            for picture in (Image.open(photos[3]), wanted)
            for top, left in [find(sheet, np.asarray(picture))]
        ]
        assert places[0][0] == places[1][0] and places[1][1] - places[0][1] >= 60
        assert wanted.getbbox() is not None and not np.array_equal(
            np.asarray(wanted), np.asarray(Image.open(photos[3]))
        )

    def test_the_classes_that_are_asked_for(self, tmp_path: Path, photos: list[Path]) -> None:
        journal, net = Journal(tmp_path, total=1), network("ts-cam")
        sheets = [Path(str(journal.pictures(label, net, photos[:1], [label]))).read_bytes() for label in (0, 1, 0)]
        assert sheets[0] != sheets[1]
        journal.pictures(0, net, photos[:1], [0])
        assert (tmp_path / "samples" / "epoch_000.png").read_bytes() == sheets[0]

    def test_eight_at_most_and_an_unreadable_one_less(self, tmp_path: Path, photos: list[Path]) -> None:
        journal, net = Journal(tmp_path, total=1), network("cam")
        heights = []
        for shown in (photos, photos[:7], [*photos[:6], tmp_path / "none.png"]):
            path = journal.pictures(1, net, shown, [0] * len(shown))
            assert path is not None
            heights.append(Image.open(path).height)
        assert heights[0] == heights[1] == heights[2] / 3 * 4
        assert journal.pictures(2, net, [tmp_path / "none.png"], [0]) is None


def find(sheet: np.ndarray[Any, Any], picture: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Where a picture lies on a sheet."""
    high, wide = picture.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (high, wide), axis=(0, 1))  # type: ignore[call-overload]
    corners = np.flatnonzero((windows[..., 0, 0] == picture[0, 0]).all(axis=2))
    for corner in corners.tolist():
        top, left = divmod(corner, windows.shape[1])
        if np.array_equal(sheet[top : top + high, left : left + wide], picture):
            return top, left
    raise AssertionError("the picture is not on the sheet")


class TestTensorBoard:
    def test_without_the_package_it_is_said_before_anything_starts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(InputError, match=r"pip install 'trt-cam\[train\]'") as caught:
            Journal(tmp_path, total=1, tensorboard=True)
        assert "\n" not in str(caught.value)
        Journal(tmp_path, total=1)

    def test_scalars_are_not_there_twice_after_a_cut(self, tmp_path: Path) -> None:
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        for start in (1, 3):
            journal = Journal(tmp_path, total=5, tensorboard=True)
            for step in range(start, 6):
                journal.step(step, values(step))
                journal.epoch(step, {"top1": step / 8 + start})
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        assert [event.step for event in events.Scalars("step/loss")] == [1, 2, 3, 4, 5]
        assert [event.value for event in events.Scalars("epoch/top1")] == [1.125, 1.25, 3.375, 3.5, 3.625]
