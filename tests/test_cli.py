"""The command line: its output, one line per error, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import trt_cam
from trt_cam import cli, pipeline
from trt_cam.errors import WeightsError

PHOTO = str(Path(trt_cam.__file__).parent / "assets" / "coffee.jpg")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vit", pretrained=False).eval()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: torch.nn.Module) -> Run:
    """Run a command in this process: (exit code, stdout, stderr). The model is a tiny one unless one is named."""
    load = pipeline.load_model
    monkeypatch.setattr(pipeline, "load_model", lambda name=None: tiny if name is None else load(name))

    def command(*words: Any) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for index, name in enumerate(["a.png", "b.jpg", "sub/a.png"]):
        noise = np.random.default_rng(index).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(folder / name)
    return folder


class TestLocalize:
    def test_a_line_for_each_photo(self, run: Run, photos: Path) -> None:
        code, out, err = run("localize", photos / "*.png", photos / "b.jpg", "--target", "tabby")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert [line.split("  ")[0] for line in lines] == [str(photos / "a.png"), str(photos / "b.jpg")]
        assert all("tabby" in line and "[" in line for line in lines)

    def test_json_lines(self, run: Run, photos: Path) -> None:
        code, out, _ = run("localize", photos, "--json", "--method", "rollout", "--threshold", 0.4, "--refine", "none")
        lines = [json.loads(line) for line in out.splitlines()]
        assert (code, len(lines)) == (0, 3)
        assert {(line["method"], line["threshold"], line["refine"], line["width"]) for line in lines} == {
            ("rollout", 0.4, None, 40)
        }

    def test_pictures_of_equal_names(self, run: Run, photos: Path, tmp_path: Path) -> None:
        code, out, _ = run("localize", photos, "--out", tmp_path / "new" / "out")
        assert code == 0
        assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == ["a-2.png", "a.png", "b.png"]
        assert f"-> {tmp_path / 'new' / 'out' / 'a-2.png'}" in out

    def test_a_photo_is_not_overwritten(self, run: Run, photos: Path) -> None:
        before = (photos / "a.png").read_bytes()
        assert run("localize", photos / "a.png", "--out", photos)[0] == 0
        assert (photos / "a.png").read_bytes() == before
        assert (photos / "a-2.png").exists()

    def test_one_file(self, run: Run, photos: Path, tmp_path: Path) -> None:
        assert run("localize", photos / "a.png", "--out", tmp_path / "demo.png")[0] == 0
        assert Image.open(tmp_path / "demo.png").size == (40, 30)
        code, _, err = run("localize", photos, "--out", tmp_path / "demo.png")
        assert (code, "give a folder" in err) == (2, True)

    def test_other_photos_are_still_done(self, run: Run, photos: Path) -> None:
        (photos / "b.jpg").write_bytes(b"")
        code, out, err = run("localize", photos, photos / "gone.jpg", "--batch-size", 2)
        assert code == 1
        assert len(out.splitlines()) == 2
        assert [line.split(":")[0] for line in err.splitlines()] == ["trt-cam"] * 3
        assert "2 of 4 photos failed" in err and "b.jpg is empty" in err and "gone.jpg does not exist" in err

    def test_failures_in_json(self, run: Run, photos: Path) -> None:
        (photos / "b.jpg").write_bytes(b"")
        code, out, _ = run("localize", photos, "--json")
        lines = [json.loads(line) for line in out.splitlines()]
        assert (code, [("error" in line) for line in lines]) == (1, [False, True, False])
        assert set(lines[1]) == {"path", "error"}

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (["localize", "gone.jpg"], 1, "does not exist"),
            (["localize", "gone.jpg", "--method", "gradcam"], 2, "grad-cam"),
            (["localize", "gone.jpg", "--method", "trt"], 1, "trt"),
            (["localize", "gone.jpg", "--target", "tabbi"], 2, "tabby"),
            (["localize", "gone.jpg", "--target", "1000"], 2, "out of range"),
            (["localize", "gone.jpg", "--model", "deit_smal_patch16_224"], 2, "deit_small_patch16_224"),
            (["localize", "gone.jpg", "--device", "gpu"], 2, "device"),
            (["compare", PHOTO, "--methods", "gradcam"], 2, "grad-cam"),
            (["methods", "gradcam"], 2, "grad-cam"),
            (["models", "zzz*"], 2, "zzz"),
        ],
    )
    def test_one_line_per_error(self, run: Run, words: list[str], code: int, said: str) -> None:
        done, out, err = run(*words)
        assert (done, out, len(err.splitlines())) == (code, "", 1), err
        assert err.startswith("trt-cam: ") and said in err

    @pytest.mark.parametrize("words", [["localize"], ["compare"]])
    def test_an_unwritable_place(self, run: Run, photos: Path, tmp_path: Path, words: list[str]) -> None:
        (tmp_path / "file").touch()
        code, _, err = run(*words, photos / "a.png", "--out", tmp_path / "file" / "sub" / "x.png")
        assert (code, len(err.splitlines())) == (1, 1)
        assert "write" in err

    def test_a_folder_that_is_read_only(self, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.access", lambda *_: False)
        code, _, err = run("localize", photos / "a.png", "--out", photos)
        assert (code, "no permission" in err) == (1, True)

    def test_weights_that_cannot_be_had(self, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(name: Any = None) -> Any:
            raise WeightsError("no network\nsecond line")

        monkeypatch.setattr(pipeline, "load_model", fail)
        assert run("localize", photos) == (1, "", "trt-cam: error: no network second line\n")

    def test_an_interrupt(self, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def stop(*_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(pipeline.Pipeline, "read", stop)
        code, _, err = run("localize", photos)
        assert (code, err) == (130, "trt-cam: error: interrupted\n")

    def test_names_that_no_terminal_can_show(self, run: Run, photos: Path) -> None:
        path = photos / "caf\udce9 \u2603.png"
        (photos / "a.png").rename(path)
        assert run("localize", path)[0] == 0
        code, out, _ = run("localize", path, "--json")
        assert (code, json.loads(out)["path"]) == (0, str(path))

    def test_progress_only_on_a_terminal(self, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "photos" not in run("localize", photos)[2]
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        assert "3/3 photos" in run("localize", photos)[2]
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert "photos" not in run("localize", photos)[2]  # the lines themselves are progress enough


class TestOthers:
    def test_compare(self, run: Run, photos: Path, tmp_path: Path) -> None:
        words = ["--methods", "grad-cam, rollout,trt", "--out", tmp_path / "c.png"]
        code, out, err = run("compare", photos / "a.png", *words)
        assert code == 0
        assert [line.split("  ")[0] for line in out.splitlines()] == ["grad-cam", "rollout", f"-> {tmp_path / 'c.png'}"]
        assert err.startswith("trt-cam: trt left out: ") and len(err.splitlines()) == 1
        assert Image.open(tmp_path / "c.png").size[0] > 500

    def test_methods(self, run: Run) -> None:
        code, out, _ = run("methods")
        names = [line.split()[0] for line in out.splitlines()]
        assert (code, names) == (0, trt_cam.list_explainers())
        assert all(len(line.split()) > 3 for line in out.splitlines())
        for name in names:
            code, out, _ = run("methods", name)
            assert (code, out.split()[0]) == (0, name)

    def test_models(self, run: Run) -> None:
        code, out, _ = run("models")
        assert (code, out.splitlines()[0]) == (0, "trt-lite0")
        assert {"deit_small_patch16_224", "vit_base_patch16_224", "eva02_tiny_patch14_224"} <= set(out.splitlines())
        assert run("models", "deit_tiny_patch*")[1].split() == ["deit_tiny_patch16_224"]

    def test_version(self, run: Run) -> None:
        assert run("--version")[1].strip() == f"trt-cam {trt_cam.__version__}"

    @pytest.mark.parametrize("module", ["trt_cam", "trt_cam.cli"])
    def test_as_a_module(self, module: str) -> None:
        done = subprocess.run([sys.executable, "-m", module, "localize"], capture_output=True, text=True)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


# ------------------------------------------------------------------------------------------------ options of methods


def test_methods_lists_every_option_with_its_meaning(run: Run) -> None:
    from trt_cam.explainers import get_explainer, list_explainers
    from trt_cam.listing import meanings, options

    code, text, _ = run("methods", "grad-cam++")
    assert code == 0
    for word in ("target_layers = None", "reshape_transform = None", "eigen_smooth = False", "aug_smooth", "normalize"):
        assert word in text
    for name in list_explainers():
        kind = get_explainer(name)
        told = meanings(kind)
        for option in options(kind):
            assert len(told.get(option, "")) > 15, f"{name} says nothing of {option}"


def test_set_gives_a_method_its_options(run: Run) -> None:
    from trt_cam.listing import with_settings

    common = ["localize", PHOTO, "--method", "raw-attention", "--json"]
    assert run(*common, "--set", "head_fusion=max", "--set", "start_block=2")[0] == 0
    given = with_settings("raw-attention", ["head_fusion=max", "start_block=2"])
    assert given.settings() == {"head_fusion": "max", "start_block": 2}
    assert with_settings("rollout", []) == "rollout"
    for bad, said in (
        ("head_fusion", "needs NAME=VALUE"),
        ("no_such=1", "its options: head_fusion, start_block"),
        ("head_fusion=median", "must be one of mean, max, min"),
    ):
        code, _, err = run(*common, "--set", bad)
        assert code == 2
        assert said in err
    code, _, err = run("localize", PHOTO, "--set", "u=0.5")
    assert code == 2
    assert "name one with --method" in err


def test_lines_of_a_comparison_name_the_photo(run: Run, tmp_path: Path) -> None:
    words = ["--methods", "cam,rollout", "--size", "64", "--json", "--out", tmp_path / "compare.png"]
    code, out, _ = run("compare", PHOTO, *words)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [(line["path"], line["method"]) for line in lines] == [
        (str(PHOTO), "cam"),
        (str(PHOTO), "rollout"),
    ]


def test_compare_measures_faithfulness(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "figure.png"
    words = ["compare", PHOTO, "--methods", "grad-cam,rollout", "--set", "rollout.head_fusion=max"]
    code, text, _ = run(*words, "--faithfulness", "--json", "--out", out)
    assert code == 0
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["method"] for line in lines] == ["grad-cam", "rollout"]
    names = {"insertion", "deletion", "average drop", "average increase", "max-sensitivity"}
    for line in lines:
        assert set(line["faithfulness"]) == names
        assert 0 <= line["faithfulness"]["deletion"] <= 1
    assert out.exists()
    code, _, err = run(*words, "--set", "cam.x=1")
    assert code == 2
    assert "METHOD.NAME=VALUE of one of grad-cam, rollout" in err


def test_a_warning_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    from trt_cam.cli import warner

    show = warner()
    for text in ("one", "two", "one"):
        show(UserWarning(text), UserWarning, "file.py", 1)
    assert capsys.readouterr().err == "trt-cam: warning: one\ntrt-cam: warning: two\n"
