"""docs/datasets.md: every block runs, on small trees of the names that it uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trees

from trt_cam import cli
from trt_cam.data.catalog import KINDS

PAGE = (Path(__file__).parent.parent / "docs" / "datasets.md").read_text(encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All data sets of the page, in the current folder."""
    trees.cub(tmp_path / "CUB_200_2011")
    for name, split in (("CUB", "test"), ("CUB", "val"), ("ILSVRC", "val")):
        trees.wsol(tmp_path / "wsolevaluation", name, split, f"dataset/{name}")
    trees.openimages(tmp_path / "wsolevaluation")
    trees.ilsvrc(tmp_path / "ILSVRC")
    trees.ts_cam(tmp_path / "ImageNet_ILSVRC2012")
    trees.folders(tmp_path / "my_photos")
    trees.write(tmp_path / "elsewhere.csv", ["dog/a.jpg,1,2,3,4"])
    trees.tiny(tmp_path / "tiny-imagenet-200")
    trees.caltech(tmp_path / "caltech-101")
    trees.voc(tmp_path, "VOCdevkit/VOC2007")
    trees.coco(tmp_path / "coco")
    trees.yolo(tmp_path / "yolo")
    trees.write(tmp_path / "pairs" / "pairs.txt", ["a b.jpg 3"])
    trees.photo(tmp_path / "pairs" / "a b.jpg", (640, 480))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_block_of_python_runs(here: Path) -> None:
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "datasets.md", "exec"), names)
    pairs = names["pairs"]
    assert [(s.path, s.label, s.boxes.tolist()) for s in pairs] == [  # type: ignore[attr-defined]
        (Path("pairs/a b.jpg"), 3, [[0, 0, 320, 240]])
    ]
    assert list(pairs.problems(pictures=True)) == []  # type: ignore[attr-defined]


def test_every_command_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.partition("#")[0].split() for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) >= 3
    for _, *words in lines:
        assert cli.main(words) in (0, 1)  # the small trees lack most classes of a benchmark
        assert capsys.readouterr().err == ""


def test_every_kind_has_its_place() -> None:
    headings = " ".join(re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE))
    assert all(f"`{kind}`" in headings for kind in KINDS)
