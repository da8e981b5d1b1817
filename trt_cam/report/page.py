"""One self-contained page of a finished run: figures, curves, errors, photos; it needs no network and no server."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from trt_cam.data.catalog import load_dataset
from trt_cam.data.samples import DataSet
from trt_cam.errors import DatasetError, InputError
from trt_cam.metrics.localization import KINDS
from trt_cam.metrics.records import LocalizationResults
from trt_cam.ops._checks import check_count
from trt_cam.report.differences import differences
from trt_cam.report.drawn import OUTLINE, as_text, distinct
from trt_cam.report.gallery import Gallery, gallery
from trt_cam.report.overlay import colours
from trt_cam.report.published import beside
from trt_cam.report.recorded import Recorded
from trt_cam.runs import write_whole

SCRIPTS = ("base", "table", "plots", "photos", "page")  # one after another: each uses those before it
HEAT = "inferno"  # even steps of lightness: it reads the same for the colour-blind


@dataclass(frozen=True)
class Page:
    """Where a page was written, and what it lacks."""

    path: Path
    notes: list[str]


def write_page(
    run: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    options: Mapping[str, str] | None = None,
    out: str | os.PathLike[str] | None = None,
    photos: int | None = None,
) -> Page:
    """Make the page of a run.

    Parameters
    ----------
    run
        Folder that an evaluation wrote.
    data, options
        Where its data set lies now, and options of `load_dataset`; by default where it was. Where its photos are gone,
        the page has none, and says so.
    out
        File; by default ``report.html`` in the run's folder.
    photos
        In each of a method's best, median and worst; by default 8, fewer where the page would get too large to open.

    Raises
    ------
    InputError
        The folder holds no finished run, or ``data`` was given and is no such data set.
    DatasetError
        A file of the run is damaged, or ``data`` was given and holds other photos.
    OutputError
        The page cannot be written.
    """
    if photos is not None:
        check_count(photos, "photos", 1)
    held = Recorded.read(Path(run))
    shown, notes = pictures(held, data, options or {}, photos)
    text = assembled(title_of(held), content(held, shown, notes))
    path = Path(out) if out is not None else held.folder / "report.html"
    write_whole(path, lambda file: file.write(text))
    return Page(path, notes)


def pictures(
    run: Recorded, data: str | os.PathLike[str] | None, options: Mapping[str, str], photos: int | None
) -> tuple[Gallery, list[str]]:
    """The photos, or why there are none."""
    try:
        found = gallery(run, opened(run, data, options), photos)
    except (InputError, DatasetError) as error:
        if data is not None or "damaged" in str(error):
            raise
        return Gallery(), [f"There are no photos on this page; {error}."]
    lost = sum(photo["thumb"] is None for photo in found.photos)
    why = f"; {found.unreadable[0]}." if found.unreadable else ""
    if lost == len(found.photos):
        return Gallery(), [f"There are no photos on this page{why}"]
    return found, [f"{lost} of {len(found.photos)} photos on this page could not be read{why}"] if lost else []


def opened(run: Recorded, data: str | os.PathLike[str] | None, options: Mapping[str, str]) -> DataSet:
    """The data set of a run."""
    held = run.metrics.get("data")
    if held is None and data is None:
        raise InputError("the run does not say where its data set lies; give --data")
    known = held or {"kind": "auto", "split": run.identity["data"]["split"], "photos_root": None}
    more = dict(options)
    if data is None and known["photos_root"] is not None:
        more.setdefault("photos_root", known["photos_root"])
    return load_dataset(Path(data) if data is not None else Path(known["root"]), known["kind"], known["split"], **more)


def title_of(run: Recorded) -> str:
    """What was evaluated, by what."""
    data, count = run.identity["data"], len(run.names)
    part = f", {data['part']} photos" if data.get("part") else ""
    what = run.names[0] if count == 1 else f"{count} methods"
    return f"{data['name']}, {data['split']}{part}: {what} on {run.identity['model']['name']}"


def content(run: Recorded, shown: Gallery, notes: list[str]) -> dict[str, Any]:
    """All that the page shows, as JSON holds it."""
    first, sources = run.results[0], run.sources()
    scores = list(run.metrics["methods"][0]["figures"][sources[0]]["scores"])
    boxes = isinstance(first, LocalizationResults)
    return {
        "title": title_of(run),
        "identity": run.identity,
        "protocol": {"name": first.protocol.name, "headline": run.headline, "boxes": boxes},
        "sources": sources,
        "source": run.metrics["threshold"],
        "thresholds": np.round(first.thresholds, 6).tolist(),
        "levels": distinct(first.thresholds)[1].tolist(),
        "grid": first.protocol.grid if boxes else OUTLINE,
        "wide": first.protocol.grid >= 256,
        "kinds": list(KINDS),
        "methods": [method_of(method, sources) for method in run.metrics["methods"]],
        "pairs": {source: differences(run, source) for source in sources},
        "quality": [as_text(np.floor(np.nan_to_num(run.quality(n)) * 100 + 1e-9).astype(np.uint8)) for n in each(run)],
        "failed": run.metrics["failed"],
        "photos": shown.photos,
        "lists": shown.lists,
        "colours": as_text(colours(np.linspace(0, 1, 256)[None], HEAT)),
        "published": beside(scores, run.identity["data"]["name"], run.metrics["photos"]),
        "notes": notes,
    }


def each(run: Recorded) -> range:
    """Numbers of the methods."""
    return range(len(run.names))


def method_of(method: Mapping[str, Any], sources: list[str]) -> dict[str, Any]:
    """One method's figures, in fewer digits; curves do not depend on where thresholds come from."""
    first = method["figures"][sources[0]]
    kept = ("scores", "baselines", "boxes", "by_size", "errors", "iou_histogram")
    figures = {
        source: {name: short(method["figures"][source][name]) for name in kept if name in method["figures"][source]}
        for source in sources
    }
    splits = {source: method["figures"][source].get("thresholds", {}).get("split", "") for source in sources}
    return {name: method[name] for name in ("name", "refine", "settings")} | {
        "figures": figures,
        "curves": short(first["curves"]),
        "splits": splits,
    }


def short(value: Any) -> Any:
    """Figures as ``[value, low, high, threshold]``, numbers of three digits after the point."""
    if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
        return [short(value[name]) for name in ("value", "low", "high", "threshold")]
    if isinstance(value, dict):
        return {name: short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [short(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


def assembled(title: str, shown: Mapping[str, Any]) -> bytes:
    """The page: a template with its style, its script and its data in it; nothing else may run."""
    style, script = asset("page.css"), "\n".join(asset(f"{name}.js") for name in SCRIPTS)
    # No tag can begin inside JSON once "<" is written by its number.
    data = json.dumps(shown, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    policy = f"default-src 'none'; img-src data:; style-src {digest(style)}; script-src {digest(script)}"
    parts = {"title": html.escape(title), "policy": policy, "style": style, "script": script, "data": data}
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], asset("page.html"))
    return page.encode("utf-8", "xmlcharrefreplace")


def digest(text: str) -> str:
    """A text's hash as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def asset(name: str) -> str:
    """A file that ships with this package."""
    return resources.files("trt_cam.report.web").joinpath(name).read_text(encoding="utf-8")
