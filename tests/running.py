"""Runs the blocks that ``pages.py`` finds, and remembers what they made, for the tests that look at it."""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
import tomllib
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import stand_ins
import torch
from pages import ROOT, Block, blocks_of, commands

from trt_cam import cli

PACKAGES = {  # that no page can count on, by the module that a block imports
    "captum": "captum",
    "datasets": "datasets",
    "ipywidgets": "ipywidgets",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "pytorch_grad_cam": "grad-cam",
    "quantus": "quantus",
    "ray": "ray",
    "tensorboard": "tensorboard",
    "torchcam": "torchcam",
    "transformers": "transformers",
}
PARSED = {"awk", "cd", "cp", "docker", "export", "git", "ls", "mkdir"}
"""Programs of which only the words are split: what they do is no matter of this repository."""

SMALL = {  # words that make a command of a page small
    "train": "--from-scratch --size 64 --batch-size 2 --epochs 1 --threads 1",
    "evaluate": "--limit 3 --interval 0.1",
}


@dataclass
class Ran:
    """What a page left: its names, its folder, what its commands said (words, stdout and stderr), what was left out."""

    page: str
    folder: Path
    names: dict[str, Any]
    said: list[tuple[list[str], str]] = field(default_factory=list)
    printed: str = ""
    left_out: dict[str, str] = field(default_factory=dict)  # by place
    keeper: Any = None


@functools.cache
def ran(page: str) -> Ran:
    """Run a page once; those who ask again get the same."""
    return run_text((ROOT / page).read_text(encoding="utf-8"), page)


def run_text(text: str, page: str) -> Ran:
    """Run the blocks of a text, from top to bottom."""
    blocks, keeper = blocks_of(text, page), tempfile.TemporaryDirectory(prefix="page-")
    module = types.ModuleType(re.sub(r"\W", "_", f"page_{page}"))
    found = Ran(page, Path(keeper.name), vars(module), keeper=keeper)
    with pytest.MonkeyPatch.context() as patch, prepared(found.folder, text, patch):
        patch.setitem(sys.modules, module.__name__, module)
        failed: set[str] = set()  # sections with a block that lacks a package: what follows may build on it
        for block in blocks:
            if block.language not in ("python", "sh"):
                continue
            missing = missing_package(block) or ("what is left out above it" if block.section in failed else "")
            if block.needs:
                (check_python if block.language == "python" else check_commands)(block)
            elif missing:
                failed.add(block.section)
                found.left_out[f"{block.page}:{block.line}"] = missing
            else:
                (run_python if block.language == "python" else run_commands)(block, found)
    return found


@contextlib.contextmanager
def prepared(folder: Path, text: str, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder furnished and entered; whatever a page changes in this process is put back."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        stand_ins.replace(patch, folder, text)
        stand_ins.furnish(folder, text)
        patch.chdir(folder)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def missing_package(block: Block) -> str:
    """A package that a block needs and that is not installed."""
    if block.language == "python":
        nodes = list(ast.walk(parsed(block)))
        modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        modules += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    else:
        modules = ["onnx"] if "trt-cam export" in block.code else []
        modules += ["onnxruntime"] if "onnxruntime.py" in block.code else []
        modules += ["tensorboard"] if "--tensorboard" in block.code else []
    for name in (module.partition(".")[0] for module in modules):
        if name in PACKAGES and find_spec(name) is None:
            return f"the package {PACKAGES[name]}"
    return ""


def parsed(block: Block) -> ast.Module:
    try:
        return ast.parse(block.code)
    except SyntaxError as error:
        raise block.error(f"{error.msg}", block.line + (error.lineno or 0)) from None


def check_python(block: Block) -> None:
    compile(parsed(block), block.page, "exec")


def run_python(block: Block, found: Ran) -> None:
    """In the page's namespace; a traceback shows the page's lines."""
    tree, said = ast.increment_lineno(parsed(block), block.line), io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            exec(compile(tree, str(ROOT / block.page), "exec"), found.names)
    except Exception as error:
        frames, at = error.__traceback__, block.line
        while frames is not None:
            at = frames.tb_lineno if frames.tb_frame.f_code.co_filename.endswith(block.page) else at
            frames = frames.tb_next
        raise block.error(f"{type(error).__name__}: {error}", at) from error
    found.printed += said.getvalue()


def programs(line: str, block: Block) -> Iterator[list[str]]:
    """The programs that a line starts, each with its words."""
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError as error:
        raise block.error(f"{line!r}: {error}") from None
    for part in split(words):
        while part and re.fullmatch(r"\w+=\S*", part[0]):
            part = part[1:]
        if part:
            yield part


def split(words: list[str]) -> Iterator[list[str]]:
    """Words between the operators of a shell; what a program is redirected to is no word of it."""
    part: list[str] = []
    skip = False
    for word in words:
        if set(word) <= set("&|;()"):
            yield part
            part, skip = [], False
        elif set(word) <= set("<>"):
            skip = True
        elif skip:
            skip = False
        else:
            part.append(word)
    yield part


def ours(words: list[str]) -> list[str] | None:
    """The words after trt-cam, by whichever name it is started."""
    if words[0] == "trt-cam":
        return words[1:]
    for place, word in enumerate(words[:-1]):
        if (
            word == "-m"
            and words[0] in ("python", "torchrun", "srun")
            and words[place + 1] in ("trt_cam", "trt_cam.cli")
        ):
            return words[place + 2 :]
    return None


def check_commands(block: Block) -> None:
    for number, line in commands(block.code):
        for words in programs(line, block):
            own = ours(words)
            if own is None:
                check_other(words, block, block.line + number)
                continue
            said = io.StringIO()
            try:
                with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                    cli.build_parser().parse_args(own)
            except SystemExit as done:
                if done.code:
                    raise block.error(f"{shlex.join(words)}: {said.getvalue()}", block.line + number) from None


def run_commands(block: Block, found: Ran) -> None:
    """Those of this repository, in this process; of others only what concerns the repository is looked at."""
    for number, line in commands(block.code):
        for words in programs(line, block):
            own, place = ours(words), block.line + number
            if own is None and words[0] == "python" and words[1].startswith("examples/"):
                check_other(words, block, place)
                found.said.append((words, example(words[1:], block, place)))
            elif own is None and words[:2] == ["python", "-c"]:
                alone = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True)
                if alone.returncode:
                    raise block.error(f"{shlex.join(words)}: {alone.stderr}", place)
            elif own is None:
                check_other(words, block, place)
            else:
                found.said.append((own, command(own, block, place)))


def command(words: list[str], block: Block, place: int) -> str:
    """Run one of trt-cam's, made small; the exit code is 0, or 1 of a check of the small data sets."""
    small = SMALL.get(words[0], "").split() if words else []
    if words[:1] == ["evaluate"] and not {"--model", "--size"} & set(words) or "--faithfulness" in words:
        small += ["--size", "64"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main([*words, *small])
    if code != 0 and not (code == 1 and words[:2] == ["data", "check"]):
        raise block.error(f"trt-cam {shlex.join(words)} ends with {code}: {said.getvalue()}", place)
    return said.getvalue()


def example(words: list[str], block: Block, place: int) -> str:
    """Run one of the examples."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", words)
        patch.syspath_prepend(str(ROOT / "examples"))
        try:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        except SystemExit as done:
            if done.code:
                raise block.error(f"{shlex.join(words)} ends with {done.code}: {said.getvalue()}", place) from None
    return said.getvalue()


def check_other(words: list[str], block: Block, place: int) -> None:
    """What a command says of this repository is true: extras, targets, files and options are there."""
    name, rest = words[0], words[1:]
    if name == "python" and rest[:1] == ["-m"] and rest[1:2] in (["pip"], ["pytest"]):
        name, rest = rest[1], rest[2:]
    if name == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        wrong = [word for word in rest if not word.startswith("-") and "=" not in word and word not in targets]
    elif name == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [
            one
            for word in rest
            for some in re.findall(r"(?:^|trt-cam|\.)\[([\w,-]+)\]", word)
            for one in some.split(",")
        ]
        wrong = [one for one in named if one not in extras]
    elif name in ("pytest", "bash"):
        wrong = [word for word in rest if "/" in word and not (ROOT / word.partition("::")[0]).exists()]
    elif name == "python" and rest[:1] and rest[0].startswith("examples/"):
        wrong = [rest[0]] if not (ROOT / rest[0]).exists() else []
        source = (ROOT / rest[0]).read_text(encoding="utf-8") if not wrong else ""
        wrong += [word for word in rest[1:] if word.startswith("--") and f'"{word.partition("=")[0]}"' not in source]
    elif name in PARSED or words[:3] == ["python", "-m", "venv"] or name in ("source", ".", "ruff", "mypy", "python3"):
        wrong = []
    else:
        raise block.error(f"nobody runs {shlex.join(words)}", place)
    if wrong:
        raise block.error(f"{shlex.join(words)}: there is no {', '.join(wrong)}", place)
