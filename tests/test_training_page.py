"""The page on training: its Python runs, its commands are commands, its table is the presets'."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trt_cam.cli import build_parser
from trt_cam.training.settings import PRESETS

PAGE = (Path(__file__).parent.parent / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for name in ("cups", "spoons"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "training.md", "exec"), names)
    assert names["found"].label in ("cups", "spoons")  # type: ignore[attr-defined]
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_its_commands_are_commands() -> None:
    lines = [line for block in blocks("sh") for line in block.strip().splitlines()]
    words = [shlex.split(line.split("-m trt_cam")[-1].removeprefix("trt-cam")) for line in lines]
    assert len(words) == 4
    for one in words:
        build_parser().parse_args(one)


def test_its_table_is_the_presets() -> None:
    lines = [line.split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| ")]
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    for column, name in enumerate(("cub-224", "cub-384", "ilsvrc-224", "quick", "full")):
        preset = PRESETS[name]
        assert float(rows["u"][column]) == preset.u and int(rows["batch"][column]) == preset.batch
        assert [int(n) for n in rows["epochs"][column].split(",")] == [preset.first.epochs, preset.second.epochs]
        assert float(rows["learning rate"][column]) == preset.first.lr == preset.second.lr
        factors = [float(n) for n in re.findall(r"[\d.]+", rows["factor"][column])]
        if factors:
            assert {preset.first.factor, preset.second.factor} == set(factors)
