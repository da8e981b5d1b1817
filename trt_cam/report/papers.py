"""Figures of a run for papers: intervals, threshold curves, kinds of error, overlaps; as PDF and SVG, text as text."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trt_cam.errors import InputError
from trt_cam.evaluation.tables import COLUMNS, SQUARES
from trt_cam.report.recorded import Recorded
from trt_cam.runs import write_whole, writing

KINDS = ("pdf", "svg", "png")
# As on the page: eight colours that stay apart for the colour-blind, and dashes that tell the next eight from them.
COLOURS = ("#112f72", "#cc7d00", "#0f9a86", "#e910d5", "#664913", "#256982", "#7041f9", "#6b0f2e")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
ERRORS = {
    "right": ("right", "#2f7fc1"),
    "cls_wrong": ("class wrong", "#8d939c"),
    "multi_instances": ("several objects in one box", "#b79be0"),
    "region_part": ("part of the object", "#f2c230"),
    "region_more": ("more than the object", "#e8823a"),
    "region_wrong": ("elsewhere", "#a3243f"),
}
_SETTINGS: Any = {
    "pdf.fonttype": 42,  # editable text
    "svg.fonttype": "none",
    "svg.hashsalt": "trt_cam",  # the same file from the same run
    "text.parse_math": False,  # names are what they are
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_WIDTH = 3.4  # inches of a column


def check_kinds(kinds: Sequence[str]) -> list[str]:
    """Kinds of files, each once."""
    found = list(dict.fromkeys(kind.strip().lower() for kind in kinds))
    for kind in found:
        if kind not in KINDS:
            raise InputError(f"figures come as {', '.join(KINDS)}, got {kind!r}")
    return found


def write_figures(run: str | os.PathLike[str], kinds: Sequence[str] = ("pdf", "svg")) -> list[Path]:
    """Draw a finished run's figures into its folder ``figures``.

    Parameters
    ----------
    run
        Folder that an evaluation wrote.
    kinds
        Of `KINDS`.

    Raises
    ------
    InputError
        The folder holds no finished run, or a kind is unknown.
    OutputError
        The files cannot be written.
    """
    kinds, held = check_kinds(kinds), Recorded.read(Path(run))
    folder, paths = held.folder / "figures", []
    with writing(folder):
        folder.mkdir(exist_ok=True)
    with matplotlib.rc_context(_SETTINGS):
        for name, draw in drawings(held).items():
            for kind in kinds:
                path = folder / f"{name}.{kind}"
                content = saved(draw(held), kind)
                write_whole(path, lambda file, content=content: file.write(content))  # type: ignore[misc]
                paths.append(path)
    return paths


def drawings(run: Recorded) -> dict[str, Callable[[Recorded], Figure]]:
    """What can be drawn of a run."""
    if run.identity["protocol"] == "pxap":
        return {"intervals": intervals, "precision_recall": precision_recall}
    return {"intervals": intervals, "curves": curves, "errors": errors, "iou": overlaps}


def saved(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a file, without the date."""
    stream = io.BytesIO()
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
    figure.savefig(stream, format=kind, dpi=300, bbox_inches="tight", pad_inches=0.02, metadata=dates)
    return stream.getvalue()


def intervals(run: Recorded) -> Figure:
    """The headline of each method, its 95 % interval, and the baseline to beat."""
    figure, axes = _axes(0.22 * len(run.names) + 0.7)
    shown = _shown(run)
    name = run.headline
    order = sorted(range(len(shown)), key=lambda number: shown[number]["scores"][name]["value"])
    for place, number in enumerate(order):
        one = shown[number]["scores"][name]
        ends = [[one["value"] - one["low"]], [one["high"] - one["value"]]]
        axes.errorbar(one["value"], place, xerr=ends, fmt="o", ms=4, lw=1.3, color=_colour(number), clip_on=False)
    axes.axvline(shown[0]["baselines"][SQUARES[name]]["value"], color="0.5", lw=0.8, ls=":", zorder=0)
    axes.set_yticks(range(len(order)), [run.names[number] for number in order])
    axes.set_xlabel(f"{COLUMNS[name]}, percent (dotted: {'map of the middle' if name == 'pxap' else 'centred square'})")
    return figure


def curves(run: Recorded) -> Figure:
    """GT-known at IoU 0.5 over the threshold; dots where each method's own is."""
    figure, axes = _axes(2.2)
    for number, one in enumerate(_shown(run)):
        xs, ys = one["curves"]["thresholds"], one["curves"]["gt_known_50"]
        axes.plot(xs, ys, lw=1.2, color=_colour(number), ls=_dash(number), label=run.names[number])
        score = one["scores"]["gt_known_50"]
        axes.plot(score["threshold"], score["value"], "o", ms=3.5, color=_colour(number))
    axes.set(xlabel="threshold, a share of the map's maximum", ylabel="GT-known 0.5, percent", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    return _with_legend(figure, axes)


def precision_recall(run: Recorded) -> Figure:
    """Precision over recall of pixels."""
    figure, axes = _axes(2.2)
    for number, one in enumerate(_shown(run)):
        pairs = zip(one["curves"]["recall"], one["curves"]["precision"], strict=True)
        points = [pair for pair in pairs if None not in pair]
        axes.plot(*zip(*points, strict=True), lw=1.2, color=_colour(number), ls=_dash(number), label=run.names[number])
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    return _with_legend(figure, axes)


def errors(run: Recorded) -> Figure:
    """Photos of each kind of error, in percent, a bar for each method."""
    figure, axes = _axes(0.26 * len(run.names) + 0.5)
    shown = _shown(run)
    names = run.names[::-1]
    left = [0.0] * len(names)
    for kind, (label, colour) in ERRORS.items():
        if kind not in shown[0]["errors"]:
            continue
        width = [one["errors"][kind] * 100 / one["photos"] for one in reversed(shown)]
        axes.barh(names, width, left=left, color=colour, label=label, height=0.7, edgecolor="white", linewidth=0.4)
        left = [start + more for start, more in zip(left, width, strict=True)]
    axes.set(xlabel="percent of photos", xlim=(0, 100))
    return _with_legend(figure, axes)


def overlaps(run: Recorded) -> Figure:
    """Photos by the IoU of their one box, in percent, a step for each twentieth."""
    figure, axes = _axes(2.2)
    for number, one in enumerate(_shown(run)):
        held = one["iou_histogram"]
        share = [count * 100 / one["photos"] for count in held["counts"]]
        axes.stairs(share, held["edges"], lw=1.2, color=_colour(number), ls=_dash(number), label=run.names[number])
    axes.set(xlabel="IoU of the one box", ylabel="percent of photos", xlim=(0, 1))
    return _with_legend(figure, axes)


def _shown(run: Recorded) -> list[dict[str, Any]]:
    """Each method's figures at the thresholds that the run reports."""
    return [method["figures"][run.metrics["threshold"]] for method in run.metrics["methods"]]


def _axes(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _with_legend(figure: Figure, axes: Any) -> Figure:
    handles, labels = axes.get_legend_handles_labels()
    rows = -(-len(labels) // 2)
    figure.set_figheight(figure.get_figheight() + 0.14 * rows)
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=7)
    return figure


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _dash(number: int) -> Any:
    return DASHES[number // len(COLOURS) % len(DASHES)]
