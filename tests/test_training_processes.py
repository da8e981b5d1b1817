"""Training in processes of its own: killed and gone on with, and shared by two."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trt_cam.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:no token selected")

KILLED = """
import os, signal, sys
import trt_cam.training.loop
from trt_cam.cli import train, main

trt_cam.training.loop.CHECKPOINT_EVERY = 2
at, words = int(sys.argv[1]), sys.argv[2:]


class Killer:
    def __init__(self, counted):
        pass

    def __call__(self, done, count, failed):
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)


train.Counter = Killer
sys.stderr.isatty = lambda: True
sys.exit(main(words))
"""


def words(photos: Path, out: Path, *more: str) -> list[str]:
    """A training of nine updates, six of them in the first stage, by the preset with all that has a state."""
    usual = ["train", "--data", str(photos), "--model", "test_vit", "--from-scratch", "--size", "32", "--threads", "1"]
    usual += ["--epochs", "2", "1", "--batch-size", "6", "--val-share", "0.25", "--device", "cpu", "--out", str(out)]
    return [*usual, *more]


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, timeout=120)


def alone(*command: str) -> None:
    assert main(command) == 0


def together(*command: str) -> subprocess.CompletedProcess[str]:
    return ran("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command)


def table(path: Path) -> list[dict[str, Any]]:
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that nothing disturbed, without chance in the network."""
    out = tmp_path_factory.mktemp("whole") / "run"
    alone(*words(photos, out, "--drop-path", "0"))
    return out


def test_killed_it_ends_as_if_it_had_not_been(photos: Path, tmp_path: Path) -> None:
    options = ["--ema", "0.9", "--mixup", "0.4", "--drop-path", "0.2", "--accumulate", "2"]
    alone(*words(photos, tmp_path / "whole", *options))
    done = ran("-c", KILLED, "8", *words(photos, tmp_path / "cut", *options))  # in the second stage
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(table(tmp_path / "cut" / "log.csv")) == 8
    alone(*words(photos, tmp_path / "cut", *options), "--resume")
    for name in ("log.csv", "epochs.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    cut, whole = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("cut", "whole"))
    assert all(torch.equal(one, whole[name]) for name, one in cut.items())


def test_two_processes_train_what_one_does(photos: Path, whole: Path, tmp_path: Path) -> None:
    done = together("-m", "trt_cam", *words(photos, tmp_path / "run", "--drop-path", "0", "--accumulate", "3"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("-> ") == 1  # process 0 alone reports
    compare(tmp_path / "run", whole)


@pytest.mark.slow
def test_two_processes_that_share_the_weights_too(photos: Path, whole: Path, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    options = words(photos, tmp_path / "run", "--drop-path", "0", "--sharing", "fsdp")
    assert together(str(script), "5", *options).returncode != 0
    assert len(table(tmp_path / "run" / "log.csv")) == 5
    assert main([*options[:-1], "ddp", "--resume"]) == 2
    done = together("-m", "trt_cam", *options, "--resume")
    assert done.returncode == 0, done.stderr
    compare(tmp_path / "run", whole)


def compare(run: Path, expected: Path) -> None:
    """Losses, gradients, figures, and in the end the weights."""
    for name in ("log.csv", "epochs.csv"):
        ours, theirs = table(run / name), table(expected / name)
        assert len(ours) == len(theirs) > 3
        for row, other in zip(ours, theirs, strict=True):
            assert row == pytest.approx(other, rel=1e-5)
    ours, theirs = (load_file(one / "model" / "model.safetensors") for one in (run, expected))
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        torch.testing.assert_close(one, theirs[name], rtol=1e-4, atol=1e-5)
