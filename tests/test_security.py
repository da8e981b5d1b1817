"""What SECURITY.md promises: its tests are there, and those that have no better place are here."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
from layers import FILES, name_of, tree_of

import trt_cam
from trt_cam.errors import WeightsError

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text("utf-8")
SAFE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False), "np.save": ("allow_pickle", False)}
NEVER = ("eval", "exec", "compile", "__import__", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system")
NEVER += ("pickle.load", "pickle.loads", "os.popen", "torch.hub.load", "np.genfromtxt")
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "subprocess", "xml.etree", "lxml", "pty"}


def test_every_test_that_is_named_is_there() -> None:
    rows = re.findall(r"^\| (\w.*) \| (.*) \|$", PAGE, flags=re.MULTILINE)
    assert len(rows) > 10
    for promise, tests in rows:
        named = re.findall(r"`(tests/test_\w+\.py)::(test_\w+)`", tests)
        assert named, f"no test for: {promise}"
        for file, test in named:
            assert re.search(rf"^ *def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), f"{file}::{test}"


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, Any]]]:
    """Calls by their dotted names, with keyword arguments that are constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {
                one.arg: one.value.value for one in node.keywords if one.arg and isinstance(one.value, ast.Constant)
            }
            yield ast.unparse(node.func), given


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_that_could_run_a_file_is_called(path: Path) -> None:
    tree = tree_of(path)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [one for one in imported if one in MODULES or one.startswith(tuple(f"{name}." for name in MODULES))]
    for name, given in calls(tree):
        assert name not in NEVER, f"{name_of(path)} calls {name}"
        word, value = SAFE.get(name, ("", None))
        assert given.get(word) is value, f"{name_of(path)}: {name} needs {word}={value}"


def test_such_a_call_would_be_seen() -> None:
    tree = ast.parse("torch.load(f, weights_only=True)\nnp.load(f)\nyaml.load(text)")
    found = dict(calls(tree))
    assert found == {"torch.load": {"weights_only": True}, "np.load": {}, "yaml.load": {}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    net = trt_cam.TRTLocalizer(timm.create_model("test_vit", num_classes=3))
    net.save_pretrained(tmp_path / "net")
    return tmp_path / "net"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "hf-hub:owner/name"},
        {"name": "local-dir:elsewhere"},
        {"settings": {"checkpoint_path": "elsewhere.pth"}},
        {"settings": {"pretrained_cfg": {"file": "elsewhere.pth"}}},
        {"settings": {"cache_dir": "elsewhere"}},
    ],
)
def test_a_config_opens_nothing_else(change: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["backbone"].update(change)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was asked"))
    with pytest.raises(WeightsError, match="would open other files; write the folder again") as caught:
        trt_cam.TRTLocalizer.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_a_notebook_shows_names_as_text(tmp_path: Path) -> None:
    net: Any = timm.create_model("test_vit", num_classes=3).eval()
    photo = tmp_path / "<script>alert(1)<" / "b.jpg"
    photo.parent.mkdir()
    photo.write_bytes((ROOT / "trt_cam" / "assets" / "coffee.jpg").read_bytes())
    shown = trt_cam.localize(photo, model=net, method="rollout")._repr_html_()
    assert "&lt;script&gt;" in shown and "<script" not in shown
