"""What the command line says to somebody who errs: one line that says what was needed, what came and what to do."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from trt_cam import cli
from trt_cam.cli import evaluate, options, output, pseudo_label, train
from trt_cam.cli.parser import Parser

ROOT = Path(__file__).parent.parent
Run = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command line in a folder with a photo, a text, an empty folder and one that holds something."""
    Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    (tmp_path / "notes.txt").write_text("no picture\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    monkeypatch.chdir(tmp_path)

    def command(line: str) -> tuple[int, str, str]:
        code = cli.main(shlex.split(line))
        out, err = capsys.readouterr()
        return code, out, err

    return command


def parsers(parser: Parser | None = None) -> Iterator[Parser]:
    """All parsers, the outermost first."""
    parser = parser or cli.build_parser()
    yield parser
    for one in parser.commands.choices.values() if parser.commands is not None else ():
        yield from parsers(one)


LEAVES = [one for one in parsers() if one.commands is None]
NAMES = [one.prog.removeprefix("trt-cam ") for one in LEAVES]
HEAVY = ("torch", "timm", "matplotlib", "scipy", "numpy")

# ------------------------------------------------------------------------------------------------- words that are wrong

TRAIN = "train --data full --model test_vit --out new"
USAGE = {  # what is wrong: what is said of it, and where more is
    "": ("COMMAND needs one of localize, compare,", ""),
    "locate photo.jpg": ("got 'locate'; did you mean localize?", ""),
    "xyz": ("export, got 'xyz';", ""),
    "--verison": ("got --verison, which there is not; did you mean --version?", ""),
    "data": ("ACTION needs one of check, got none", "data"),
    "data chek full": ("did you mean check?", "data"),
    "localize": ("needed, but not given: PHOTO", "localize"),
    "train": ("needed, but not given: --out, --data, --model", "train"),
    "localize photo.jpg --mehtod trt": ("got --mehtod, which there is not; did you mean --method", "localize"),
    "localize photo.jpg --meth trt": ("got --meth, which there is not", "localize"),  # nothing is abbreviated
    "localize photo.jpg -x": ("got -x, which there is not", "localize"),
    "localize --no-such": ("got --no-such, which there is not", "localize"),  # before what is missing
    "data check full --picturs": ("did you mean --pictures", "data check"),
    "compare photo.jpg other.jpg": ("nothing more was needed, got 'other.jpg'", "compare"),
    "localize photo.jpg --method": ("--method needs a value, got none", "localize"),
    "localize photo.jpg --method --json": ("--method needs a value, got none", "localize"),
    "localize photo.jpg --json=yes": ("--json takes no value, got 'yes'", "localize"),
    "import net.pth --out new --mean 1 2": ("--mean needs 3 values", "import"),
    "localize ''": ("PHOTO needs a value, got ''", "localize"),
    "localize photo.jpg --method ''": ("--method needs a value, got ''", "localize"),
    "localize https://a.b/c.jpg": ("PHOTO needs a file, got the address https://a.b/c.jpg; download", "localize"),
    "compare photo.jpg --methods ,": ("--methods needs a name, or several separated by commas, got ','", "compare"),
    "localize photo.jpg --set u": ("--set needs NAME=VALUE, got 'u'", "localize"),
    "localize photo.jpg --set =1": ("--set needs NAME=VALUE, got '=1'", "localize"),
    "compare photo.jpg --set u=1": ("--set needs METHOD.NAME=VALUE, got 'u=1'", "compare"),
    "data check full --data-option a=": ("needs NAME=VALUE, got 'a='", "data check"),
    "localize photo.jpg --boxes larges": ("got 'larges'; did you mean largest?", "localize"),
    "localize photo.jpg --fit stretch": ("--fit needs one of squash, pad, crop, got 'stretch';", "localize"),
    "pseudo-label full --out new --format coco,vox": ("got 'vox'; did you mean voc?", "pseudo-label"),
    "report full --figures gif": ("--figures needs one of pdf, svg, png, got 'gif'", "report"),
    "localize photo.jpg --threshold nan": ("--threshold needs a share in [0, 1), such as 0.2, got 'nan'", "localize"),
    "localize photo.jpg --threshold -1": ("got '-1'", "localize"),
    "localize photo.jpg --threshold 1": ("got '1'", "localize"),
    "localize photo.jpg --threshold high": ("got 'high'", "localize"),
    "localize photo.jpg --batch-size 0": ("--batch-size needs a whole number of at least 1, got '0'", "localize"),
    "localize photo.jpg --batch-size 2.5": ("got '2.5'", "localize"),
    "localize photo.jpg --size 8193": ("--size needs a whole number of pixels from 1 to 8192, got '8193'", "localize"),
    "data check full --most -1": ("--most needs a whole number of at least 0, got '-1'", "data check"),
    "evaluate full --out new --threshold bst": ("--threshold needs best, from-val or a share in [0, 1)", "evaluate"),
    "evaluate full --out new --interval 0": ("--interval needs a number above 0 and below 1, got '0'", "evaluate"),
    "pseudo-label full --out new --min-size inf": ("--min-size needs a number of at least 0", "pseudo-label"),
    "pseudo-label full --out new --min-score 2": ("--min-score needs a number in [0, 1], got '2'", "pseudo-label"),
    f"{TRAIN} --lr inf": ("--lr needs a number above 0, got 'inf'", "train"),
    f"{TRAIN} --u 0": ("--u needs a share in (0, 1], such as 0.65, got '0'", "train"),
    f"{TRAIN} --val-share 0.6": ("--val-share needs a share from 0 to 0.5, got '0.6'", "train"),
    f"{TRAIN} --preset qick": ("did you mean quick?", "train"),
    "export --out new.onnx --batch many": ("--batch needs dynamic or a whole number of at least 1", "export"),
}


@pytest.mark.parametrize(("line", "said", "more"), [(line, *rest) for line, rest in USAGE.items()], ids=list(USAGE))
def test_words_that_are_wrong(run: Run, line: str, said: str, more: str) -> None:
    code, out, err = run(line)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("trt-cam: error: ") and said in err
    assert err.endswith(f"; see `{' '.join(['trt-cam', *more.split()])} --help`\n")


# -------------------------------------------------------------------------------- what only the files can tell

PLACES = {
    "localize photo.jpg --out notes.txt": (2, "--out needs a picture's file, got notes.txt; end it with .png"),
    "localize photo.jpg --out full/file": (2, "--out needs a folder, got the file full/file"),
    "localize photo.jpg --out new.xyz": (2, "got new.xyz; end it with .png or .jpg"),
    "localize photo.jpg photo.jpg notes.txt --out one.png": (2, "there are 2 photos; give a folder"),
    "localize photo.jpg --out notes.txt/new": (1, "cannot write to notes.txt/new"),
    "compare photo.jpg --out notes.txt": (2, "--out needs a picture's file"),
    "compare photo.jpg --out empty": (2, "--out needs a picture's file"),
    "compare empty": (1, "a photo was needed, got the folder empty, in which there is none"),
    "compare .": (1, "a photo was needed, got the folder .; name a file"),
    "compare notes.txt": (1, "not a picture"),
    "compare 'gone*.jpg'": (1, "gone*.jpg matches no file; check the pattern"),
    "compare gone.jpg": (1, "gone.jpg does not exist"),
    "data check gone": (2, "'gone' is no folder"),
    "data check notes.txt": (2, "'notes.txt' is no folder"),
    "data check empty": (1, "photos or a data set were needed in empty, which is empty; check the path"),
    "data check full": (1, "full holds no data set that is known; looked for"),
    "data check full --kind nope": (2, "unknown kind of data set 'nope'"),
    "evaluate gone --out new": (2, "'gone' is no folder"),
    "evaluate full --out notes.txt": (2, "--out needs a folder, got the file notes.txt; give another name"),
    "evaluate full --out new --study u --methods trt": (2, "--study and --methods do not go together"),
    "evaluate full --out new --study u --set trt.u=0.5": (2, "--study and --set do not go together"),
    "evaluate full --out new --threshold from-val": (2, "--threshold from-val needs other photos to choose on"),
    "evaluate full --out new --threshold 0.123": (2, "--threshold needs a multiple of --interval, 0.01, got 0.123"),
    "pseudo-label full --out notes.txt": (2, "--out needs a folder, got the file notes.txt"),
    "pseudo-label gone --out new": (2, "'gone' is no folder"),
    "pseudo-label empty --out new": (1, "photos or a data set were needed in empty, which is empty; check the path"),
    f"{TRAIN} --val empty --val-share 0.2": (2, "--val-share and --val do not go together"),
    f"{TRAIN} --val empty --val-share 0": (2, "--val-share and --val do not go together"),
    f"{TRAIN} --schedule steps --warmup 2": (2, "--schedule and --warmup do not go together"),
    f"{TRAIN} --views 2": (2, "--views needs --freeze-backbone"),
    f"{TRAIN} --classes gone.json": (2, "gone.json cannot be read so: No such file or directory"),
    f"{TRAIN} --classes notes.txt": (2, "notes.txt cannot be read so: Expecting value"),
    "train --data full --model test_vit --out notes.txt": (2, "--out needs a folder, got the file notes.txt"),
    "import empty --out new": (2, "a checkpoint's file was needed, got the folder empty"),
    "import notes.txt --out notes.txt": (2, "--out needs a folder, got the file notes.txt"),
    "import notes.txt --out new --classes gone": (2, "gone cannot be read so: No such file or directory"),
    "import notes.txt --out new --size 1 2 3": (2, "--size needs one number of pixels, or height and width, got 3"),
    "export --out new.onnx --size 1 2 3": (2, "--size needs one number of pixels, or height and width, got 3"),
}


@pytest.mark.parametrize(("line", "code", "said"), [(line, *rest) for line, rest in PLACES.items()], ids=list(PLACES))
def test_what_only_the_files_can_tell(run: Run, line: str, code: int, said: str) -> None:
    done, out, err = run(line)
    assert (done, out, err.count("\n")) == (code, "", 1), err
    assert err.startswith("trt-cam: error: ") and said in err
    assert not Path("new").exists()


def test_mistakes_are_told_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    """Words are checked before numpy, places before torch."""
    code = (
        "import sys; from trt_cam import cli; cli.main(sys.argv[1:]);"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    for line, allowed in (
        ("localize photo.jpg --threshold 2", set()),
        ("train --help", set()),
        ("evaluate gone --out new", {"numpy"}),
        ("localize photo.jpg --out new.xyz", {"numpy"}),
    ):
        words = [sys.executable, "-c", code, *line.split()]
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=True)
        assert set(done.stdout.splitlines()[-1].split()) <= allowed, line


# ------------------------------------------------------------------------------------------------------------- the help


@pytest.mark.parametrize("command", NAMES)
def test_the_help_teaches(run: Run, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, text, err = run(f"{command} --help")
    assert (code, err) == (0, "")
    parser = next(one for one in LEAVES if one.prog == f"trt-cam {command}")
    for action in parser._actions:
        assert len(action.help or "") > 7, f"{command} says nothing of {action.dest}"
        told = " ".join(text.split())
        if action.default not in (None, [], "==SUPPRESS==") and action.default is not False:
            assert "(default" in parser._get_formatter()._expand_help(action), f"{command}: default of {action.dest}"
        for choice in action.choices or ():
            assert choice in told
    assert f"trt-cam {command.split()[0]}" in text.split("examples:")[1]
    page = text.rstrip().rpartition("More is in ")[2].rstrip(".")
    assert (ROOT / page).is_file()
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("command", NAMES)
def test_the_examples_of_the_help_are_right(command: str) -> None:
    parser = next(one for one in LEAVES if one.prog == f"trt-cam {command}")
    lines = [line for line in (parser.epilog or "").splitlines() if line.startswith("  ")]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        words = words[words.index("trt_cam" if words[0] == "torchrun" else "trt-cam") + 1 :]
        assert cli.build_parser().parse_args(words).command


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        ("--help", "trt-cam COMMAND"),
        ("help", "trt-cam COMMAND"),
        ("help train", "trt-cam train"),
        ("help data check", "trt-cam data check"),
        ("data -h", "trt-cam data ACTION"),
        ("localize -h", "trt-cam localize"),
        ("localize photo.jpg --threshold -h", "trt-cam localize"),
        ("train --no-such --lr x --help", "trt-cam train"),
    ],
)
def test_help_is_had_anywhere(run: Run, line: str, usage: str) -> None:
    code, out, err = run(line)
    assert (code, err) == (0, "") and out.startswith(f"usage: {usage}")


def test_a_photo_may_have_the_name_of_an_option(run: Run) -> None:
    code, _, err = run("localize -- -h --version")
    assert code == 1 and "-h does not exist" in err and "--version does not exist" in err


def test_the_words_of_options_are_the_library_s() -> None:
    from trt_cam.data.frames import Fit
    from trt_cam.evaluation.studies import STUDIES
    from trt_cam.metrics.protocols import PRESETS as PROTOCOLS
    from trt_cam.ops.boxes import Select
    from trt_cam.pseudolabels.formats import FORMATS
    from trt_cam.refine import REFINEMENTS
    from trt_cam.report.papers import KINDS
    from trt_cam.training import schedules, settings

    assert set(options.BOXES) == set(get_args(Select))
    assert get_args(Fit) == options.FITS
    assert set(options.REFINEMENTS) == {"default", "none", *REFINEMENTS}
    assert set(evaluate.STUDIES) == set(STUDIES)
    assert set(evaluate.PROTOCOLS) == set(PROTOCOLS)
    assert set(pseudo_label.FORMATS) == {*FORMATS, "jsonl"}  # photos.jsonl is always written
    assert set(train.PRESETS) == set(settings.PRESETS)
    assert get_args(settings.Method) == train.METHODS
    words: dict[str, Any] = {name: given for name, given, _ in train.NAMES}
    assert words == {
        "schedule": schedules.SCHEDULES,
        "augment": get_args(settings.Augment),
        "precision": get_args(settings.Precision),
        "batch-norm": get_args(settings.BatchNorm),
    }
    report = next(one for one in LEAVES if one.prog == "trt-cam report")
    assert all(kind in (report._option_string_actions["--figures"].help or "") for kind in KINDS)


# ----------------------------------------------------------------------------------------- streams, and the unforeseen


def fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError("shapes do not fit\nat all")


def test_what_nobody_foresaw_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_cam.data.catalog.open_splits", fails)
    code, out, err = run("data check full")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "error: RuntimeError in data.py, line " in err and "shapes do not fit at all; this was not foreseen" in err
    monkeypatch.setenv(cli.TRACEBACK, "1")
    with pytest.raises(RuntimeError, match="shapes"):
        cli.main(["data", "check", "full"])


def test_a_file_that_the_system_refuses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", "full/list.txt")

    monkeypatch.setattr("trt_cam.data.catalog.open_splits", refuses)
    said = "trt-cam: error: full/list.txt cannot be read or written (Permission denied); check the path, its mode"
    code, _, err = run("data check full")
    assert code == 1 and err.startswith(said) and err.count("\n") == 1
    monkeypatch.setattr("os.access", lambda *_: False)
    code, _, err = run("compare photo.jpg")
    assert code == 1 and "photo.jpg cannot be read (no permission)" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("data check empty <&-", 1, "which is empty"),
        ("data check empty >&-", 1, "which is empty"),
        ("data check empty 2>&-", 1, ""),
        ("help train 2>&- | head -1", 0, "usage: trt-cam train"),
        ("help train | true", 0, ""),
    ],
)
def test_streams_that_are_closed(run: Run, line: str, code: int, said: str) -> None:
    done = subprocess.run(["bash", "-c", f"{sys.executable} -m trt_cam {line}"], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr, "ignored" in done.stderr) == (code, False, False)
    assert said in done.stdout + done.stderr and "error" not in done.stdout


def test_progress_and_errors_without_a_place_to_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert list(output.progress(["a", "b"], 2)) == ["a", "b"]
    output.complain("nobody reads this")
