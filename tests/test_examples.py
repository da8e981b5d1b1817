"""The examples run as they stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import trt_cam

EXAMPLES = Path(__file__).parent.parent / "examples"
EMBEDDED = Path(trt_cam.__file__).parent / "assets" / "model.safetensors"
needs_model = pytest.mark.skipif(not EMBEDDED.exists(), reason="the embedded model is not made yet")


def notebook_code() -> list[str]:
    cells = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@needs_model
def test_localize_one_image(tmp_path: Path) -> None:
    words = [sys.executable, EXAMPLES / "localize_one_image.py", "--out", tmp_path / "found.png"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert "box [" in done.stdout and (tmp_path / "found.png").stat().st_size > 10_000


@needs_model
def test_the_notebooks_code_runs() -> None:
    names: dict[str, object] = {}
    for code in notebook_code():
        exec(compile(code, "first_steps.ipynb", "exec"), names)
    assert names["explanation"].grid.shape == (2, 10, 10)  # type: ignore[attr-defined]


@needs_model
@pytest.mark.slow
def test_the_notebook_shows_its_results() -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(EXAMPLES / "first_steps.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300).execute()
    shown = [cell["outputs"] for cell in notebook.cells if cell.cell_type == "code"]
    pictures = [any("image/png" in output.get("data", {}) for output in outputs) for outputs in shown]
    assert pictures == [True, False, True, True, False]


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
