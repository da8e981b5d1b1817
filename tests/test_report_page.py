"""The page of a run: what stands in it, what it does with hostile names, and with folders that hold no run."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reports
from reports import CLASSES, PHOTOS, content, photo_id

from trt_cam.cli import main
from trt_cam.errors import DatasetError, InputError
from trt_cam.evaluation import Evaluation
from trt_cam.metrics.localization import KINDS
from trt_cam.metrics.pairs import paired, paired_masks
from trt_cam.metrics.protocols import get_protocol
from trt_cam.ops.boxes import boxes_from_map
from trt_cam.ops.thresholds import boxes_at_thresholds
from trt_cam.report import gallery as galleries
from trt_cam.report.drawn import boxes_of, cells, distinct, outline
from trt_cam.report.page import write_page
from trt_cam.report.papers import write_figures
from trt_cam.report.published import beside, published

Made = tuple[Evaluation, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("report")
    data = reports.boxes_tree(root / reports.SET)
    return reports.run(data, root / "run", threshold="best"), data


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("masks")
    data = reports.masks_tree(root / "set")
    return reports.run(data, root / "run"), data


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(made[0].run.folder, tmp_path / "run"))


def decoded(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8)


def test_nothing_of_the_data_is_markup(made: Made, tmp_path: Path) -> None:
    page = write_page(made[0].run.folder, out=tmp_path / "page.html").path
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 2 and text.count("</script") == 2 and "<img" not in text
    assert f"<title>{html.escape(content(page)['title'])}</title>" in text and "<b>" not in text
    held = content(page)
    assert {photo["name"] for photo in held["photos"]} == set(CLASSES[:3])
    assert {photo["id"] for photo in held["photos"]} == {photo_id(number) for number in range(PHOTOS)}


def test_only_its_own_script_and_style_may_run(made: Made, tmp_path: Path) -> None:
    text = write_page(made[0].run.folder, out=tmp_path / "page.html").path.read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    script, style = (
        re.search(r"<script>(.*?)</script>", text, re.DOTALL),
        re.search(r"<style>(.*?)</style>", text, re.S),
    )
    assert policy.startswith("default-src 'none'; img-src data:;") and script and style
    for inside in (script[1], style[1]):
        assert base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode() in policy
    assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_boxes_are_the_evaluators_at_every_threshold(made: Made, tmp_path: Path) -> None:
    found, _ = made
    held = content(write_page(found.run.folder, out=tmp_path / "page.html").path)
    protocol, shown = get_protocol("maxboxacc_v2"), {photo["id"]: photo for photo in held["photos"]}
    assert len(shown) == PHOTOS and held["thresholds"][24] == 0.24
    for arrays in found.parts():
        for number in range(3):
            for row, name in enumerate(arrays[f"{number}/name"].tolist()):
                boxes = decoded(shown[name]["boxes"][number]).reshape(-1, 6)
                heat = protocol.heat(arrays[f"{number}/maps"][row])
                for t, threshold in enumerate(held["thresholds"]):
                    *box, iou, kind = boxes[held["levels"][t]].tolist()
                    assert [box] == (boxes_from_map(heat, threshold).tolist() or [[0, 0, 0, 0]])  # none of a flat map
                    assert 0 <= arrays[f"{number}/largest"][row, t] - iou / 100 < 0.01
                    assert kind == arrays[f"{number}/kind"][row, t]


def test_truth_and_classes_are_the_runs(made: Made, tmp_path: Path) -> None:
    held = content(write_page(made[0].run.folder, out=tmp_path / "page.html").path)
    table = made[0].results["rollout"].table()
    ends = np.cumsum(table.boxes)
    for row, name in enumerate(table.name.tolist()):
        (photo,) = [one for one in held["photos"] if one["id"] == name]
        assert photo["truth"] == table.truth[ends[row] - table.boxes[row] : ends[row]].tolist()
        assert photo["name"] == CLASSES[table.label[row]] and photo["predicted"][1] == CLASSES[table.classes[row, 0]]
        assert photo["right"][1] == (table.label[row] == table.classes[row, 0])
    assert held["kinds"] == list(KINDS)


def test_best_median_and_worst(made: Made, tmp_path: Path) -> None:
    held = content(write_page(made[0].run.folder, out=tmp_path / "page.html", photos=2).path)
    lines = [json.loads(line) for line in (made[0].run.folder / "photos.jsonl").read_text().splitlines()]
    for number, method in enumerate(("cam", "rollout", "grad-cam")):
        ious = {line["path"]: line["iou"] for line in lines if line["method"] == method}
        order = sorted(ious.values(), reverse=True)
        lists = {
            name: [ious[held["photos"][one]["id"]] for one in places] for name, places in held["lists"][number].items()
        }
        assert lists == {"best": order[:2], "median": order[4:6], "worst": order[::-1][:2]}
    assert len(held["photos"]) == len({place for lists in held["lists"] for one in lists.values() for place in one})


def test_differences_are_those_of_two_methods_alone(made: Made, masks: Made, tmp_path: Path) -> None:
    names = list(made[0].results)
    held = content(write_page(made[0].run.folder, out=tmp_path / "page.html").path)["pairs"]
    assert list(held) == ["best", "fixed"] and [row[:2] for row in held["best"]["gt_known_50"]] == [
        [0, 1],
        [0, 2],
        [1, 2],
    ]
    for score, rows in held["best"].items():
        for first, second, *row in rows:
            one = paired(made[0].results[names[first]], made[0].results[names[second]], "best", score=score)
            assert row == pytest.approx([one.value, one.low, one.high, one.won, one.lost], abs=6e-4)
    first, second, *row = content(write_page(masks[0].run.folder, out=tmp_path / "m.html").path)["pairs"]["none"][
        "pxap"
    ][1]
    one = paired_masks(masks[0].results[names[first]], masks[0].results[names[second]])
    assert row[:3] == pytest.approx([one.value, one.low, one.high], abs=6e-4) and row[3:] == [None, None]


def test_masks(masks: Made, tmp_path: Path) -> None:
    page = write_page(masks[0].run.folder, out=tmp_path / "page.html")
    held = content(page.path)
    assert held["protocol"] == {"name": "pxap", "headline": "pxap", "boxes": False} and page.notes == []
    assert all(photo["truth"].startswith("M") and "boxes" not in photo for photo in held["photos"])
    assert len(held["photos"]) == PHOTOS and len(held["methods"][0]["curves"]["recall"]) == 102


@pytest.mark.parametrize("interval", [0.01, 0.001])
@pytest.mark.parametrize(("name", "size", "kind"), [("maxboxacc", 224, np.uint8), ("tscam", 320, np.uint16)])
def test_levels_are_those_of_the_pass_over_all_thresholds(
    interval: float, name: str, size: int, kind: type, rng: np.random.Generator
) -> None:
    from trt_cam.metrics.records import LocalizationResults

    thresholds, protocol = np.arange(0, 1, interval), get_protocol(name, size=size)
    results = LocalizationResults(protocol, thresholds)
    maps = [rng.random((7, 7)), np.ones((7, 7))]
    for index, one in enumerate(maps):
        results.add(index, str(index), protocol.heat(one), [[1, 1, 40, 40]], size=(50, 50), label=0)
    passed = boxes_at_thresholds(protocol.heat(maps[0]), thresholds)
    firsts, index = distinct(thresholds)
    assert np.array_equal(index, passed.index) and np.array_equal(index[firsts], np.arange(len(passed.levels)))
    boxes = boxes_of(protocol, maps[0], results.table(), 0, thresholds)
    assert boxes.dtype == kind and np.array_equal(boxes[:, :4], passed.boxes)
    assert not boxes_of(protocol, maps[1], results.table(), 1, thresholds)[:, :4].any()


def test_outlines_go_around_pixels(rng: np.random.Generator) -> None:
    mask = rng.random((9, 7)) > 0.5
    walls = set()
    for x, y, way, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", outline(mask)):
        for step in range(int(length)):
            walls.add((way, int(x) + step * (way == "h"), int(y) + step * (way == "v")))
    padded = np.pad(mask, 1)
    expected = {("h", x, y) for y in range(10) for x in range(7) if padded[y, x + 1] != padded[y + 1, x + 1]}
    expected |= {("v", x, y) for y in range(9) for x in range(8) if padded[y + 1, x] != padded[y + 1, x + 1]}
    assert walls == expected


def test_large_maps_are_kept_small() -> None:
    ramp = np.tile(np.arange(128.0), (20, 1))
    found = cells(ramp)
    grey = decoded(found["levels"]).reshape(20, 32)
    assert found["width"] == 32 and grey[0, 0] == 0 and grey[0, -1] == 255 and (np.diff(grey[3].astype(int)) > 0).all()
    assert not decoded(cells(np.full((4, 4), 3.0))["levels"]).any()


def test_as_many_photos_as_fit(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = content(write_page(made[0].run.folder, out=tmp_path / "page.html").path)
    assert len(whole["lists"][0]["best"]) == galleries.PHOTOS
    monkeypatch.setattr(galleries, "BUDGET", 150_000)
    less = content(write_page(made[0].run.folder, out=tmp_path / "less.html").path)
    assert 1 <= len(less["lists"][0]["best"]) < 4 and len(json.dumps(less["photos"])) < 150_000


def test_the_same_run_makes_the_same_page(made: Made, tmp_path: Path) -> None:
    pages = [write_page(made[0].run.folder, out=tmp_path / name).path.read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_published_figures_are_the_printed_ones(shared: Path) -> None:
    printed = json.loads((shared / "design" / "published.json").read_text())["rows"]
    metrics = {"Top-1 Loc.Acc": "top1_loc", "Top-5 Loc.Acc": "top5_loc", "GT-Known Loc.Acc": "gt_known_50"}
    metrics["MaxBoxAccV2"] = "maxboxacc_v2"
    theirs = {
        (row["method"].upper(), row["dataset"], row["backbone"][:4].upper(), metrics[row["metric"]], row["value"])
        for row in printed
        if row["value"] is not None
    }
    ours = {
        (row["method"].upper(), row["dataset"], row["backbone"][:4].upper(), score, row[score])
        for row in published()["rows"]
        for score in metrics.values()
        if score in row
    }
    assert ours == theirs and len(ours) > 70
    assert {row["method"] for row in published()["rows"]} == set(published()["citations"])


def test_published_figures_say_whether_they_are_of_the_same_photos() -> None:
    assert beside(["pxap"], "CUB", 5794) is None
    found = beside(["top1_loc"], "CUB_200_2011", 5794)
    assert found and found["likely"] == "CUB-200-2011" and found["same"]
    found = beside(["maxboxacc_v2"], "ilsvrc-10", 500)
    assert found and found["likely"] == "ILSVRC" and not found["same"]
    assert {row["table"] for row in found["rows"]} == {2}


class TestDamage:
    """One line each."""

    def check(self, capsys: pytest.CaptureFixture[str], code: int, said: str, *words: str) -> None:
        assert main(["report", *words]) == code
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error

    def test_no_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.check(capsys, 2, "holds no run (no run.json)", str(tmp_path))
        self.check(capsys, 2, "holds no run", str(tmp_path / "missing"))

    def test_the_folder_around_a_run(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.check(capsys, 2, f"give {run}", str(run.parent))

    def test_unfinished(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        part = (run / "parts" / "00000002.npz").rename(run / "part")
        self.check(capsys, 2, "is not finished: 1 of 4 parts are missing", str(run))
        part.rename(run / "parts" / "00000002.npz")
        (run / "metrics.json").unlink()
        self.check(capsys, 2, "is not finished: there is no metrics.json", str(run))

    @pytest.mark.parametrize("keep", [0, 100, -30])
    def test_a_part_cut_short(self, run: Path, capsys: pytest.CaptureFixture[str], keep: int) -> None:
        part = run / "parts" / "00000001.npz"
        part.write_bytes(part.read_bytes()[:keep])
        self.check(capsys, 1, "00000001.npz is damaged", str(run))

    def test_a_part_with_flipped_bits(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        part = run / "parts" / "00000001.npz"
        held = bytearray(part.read_bytes())
        held[300:5000:50] = bytes(255 - one for one in held[300:5000:50])
        part.write_bytes(held)
        self.check(capsys, 1, "00000001.npz is damaged", str(run))

    def test_a_part_of_something_else(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        np.savez(run / "parts" / "00000001.npz", a=np.zeros(3))
        self.check(capsys, 1, "00000001.npz is damaged", str(run))

    @pytest.mark.parametrize("name", ["run.json", "metrics.json"])
    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", "\xff"])
    def test_damaged_records(self, run: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        (run / name).write_bytes(text.encode("latin-1"))
        self.check(capsys, 1, f"{name} is damaged", str(run))

    def test_options(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.check(capsys, 2, "--figures needs one of pdf, svg, png, got 'gif'", str(run), "--figures", "pdf,gif")
        self.check(capsys, 2, "photos", str(run), "--photos", "0")
        (tmp_path / "file").write_text("")
        self.check(capsys, 1, "cannot write", str(run), "--out", str(tmp_path / "file" / "page.html"))


class TestPhotos:
    """Where the data set is, or is not."""

    def test_gone(self, made: Made, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        held = json.loads((run / "metrics.json").read_text())
        held["data"]["root"] = "/nowhere"
        (run / "metrics.json").write_text(json.dumps(held))
        assert main(["report", str(run)]) == 0
        told = capsys.readouterr()
        assert told.err.startswith("trt-cam: warning: There are no photos on this page; '/nowhere' is no folder")
        assert content(run / "report.html")["photos"] == [] and told.out == f"-> {run / 'report.html'}\n"
        assert content(run / "report.html")["methods"][0]["figures"]["best"]["scores"]["gt_known_50"][0] >= 0
        assert main(["report", str(run), "--data", str(made[1])]) == 0
        assert len(content(run / "report.html")["photos"]) == PHOTOS

    def test_of_an_older_run(self, run: Path) -> None:
        held = json.loads((run / "metrics.json").read_text())
        del held["data"], held["classes"]
        (run / "metrics.json").write_text(json.dumps(held))
        assert "give --data" in write_page(run).notes[0]

    def test_other_photos(self, run: Path, tmp_path: Path) -> None:
        other = reports.boxes_tree(tmp_path / "other")
        listed = other / "metadata" / "test"
        for file in listed.iterdir():
            file.write_text(file.read_text().replace("_000", "_999"))
        os.rename(other / photo_id(0), other / photo_id(0).replace("_000", "_999"))
        with pytest.raises(DatasetError, match="holds other photos than the run: number 0 was"):
            write_page(run, data=other)
        with pytest.raises(InputError, match="no folder"):
            write_page(run, data=tmp_path / "missing")

    def test_some_cannot_be_read(self, made: Made, run: Path, tmp_path: Path) -> None:
        data = Path(shutil.copytree(made[1], tmp_path / "copy"))
        (data / photo_id(4)).write_bytes(b"no picture")
        (data / photo_id(5)).unlink()
        page = write_page(run, data=data)
        held = content(page.path)
        assert {photo["id"] for photo in held["photos"] if photo["thumb"] is None} == {photo_id(4), photo_id(5)}
        assert (
            page.notes[0].startswith(f"2 of {PHOTOS} photos on this page could not be read; ")
            and page.notes == held["notes"]
        )
        shutil.rmtree(data / "val")
        assert content(write_page(run, data=data).path)["photos"] == []


def test_one_method(made: Made, tmp_path: Path) -> None:
    reports.run(made[1], tmp_path / "run", methods=["cam"], limit=4)
    held = content(write_page(tmp_path / "run").path)
    assert held["pairs"] == {"best": {}, "fixed": {}} and len(held["photos"]) == 4 and "cam on" in held["title"]


def test_figures_for_papers(made: Made, masks: Made, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made[0].run.folder, tmp_path / "run"))
    assert main(["report", str(run), "--figures", "pdf,svg"]) == 0
    figures = {path.name: path.read_bytes() for path in (run / "figures").iterdir()}
    assert set(figures) == {
        f"{name}.{kind}" for name in ("intervals", "curves", "errors", "iou") for kind in ("pdf", "svg")
    }
    assert all(figures[name].startswith(b"%PDF") for name in figures if name.endswith("pdf"))
    for name in ("intervals.svg", "curves.svg", "errors.svg", "iou.svg"):
        assert b">grad-cam</text>" in figures[name] and b"<dc:date>" not in figures[name]
    again = {path.name: path.read_bytes() for path in write_figures(run)}
    assert again == figures
    names = [path.name for path in write_figures(shutil.copytree(masks[0].run.folder, tmp_path / "masks"), ["svg"])]
    assert names == ["intervals.svg", "precision_recall.svg"]
