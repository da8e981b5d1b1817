"""docs/training.md: its table holds the presets, what it shows is printed, what it names is in the folder."""

from __future__ import annotations

import re

from pages import ROOT
from running import ran

import trt_cam
from trt_cam.training.settings import PRESETS, Settings

PAGE = "docs/training.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")


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
    assert "\n".join(rows) in TEXT
    alike = ("views", "mixup", "cutmix", "accumulate", "ema", "min_lr", "batch_norm", "val_share", "seed")
    for settings in PRESETS.values():  # as the sentence below it says
        assert [getattr(settings, name) for name in alike] == [1, 0, 0, 1, None, 0, "train", 0.1, 0]


def numberless(text: str) -> str:
    """Without the numbers, sizes and precisions of a machine."""
    return re.sub(r"\d[\d.]*", "0", re.sub(r"\d[\d.]* ([kMG]B|bytes)|fp32|bf16", "0", text))


def test_what_the_first_command_prints() -> None:
    words, said = ran(PAGE).said[0]
    (block,) = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    assert words[-2:] == ["--out", "runs/mine"] and numberless(said) == numberless(block)


def test_what_the_folder_holds() -> None:
    kept = {path.name for path in (ran(PAGE).folder / "runs/mine").iterdir()}
    named = set(re.findall(r"^\| `([\w.]+)/?` \|", TEXT.partition("## What the folder holds")[2], re.MULTILINE))
    assert kept == named - {"tensorboard", "selection"}


def test_what_its_python_makes() -> None:
    found = ran(PAGE)
    assert (found.folder / "runs" / "python" / "model" / "config.json").exists()
    assert found.names["mine"].batch == 128 and found.names["mine"].policy is None
    assert isinstance(found.names["found"].model, trt_cam.TRTLocalizer)
