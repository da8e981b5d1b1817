"""BatchLocalizer: called as it is, pickled, by Ray Data and by datasets, each equal to `localize` to the digit."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_pseudo_label import FAMILIES, lines, photo

import trt_cam
from trt_cam import BatchLocalizer, localize
from trt_cam.errors import InputError
from trt_cam.pseudolabels import pseudo_label
from trt_cam.results import Localization

SETTINGS: dict[str, Any] = {"size": 32, "boxes": "all_external"}  # of the model in the package


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten photos and, in their midst, two files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [photo(folder / f"{number:02d}.png", number) for number in range(12)]
    paths[3].write_bytes(b"no picture")
    paths[8].write_bytes(b"")
    return paths


@pytest.fixture(scope="module")
def expected(photos: list[Path]) -> dict[str, Localization]:
    return {str(path): localize(path, **SETTINGS) for number, path in enumerate(photos) if number not in (3, 8)}


def same(rows: list[dict[str, Any]], expected: dict[str, Localization], photos: list[Path]) -> None:
    """Each row as `localize` has it, and every photo there once."""
    assert sorted(row["path"] for row in rows) == [str(path) for path in photos]
    for row in rows:
        one = expected.get(row["path"])
        if one is None:
            assert row["error"] and (list(row["boxes"]), row["label"], row["target"]) == ([], "", -1)
            assert np.isnan(row["score"]) and (row["width"], row["height"]) == (0, 0)
            continue
        assert row["error"] == "" and (row["height"], row["width"]) == one.size
        assert [list(box) for box in row["boxes"]] == one.boxes.tolist() and len(one.boxes)
        assert np.array_equal(row["scores"], one.scores) and np.array_equal(row["mean_heat"], one.mean_heat)
        assert (row["label"], row["target"], row["score"]) == (one.label, one.target, np.float32(one.score))


def rows_of(columns: dict[str, Any]) -> list[dict[str, Any]]:
    assert len({len(values) for values in columns.values()}) == 1
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


class TestDirect:
    def test_paths(self, photos: list[Path], expected: dict[str, Localization]) -> None:
        found = BatchLocalizer(**SETTINGS)({"path": [str(path) for path in photos], "id": list(range(12))})
        same(rows_of(found), expected, photos)
        assert found["id"] == list(range(12))

    def test_however_the_table_is_cut(self, photos: list[Path], expected: dict[str, Localization]) -> None:
        localizer = BatchLocalizer(**SETTINGS)
        paths = np.array([str(path) for path in photos[::-1]], dtype=object)
        cuts = [localizer({"path": part}) for part in np.split(paths, [1, 4, 5])]
        same([row for found in cuts for row in rows_of(found)], expected, photos)

    @pytest.mark.parametrize("kind", ["bytes", "array", "picture", "mapping of bytes", "mapping of path"])
    def test_other_columns(self, photos: list[Path], expected: dict[str, Localization], kind: str) -> None:
        good = [path for path in photos if str(path) in expected]
        make: dict[str, Any] = {
            "bytes": lambda path: path.read_bytes(),
            "array": lambda path: np.asarray(Image.open(path)),
            "picture": Image.open,
            "mapping of bytes": lambda path: {"bytes": path.read_bytes(), "path": None},
            "mapping of path": lambda path: {"bytes": None, "path": str(path)},
        }
        column = "bytes" if kind == "bytes" else "image"
        batch = {column: [make[kind](path) for path in good], "path": [f"s3://{path.name}" for path in good]}
        found = BatchLocalizer(**SETTINGS)(batch)
        assert column not in found and found["path"] == batch["path"]
        same(rows_of(found | {"path": [str(path) for path in good]}), expected, good)

    def test_a_photo_that_is_none_at_all(self) -> None:
        found = BatchLocalizer(**SETTINGS)({"image": [None, np.zeros((4, 4), np.uint8)], "path": ["a", "b"]})
        assert "a photo must be" in found["error"][0] and "must be (H, W, 3)" in found["error"][1]

    def test_a_class_for_each_row(self, photos: list[Path]) -> None:
        paths, wanted = [str(path) for path in photos[:3]], ["tabby", 3, "7"]
        found = BatchLocalizer(**SETTINGS)({"path": paths, "target": wanted})
        assert found["target"].tolist() == [281, 3, 7]
        for row, target in zip(rows_of(found), wanted, strict=True):
            same([row], {row["path"]: localize(row["path"], target=target, **SETTINGS)}, [Path(row["path"])])
        everywhere = BatchLocalizer(target="tabby", **SETTINGS)({"path": paths})
        assert everywhere["target"].tolist() == [281] * 3

    def test_several_in_a_forward(self, photos: list[Path]) -> None:
        good = [str(path) for number, path in enumerate(photos) if number not in (3, 8)]
        found = rows_of(BatchLocalizer(batch_size=4, **SETTINGS)({"path": good}))
        together = localize(good, batch_size=4, **SETTINGS)
        assert isinstance(together, list)
        same(found, dict(zip(good, together, strict=True)), [Path(path) for path in good])

    def test_threads_of_the_machine_are_not_seen(self, photos: list[Path], expected: dict[str, Localization]) -> None:
        before, localizer = torch.get_num_threads(), BatchLocalizer(**SETTINGS)
        torch.set_num_threads(2)
        try:
            same(rows_of(localizer({"path": [str(path) for path in photos]})), expected, photos)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)

    def test_no_row(self) -> None:
        found = BatchLocalizer(**SETTINGS)({"path": []})
        assert set(found) == {"path", "target", *BatchLocalizer.results} and not any(map(len, found.values()))

    @pytest.mark.parametrize(
        ("settings", "batch", "said"),
        [
            ({}, {"file": ["a.png"]}, "a batch needs a column image, bytes, path, got file"),
            ({}, {"path": ["a.png"], "label": [3]}, "column 'label' would be written over; rename it first"),
            ({"threshold": 2}, {"path": ["a.png"]}, "threshold must be in"),
            ({"batch_size": 0}, {"path": ["a.png"]}, "batch_size must be"),
            ({"threads": 0}, {"path": ["a.png"]}, "threads must be"),
            ({}, {"path": ["a.png"], "target": ["no such thing"]}, "no class is named 'no such thing'"),
        ],
    )
    def test_wrong_use_is_one_line(self, settings: dict[str, Any], batch: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=said) as line:
            BatchLocalizer(**settings)(batch)
        assert "\n" not in str(line.value)


class TestPickled:
    def test_it_is_small_before_and_after_use(self, photos: list[Path]) -> None:
        localizer = BatchLocalizer(**SETTINGS)
        before = pickle.dumps(localizer)
        localizer({"path": [str(photos[0])]})
        assert pickle.dumps(localizer) == before and len(before) < 1000

    def test_in_another_process(self, photos: list[Path], expected: dict[str, Localization], tmp_path: Path) -> None:
        (tmp_path / "localizer").write_bytes(pickle.dumps(BatchLocalizer(**SETTINGS)))
        code = (
            "import pickle, sys; from pathlib import Path; folder = Path(sys.argv[1])\n"
            "localizer = pickle.loads((folder / 'localizer').read_bytes()); assert 'timm' not in sys.modules\n"
            "(folder / 'found').write_bytes(pickle.dumps(localizer({'path': sys.argv[2:]})))\n"
        )
        subprocess.run([sys.executable, "-c", code, tmp_path, *photos], check=True)
        same(rows_of(pickle.loads((tmp_path / "found").read_bytes())), expected, photos)

    def test_the_model_is_loaded_once(self, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        from trt_cam import pipeline

        loads, load = [0], pipeline.load_model

        def counted(name: Any) -> Any:
            loads[0] += 1
            return load(name)

        monkeypatch.setattr(pipeline, "load_model", counted)
        localizer = BatchLocalizer(**SETTINGS)
        assert loads == [0]
        for path in photos[:3]:
            localizer({"path": [str(path)]})
        assert loads == [1]


def test_a_model_without_class_names_or_classifier(photos: list[Path]) -> None:
    for classes, method in ((3, "trt-free"), (0, "raw-attention")):
        model = FAMILIES["vit"](num_classes=classes)
        found = BatchLocalizer(model=model, method=method)({"path": [str(photos[0])]})
        one = localize(photos[0], model=model, method=method)
        assert found["label"] == [""] and found["target"].tolist() == [-1 if one.target is None else one.target]
        assert found["boxes"] == [one.boxes.tolist()] and np.isnan(found["score"][0]) == (classes == 0)


@pytest.mark.skipif(find_spec("datasets") is None, reason="needs the package datasets")
class TestDatasets:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        datasets.disable_progress_bars()
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)

    @pytest.mark.parametrize("processes", [None, 2])
    def test_paths(self, photos: list[Path], expected: dict[str, Localization], processes: int | None) -> None:
        from datasets import Dataset

        order = [photos[3], *photos[:3], *photos[4:]]  # the first batch has no box
        table = Dataset.from_dict({"path": [str(path) for path in order]})
        localizer = BatchLocalizer(**SETTINGS)
        options = {"batched": True, "batch_size": 1, "features": localizer.features(table.features)}
        found = table.map(localizer, num_proc=processes, **options)
        assert found["path"][:] == [str(path) for path in order]
        same(list(found), expected, photos)

    def test_pictures_stay_in_the_table(self, photos: list[Path], expected: dict[str, Localization]) -> None:
        import datasets

        good = [path for path in photos if str(path) in expected]
        table = datasets.Dataset.from_dict({"image": [str(path) for path in good]}).cast_column(
            "image", datasets.Image()
        )
        localizer = BatchLocalizer(**SETTINGS)
        found = table.map(localizer, batched=True, batch_size=4, features=localizer.features(table.features))
        assert found[0]["image"].size == Image.open(good[0]).size
        names = [str(path) for path in good]
        same([row | {"path": name} for row, name in zip(found, names, strict=True)], expected, good)

    def test_the_result_is_found_again(self, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        from datasets.fingerprint import Hasher

        localizer = BatchLocalizer(**SETTINGS)
        before = Hasher.hash(localizer)
        localizer({"path": [str(photos[0])]})
        assert Hasher.hash(localizer) == before == Hasher.hash(BatchLocalizer(**SETTINGS))
        assert Hasher.hash(BatchLocalizer(threshold=0.9, **SETTINGS)) != before


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster on this machine: two workers, and CPUs left for reading."""
    ray = pytest.importorskip("ray", reason="needs the package ray")
    pytest.importorskip("ray.data")
    folder = str(Path(trt_cam.__file__).parent.parent)
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": folder}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.mark.slow
class TestRay:
    def mapped(self, ray: Any, table: Any, **settings: Any) -> list[dict[str, Any]]:
        pool = ray.data.ActorPoolStrategy(size=2)
        found = table.map_batches(BatchLocalizer, fn_constructor_kwargs=SETTINGS | settings, batch_size=3, compute=pool)
        rows: list[dict[str, Any]] = found.take_all()
        return rows

    def test_two_workers_are_localize(self, ray: Any, photos: list[Path], expected: dict[str, Localization]) -> None:
        table = ray.data.from_items([{"path": str(path)} for path in photos], override_num_blocks=5)
        same(self.mapped(ray, table), expected, photos)

    def test_files_that_ray_reads(self, ray: Any, photos: list[Path], expected: dict[str, Localization]) -> None:
        table = ray.data.read_binary_files([str(path) for path in photos], include_paths=True)
        found = self.mapped(ray, table)
        assert all("bytes" not in row for row in found)
        same(found, expected, photos)

    def test_two_workers_are_one_process_of_pseudo_label(self, ray: Any, photos: list[Path], tmp_path: Path) -> None:
        pseudo_label(photos[0].parent, tmp_path / "run", batch_size=1, **SETTINGS)
        table = ray.data.from_items([{"path": str(path)} for path in photos], override_num_blocks=5)
        found = {Path(row["path"]).name: row for row in self.mapped(ray, table)}
        assert len(found) == 12
        for line in lines(tmp_path / "run"):
            row = found[line["path"]]
            if "error" in line:
                assert row["error"] == line["error"]
                continue
            assert [list(box) for box in row["boxes"]] == line["boxes"]
            assert [round(float(one), 6) for one in row["scores"]] == line["scores"]
            assert [round(float(one), 6) for one in row["mean_heat"]] == line["mean_heat"]
            assert (int(row["target"]), row["label"]) == (line["target"]["index"], line["target"]["name"])
