"""Numbers, lines, XML and JSON as the readers take them in; flat storage of names and boxes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from trt_cam.data.lists import number, numbers, read_json, read_lines, read_xml, whole
from trt_cam.data.problems import Folder, Problem, collect, printable
from trt_cam.data.table import Table, Texts


@pytest.mark.parametrize("text", ["0", "7", "-7", "+7", "007", "999999999"])
def test_whole_numbers(text: str) -> None:
    assert whole(text) == int(text)


@pytest.mark.parametrize("text", ["", " 1", "1.0", "1_0", "\u0661", "0x1", "1e3", "9" * 10, "9" * 5000, "--1", "²"])
def test_no_whole_numbers(text: str) -> None:
    assert whole(text) is None


@pytest.mark.parametrize("text", ["0", "-1.5", "+2.", ".5", "1e3", "1.5E-2", "45.70000076293945"])
def test_numbers(text: str) -> None:
    assert number(text) == float(text)


@pytest.mark.parametrize(
    "text", ["", ".", "nan", "inf", "-Infinity", "1e999", "1_0", "\u0661", "0x1", "1,5", "1 2", "e5"]
)
def test_no_numbers(text: str) -> None:
    assert number(text) is None
    assert numbers(["1", text]) is None
    assert not math.isnan(number("1") or math.nan)


def lines_of(path: Path) -> tuple[list[tuple[int, str]], list[Problem]]:
    problems: list[Problem] = []
    return list(read_lines(Folder(path.parent), path.name, collect(problems.append))), problems


def test_lines(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbfa b\r\n\r\n  \t\n c,d \ncaf\xe9\rlast")
    assert lines_of(file) == ([(1, "a b"), (4, "c,d"), (5, "caf\udce9"), (6, "last")], [])
    file.write_bytes(b"")
    assert lines_of(file) == ([], [])
    assert lines_of(tmp_path / "gone.txt") == ([], [Problem(tmp_path / "gone.txt", None, "is missing")])
    assert lines_of(tmp_path) == ([], [Problem(tmp_path, None, "is no file")])


def test_xml_keeps_lines_and_text(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        "<?xml version='1.0'?>\n<a>\n <b>x &amp; <!-- no -->y</b>\n <b><c> &#252; </c></b>\n <d/></a>", encoding="utf-8"
    )
    top = read_xml(Folder(tmp_path), "a.xml", collect(print))
    assert top is not None
    assert (top.name, top.line, [child.line for child in top.children]) == ("a", 2, [3, 4, 5])
    assert [one.text for one in top.all("b")] == ["x & y", ""]
    assert (top.all("b")[1].value("c"), top.value("b", "c"), top.value("d"), top.get("e", "c")) == ("ü", "", "", None)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("{", 1, "is no whole JSON"),
        ('{"a": 1,\n}', 2, "is no whole JSON"),
        ("[" * 100_000, None, "is no JSON that can be read"),
        ("9" * 5000, None, "is no JSON that can be read"),
    ],
)
def test_broken_json(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    problems: list[Problem] = []
    assert read_json(Folder(tmp_path), "a.json", collect(problems.append)) is None
    (problem,) = problems
    assert problem.line == line and said in problem.message


def test_texts() -> None:
    wanted = ["", "a", "größe/ü.jpg", "caf\udce9", "a" * 1000, ""]
    texts = Texts(wanted)
    assert list(texts) == wanted and texts[-3] == wanted[-3] and texts[1:3] == wanted[1:3]
    with pytest.raises(IndexError):
        texts[6]


def test_boxes_in_any_order(rng: np.random.Generator) -> None:
    table = Table(Path("list.txt"), collect(print))
    for row in range(20):
        table.add(f"{row}.jpg", (Path("list.txt"), row + 1), size=(row + 1, 9))
    wanted: dict[int, list[list[float]]] = {row: [] for row in range(20)}
    for row in rng.integers(0, 20, 50).tolist():
        corners = rng.random(4).tolist()
        wanted[row].append(corners)
        table.add_box(row, corners, (Path("boxes.txt"), 1))
    assert {row: table.boxes(row).tolist() for row in range(20)} == wanted
    assert table.counts.tolist() == [len(boxes) for boxes in wanted.values()]
    assert table.sizes.tolist() == [[row + 1, 9] for row in range(20)] and table.size(3) == (4, 9)
    assert [table.places[row] for row in (0, 19)] == [(Path("list.txt"), 1), (Path("list.txt"), 20)]


def test_printable() -> None:
    assert printable("größe 猫.jpg") == "größe 猫.jpg"
    assert printable("a\nb\x1b\udce9\u202e") == "a\\nb\\x1b\\udce9\\u202e"
    assert str(Problem(Path("a\nb"), 3, "x")) == "a\\nb:3: x"


def test_a_million_photos_stay_small() -> None:
    table = Table(Path("list.txt"), collect(print))
    place = Path("list.txt"), 1
    for row in range(20_000):
        table.add(f"train/n01440764/n01440764_{row:08d}.JPEG", place, row % 1000)
    stored = len(table.ids._bytes) + sum(
        len(column) * column.itemsize
        for column in (table.ids._ends, table._names._ends, table.labels, table._sizes, table.places._rows)
    )
    assert stored / len(table) < 80  # bytes a photo, its name of 38 letters included
