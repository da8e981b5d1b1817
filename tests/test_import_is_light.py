"""Importing the package, and asking the command line for help, loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "timm", "matplotlib", "scipy", "numpy", "PIL", "torchvision")


@pytest.mark.parametrize("statement", ["import trt_cam", "import trt_cam.cli; trt_cam.cli.main(['train', '--help'])"])
def test_nothing_heavy_is_loaded(statement: str) -> None:
    code = f"{statement}\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == ""
