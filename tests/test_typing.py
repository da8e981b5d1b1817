"""The types of the public names, as a user's type checker sees them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trt_cam

SCRIPT = Path(__file__).parent / "typing_user.py"
PLUGIN = SCRIPT.parent.parent / "examples" / "plugin"
TREE = Path(trt_cam.__file__).parent.parent
CACHE = Path(__file__).parent.parent / ".mypy_cache" / "strict"


def strict(script: Path, folder: Path) -> str:
    """What ``mypy --strict`` says of a script, run where no settings of ours are found."""
    words = ["--strict", "--config-file=", "--follow-imports=silent", "--no-error-summary", "--cache-dir", str(CACHE)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words, str(script)],
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(TREE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1) and not done.stderr, done.stdout + done.stderr
    return done.stdout


def test_the_script_has_every_public_name() -> None:
    attributes = [node for node in ast.walk(ast.parse(SCRIPT.read_text("utf-8"))) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in attributes if getattr(node.value, "id", "") == "trt_cam"}
    assert set(trt_cam.__all__) <= used


def test_a_users_script_is_accepted_and_its_mistakes_are_not(tmp_path: Path) -> None:
    assert strict(SCRIPT, tmp_path) == ""


def test_the_plugin_is_accepted(tmp_path: Path) -> None:
    assert strict(PLUGIN / "norm_attention.py", tmp_path) == ""


@pytest.mark.parametrize(
    "line, said",
    [
        ("trt_cam.localize('photo.jpg', threshold='low')", "No overload variant"),
        ("net: trt_cam.TRTLocalizer = trt_cam.TPSM", "Incompatible types"),
        ("reveal_type(trt_cam.localize('photo.jpg').boxes)", "numpy.signedinteger"),
        ("trt_cam.nothing", "has no attribute"),
    ],
)
def test_what_is_wrong_is_said(line: str, said: str, tmp_path: Path) -> None:
    script = tmp_path / "wrong.py"
    script.write_text(f"import trt_cam\n\n{line}\n", encoding="utf-8")
    assert said in strict(script, tmp_path)
