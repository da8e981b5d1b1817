"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import trt_cam

EXAMPLES = Path(__file__).parent.parent / "examples"
EMBEDDED = Path(trt_cam.__file__).parent / "assets" / "model.safetensors"
needs_model = pytest.mark.skipif(not EMBEDDED.exists(), reason="the embedded model is not made yet")


@needs_model
def test_localize_one_image(tmp_path: Path) -> None:
    words = [sys.executable, EXAMPLES / "localize_one_image.py", "--out", tmp_path / "found.png"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert "box [" in done.stdout and (tmp_path / "found.png").stat().st_size > 10_000
