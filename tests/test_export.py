"""ONNX files: what onnxruntime makes of them is what PyTorch makes, and boxes come of them without torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from families import FAMILIES, shaken
from numpy.typing import NDArray
from torch import nn

import trt_cam
from trt_cam import cli
from trt_cam.backbone import Preprocessing
from trt_cam.data.frames import frame_of
from trt_cam.errors import InputError, OutputError, UnsupportedModelError
from trt_cam.explainers import create_explainer
from trt_cam.export import export_onnx
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.ops.attention import cdf_threshold
from trt_cam.results import input_heat

NAMES = ("ant", "bee", "cat", "dog", "eel")
EXAMPLE = Path(__file__).parent.parent / "examples" / "boxes_with_onnxruntime.py"
PHOTO = Path(trt_cam.__file__).parent / "assets" / "coffee.jpg"


def vit(seed: int = 0, **settings: Any) -> nn.Module:
    torch.manual_seed(seed)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    made: Any = shaken(timm.models.VisionTransformer(**{**shape, **settings}))
    side = settings.get("img_size", 32)
    size = (side, side) if isinstance(side, int) else side
    made.preprocessing = Preprocessing(size, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear")
    return made.eval()  # type: ignore[no-any-return]


def localizer(**settings: Any) -> TRTLocalizer:
    net = TRTLocalizer(vit(), **settings).eval()
    net.classes = NAMES
    net.config = {"refine": "affinity", "thresholds": {"trt": {"affinity": 0.37}}, "name": "tiny"}
    return net


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(path, options)


def photos(count: int, size: tuple[int, int] = (32, 32)) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def by_torch(
    net: nn.Module, method: str, refine: str | None, given: NDArray[np.uint8], target: Any = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and heat as `localize` makes them, by the public calls."""
    prepare = net.preprocessing if isinstance(net, (TRTLocalizer, TSCAMNet)) else trt_cam.backbone.preprocessing(net)
    images = prepare.normalize(torch.from_numpy(given.transpose(0, 3, 1, 2).astype(np.float32)) / 255)
    found = create_explainer(method, net)(images, target, refine=refine)
    size = (given.shape[1], given.shape[2])
    return found.logits.numpy(), input_heat(found.evidence, frame_of(size, size))[0].numpy()


def compare(net: nn.Module, file: Path, method: str, refine: str | None, size: tuple[int, int], counts: Any) -> None:
    running = session(file)
    for count in counts:
        given = photos(count, size)
        for ours, theirs in zip(by_torch(net, method, refine, given), running.run(None, {"photo": given}), strict=True):
            assert ours.shape == theirs.shape and theirs.dtype == np.float32
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[TRTLocalizer, Path]:
    net, path = localizer(), tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    made = export_onnx(net, path)
    assert made.path == path and made.bytes == path.stat().st_size and max(made.logits, made.heat) < 1e-4
    return net, path


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert cli.main(["export", "--out", str(path), "--batch", "1"]) == 0
    return path


def test_a_localizer_gives_what_pytorch_gives_for_any_number_of_photos(tiny: tuple[TRTLocalizer, Path]) -> None:
    net, path = tiny
    compare(net, path, "trt", "affinity", (32, 32), (1, 2, 5))


def test_a_class_may_be_asked_for(tiny: tuple[TRTLocalizer, Path]) -> None:
    net, path = tiny
    running, given = session(path), photos(3)
    heat = {}
    for asked in ([-1], [4], [4, -1, 0], [1, 1, 1]):
        predicted = by_torch(net, "trt", "affinity", given)[0].argmax(axis=1)
        meant = [
            one if one >= 0 else int(best) for one, best in zip(np.resize(asked, 3).tolist(), predicted, strict=True)
        ]
        heat[str(asked)] = running.run(["heat"], {"photo": given, "target": np.array(asked)})[0]
        expected = by_torch(net, "trt", "affinity", given, torch.tensor(meant))[1]
        np.testing.assert_allclose(heat[str(asked)], expected, rtol=0, atol=1e-4)
    assert np.abs(heat["[4]"] - heat["[1, 1, 1]"]).max() > 0.05
    np.testing.assert_array_equal(heat["[-1]"], running.run(["heat"], {"photo": given})[0])


def test_the_file_says_what_boxes_need(tiny: tuple[TRTLocalizer, Path]) -> None:
    about = session(tiny[1]).get_modelmeta().custom_metadata_map
    assert json.loads(about.pop("classes")) == list(NAMES)
    assert about == {
        "model": "tiny",
        "method": "trt",
        "refine": "affinity",
        "threshold": "0.37",
        "interpolation": "bilinear",
    }


def test_the_file_is_whole_and_says_nothing_of_where_it_was_made(tiny: tuple[TRTLocalizer, Path]) -> None:
    import onnx

    made = onnx.load(tiny[1])
    onnx.checker.check_model(made, full_check=True)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*made.graph.input, *made.graph.output)
    }
    assert shapes == {
        "photo": ["batch", 32, 32, 3],
        "target": ["targets"],
        "logits": ["batch", 5],
        "heat": ["batch", 32, 32],
    }
    assert (
        b".py" not in tiny[1].read_bytes() and str(Path(trt_cam.__file__).parent).encode() not in tiny[1].read_bytes()
    )


def test_the_model_is_as_it_was(tiny: tuple[TRTLocalizer, Path]) -> None:
    net, _ = tiny
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    again = localizer()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(net.parameters(), again.parameters(), strict=True))


def test_the_embedded_models_heat_is_what_localize_shows(embedded: Path) -> None:
    found = trt_cam.localize(PHOTO)
    assert isinstance(found, trt_cam.Localization)
    running = session(embedded)
    _, height, width, _ = running.get_inputs()[0].shape
    given = np.asarray(found.photo.resize((width, height), resample=3))[None]
    logits, heat = running.run(None, {"photo": given})
    np.testing.assert_allclose(heat[0], found.heat_on_input, rtol=0, atol=1e-4)
    odds = np.exp(logits[0] - logits[0].max())
    assert (int(odds.argmax()), float(odds.max() / odds.sum())) == (found.target, pytest.approx(found.score, abs=1e-5))


def test_the_example_finds_the_same_class_and_box_without_torch(embedded: Path) -> None:
    found = trt_cam.localize(PHOTO)
    assert isinstance(found, trt_cam.Localization) and found.label
    blocked = (
        f"import sys; sys.modules.update(torch=None, trt_cam=None, scipy=None); sys.argv[1:] = [{str(embedded)!r}]"
    )
    code = f"{blocked}; import runpy; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(found.label) and done.stderr == ""
    box = np.array([int(side) for side in re.findall(r"\d+", done.stdout.removeprefix(found.label))])
    assert np.abs(box - found.boxes[0]).max() <= 1


def test_the_examples_region_is_the_largest_one(rng: np.random.Generator) -> None:
    from scipy import ndimage

    names: dict[str, Any] = {"__file__": str(EXAMPLE), "__name__": "example"}
    exec(compile(EXAMPLE.read_text(encoding="utf-8"), EXAMPLE, "exec"), names)
    for share in (0.1, 0.3, 0.4, 0.9):
        mask = rng.random((20, 30)) < share
        labels, _ = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())[1:]
        y, x = ndimage.find_objects(labels)[int(sizes.argmax())]
        if (sizes == sizes.max()).sum() == 1:
            assert names["largest_region"](mask).tolist() == [x.start, y.start, x.stop, y.stop]


def test_no_more_than_forty_lines_are_needed() -> None:
    assert sum(bool(line.strip()) for line in EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40


# -------------------------------------------------------------------------------------------------------------- others

OTHERS: dict[str, tuple[Any, str, str | None, tuple[int, int]]] = {
    "no branch": (lambda: localizer(cam=None), "trt", None, (32, 32)),
    "authors' eps": (lambda: localizer(eps=1e-6, mode="quantile", u=0.4, divide=False), "trt", None, (32, 32)),
    "average pool": (
        lambda: TRTLocalizer(vit(global_pool="avg", class_token=False)).eval(),
        "trt",
        "affinity",
        (32, 32),
    ),
    "not square": (lambda: TRTLocalizer(vit(img_size=(32, 48))).eval(), "trt", None, (32, 48)),
    "ts-cam network": (lambda: TSCAMNet(vit()).eval(), "ts-cam", "affinity", (32, 32)),
    "ts-cam": (vit, "ts-cam", None, (32, 32)),
    "cam": (vit, "cam", None, (32, 32)),
    "trt-free": (vit, "trt-free", "affinity", (32, 32)),
    "rollout": (vit, "rollout", None, (32, 32)),
    "raw attention": (vit, "raw-attention", "affinity", (32, 32)),
    "convolutions": (lambda: timm.create_model("test_resnet", num_classes=5).eval(), "cam", None, (160, 160)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_and_methods(name: str, tmp_path: Path) -> None:
    build, method, refine, size = OTHERS[name]
    net = build()
    export_onnx(net, tmp_path / "model.onnx", method=method, refine=refine)
    compare(net, tmp_path / "model.onnx", method, refine, size, (1, 3))
    takes_class = method in ("cam", "ts-cam", "trt-free") or (method == "trt" and net.cam is not None)
    given = {value.name for value in session(tmp_path / "model.onnx").get_overridable_initializers()}
    assert given == ({"target"} if takes_class else set())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deit-distilled", "dinov2-registers", "siglip", "eva02", "dinov3", "beit", "hybrid"])
def test_localizers_on_timms_families(name: str, tmp_path: Path) -> None:
    net = TRTLocalizer(FAMILIES[name]()).eval()
    export_onnx(net, tmp_path / "model.onnx")
    compare(net, tmp_path / "model.onnx", "trt", None, net.preprocessing.size, (1, 2))


@pytest.mark.slow
def test_a_fixed_batch_another_size_and_weights_of_half_the_size(tmp_path: Path) -> None:
    sizes = {}
    for half in (False, True):
        made = export_onnx(None, tmp_path / "model.onnx", size=(96, 128), batch=2, half=half)
        running = session(made.path)
        assert running.get_inputs()[0].shape == [2, 96, 128, 3] and running.get_outputs()[1].shape == [2, 96, 128]
        sizes[half] = made.bytes
        assert made.heat < (0.05 if half else 1e-4)
        with pytest.raises(Exception, match="Got: 1 Expected: 2"):
            running.run(None, {"photo": photos(1, (96, 128))})
    assert sizes[True] < 0.55 * sizes[False]


@pytest.mark.slow
def test_a_folder_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TSCAMNet(timm.create_model("test_vit", num_classes=5, img_size=64)).save_pretrained(tmp_path / "net")
    words = [str(tmp_path / "net"), "--out", str(tmp_path / "a.onnx"), "--batch", "1", "--threshold", "0.5"]
    assert cli.main(["export", *words, "--set", "refine=x"]) == 2
    assert cli.main(["export", *words]) == 0
    out = capsys.readouterr().out
    assert "a.onnx" in out and "differs from PyTorch" in out
    assert session(tmp_path / "a.onnx").get_modelmeta().custom_metadata_map["threshold"] == "0.5"


def test_equal_values_are_kept_in_order_as_torch_keeps_them() -> None:
    """The one word that ONNX lacks, a stable sort, is said by TopK: ties of m decide which token is kept."""
    from trt_cam.export.graph import stable_sort

    class Keeping(nn.Module):
        def forward(self, m: torch.Tensor) -> torch.Tensor:
            return cdf_threshold(m, 0.45)

    m = torch.tensor([[0.1, 0.2, 0.2, 0.2, 0.2, 0.1], [0.25, 0.05, 0.25, 0.2, 0.0, 0.25]])
    made: Any = torch.onnx.export(
        Keeping().eval(),
        (m,),
        dynamo=True,
        verbose=False,
        custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
    )
    running = onnxruntime.InferenceSession(made.model_proto.SerializeToString())
    (keep,) = running.run(None, {running.get_inputs()[0].name: m.numpy()})
    assert (keep == cdf_threshold(m, 0.45).numpy()).all() and keep[0].tolist()[:4] == [False, True, True, False]


# ------------------------------------------------------------------------------------------------------------ bad input


def test_what_cannot_be_written(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    cnn = timm.create_model("test_resnet", num_classes=5).eval()
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (nn.Linear(2, 2), {}, UnsupportedModelError, "no model family"),
        (3, {}, InputError, "a model name, folder or module"),
        (tmp_path / "nowhere", {}, InputError, "known to timm"),
        (
            vit(),
            {"method": "grad-cam"},
            UnsupportedModelError,
            "needs gradients; for VisionTransformer take ts-cam or trt-f",
        ),
        (cnn, {}, UnsupportedModelError, "'grad-cam' needs gradients; for test_resnet take cam$"),
        (
            vit(),
            {"method": "score-cam"},
            UnsupportedModelError,
            "one pass forward was needed, but 'score-cam' needs many forwards",
        ),
        (vit(), {"method": "cam", "refine": "ncut"}, UnsupportedModelError, "eigenvectors"),
        (vit(), {"method": "cma"}, InputError, "did you mean"),
        (vit(), {"size": 30}, InputError, "32 x 32"),
        (vit(), {"size": "big"}, InputError, "size must be"),
        (vit(), {"threshold": 2}, InputError, "threshold"),
        (vit(), {"batch": 0}, InputError, "batch must be"),
        (vit(), {"batch": 1.5}, InputError, "batch must be"),
    ]
    for model, how, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            export_onnx(model, out, **how)
        assert "\n" not in str(caught.value) and not out.exists()


def test_a_network_that_onnx_has_no_word_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.onnx

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a long story") from ValueError("no word for aten.fold\nand more")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(
        UnsupportedModelError, match=r"'cam' cannot be written as ONNX: no word for aten.fold;"
    ) as caught:
        export_onnx(vit(), tmp_path / "model.onnx", method="cam")
    assert "\n" not in str(caught.value)


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (tmp_path, tmp_path / "nowhere" / "model.onnx"):
        with pytest.raises(InputError, match="a file in a folder"):
            export_onnx(vit(), place)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(OutputError, match="no permission"):
        export_onnx(vit(), tmp_path / "model.onnx")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
        assert cli.main(["export", "--out", str(tmp_path / "model.onnx")]) == 2
        err = capsys.readouterr().err
        assert f"export needs {name}; pip install 'trt-cam[onnx]'" in err and err.count("\n") == 1
        monkeypatch.undo()
    monkeypatch.setattr("torch.__version__", "2.6.1+cpu")
    assert cli.main(["export", "--out", str(tmp_path / "model.onnx")]) == 2
    assert "export needs torch 2.7 or newer, got 2.6.1+cpu" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--batch", "many"], ["--size", "1", "2", "3"], ["--method", "x"], ["--batch", "0"]])
def test_words_of_the_command(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "--out", str(tmp_path / "model.onnx"), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
