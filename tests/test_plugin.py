"""The package of examples/plugin: once installed, a fresh interpreter finds it; a broken one beside it harms nobody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trt_cam

PLUGIN = Path(__file__).parent.parent / "examples" / "plugin"
LONGEST = 25
WARNING = "explainer 'broken' of package 'broken-plugin' is left out: ModuleNotFoundError: No module named 'nowhere'"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the plugin without network, and a broken one beside it."""
    folder = tmp_path_factory.mktemp("site")
    source = shutil.copytree(PLUGIN, tmp_path_factory.mktemp("source") / "plugin")  # a build leaves files behind
    words = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"]
    done = run("-m", "pip", "install", *words, "--target", str(folder), str(source))
    assert done.returncode == 0, done.stderr
    (folder / "broken_plugin.py").write_text("import nowhere\n")
    facts = folder / "broken_plugin-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[trt_cam.explainers]\nbroken = broken_plugin:Mine\n")
    return folder


def run(*words: str, site: Path | None = None, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that finds this trt_cam, and what is installed in ``site``."""
    paths = [str(one) for one in (site, Path(trt_cam.__file__).parent.parent) if one is not None]
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )


def one_warning(said: str) -> bool:
    lines = said.splitlines()
    return len(lines) == 1 and lines[0].startswith("trt-cam: ") and lines[0].endswith(WARNING)


def test_its_own_tests_pass(site: Path, tmp_path: Path) -> None:
    shutil.copy(PLUGIN / "test_norm_attention.py", tmp_path)
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", site=site, folder=tmp_path)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr
    assert WARNING in " ".join(done.stdout.split())


def test_the_command_describes_it_and_names_the_broken_one_once(site: Path) -> None:
    done = run("-m", "trt_cam", "methods", "norm-attention", site=site)
    assert done.returncode == 0 and "Kobayashi" in done.stdout and "power" in done.stdout, done.stderr
    assert one_warning(done.stderr)


def test_the_command_localizes_with_it(site: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    words = ["localize", "photo.png", "--method", "norm-attention", "--set", "power=2", "--size", "64", "--json"]
    done = run("-m", "trt_cam", *words, site=site, folder=tmp_path)
    assert done.returncode == 0 and '"method": "norm-attention"' in done.stdout, done.stderr
    assert one_warning(done.stderr)


def test_without_it_the_name_is_unknown() -> None:
    assert "norm-attention" not in trt_cam.list_explainers()


def test_it_is_small_and_says_what_it_needs() -> None:
    text = (PLUGIN / "norm_attention.py").read_text("utf-8")
    assert len([line for line in text[text.index("class ") :].splitlines() if line]) <= LONGEST
    facts = tomllib.loads((PLUGIN / "pyproject.toml").read_text("utf-8"))["project"]
    assert facts["entry-points"]["trt_cam.explainers"] == {"norm-attention": "norm_attention:NormAttention"}
    assert facts["dependencies"] == [f"trt-cam>={trt_cam.__version__.rpartition('.')[0]}"]
