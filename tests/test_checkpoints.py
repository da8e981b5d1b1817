"""The state of a training: read back bit for bit, or the one before it, whatever happens to the files."""

from __future__ import annotations

import builtins
import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from torch import nn

from trt_cam import runs
from trt_cam.errors import InputError, OutputError
from trt_cam.training.checkpoints import Checkpoints


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def kept(tmp_path: Path, said: list[str]) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", say=said.append)


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((5000,), float(step))}


def listed(value: Any) -> Any:
    """The same with types beside values, and tensors as their bytes, so that == compares all of it."""
    if isinstance(value, dict):
        return type(value), [(key, listed(one)) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [listed(one) for one in value]
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.detach().reshape(-1).view(torch.uint8).tolist()
    return type(value), value


def names(kept: Checkpoints) -> list[str]:
    return sorted(path.name for path in kept.folder.iterdir())


class TestReading:
    def test_a_training_s_state_comes_back_bit_for_bit(self, kept: Checkpoints) -> None:
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        net(torch.randn(6, 3)).square().sum().backward()
        optimizer.step()
        whole = {
            "model": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "numbers": torch.get_rng_state(),
            "place": (3, [1.5, None, True], "tpsm"),
            "half": torch.randn(3).bfloat16(),
        }
        kept.save(17, whole)
        found = kept.latest()
        assert found is not None and found[0] == 17
        assert listed(found[1]) == listed(whole)

    def test_the_file_is_torch_s_and_its_sum_that_of_sha256sum(self, kept: Checkpoints) -> None:
        kept.save(120, state(120))
        path = kept.folder / "00000120.pt"
        assert torch.load(path, weights_only=True)["step"] == 120
        line = (kept.folder / "00000120.pt.sha256").read_text()
        assert line == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  00000120.pt\n"

    def test_nothing_yet(self, kept: Checkpoints, said: list[str]) -> None:
        assert kept.latest() is None and not said

    @pytest.mark.parametrize(
        ("bad", "where"),
        [
            ({"lr": [np.float64(1)]}, r"float64 as state\['lr'\]\[0\]"),
            ({"numbers": np.zeros(3)}, r"ndarray as state\['numbers'\]"),
            ({"place": {np.int64(3): 1}}, r"int64 as a key of state\['place'\]"),
            ({"folder": Path("x")}, r"PosixPath as state\['folder'\]"),
        ],
    )
    def test_what_could_not_be_read_back_is_not_written(
        self, kept: Checkpoints, bad: dict[str, Any], where: str
    ) -> None:
        with pytest.raises(InputError, match=where):
            kept.save(1, bad)
        assert not kept.folder.exists()


class TestKeeping:
    def test_the_newest_two_stay(self, kept: Checkpoints) -> None:
        for step in (1, 20, 300):
            kept.save(step, state(step))
        assert names(kept) == [f"{step:08d}.pt{end}" for step in (20, 300) for end in ("", ".sha256")]

    def test_as_many_as_asked_for(self, tmp_path: Path) -> None:
        kept = Checkpoints(tmp_path, keep=3, say=print)
        for step in range(5):
            kept.save(step, state(step))
        assert len(names(kept)) == 6
        with pytest.raises(InputError, match="keep must be an integer of at least 1, got 0"):
            Checkpoints(tmp_path, keep=0, say=print)

    def test_a_training_that_went_back_removes_what_it_had_beyond(self, kept: Checkpoints) -> None:
        for step in (10, 20):
            kept.save(step, state(step))
        kept.save(15, state(15))
        assert names(kept)[::2] == ["00000010.pt", "00000015.pt"]

    def test_files_of_others_stay_and_unfinished_ones_go(self, kept: Checkpoints) -> None:
        kept.folder.mkdir()
        foreign = ["best.pt", "00000001.pth", "notes.txt"]
        for name in (*foreign, ".00000001.pt.4711", ".00000001.pt.sha256.4711"):
            (kept.folder / name).write_bytes(b"x")
        for step in (1, 2, 3):
            kept.save(step, state(step))
        assert set(names(kept)) - {f"0000000{step}.pt{end}" for step in (2, 3) for end in ("", ".sha256")} == set(
            foreign
        )


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one bit": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "no sum": lambda path: path.with_name(path.name + ".sha256").unlink(),
    "empty sum": lambda path: path.with_name(path.name + ".sha256").write_bytes(b""),
    "sum of nothing known": lambda path: path.with_name(path.name + ".sha256").write_bytes(b"\xff\xfe"),
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
    def test_the_one_before_is_taken_and_it_is_said(
        self, kept: Checkpoints, said: list[str], damage: Callable[[Path], object]
    ) -> None:
        for step in (1, 2):
            kept.save(step, state(step))
        damage(kept.folder / "00000002.pt")
        found = kept.latest()
        assert found is not None and found[0] == found[1]["step"] == 1
        assert len(said) == 1 and "00000002.pt cannot be used" in said[0] and "of step 1, is taken" in said[0]
        assert "\n" not in said[0]

    def test_none_is_whole(self, kept: Checkpoints, said: list[str]) -> None:
        for step in (1, 2):
            kept.save(step, state(step))
            flip(kept.folder / f"0000000{step}.pt")
        assert kept.latest() is None
        assert [("its checksum differs" in line, "there is none before it" in line) for line in said] == [
            (True, False),
            (True, True),
        ]

    def test_a_pickle_that_runs_code_is_not_run(self, kept: Checkpoints, said: list[str], tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path / "run",))

        kept.save(1, state(1))
        path = kept.folder / "00000002.pt"
        torch.save({"x": Evil()}, path)
        path.with_name("00000002.pt.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
        found = kept.latest()
        assert found is not None and found[0] == 1 and len(said) == 1
        assert not (tmp_path / "run").exists()


class Full:
    """A file on a disk with room for a few bytes."""

    def __init__(self, file: IO[bytes], room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)


@pytest.mark.parametrize("room", [0, 10_000, 21_500])
def test_a_full_disk_keeps_the_last_good_one(
    kept: Checkpoints, said: list[str], monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    kept.save(1, state(1))
    before = names(kept)
    size = (kept.folder / "00000001.pt").stat().st_size
    assert room < size < 22_000
    with monkeypatch.context() as patch:
        patch.setattr(runs, "open", lambda *given: Full(builtins.open(*given), room), raising=False)  # noqa: SIM115
        for step in (1, 2):  # over the good one too
            with pytest.raises(OutputError, match=r"cannot write .*pt \(No space left on device\)") as caught:
                kept.save(step, state(step))
            assert "\n" not in str(caught.value)
    assert names(kept) == before
    found = kept.latest()
    assert found is not None and found[1]["step"] == 1 and not said
