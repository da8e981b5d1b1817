"""README.md and every page of docs/: each block runs, or says why it does not; what pages list is what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from pages import ROOT, PageError, all_pages, blocks_of, commands
from PIL import Image
from running import PACKAGES, ran, run_text

from trt_cam import list_explainers, localize
from trt_cam.data.catalog import KINDS

PAGES = [path.relative_to(ROOT).as_posix() for path in all_pages()]


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str) -> None:
    found = ran(page)
    if found.left_out:
        pytest.skip("; ".join(f"{place} needs {what}" for place, what in found.left_out.items()))


# -------------------------------------------------------------------------------------- the pages hold what there is


def test_every_kind_of_data_set_has_its_place() -> None:
    headings = " ".join(re.findall(r"^## (.*)$", (ROOT / "docs/datasets.md").read_text(), flags=re.MULTILINE))
    assert all(f"`{kind}`" in headings for kind in KINDS)


def test_what_the_first_command_of_all_prints() -> None:
    (block,) = re.findall(r"```text\n(.*?)```", (ROOT / "docs/quickstart.md").read_text(), flags=re.DOTALL)
    assert ran("docs/quickstart.md").said[0][1] == block


def test_figures_of_faithfulness_are_those_of_the_table() -> None:
    table = (ROOT / "docs/compare.md").read_text().partition("| figure | better |")[2].partition("\n\n")[0]
    named = {name for line in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", line.split("|")[1])}
    assert named == {*ran("docs/compare.md").names["faithful"].scores["cam"]} and len(named) == 5


def test_the_papers_figures() -> None:
    folder = ran("docs/compare.md").folder
    with Image.open(folder / "figure-1.png") as one, Image.open(folder / "figure-3.png") as three:
        assert min(one.size) > 500 and three.size == (4 * 320, 3 * 240)
        assert all(len(set(picture.convert("L").tobytes())) > 100 for picture in (one, three))


def test_a_reader_of_ones_own() -> None:
    pairs = ran("docs/add-a-dataset.md").names["pairs"]
    assert [(s.id, s.label, s.boxes.tolist()) for s in pairs] == [("a b.jpg", 3, [[0, 0, 320, 240]])]


def test_the_lines_of_pseudo_labels_are_those_that_are_written() -> None:
    text = (ROOT / "docs/pseudo-labels.md").read_text(encoding="utf-8")
    found = ran("docs/pseudo-labels.md")
    assert re.match(r"\d boxes in \d of 9 photos; 0 copies, 0 failed\n", found.printed)
    (shown,) = re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)
    whole = [{*json.loads(line)} for line in shown.splitlines()]
    written = json.loads((found.folder / "runs/labels/photos.jsonl").read_text().splitlines()[0])
    assert whole[0] == {*written} and "copy_of" in whole[1] and "error" in whole[2]
    names = set(re.findall(r"^\| `([\w./*]+?)/?`", text.partition("## What comes out")[2].partition("\n\n(")[0], re.M))
    made = {
        path.relative_to(found.folder / "runs/labels").as_posix() for path in (found.folder / "runs/labels").rglob("*")
    }
    assert len(names) == 6 and {name for name in names if "*" not in name} <= made


def test_ray_and_datasets_are_localize() -> None:
    found = ran("docs/ray.md")
    if "Dataset" not in found.names:
        pytest.skip("; ".join(f"{place} needs {what}" for place, what in found.left_out.items()))
    rows = [json.loads(line) for path in found.folder.glob("labels/*") for line in path.read_text().splitlines()]
    assert len(rows) in (0, 9)  # none without Ray
    photos = {path.name: path for path in (found.folder / "photos").rglob("*.jpg")}
    for row in [*rows, *found.names["found"]]:
        one = localize(photos[Path(row["path"]).name])
        assert [list(box) for box in row["boxes"]] == one.boxes.tolist() and row["label"] == one.label
        assert row["score"] == pytest.approx(one.score, abs=1e-6) and row["error"] == ""


# ----------------------------------------------------------------------------------------------- the mechanism itself

GOOD = """# A page

```python
x = 1
```

Words.

```sh
trt-cam localize photo.jpg --json > found.jsonl    # a comment
make test && pip install '.[onnx]'
```

*Needs 8 GPUs: the tests check its syntax only.*

```python
raise RuntimeError("not run")
```

```text
free
```
"""


def test_a_good_page_runs() -> None:
    found = run_text(GOOD, "good.md")
    assert found.names["x"] == 1 and not found.left_out
    ((words, said),) = found.said
    assert words == ["localize", "photo.jpg", "--json"] and json.loads(said)["method"] == "trt"
    assert [block.line for block in blocks_of(GOOD, "good.md")] == [3, 9, 16, 20]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("x = 1", "x = y", "good.md:4: NameError: name 'y' is not defined"),
        ("x = 1", "x = (", r"good.md:4: '\(' was never closed"),
        ("--json >", "--jsn >", "good.md:10: trt-cam localize photo.jpg --jsn ends with 2"),
        ("photo.jpg --json", "phto.jpg --json", "good.md:10: .* ends with 1"),
        ("make test", "make tests", "good.md:11: make tests: there is no tests"),
        (".[onnx]", ".[onx]", "there is no onx"),
        ("trt-cam localize", "tr-cam localize", "nobody runs tr-cam localize"),
        ("x = 1\n```", "x = 1", "good.md:8: a block begins inside that of line 3, which has no end"),
        ("free\n```", "free", "good.md:20: the block that begins here has no end"),
        ("```python\nx", "```py3\nx", "good.md:3: nobody runs or knows ```py3"),
        ("```python\nx", "```py\nx", "good.md:4: 'x = 1' is no line of trt_cam/"),
        ("```text", "```", "nobody runs or knows"),
        ("*Needs 8 GPUs: the", "*Needs 8 GPUs, the", "paragraphs say that a block is not run"),
        ("only.*\n", "only.*\n\nMore words.\n", "paragraphs say that a block is not run"),
        ("*Needs 8 GPUs: the tests check its syntax only.*", "", "good.md:17: RuntimeError: not run"),
        ('raise RuntimeError("not run")', "raise (", "good.md:17"),
    ],
)
def test_a_page_with_a_mistake_fails(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(PageError, match=said):
        run_text(GOOD.replace(old, new), "good.md")


def test_a_command_that_is_not_run_is_parsed() -> None:
    page = "# T\n\n*Needs 8 GPUs: the tests check its syntax only.*\n\n```sh\ntorchrun -m trt_cam.cli train {}\n```\n"
    run_text(page.format("--data d --model m --out o"), "t.md")
    with pytest.raises(PageError, match="t.md:6: .*--moddel"):
        run_text(page.format("--data d --moddel m --out o"), "t.md")


def test_a_page_may_need_something_as_a_whole() -> None:
    page = "# T\n\n*Needs hours: the tests check its syntax only.*\n\nWords.\n\n```python\nraise ValueError\n```\n"
    assert [block.needs for block in blocks_of(page, "t.md")] == ["hours"]
    run_text(page, "t.md")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "not_there", "not-there")
    headings, blocks = ("# T", "## A", "", "## B"), ("x = 1", "import not_there", "y = 1", "z = 1")
    parts = [f"{heading}\n\n```python\n{code}\n```\n" for heading, code in zip(headings, blocks, strict=True)]
    found = run_text("\n".join(parts), "t.md")
    assert found.left_out == {"t.md:9": "the package not-there", "t.md:15": "what is left out above it"}
    assert {"x", "z"} <= found.names.keys() and "y" not in found.names


def test_a_line_that_is_continued_is_one_command() -> None:
    assert list(commands("a \\\n  b c\n# no\n\nd,\\\ne\n")) == [(1, "a   b c"), (5, "d,e")]


def test_what_a_page_changes_is_put_back() -> None:
    before, names, make = torch.get_rng_state(), list_explainers(), timm.create_model
    code = [
        "import timm, torch, trt_cam",
        "torch.manual_seed(7)",
        "small = timm.create_model('deit_small_patch16_224', pretrained=True)",
        "trt_cam.register_function('theirs', requires={'features'})(lambda seen, target: seen.features[:, 0])",
    ]
    found = run_text("\n".join(["# T", "", "```python", *code, "```"]), "t.md")
    assert sum(one.numel() for one in found.names["small"].parameters()) < 1e6
    assert torch.equal(before, torch.get_rng_state()) and list_explainers() == names and timm.create_model is make
