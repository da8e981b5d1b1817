"""The files around the package: citation, contributing, templates and hooks say what is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import trt_cam

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
AUTHORS = ["Hui Su", "Yue Ye", "Zhiwei Chen", "Mingli Song", "Lechao Cheng"]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_the_citation() -> None:
    cited = read("CITATION.cff")
    assert cited["cff-version"] == "1.2.0" and cited["version"] == trt_cam.__version__
    assert cited["license"] == PROJECT["license"] and cited["authors"] == PROJECT["authors"]
    paper = cited["preferred-citation"]
    assert [f"{one['given-names']} {one['family-names']}" for one in paper["authors"]] == AUTHORS
    assert paper["year"] == 2022 and "BMVC" in paper["conference"]["name"]
    assert {"type": "other", "value": "arXiv:2208.01838"} in paper["identifiers"]
    assert paper["url"] == PROJECT["urls"]["Paper"]


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## \[?{re.escape(trt_cam.__version__)}\b", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "examples/plugin/README.md", ".ci/run"])
def test_what_a_page_names_is_there(page: str) -> None:
    path = ROOT / page
    text = path.read_text("utf-8")
    links = [one for one in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in one]
    files = re.findall(r"`((?:tests|trt_cam|docs|examples)/[\w./-]+)`", text)
    missing = [one for one in links if not (path.parent / one).exists()]
    missing += [one for one in files if "NAME" not in one and not (ROOT / one).exists()]
    assert not missing, missing
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    assert set(re.findall(r"`make ([\w-]+)`", text)) | set(re.findall(r"^make (\w+)$", text, re.M)) <= targets


def test_code_that_contributing_names_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    adding = text[text.index("## Adding") : text.index("## Style")]
    held = "\n".join(path.read_text("utf-8") for path in (ROOT / "trt_cam").rglob("*.py"))
    for name in ("REFINEMENTS", "PRESETS", "DataSet", "register_explainer"):
        assert name in adding and re.search(rf"^(class |def )?{name}\b", held, re.M), name
    folders = {"backbone": ("tokens", "spatial", "class_attention", "huggingface", "families"), "data": ("catalog",)}
    for folder, modules in folders.items():
        for module in modules:
            assert f"`{module}.py`" in adding and (ROOT / "trt_cam" / folder / f"{module}.py").exists(), module


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_forms_for_issues(form: Path) -> None:
    content = yaml.safe_load(form.read_text("utf-8"))
    if form.stem == "config":
        assert content == {"blank_issues_enabled": True}
        return
    assert content["name"] and content["description"] and content["labels"]
    ids = [field["id"] for field in content["body"]]
    assert len(set(ids)) == len(ids) and all(field["attributes"]["label"] for field in content["body"])
    assert {field["type"] for field in content["body"]} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert any(field.get("validations", {}).get("required") for field in content["body"])


def test_hooks_are_the_environments_own() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"  # another would be fetched
    assert [hook["entry"].split()[0] for hook in repository["hooks"]] == ["ruff", "ruff", "mypy"]
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    held = [one for one in PROJECT["optional-dependencies"]["test"] if one.startswith(("ruff", "mypy"))]
    assert len(held) == 2 and all("<" in one for one in held)
