"""What is released: the wheel holds the package, its model and licences, nothing else, and works from anywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import trt_cam

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LARGEST = 18_000_000
NOT_SOURCES = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "runs", "_build", "notebooks")
DATA = {
    *("py.typed", "assets/model.safetensors", "assets/config.json", "assets/README.md", "assets/coffee.jpg"),
    *("assets/PHOTO_CREDIT.txt", "assets/published.json"),
    *(f"report/web/{name}" for name in ("base.js", "page.css", "page.html", "page.js", "photos.js", "plots.js")),
    "report/web/table.js",
}


def build(source: Path, out: Path, *what: str) -> None:
    """As ``make dist`` does, but with the setuptools that is here, since an isolated build fetches its own."""
    words = ["--no-isolation", "--outdir", str(out), *what, str(source)]
    done = subprocess.run([sys.executable, "-m", "build", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, and the wheel that is built from it."""
    source = shutil.copytree(ROOT, tmp_path_factory.mktemp("tree") / "trt_cam", ignore=NOT_SOURCES)
    out = tmp_path_factory.mktemp("dist")
    build(source, out)
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def facts(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_is_the_package_with_its_data(wheel: zipfile.ZipFile) -> None:
    facts = f"trt_cam-{trt_cam.__version__}.dist-info/"
    names = {name for name in wheel.namelist() if not name.startswith(facts)}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "trt_cam").rglob("*.py")}
    assert names == modules | {f"trt_cam/{name}" for name in DATA}
    assert {name.removeprefix(facts) for name in wheel.namelist()} - names >= {"licenses/LICENSE", "licenses/NOTICE"}


def test_the_wheel_is_small_and_for_every_machine(dist: Path) -> None:
    (path,) = dist.glob("*.whl")
    assert path.name == f"trt_cam-{trt_cam.__version__}-py3-none-any.whl"
    assert path.stat().st_size <= LARGEST


def test_what_the_index_shows(facts: Message) -> None:
    assert facts["Name"] == "trt-cam" and facts["Version"] == trt_cam.__version__
    assert facts["Summary"] == PROJECT["description"] and facts["License-Expression"] == "Apache-2.0"
    assert facts["Author"] == "The trt_cam authors" and facts["Author-email"] is None
    assert facts["Requires-Python"] == PROJECT["requires-python"]
    assert facts["Description-Content-Type"] == "text/markdown"
    assert facts.get_payload() == (ROOT / "README.md").read_text("utf-8")
    assert set(facts.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    plain = [one for one in facts.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert sorted(plain) == sorted(PROJECT["dependencies"])


def test_no_address_of_a_person_or_machine(facts: Message) -> None:
    text = facts.as_string()
    addresses = re.findall(r"https?://([\w.-]+)", text)
    assert "arxiv.org" in addresses and not [one for one in addresses if "." not in one or one[0].isdigit()]
    assert not re.findall(r"[\w.]+@[\w-]+\.[a-z]{2,}", text) and "/home/" not in text and "localhost" not in text


def test_commands_and_plugins(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "trt-cam = trt_cam.cli:main" in wheel.read(name).decode()


def test_the_sources_have_tests_pages_and_examples(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    files = ["LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff"]
    needed = ["pyproject.toml", "Makefile", "docs/architecture.md", "docs/pictures/layers.svg"]
    theirs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.*") if path.suffix != ".pyc"}
    assert {*files, *needed, *theirs, "examples/plugin/norm_attention.py", "examples/first_steps.ipynb"} <= names
    assert not [name for name in names if name.startswith((".", "docs/_build")) or "__pycache__" in name]


def test_the_tree_gives_the_wheel_that_its_source_distribution_gives(
    dist: Path, wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    source = shutil.copytree(ROOT, tmp_path / "tree", ignore=NOT_SOURCES)
    build(source, tmp_path / "out", "--wheel")
    (path,) = (tmp_path / "out").glob("*.whl")
    again = zipfile.ZipFile(path)
    assert sorted(again.namelist()) == sorted(wheel.namelist())
    assert [name for name in wheel.namelist() if again.read(name) != wheel.read(name)] == []


def test_it_works_from_anywhere(dist: Path, tmp_path: Path) -> None:
    (path,) = dist.glob("*.whl")
    words = ["--no-deps", "--no-index", "--disable-pip-version-check", "--quiet", "--target", str(tmp_path / "site")]
    subprocess.run([sys.executable, "-m", "pip", "install", *words, str(path)], check=True)
    script = (
        "import pathlib, trt_cam; home = pathlib.Path(trt_cam.__file__).parent; print(home)\n"
        "found = trt_cam.localize(home / 'assets' / 'coffee.jpg', size=96)\n"
        "print(len(found.boxes), found.heat.shape, found.save('found.png'))\n"
    )
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.splitlines() == [str(tmp_path / "site" / "trt_cam"), "1 (400, 600) found.png"], done.stderr
    assert (tmp_path / "found.png").exists()
