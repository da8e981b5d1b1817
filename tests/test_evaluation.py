"""Evaluations of small data sets: the same digits whatever makes the batches, and every fault a line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from trt_cam import create_explainer
from trt_cam.backbone import preprocessing
from trt_cam.cli import main
from trt_cam.data.catalog import load_dataset
from trt_cam.data.frames import fit_photo
from trt_cam.data.photos import load_photo
from trt_cam.errors import DatasetError, InputError, OutputError
from trt_cam.evaluation import Evaluation, chosen, class_indices, evaluate
from trt_cam.evaluation.tables import as_csv, as_markdown, photo_lines, records, write
from trt_cam.explainers.perturbation import ScoreCAM
from trt_cam.metrics.protocols import get_protocol
from trt_cam.metrics.records import LocalizationResults
from trt_cam.metrics.summary import figures
from trt_cam.runs import World, claim, read_part

PHOTOS = 11


def tree(root: Path) -> Path:
    """A data set in wsolevaluation's lists: photos of several sizes, one or two boxes each."""
    rng, lists = np.random.default_rng(0), root / "metadata" / "test"
    lists.mkdir(parents=True)
    (root / "val").mkdir()
    ids, labels, sizes, boxes = [], [], [], []
    for number in range(PHOTOS):
        name, (w, h) = f"val/photo_{number:03d}.png", (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
        pixels = rng.integers(0, 120, (h, w, 3), dtype=np.uint8)
        for _ in range(1 + number % 2):
            x0, y0 = int(rng.integers(0, w - 25)), int(rng.integers(0, h - 25))
            pixels[y0 : y0 + 20, x0 : x0 + 22] = rng.integers(100, 255, 3)
            boxes.append(f"{name},{x0},{y0},{x0 + 21},{y0 + 19}")
        Image.fromarray(pixels).save(root / name)
        ids.append(name)
        labels.append(f"{name},{number % 7}")
        sizes.append(f"{name},{w},{h}")
    for file, lines in (("image_ids", ids), ("class_labels", labels), ("image_sizes", sizes), ("localization", boxes)):
        (lists / f"{file}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return FAMILIES["vit"]()


def run(data: Path, model: nn.Module, **options: Any) -> Evaluation:
    return evaluate(data, model=model, **{"methods": ["cam", "rollout"], "batch_size": 3, **options})


def test_of_all_methods_those_that_do_not_fit_are_left_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether a model refuses a method from the start, or only once a map was tried to be made."""
    monkeypatch.setattr(chosen, "list_explainers", lambda: ["cam", "hires-cam", "rollout", "trt"])
    words = ["evaluate", str(data), "--methods", "all", "--limit", "2", "--interval", "0.1", "--out", str(tmp_path)]
    monkeypatch.setattr("trt_cam.evaluation.runner.place", lambda *_: FAMILIES["siglip"]())
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert [line.split()[1] for line in out.splitlines()[2:4]] == ["cam", "rollout"]
    hires, trt = err.splitlines()
    assert hires.startswith("trt-cam: hires-cam left out: hires-cam needs a layer")
    assert trt.startswith("trt-cam: trt left out: explainer 'trt' needs")


def digits(found: Evaluation) -> dict[str, NDArray[Any]]:
    return {f"{name}/{key}": values for name, one in found.results.items() for key, values in one.state().items()}


def same(one: Evaluation, other: Evaluation) -> None:
    ours, theirs = digits(one), digits(other)
    assert ours.keys() == theirs.keys() and len(ours) > 20
    for name, values in ours.items():
        assert np.array_equal(values, theirs[name]), name
    for first, second in zip(one.parts(), other.parts(), strict=True):
        assert all(np.array_equal(first[name], second[name]) for name in first if name != "failures")


def test_figures_are_those_of_a_plain_loop(data: Path, model: nn.Module) -> None:
    found = run(data, model)
    samples, explain = load_dataset(data), create_explainer("rollout", model)
    prepare, expected = preprocessing(model), LocalizationResults(get_protocol("maxboxacc_v2"))
    for index, sample in enumerate(samples):
        pixels, _ = fit_photo(load_photo(sample.path), (64, 64))
        seen = explain(prepare.normalize(torch.from_numpy(pixels)[None]), [sample.label])
        heat = expected.protocol.heat(seen.grid[0].numpy())
        assert sample.size is not None and sample.label is not None
        expected.add(
            index, sample.id, heat, sample.boxes, size=sample.size, label=sample.label, logits=seen.logits[0].numpy()
        )
    ours, theirs = found.results["rollout"].table(), expected.table()
    assert np.array_equal(ours.label, theirs.label) and np.array_equal(ours.classes, theirs.classes)
    np.testing.assert_allclose(ours.largest, theirs.largest, atol=0.05)  # a batch rounds otherwise than one image
    assert (ours.largest == theirs.largest).mean() > 0.98
    assert len(found.failures) == 0 and found.results["cam"].table().name.tolist() == [s.id for s in samples]


@pytest.mark.parametrize("workers", [0, 2])
def test_cut_short_and_gone_on_with(data: Path, model: nn.Module, tmp_path: Path, workers: int) -> None:
    whole = run(data, model)
    run(data, model, out=tmp_path / "run")
    parts = sorted((tmp_path / "run" / "parts").iterdir())
    assert len(parts) == 4
    parts[1].unlink()
    parts[3].unlink()
    before = parts[0].stat().st_mtime_ns
    told: list[tuple[int, int, int]] = []
    again = run(
        data,
        model,
        out=tmp_path / "run",
        resume=True,
        workers=workers,
        progress=lambda *counts: told.append(counts),
    )
    same(whole, again)
    assert parts[0].stat().st_mtime_ns == before and told == [(9, 11, 0), (11, 11, 0)]


SCRIPT = """
import sys, torch
sys.path[:0] = {path!r}
from test_evaluation import FAMILIES, run
from pathlib import Path
torch.set_num_threads(1)
run(Path(sys.argv[1]), FAMILIES["vit"](), out=sys.argv[2])
"""


def script(folder: Path) -> Path:
    path = folder / "run_it.py"
    path.write_text(SCRIPT.format(path=[str(Path(__file__).parent)]))
    return path


def test_two_processes_are_one(data: Path, model: nn.Module, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*words, script(tmp_path), data, tmp_path / "two"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    same(run(data, model), run(data, model, out=tmp_path / "two", resume=True))


@pytest.mark.parametrize(("rank", "code"), [("0", 1), ("1", 0)])
def test_only_process_0_reports(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: str,
    code: int,
) -> None:
    data = tree(tmp_path / "set")
    (data / "val/photo_004.png").write_bytes(b"no picture")
    monkeypatch.setattr(World, "current", classmethod(lambda cls: cls(int(rank), 1)))
    monkeypatch.setattr(World, "share", lambda self, count: range(count))
    if rank == "1":
        (tmp_path / "run" / "parts").mkdir(parents=True)  # what process 0 does first
    words = ["evaluate", str(data), "--size", "64", "--methods", "cam", "--out", str(tmp_path / "run")]
    assert main(words) == code
    assert ("photo_004.png: " in capsys.readouterr().err) == (rank == "0")
    assert (tmp_path / "run" / "metrics.json").exists() == (rank == "0")


def test_killed_and_gone_on_with(data: Path, model: nn.Module, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, script(tmp_path), data, out])
    deadline = time.monotonic() + 60
    while not list(out.glob("parts/*.npz")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(out.glob("parts/*.npz"))
    same(run(data, model), run(data, model, out=out, resume=True))


def test_whose_batches_are_whose() -> None:
    shares = [list(World(rank, 3).share(8)) for rank in range(3)]
    assert sorted(sum(shares, [])) == list(range(8)) and shares[1] == [1, 4, 7]


def test_a_folder_is_of_one_run(data: Path, model: nn.Module, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(data, model, out=out, limit=4)
    with pytest.raises(InputError, match="holds this run already; add --resume"):
        run(data, model, out=out, limit=4)
    for changed, said in (
        ({"methods": ["cam"]}, "methods"),
        ({"interval": 0.1}, "interval"),
        ({"limit": 5}, "data.photos"),
        ({"threads": 2}, "threads"),
    ):
        with pytest.raises(InputError, match=f"another run, whose {said} was"):
            run(data, model, out=out, resume=True, **{"limit": 4, **changed})
    other = FAMILIES["vit"]()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(InputError, match="another run, whose model.weights was"):
        run(data, other, out=out, resume=True, limit=4)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"device": "cuda"}))  # whose last digits are others
    with pytest.raises(InputError, match='another run, whose device was "cuda", not "cpu"'):
        run(data, model, out=out, resume=True, limit=4)
    (out / "run.json").write_text(json.dumps(record))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"must be empty or hold this run, got 'thesis.tex'"):
        run(data, model, out=tmp_path / "mine")
    (out / "parts" / "00000001.npz").write_bytes(b"PK half of it")
    with pytest.raises(DatasetError, match=r"00000001.npz is damaged .*delete it and go on with --resume"):
        run(data, model, out=out, resume=True, limit=4)


def test_a_damaged_part_is_never_anything_else(tmp_path: Path, rng: np.random.Generator) -> None:
    part, arrays = tmp_path / "00000000.npz", {"a": np.arange(50), "b": np.array("text"), "c": rng.random((3, 9))}
    np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
    before = part.read_bytes()
    for at in range(0, before.index(b"PK\1\2"), 3):  # all but the list of contents at its end, which nothing protects
        part.write_bytes(before[:at] + bytes([before[at] ^ int(rng.integers(1, 256))]) + before[at + 1 :])
        try:
            found = read_part(part)
        except DatasetError as error:
            assert "is damaged" in str(error) and "\n" not in str(error)
        else:
            assert all(np.array_equal(found[name], values) for name, values in arrays.items())


def test_what_differs_of_a_run_may_be_missing_there(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"data": {"ids": "x"}}')
    with pytest.raises(InputError, match="another run, whose data.part was null, not null; give another folder"):
        claim(tmp_path, {"data": {"ids": "x", "part": None}}, resume=True)
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(InputError, match=r"run.json should be the record of a run; give another folder"):
        claim(tmp_path, {"data": 1}, resume=True)


def test_a_full_disk_is_a_line_and_loses_nothing(data: Path, model: nn.Module, tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(
        OutputError, match=r"cannot write .*00000001.npz \(No space left on device\); .*--resume"
    ) as line:
        run(data, model, out=tmp_path / "run")
    assert "\n" not in str(line.value)
    assert [path.name for path in (tmp_path / "run" / "parts").iterdir()] == ["00000000.npz"]
    same(run(data, model), run(data, model, out=tmp_path / "run", resume=True))


def test_broken_photos_are_told_and_count_for_no_method(tmp_path: Path, model: nn.Module) -> None:
    data = tree(tmp_path / "set")
    (data / "val/photo_004.png").write_bytes(b"no picture")
    (data / "val/photo_006.png").unlink()
    found = run(data, model)
    assert [name for name, _ in found.failures] == ["val/photo_004.png", "val/photo_006.png"]
    assert "not a picture" in found.failures[0][1] and "does not exist" in found.failures[1][1]
    assert all(len(one) == PHOTOS - 2 for one in found.results.values())
    for photo in (data / "val").iterdir():
        photo.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no photo of .* could be evaluated; the first, val/photo_000.png: .*empty"):
        run(data, model)


class NotFinite(ScoreCAM):
    name = "not-finite"
    requires = frozenset({"features"})

    def grid(self, seen: Any, target: Any) -> Any:
        grid = seen.features.sum(dim=1)
        return torch.where(target[:, None, None] == 3, torch.nan, grid)


def test_a_map_that_is_not_finite_fails_its_photo_for_all(data: Path, model: nn.Module) -> None:
    found = evaluate(data, model=model, methods=["cam", NotFinite()], batch_size=4)
    assert [name for name, _ in found.failures] == ["val/photo_003.png", "val/photo_010.png"]
    assert "finite" in found.failures[0][1]
    assert [len(one) for one in found.results.values()] == [PHOTOS - 2] * 2


def test_photos_without_ground_truth_are_refused_before_any_is_explained(tmp_path: Path, model: nn.Module) -> None:
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"never opened")
    with pytest.raises(DatasetError, match="a data set with boxes or masks to compare with was needed"):
        run(tmp_path, model)


def test_parts_by_the_files_number(data: Path, model: nn.Module) -> None:
    odd, even = (run(data, model, part=part).results["cam"].table() for part in ("odd", "even"))
    assert [name[-5] for name in odd.name] == list("13579") and len(even) == 6
    assert odd.index.tolist() == [1, 3, 5, 7, 9]
    with pytest.raises(InputError, match="part must be 'odd' or 'even', got 'third'"):
        run(data, model, part="third")


@pytest.mark.parametrize("options", [{"threads": 0}, {"batch_size": None}, {"workers": -1}, {"limit": 0}])
def test_wrong_counts_take_no_folder(data: Path, model: nn.Module, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} must be an integer of at least"):
        run(data, model, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_before_anything_is_made_gives_its_folder_back(
    data: Path, model: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="refine must be None or one of"):
        run(data, model, out=tmp_path / "run", refine="everything")
    assert not list((tmp_path / "run").iterdir())
    run(data, model, out=tmp_path / "run", limit=3)
    with pytest.raises(InputError, match="holds this run already"):
        run(data, model, out=tmp_path / "run", limit=3)
    assert len(list((tmp_path / "run" / "parts").iterdir())) == 1


def test_methods_by_name_and_settings(data: Path, model: nn.Module) -> None:
    found = run(data, model, methods=["rollout", ScoreCAM(channels=2), ScoreCAM(channels=3)], limit=3)
    assert list(found.results) == ["rollout", "score-cam (channels=2)", "score-cam (channels=3)"]
    with pytest.raises(InputError, match="methods must differ, got 'cam' twice"):
        run(data, model, methods=["cam", "cam"])
    with pytest.raises(InputError, match="at least one method"):
        run(data, model, methods=[])
    with pytest.raises(InputError, match=r"methods must be a list of names such as \['trt', 'cam'\], got 'rollout'"):
        run(data, model, methods="rollout")


def test_classes_of_the_data_are_found_among_the_models(tmp_path: Path, model: nn.Module) -> None:
    for name in ("n01443537", "n01440764"):
        (tmp_path / "wnids" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "wnids" / name / "a.png")
    data = load_dataset(tmp_path / "wnids")
    thousand = FAMILIES["vit"](num_classes=1000)
    assert data.classes == ("n01440764", "n01443537")
    assert class_indices(data, thousand, None).tolist() == [0, 1]
    assert class_indices(data, thousand, {"n01440764": "tench", "n01443537": 5}).tolist() == [0, 5]
    with pytest.raises(InputError, match="the data set has 2 classes such as 'n01440764', the model 7: give classes"):
        class_indices(data, model, None)
    for name in ("Goldfish", "tiger_shark"):  # by one of their names
        (tmp_path / "names" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "names" / name / "a.png")
    assert class_indices(load_dataset(tmp_path / "names"), thousand, None).tolist() == [1, 3]
    assert class_indices(load_dataset(tmp_path / "names"), FAMILIES["vit"](num_classes=2), None).tolist() == [0, 1]
    (tmp_path / "names" / "gold fish").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "names" / "gold fish" / "a.png")
    with pytest.raises(InputError, match="give classes, .*no class is named 'gold fish' .*did you mean 'goldfish'"):
        class_indices(load_dataset(tmp_path / "names"), thousand, None)
    with pytest.raises(InputError, match="'n01443537' lacks"):
        class_indices(data, thousand, {"n01440764": "tench"})


def test_what_is_written(data: Path, model: nn.Module, tmp_path: Path) -> None:
    val = run(data, model, part="odd", out=tmp_path / "val")
    found = run(data, model, part="even", out=tmp_path / "run")
    rows = write(found, threshold="from-val", val=val)
    held = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert held["methods"] == json.loads(json.dumps(rows)) and held["threshold"] == "from-val" and held["photos"] == 6
    assert set(rows[0]["figures"]) == {"best", "from-val", "fixed"}
    score = rows[1]["figures"]["best"]["scores"]["gt_known_50"]
    best = figures(found.results["rollout"], "best").scores["gt_known_50"]  # type: ignore[arg-type]
    assert (score["value"], score["low"], score["high"]) == (best.value, best.low, best.high)
    chosen = rows[0]["figures"]["from-val"]["thresholds"]
    assert chosen["source"] == "from-val" and "odd photos" in chosen["split"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "photos.jsonl").read_text().splitlines()]
    assert len(lines) == 12 and {line["method"] for line in lines} == {"cam", "rollout"}
    for line in lines:
        for x0, y0, x1, y1 in line["boxes"]:
            assert 0 <= x0 < x1 <= line["width"] and 0 <= y0 < y1 <= line["height"]
    table = found.results["cam"].table()
    at = np.isclose(found.results["cam"].thresholds, lines[0]["threshold"]).argmax()
    ours = {line["path"]: line["iou"] for line in lines if line["method"] == "cam"}
    assert ours == {name: round(float(row[at]), 6) for name, row in zip(table.name, table.largest, strict=True)}  # type: ignore[attr-defined]
    assert as_csv(rows).count("\n") > 100 and "| cam | " in as_markdown(rows, "best")
    assert held["paired"][0]["first"] == "cam" and held["paired"][0]["second"] == "rollout"


@pytest.mark.parametrize(("protocol", "grid"), [("tscam", 96), ("trt_fixed_v2", 96), ("maxboxacc", 224)])
def test_the_scripts_of_ts_cam_and_trt_compare_on_the_models_input(data: Path, protocol: str, grid: int) -> None:
    model = FAMILIES["vit"](img_size=96)
    found = run(data, model, protocol=protocol, limit=3)
    results = found.results["cam"]
    assert results.protocol.grid == grid and int(results.table().truth.max()) < grid  # type: ignore[attr-defined]
    (lines,) = [list(photo_lines(found, "fixed", 0.3, None))]
    assert len(lines) == 6 and all(x1 <= line["width"] for line in lines for _, _, x1, _ in line["boxes"])


def test_a_run_is_of_one_choice_of_classes(data: Path, model: nn.Module, tmp_path: Path) -> None:
    samples = load_dataset(data)
    run(data, model, out=tmp_path / "run", limit=2)
    changed = class_indices(samples, model, None)[::-1].copy()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match="another run, whose classes was"):
        patch.setattr("trt_cam.evaluation.runner.class_indices", lambda *_: changed)
        run(data, model, out=tmp_path / "run", limit=2, resume=True)


def test_thresholds_that_a_protocol_does_not_take(data: Path, model: nn.Module, tmp_path: Path) -> None:
    found = run(data, model, protocol="v2_val_threshold", limit=4, out=tmp_path / "run")
    with pytest.raises(InputError, match="needs a threshold that is from-val"):
        records(found)
    fixed = run(data, model, protocol="trt_fixed_v2", limit=4, out=tmp_path / "fixed")
    assert list(records(fixed, threshold=0.3)[0]["figures"]) == ["fixed"]
    with pytest.raises(InputError, match="'best' are not to be had, only fixed"):
        write(fixed, threshold="best")


@pytest.mark.parametrize("threshold", [0, 0.0])
def test_a_threshold_of_nothing_is_one(data: Path, model: nn.Module, tmp_path: Path, threshold: float) -> None:
    found = run(data, model, limit=2, out=tmp_path / "run")
    write(found, threshold=threshold)
    held = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert held["threshold"] == "fixed" and held["methods"][0]["figures"]["fixed"]["thresholds"]["one"] == [0, 0, 0]
    lines = [json.loads(line) for line in (tmp_path / "run" / "photos.jsonl").read_text().splitlines()]
    assert {line["threshold"] for line in lines} == {0}


def test_masks(tmp_path: Path, model: nn.Module, rng: np.random.Generator) -> None:
    data = tree(tmp_path / "set")
    lists = data / "metadata" / "test"
    for name in ("image_sizes", "localization"):
        (lists / f"{name}.txt").unlink()
    lines = []
    for number in range(PHOTOS):
        mask = np.zeros((50, 60), dtype=np.uint8)
        mask[5 : 30 + number, 10:40] = 255
        Image.fromarray(mask).save(data / f"val/photo_{number:03d}_mask.png")
        ignore = np.zeros((50, 60), dtype=np.uint8)
        ignore[:, 50:] = 255
        Image.fromarray(ignore).save(data / f"val/photo_{number:03d}_ignore.png")
        name = f"val/photo_{number:03d}"
        lines.append(f"{name}.png,{name}_mask.png,{name}_ignore.png")
    (lists / "localization.txt").write_text("\n".join(lines) + "\n")
    found = run(data, model, out=tmp_path / "run")
    rows = write(found)
    assert rows[0]["figures"]["none"]["protocol"] == "pxap"
    assert 0 < rows[0]["figures"]["none"]["scores"]["pxap"]["value"] < 100
    assert "PxAP" in as_markdown(rows, "none")
    with pytest.raises(DatasetError, match="no ground-truth box"):
        run(data, model, protocol="maxboxacc")
    (lists / "localization.txt").write_text("\n".join(lines[1:]) + "\n")
    without = run(data, model)  # the first photo's is missing, and it alone fails
    assert [name for name, _ in without.failures] == ["val/photo_000.png"] and "has no mask" in without.failures[0][1]


class TestCommand:
    def test_from_val_and_resume(self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["evaluate", str(data), "--methods", "trt,cam", "--size", "64", "--limit", "4"]
        words += ["--part", "even", "--val-part", "odd", "--threshold", "from-val", "--out", str(tmp_path / "run")]
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "| trt | " in out and "| best centred square | " in out
        assert (tmp_path / "run" / "run" / "metrics.csv").exists()
        assert main(words) == 2
        assert "holds this run already; add --resume" in capsys.readouterr().err
        assert main([*words, "--resume"]) == 0
        assert capsys.readouterr().out == out

    @pytest.mark.parametrize(("study", "rows"), [("selection", 16), ("u", 13), ("re-attention", 2), ("tables", 6)])
    def test_studies(
        self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], study: str, rows: int
    ) -> None:
        words = [
            "evaluate",
            str(data),
            "--study",
            study,
            "--size",
            "64",
            "--limit",
            "2",
            "--out",
            str(tmp_path / "run"),
        ]
        assert main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[2].startswith("| trt") and lines[rows + 2].startswith("| best centred square")
        printed = [line for line in lines if line.endswith((", table 1 |", ", table 2 |", ", table 3 |"))]
        assert len(printed) == (34 if study == "tables" else 0) and lines[-1].startswith("-> ")
        held = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert len({one["name"] for one in held["methods"]}) == rows

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (
                ["--threshold", "worst"],
                2,
                "--threshold needs best, from-val or a share in [0, 1), such as 0.2, got 'worst'",
            ),
            (["--threshold", "from-val"], 2, "from-val needs other photos to choose on"),
            (["--protocol", "coco"], 2, "--protocol needs one of"),
            (["--methods", "gradcam"], 2, "did you mean grad-cam"),
            (["--set", "trt.u=1"], 2, "--set needs METHOD.NAME=VALUE of one of auto"),
            (["--interval", "0"], 2, "--interval needs a number above 0"),
            (["--split", "train"], 2, "has no split 'train'; it has test"),
            (["--kind", "cub"], 1, "is no data set of kind cub"),
            (["--classes", "nowhere.json"], 2, "nowhere.json cannot be read so: No such file"),
            (["--threshold", "0.123"], 2, "--threshold needs a multiple of --interval, 0.01, got 0.123"),
            (["--batch-size", "0"], 2, "--batch-size needs"),
            (["--workers", "-1"], 2, "--workers needs"),
            (["--threads", "0"], 2, "--threads needs"),
            (["--limit", "0"], 2, "--limit needs"),
        ],
    )
    def test_wrong_words_are_one_line(
        self,
        data: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        words: list[str],
        code: int,
        said: str,
    ) -> None:
        base = ["evaluate", str(data), "--size", "64", "--out", str(tmp_path / "run")]
        assert main([*base, *(["--limit", "2"] if "--limit" not in words else []), *words]) == code
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
