"""Fixtures that several test files use."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SHARED = "TRT_CAM_SHARED"
collect_ignore = ["typing_user.py"]  # to be type-checked, not run: it registers explainers
torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the parity numbers and data sets that are too large for this repository."""
    folder = os.environ.get(SHARED)
    if not folder:
        pytest.skip(f"needs the shared data: set {SHARED} to its folder")
    if not (Path(folder) / "parity").is_dir():
        pytest.skip(f"{SHARED} is {folder}, where no folder 'parity' exists")
    return Path(folder)


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder with the small parity files of this repository."""
    return Path(__file__).parent / "data"


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full once, as the third file is written to its end; then there is room again."""
    real, calls = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos for each of three classes, eight photos each, told apart by their colour."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, colour in (("blue", 2), ("green", 1), ("red", 0)):
        (folder / name).mkdir()
        for number in range(8):
            pixels = rng.integers(0, 120, (40, 48, 3))
            pixels[10:30, 12:36, colour] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder
