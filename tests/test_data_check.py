"""``trt-cam data check``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trees

from trt_cam import cli

Check = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the command in this process: (exit code, stdout, stderr)."""

    def command(*words: Any) -> tuple[int, str, str]:
        code = cli.main(["data", "check", *(str(word) for word in words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return command


def test_a_whole_data_set(check: Check, tmp_path: Path) -> None:
    root = trees.cub(tmp_path / "CUB_200_2011")
    assert check(root, "--pictures") == (
        0,
        "CUB_200_2011 train (cub): 2 samples, 2 classes, 2 boxes, 0 without a box; no problem\n"
        "CUB_200_2011 test (cub): 2 samples, 2 classes, 2 boxes, 0 without a box; no problem\n",
        "",
    )
    assert check(root, "--split", "test")[1].count("\n") == 1
    assert check(trees.folders(tmp_path / "tree"))[1] == "tree all (folders): 4 samples, 2 classes; no problem\n"
    out = check(trees.openimages(tmp_path / "open"))[1].splitlines()[-1]
    assert out == "OpenImages val (wsol): 3 samples, 2 classes, 4 masks, 0 without a box; 1 problem"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """CUB with a photo missing in each split, a broken picture, and a class list with a line too many."""
    root = trees.cub(tmp_path / "cub")
    for number in (1, 2):
        (root / "images" / trees.CUB_NAMES[number]).unlink()
    (root / "images" / trees.CUB_NAMES[3]).write_bytes(b"no picture")
    trees.write(root / "classes.txt", ["1 a", "2 b", "2 c"])
    return root


def test_each_problem_is_a_line(check: Check, damaged: Path) -> None:
    code, out, err = check(damaged)
    images, names = damaged / "images.txt", trees.CUB_NAMES
    twice = f"{damaged / 'classes.txt'}:3: class 2 c stands in a line before"  # both splits read it: told once
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        twice,
        f"{images}:1: photo {damaged / 'images' / names[1]}: is missing",
        "cub train (cub): 2 samples, 2 classes, 2 boxes, 0 without a box; 2 problems",
        f"{images}:2: photo {damaged / 'images' / names[2]}: is missing",
        "cub test (cub): 2 samples, 2 classes, 2 boxes, 0 without a box; 1 problem",
    ]
    code, more, _ = check(damaged, "--pictures", "--split", "train")
    assert code == 1 and f"{images}:3: photo {damaged / 'images' / names[3]} is not a picture" in more


def test_at_most(check: Check, damaged: Path) -> None:
    code, out, _ = check(damaged, "--most", 1)
    lines = out.splitlines()
    assert (code, len(lines)) == (1, 3)
    assert "classes.txt:3" in lines[0] and lines[1].endswith("2 problems") and lines[2].endswith("1 problem")
    assert len(check(damaged, "--most", 0)[1].splitlines()) == 2


def test_json(check: Check, damaged: Path) -> None:
    code, out, _ = check(damaged, "--json", "--split", "train")
    first, second, summary = map(json.loads, out.splitlines())
    assert code == 1
    assert first == {
        "file": str(damaged / "classes.txt"),
        "line": 3,
        "message": "class 2 c stands in a line before",
    }
    assert (second["line"], second["file"]) == (1, str(damaged / "images.txt"))
    counts = {"samples": 2, "classes": 2, "boxes": 2, "masks": 0, "without": 0}
    assert summary == {"kind": "cub", "name": "cub", "split": "train", **counts, "problems": 2}


def test_photos_elsewhere(check: Check, tmp_path: Path) -> None:
    trees.cub(tmp_path / "lists")
    (tmp_path / "lists" / "images").rename(tmp_path / "photos")
    assert check(tmp_path / "lists")[0] == 1
    assert check(tmp_path / "lists", "--data-option", f"photos_root={tmp_path / 'photos'}")[0] == 0


def test_an_empty_folder_of_photos(check: Check, tmp_path: Path) -> None:
    root = trees.wsol(tmp_path / "set")
    (root / "metadata" / "test" / "image_ids.txt").write_text("")
    code, out, _ = check(root)
    assert code == 1 and "set test (wsol): 0 samples; " in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "not given: DIR"),
        (["gone"], 2, "no folder"),
        (["."], 1, "looked for wsol: metadata"),
        (["cub", "--kind", "cubs"], 2, "unknown kind of data set 'cubs'"),
        (["cub", "--split", "val"], 2, "has no split 'val'; it has train, test"),
        (["cub", "--kind", "wsol"], 1, "is no data set of kind wsol"),
        (["cub", "--data-option", "photos_root"], 2, "--data-option needs NAME=VALUE, got 'photos_root'"),
        (["cub", "--data-option", "photo_root=x"], 2, "no option 'photo_root'"),
        (["cub", "--most", "few"], 2, "--most"),
    ],
)
def test_one_line_per_error(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    trees.write(tmp_path / "here" / "cub" / "x.txt", [])
    monkeypatch.chdir(tmp_path / "here")
    if words != ["."]:
        trees.cub(tmp_path / "here" / "cub")
    done, out, err = check(*words)
    assert (done, out, len(err.splitlines())) == (code, "", 1), err
    assert said in err and err.startswith("trt-cam: error: " if words else "trt-cam: ")


def test_help_loads_nothing_heavy() -> None:
    code = "from trt_cam import cli; import sys; cli.main(['data', 'check', '--help']); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "--pictures" in done.stdout and done.stdout.endswith("False\n")


def test_checking_loads_no_torch(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    words = ["data", "check", str(tmp_path)]
    code = f"from trt_cam import cli; import sys; cli.main({words!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("False\n")
