"""The site of docs/: links of the repository's pages, what the check of a built site finds, and what must be in it.

The site itself is built, with warnings as errors, and checked by `make docs`.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import trt_cam

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TRACKED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
PAGES = [ROOT / name for name in TRACKED] or sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
MADE = ("gallery.md", "command-line.md", "notebooks/")  # while the site is built


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(
        r"^( *)(`{3,})(?!\{).*?^\1\2`*$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def links(page: Path) -> Iterator[str]:
    yield from re.findall(r"\]\(<?([^)\s>]+)>?\)", re.sub(r"`[^`\n]*`", "", prose(page)))


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,4} (.+)$", prose(page), flags=re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.append(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return {slug + (f"-{found[:at].count(slug)}" if slug in found[:at] else "") for at, slug in enumerate(found)}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_of_a_page(page: Path) -> None:
    wrong = []
    for link in links(page):
        path, _, place = link.partition("#")
        if "://" in link:
            wrong += [] if link.startswith("https://") else [f"{link}: not https"]
            continue
        target = (page.parent / path).resolve() if path else page
        if page.parent == DOCS and path.startswith(MADE):
            continue
        if not target.exists():
            wrong.append(f"{link}: no such file")
        elif place and target.suffix == ".md" and place not in slugs(target):
            wrong.append(f"{link}: no such heading")
    assert wrong == []


def test_every_page_has_its_place_in_the_navigation() -> None:
    listed = {
        entry.partition("<")[2].rstrip(">") or entry
        for page in DOCS.glob("*.md")
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for entry in block.splitlines()
        if entry and not entry.startswith(":")
    }
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    notebooks = {f"notebooks/{one.stem}" for one in (ROOT / "examples").glob("*.ipynb")}
    made = {"gallery", "command-line"}
    assert listed == pages | notebooks | made


def test_every_public_name_is_in_the_reference() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in DOCS.glob("reference-*.md"))
    documented = set(re.findall(r"\.\. auto\w+:: trt_cam\.(\w+)$", text, flags=re.MULTILINE))
    assert set(trt_cam.__all__) - documented == set()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "style.css").write_text("a { background: url(a.png) }")
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(
        '<link href="style.css"><img src="a.png"><h1 id="top">a</h1><a href="#top">a</a>'
        '<a href="sub/b.html#here">b</a>'
        '<a href="https://arxiv.org/abs/2208.01838">c</a><a href="mailto:a@b.c">d</a>'
    )
    (tmp_path / "sub" / "b.html").write_text('<p id="here"><a href="../index.html#top">a</a></p>')
    return tmp_path


def test_a_site_without_a_problem(site: Path) -> None:
    external: set[str] = set()
    assert list(load(DOCS / "check_links.py").problems(site, external)) == []
    assert external == {"https://arxiv.org/abs/2208.01838"}


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ('<a href="gone.html">', "gone.html leads to no file"),
        ('<a href="#gone">', "#gone leads to no place in that page"),
        ('<a href="sub/b.html#gone">', "sub/b.html#gone leads to no place in that page"),
        ('<img src="gone.png">', "gone.png leads to no file"),
        ('<img src="https://cdn.org/a.png">', "loads https://cdn.org/a.png from elsewhere"),
        ('<script src="//cdn.org/a.js"></script>', "loads //cdn.org/a.js from elsewhere"),
        ('<a href="http://arxiv.org">', "http://arxiv.org is not https://host/..."),
        ('<a href="https://arxiv">', "https://arxiv is not https://host/..."),
    ],
)
def test_a_site_with_one_problem(site: Path, added: str, told: str) -> None:
    with (site / "index.html").open("a") as file:
        file.write(added)
    found = list(load(DOCS / "check_links.py").problems(site, set()))
    assert f"index.html: {told}" in found and len(found) == 1 + found[0].startswith("index.html: loads //")


def test_a_font_from_elsewhere(site: Path) -> None:
    (site / "style.css").write_text("@import url('https://fonts.org/a.css');")
    assert list(load(DOCS / "check_links.py").problems(site, set())) == [
        "style.css: loads https://fonts.org/a.css from elsewhere"
    ]


def test_a_formula_is_mathml() -> None:
    pytest.importorskip("latex2mathml", reason="needs the site's packages: pip install '.[docs]'")
    pytest.importorskip("sphinx", reason="needs the site's packages: pip install '.[docs]'")
    from docutils import nodes

    made = load(DOCS / "extensions" / "mathml.py").mathml(nodes.math("", r"\frac{a}{b}"), "inline")
    assert made.startswith("<math") and re.sub("</?mrow>", "", made).endswith(
        "<mfrac><mi>a</mi><mi>b</mi></mfrac></math>"
    )


def test_the_page_of_commands_has_each_of_them() -> None:
    pytest.importorskip("sphinx", reason="needs the site's packages: pip install '.[docs]'")
    text = load(DOCS / "extensions" / "commands.py").page()
    from trt_cam.cli import COMMANDS

    assert len(re.findall(r"^## trt-cam \w", text, flags=re.MULTILINE)) >= len(COMMANDS)
    assert max(map(len, text.splitlines())) <= 120
