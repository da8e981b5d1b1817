"""docs/training.md: its table holds the presets, its commands are commands, and they run on small photos."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import trt_cam
from trt_cam import cli
from trt_cam.training.settings import PRESETS, Settings

PAGE = (Path(__file__).parent.parent / "docs" / "training.md").read_text(encoding="utf-8")
SMALL = "--model test_vit --from-scratch --size 32 --batch-size 12 --epochs 1 --threads 1"
pytestmark = pytest.mark.filterwarnings("ignore:no token selected")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes of sixteen photos, in the current folder."""
    rng = np.random.default_rng(0)
    for colour, name in enumerate(("red", "green", "blue")):
        (tmp_path / "my_photos" / name).mkdir(parents=True)
        for number in range(16):
            pixels = rng.integers(0, 120, (40, 48, 3))
            pixels[10:30, 12:36, colour] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "my_photos" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(start: str) -> list[str]:
    """Commands of the page that start so, without their comments and without that."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    found = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    return [line.removeprefix(start) for line in found if line.startswith(start)]


def described(settings: Settings) -> dict[str, str]:
    """Every number of a preset, as the table has it."""
    stages = settings.first, settings.second
    epochs, rates, smoothings = (
        ", ".join(dict.fromkeys(f"{getattr(stage, name):g}" for stage in stages))
        for name in ("epochs", "lr", "smoothing")
    )
    steps = "; ".join(dict.fromkeys(f"x {one.factor:g} at {', '.join(map(str, one.steps))}" for one in stages))
    augment = {
        "flip": "flip",
        "crop": f"crop {settings.resize} to {settings.size}",
        "timm": f"timm, area {settings.scale[0]:g} to {settings.scale[1]:g}, {settings.policy or 'no policy'}, "
        f"erasing {settings.erasing:g}",
    }[settings.augment]
    warmup = f", {settings.warmup} warm-up" if settings.warmup else ""
    return {
        "epochs": epochs,
        "rate": rates,
        "schedule": steps if settings.schedule == "steps" else settings.schedule + warmup,
        "batch": f"{settings.batch}",
        "optimizer, decay": f"{settings.optimizer}, {settings.weight_decay:g}",
        "smoothing": smoothings,
        "u": f"{settings.u:g}",
        "size": f"{settings.size or 'own'}",
        "augmentation": augment,
        "drop path": f"{settings.drop_path:g}",
        "clip": f"{settings.clip or 0:g}",
        "layer decay": f"{settings.layer_decay or 1:g}",
        "precision": settings.precision,
    }


def test_the_table_holds_the_presets() -> None:
    columns = [described(settings) for settings in PRESETS.values()]
    rows = ["| | " + " | ".join(f"`{name}`" for name in PRESETS) + " |", "|---" * (len(PRESETS) + 1) + "|"]
    rows += [f"| {name} | " + " | ".join(column[name] for column in columns) + " |" for name in columns[0]]
    assert "\n".join(rows) in PAGE
    alike = ("views", "mixup", "cutmix", "accumulate", "ema", "min_lr", "batch_norm", "val_share", "seed")
    for settings in PRESETS.values():  # as the sentence below it says
        assert [getattr(settings, name) for name in alike] == [1, 0, 0, 1, None, 0, "train", 0.1, 0]


def test_every_command_is_one() -> None:
    alone, together = lines("trt-cam "), lines("torchrun ")
    assert len(alone) == 10 and len(together) == 3
    for line in alone:
        cli.build_parser().parse_args(shlex.split(line))
    for line in together:
        ours = line.partition(" -m trt_cam.cli ")[2]
        assert cli.build_parser().parse_args(shlex.split(ours)).model


def test_the_first_commands_run_and_are_gone_on_with(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = (next(line for line in lines("trt-cam ") if line.rstrip().endswith(end)) for end in ENDS)
    assert cli.main(shlex.split(f"{first} {SMALL}")) == 0
    said = capsys.readouterr()
    (block,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert (said.err + said.out).count("\n") == 6 and numberless(said.err + said.out) == numberless(block)
    newest = max((here / "runs/mine/checkpoints").glob("*.pt"))
    newest.write_bytes(b"")
    assert cli.main(shlex.split(f"{again} {SMALL}")) == 0
    assert "cannot be used" in capsys.readouterr().err
    kept = {path.name for path in (here / "runs/mine").iterdir()}
    named = set(re.findall(r"^\| `([\w.]+)/?` \|", PAGE.partition("## What the folder holds")[2], re.MULTILINE))
    assert kept == named - {"tensorboard", "selection"}


ENDS = ("--freeze-backbone --out runs/mine", "--out runs/mine --resume")


def numberless(text: str) -> str:
    """Without the numbers, sizes and precisions of a machine."""
    return re.sub(r"\d[\d.]*", "0", re.sub(r"\d[\d.]* ([kMG]B|bytes)|fp32|bf16", "0", text))


def test_its_python_runs(here: Path) -> None:
    torch.manual_seed(0)
    photo = here / "my_photos" / "red" / "0.png"
    names: dict[str, Any] = {"folder": here / "my_photos", "model": timm.create_model("test_vit", img_size=32)}
    names["photo"] = photo
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "training.md", "exec"), names)
    assert (here / "runs" / "python" / "model" / "config.json").exists()
    assert names["mine"].batch == 128 and names["mine"].policy is None
    assert isinstance(names["found"].model, trt_cam.TRTLocalizer)
