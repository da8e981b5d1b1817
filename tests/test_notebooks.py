"""The notebooks as they are stored: outputs of these very sources, without error, small, with no trace of a machine."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))
TOTAL = 2_000_000  # bytes of all notebooks together


def loaded_runner() -> Any:
    spec = importlib.util.spec_from_file_location("run_notebooks", EXAMPLES / "run_notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = loaded_runner()


def stored(name: str) -> Any:
    return json.loads((EXAMPLES / name).read_text(encoding="utf-8"))


def code_cells(name: str) -> list[Any]:
    return [cell for cell in stored(name)["cells"] if cell["cell_type"] == "code"]


def test_there_are_five() -> None:
    assert NAMES == [
        "compare_with_grad_cam.ipynb",
        "evaluate_and_report.ipynb",
        "first_steps.ipynb",
        "sliders.ipynb",
        "train_on_a_small_folder.ipynb",
    ]
    assert sum((EXAMPLES / name).stat().st_size for name in NAMES) < TOTAL


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs(name: str) -> None:
    assert runner.problems(stored(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_ran_in_order(name: str) -> None:
    assert [cell["execution_count"] for cell in code_cells(name)] == list(range(1, len(code_cells(name)) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_tags_is_stored_beside_the_cells(name: str) -> None:
    notebook = stored(name)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info", "outputs_of"}
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])
    kinds = {kind for cell in code_cells(name) for output in cell["outputs"] for kind in output.get("data", {})}
    assert kinds <= {"text/plain", "text/markdown", "image/jpeg", "image/png"}


@pytest.mark.parametrize("name", NAMES)
def test_links_to_other_notebooks_lead_somewhere(name: str) -> None:
    texts = ["".join(cell["source"]) for cell in stored(name)["cells"] if cell["cell_type"] == "markdown"]
    linked = {found for text in texts for found in re.findall(r"\]\((?!https?:)([^)]+)\)", text)}
    assert linked <= set(NAMES)
    assert all(text.strip() for text in texts)


def test_both_data_makers_are_the_same() -> None:
    first, second = (code_cells(f"{name}.ipynb")[0] for name in ("evaluate_and_report", "train_on_a_small_folder"))
    assert "def make_folder" in "".join(first["source"]) and first["source"] == second["source"]


@pytest.fixture
def sound() -> Any:
    notebook = copy.deepcopy(stored("first_steps.ipynb"))
    assert runner.problems(notebook) == []
    return notebook


def text_output(text: str, name: str = "stdout") -> dict[str, str]:
    return {"output_type": "stream", "name": name, "text": text}


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (text_output("-> /home/somebody/out.png\n"), "a place"),
        (text_output("<Legend at 0x7f2e0f1a1fd0>\n"), "an address in memory"),
        (text_output("UserWarning: old\n", "stderr"), "on stderr"),
        ({"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}, "error: no"),
        (text_output("a" * 600_000), "more than 600000"),
    ],
)
def test_bad_outputs_are_found(sound: Any, output: Any, said: str) -> None:
    sound["cells"][-2]["outputs"].append(output)
    assert any(said in one for one in runner.problems(sound))


def test_outputs_of_other_sources_are_found(sound: Any) -> None:
    next(cell for cell in sound["cells"] if cell["cell_type"] == "code")["source"] = "print()"
    assert runner.problems(sound) == ["outputs are of other sources"]


def test_a_notebook_without_pictures_is_found(sound: Any) -> None:
    for cell in sound["cells"]:
        cell.get("outputs", []).clear()
    assert runner.problems(sound) == ["no picture"]


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    words = [sys.executable, EXAMPLES / "run_notebooks.py", "--check", "--stored"]
    fine = subprocess.run([*words, "sliders.ipynb"], capture_output=True, text=True)
    assert (fine.returncode, fine.stderr) == (0, "") and fine.stdout.startswith("sliders.ipynb: ok")
    notebook = stored("sliders.ipynb")
    notebook["metadata"]["outputs_of"] = "another"
    (tmp_path / "stale.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    stale = subprocess.run([*words, tmp_path / "stale.ipynb"], capture_output=True, text=True)
    assert stale.returncode == 1 and "stale.ipynb: outputs are of other sources" in stale.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_executed_from_top_to_bottom(name: str) -> None:
    for package in ("nbclient", "ipykernel", "ipywidgets", "pytorch_grad_cam"):
        pytest.importorskip(package)
    made = runner.executed(EXAMPLES / name)
    assert runner.problems(made) == []
    assert runner.kinds(made) == runner.kinds(stored(name))
