"""Execute the notebooks of this folder and store their outputs, small and without a trace of the machine.

python examples/run_notebooks.py                        # all of them, in place
python examples/run_notebooks.py sliders.ipynb          # one
python examples/run_notebooks.py --check                # execute, write nothing, say what is wrong; exit code 1
python examples/run_notebooks.py --check --stored       # only look at what is stored

Needs `pip install 'trt-cam[notebooks]'`. Models are not fetched: HF_HUB_OFFLINE is set.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).resolve().parent
BYTES = 600_000  # of one notebook: GitHub shows it without a click
PLACES = re.compile(r"""(?<![\w.])/(home|root|tmp|work|Users|usr|opt|var|private|mnt)/|[A-Z]:\\\\|0x[0-9a-f]{8}""")
SEEN = ("image/jpeg", "image/png", "text/html", "text/markdown", "text/plain")  # the first two instead of all others


def hashed(notebook: Any) -> str:
    """What the code cells say, so that outputs of other sources are noticed."""
    code = [source_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]


def source_of(cell: Any) -> str:
    """The text of a cell, which a file may hold line by line."""
    return "".join(cell["source"])


def problems(notebook: Any) -> list[str]:
    """What must not be in a stored notebook, one line each."""
    found = [] if notebook["metadata"].get("outputs_of") == hashed(notebook) else ["outputs are of other sources"]
    outputs = [one for cell in notebook["cells"] for one in cell.get("outputs", [])]
    found += [f"error: {one['evalue']}" for one in outputs if one["output_type"] == "error"]
    found += [f"on stderr: {one['text']!r}" for one in outputs if one.get("name") == "stderr"]
    if not any("image/jpeg" in one.get("data", {}) or "image/png" in one.get("data", {}) for one in outputs):
        found.append("no picture")
    texts = [one for one in texts_of(outputs) if PLACES.search(one)]
    found += [f"a place or an address in memory: {one.strip()[:160]!r}" for one in texts]
    size = len(json.dumps(notebook))
    return found + ([f"{size} bytes, more than {BYTES}"] if size > BYTES else [])


def texts_of(outputs: list[Any]) -> list[str]:
    """All text of outputs, line by line."""
    held = [one.get("text", "") for one in outputs]
    held += [text for one in outputs for kind, text in one.get("data", {}).items() if kind.startswith("text/")]
    return [line for text in held for line in "".join(text).splitlines()]


def kinds(notebook: Any) -> list[list[str]]:
    """What each code cell shows, in words."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [["picture" if picture(one) else one["output_type"] for one in cell["outputs"]] for cell in cells]


def picture(output: Any) -> bool:
    """Whether an output is shown as a picture."""
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def normalised(notebook: Any) -> Any:
    """The notebook with outputs of one kind each, small pictures, and no metadata but tags."""
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number:02d}"
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key == "tags"}
        for output in cell.get("outputs", []):
            if "data" in output:
                output["metadata"], output["data"] = {}, shown(output["data"])
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "outputs_of": hashed(notebook),
    }
    return notebook


def shown(data: Any) -> dict[str, Any]:
    """Of an output in several forms the text and the one that a page without a kernel shows best."""
    if "image/png" in data:
        kind, content = smaller(base64.b64decode(data["image/png"]))
        return {kind: base64.b64encode(content).decode(), "text/plain": data["text/plain"]}
    return {kind: data[kind] for kind in SEEN if kind in data}


def smaller(png: bytes) -> tuple[str, bytes]:
    """A photo as JPEG, a plot as a PNG of few colours."""
    image, stream = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    if image.getcolors(5000) is None:
        image.save(stream, "jpeg", quality=85, optimize=True)
        return "image/jpeg", stream.getvalue()
    image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(stream, "png", optimize=True)
    return "image/png", stream.getvalue()


def executed(path: Path) -> Any:
    """The notebook, run from top to bottom by a kernel in an empty folder."""
    import nbclient
    import nbformat
    from nbclient.exceptions import CellExecutionError

    os.environ["HF_HUB_OFFLINE"] = "1"
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}})
        client.coalesce_streams, client.extra_arguments = True, ["--log-level=ERROR"]
        try:
            client.execute()
        except CellExecutionError as error:
            raise SystemExit(f"{path.name}: {error}") from None
    return normalised(notebook)


def write(notebook: Any, path: Path) -> None:
    """Store a notebook as Jupyter does."""
    import nbformat

    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def main() -> int:
    """Execute, and write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME.ipynb", help="some of this folder (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if anything is wrong")
    parser.add_argument("--stored", action="store_true", help="with --check: execute nothing either")
    chosen = parser.parse_args()
    wrong = False
    for path in [HERE / name for name in chosen.names] or sorted(HERE.glob("*.ipynb")):
        stored, begun = json.loads(path.read_text(encoding="utf-8")), time.monotonic()
        made = stored if chosen.check and chosen.stored else executed(path)
        found = problems(made) + (problems(stored) if chosen.check and made is not stored else [])
        if chosen.check and kinds(made) != kinds(stored):
            found.append("shows other kinds of outputs than those stored")
        if not chosen.check:
            write(made, path)
        wrong = wrong or bool(found)
        print(f"{path.name}: {'; '.join(found) or 'ok'} ({time.monotonic() - begun:.0f} s)", flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
