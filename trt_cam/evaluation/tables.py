"""What an evaluation is written as: all figures as JSON and CSV, a line of JSON for each photo, a table to read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from trt_cam.backbone import class_names
from trt_cam.data.frames import frame_of
from trt_cam.data.samples import DataSet
from trt_cam.errors import InputError
from trt_cam.evaluation.measuring import Method, from_arrays
from trt_cam.evaluation.runner import Evaluation
from trt_cam.metrics.choices import BOX, Thresholds, position, resolve, search_threshold
from trt_cam.metrics.masks import MaskResults, mask_figures
from trt_cam.metrics.pairs import paired, paired_masks
from trt_cam.metrics.records import BoxTable, LocalizationResults
from trt_cam.metrics.summary import figures
from trt_cam.ops.boxes import boxes_from_map
from trt_cam.pipeline import own_threshold
from trt_cam.runs import write_whole
from trt_cam.targets import class_label

Choice = float | str | Thresholds
SQUARES = {
    "gt_known_50": "centred_square_50",
    "gt_known_70": "centred_square_70",
    "maxboxacc_v2": "centred_square_v2",
    "pxap": "centre",
}
COLUMNS = {
    "top1_cls": "Top-1 Cls",
    "top1_loc": "Top-1 Loc",
    "top5_loc": "Top-5 Loc",
    "gt_known_50": "GT-known 0.5",
    "gt_known_70": "GT-known 0.7",
    "maxboxacc_v2": "MaxBoxAccV2",
    "pxap": "PxAP",
}


def choices(evaluation: Evaluation, method: Method, threshold: float | None, val: Evaluation | None) -> dict[str, Any]:
    """Thresholds of a method by where they come from, as far as its protocol takes them from there.

    Parameters
    ----------
    threshold
        A fixed one for all methods; None is each method's own.
    val
        The same methods on another split.

    Returns
    -------
    dict
        Of "fixed", "best", "from-val", the published way first; for PxAP, which has no threshold, of "none".
    """
    results = evaluation.results[method.name]
    if isinstance(results, MaskResults):
        return {"none": None}
    tau = own_threshold(method.explain.model, method.explain.explainer.name, method.refine)
    listed = bool(np.isclose(results.thresholds, tau, atol=1e-9, rtol=0).any())
    found: dict[str, Any] = {}
    for source in results.protocol.sources:
        if source == "fixed" and (threshold is not None or listed):
            found[source] = tau if threshold is None else threshold
        elif source == "best":
            found[source] = source
        elif source == "from-val" and val is not None:
            others = val.results[method.name]
            assert isinstance(others, LocalizationResults)
            found[source] = search_threshold(others, split=split_name(val))
    return found


def split_name(evaluation: Evaluation) -> str:
    """What figures call the photos that thresholds were chosen on."""
    part = json.loads((evaluation.run.folder / "run.json").read_text())["data"]["part"]
    return f"{evaluation.data.name}, {evaluation.data.split}" + (f", {part} photos" if part else "")


def records(
    evaluation: Evaluation, *, threshold: float | None = None, val: Evaluation | None = None
) -> list[dict[str, Any]]:
    """Every figure of every method, as JSON holds it: one record for each."""
    found = []
    for method in evaluation.methods:
        results = evaluation.results[method.name]
        made: dict[str, Any] = {}
        for source, choice in choices(evaluation, method, threshold, val).items():
            all_ = mask_figures(results) if isinstance(results, MaskResults) else figures(results, choice)
            made[source] = asdict(all_)
        if not made:
            raise InputError(
                f"protocol {results.protocol.name!r} needs a threshold that is "
                f"{' or '.join(results.protocol.sources)}; give one, or a split to choose it on"
            )
        explainer = method.explain.explainer
        record = {"name": method.name, "method": explainer.name, "refine": method.refine, "settings": repr(explainer)}
        found.append(record | {"figures": made})
    return found


def differences(evaluation: Evaluation, source: str, threshold: float | None, val: Evaluation | None) -> list[Any]:
    """The first method less each other, on the same photos, as JSON holds it."""
    first, *others = evaluation.methods
    found = []
    for other in others:
        one, two = evaluation.results[first.name], evaluation.results[other.name]
        names = {"first": first.name, "second": other.name}
        if isinstance(one, MaskResults) and isinstance(two, MaskResults):
            found.append(names | asdict(paired_masks(one, two)))
        elif isinstance(one, LocalizationResults) and isinstance(two, LocalizationResults):
            chosen = tuple(choices(evaluation, method, threshold, val)[source] for method in (first, other))
            for score in dict.fromkeys(("gt_known_50", "gt_known_70", one.protocol.headline)):
                found.append(names | asdict(paired(one, two, (chosen[0], chosen[1]), score=score)))
    return found


def photo_lines(
    evaluation: Evaluation, source: str, threshold: float | None, val: Evaluation | None
) -> Iterator[dict[str, Any]]:
    """A line for each photo and method, in the order of batches; then the photos that failed."""
    taus: dict[str, float] = {}  # none for PxAP
    for method in evaluation.methods:
        results, choice = evaluation.results[method.name], choices(evaluation, method, threshold, val)[source]
        if isinstance(results, LocalizationResults):
            taus[method.name] = resolve(choice, results.table(), results).one[BOX]
    for arrays in evaluation.parts():
        for number, method in enumerate(evaluation.methods):
            if len(arrays["sizes"]):
                yield from lines_of(evaluation, method, number, arrays, taus.get(method.name))
    for name, reason in evaluation.failures:
        yield {"path": name, "error": reason}


def lines_of(
    evaluation: Evaluation, method: Method, number: int, arrays: Mapping[str, Any], tau: float | None
) -> Iterator[dict[str, Any]]:
    """The lines of one batch by one method."""
    results = from_arrays(arrays, number, type(evaluation.results[method.name]))
    table, names = results.table(), class_names(method.explain.model)
    for row, (height, width) in enumerate(arrays["sizes"].tolist()):
        chance, top = arrays[f"{number}/chances"][row].tolist()
        line = {"path": str(table.name[row]), "width": width, "height": height, "model": evaluation.model}
        line |= {"method": method.explain.explainer.name, "refine": method.refine}
        if isinstance(table, BoxTable) and tau is not None:
            heat = results.protocol.heat(arrays[f"{number}/maps"][row])
            frame = frame_of((height, width), (heat.shape[0], heat.shape[1]))
            boxes = frame.boxes_to_photo(boxes_from_map(heat, tau)).tolist()
            label, first = int(table.label[row]), int(table.classes[row, 0])
            line |= {"target": {"index": label, "name": class_label(label, names), "score": rounded(chance)}}
            line |= {"boxes": boxes, "scores": [rounded(chance)] * len(boxes), "threshold": tau}
            line |= {"iou": rounded(table.largest[row, position(results.thresholds, tau)])}
            if first >= 0:
                line |= {"predicted": {"index": first, "name": class_label(first, names), "score": rounded(top)}}
        yield line


def write(
    evaluation: Evaluation, *, threshold: float | str | None = None, val: Evaluation | None = None
) -> list[dict[str, Any]]:
    """Write ``metrics.json``, ``metrics.csv`` and ``photos.jsonl`` into the run's folder; returns the records.

    Parameters
    ----------
    threshold
        A number fixed beforehand, "best" or "from-val": whose boxes are in ``photos.jsonl``, and at which methods are
        compared. None is what the protocol publishes. All three are in the records as far as the protocol has them.
    val
        Where thresholds are chosen for "from-val".

    Raises
    ------
    InputError
        The protocol has no figures at such a threshold.
    OutputError
        The folder cannot be written.
    """
    fixed = None if threshold is None or isinstance(threshold, str) else float(threshold)
    rows = records(evaluation, threshold=fixed, val=val)
    source = shown(rows, threshold)
    pairs = differences(evaluation, source, fixed, val)
    whole = {"threshold": source, "photos": len(next(iter(evaluation.results.values()))), "methods": rows}
    whole |= {"failed": [list(one) for one in evaluation.failures], "paired": pairs}
    whole |= {"data": location(evaluation.data), "classes": classes_of(evaluation)}
    folder = evaluation.run.folder
    write_whole(folder / "metrics.json", lambda file: file.write(json.dumps(whole, allow_nan=False).encode()))
    write_whole(folder / "metrics.csv", lambda file: file.write(as_csv(rows).encode()))
    lines = photo_lines(evaluation, source, fixed, val)
    write_whole(
        folder / "photos.jsonl",
        lambda file: file.writelines(f"{json.dumps(line, allow_nan=False)}\n".encode() for line in lines),
    )
    return rows


def location(data: DataSet) -> dict[str, str | None]:
    """Where a data set lies: not part of the run's identity, so that it may be moved."""
    photos = None if data.photos_root is None else str(data.photos_root.resolve())
    return {"root": str(data.root.resolve()), "kind": data.kind, "split": data.split, "photos_root": photos}


def classes_of(evaluation: Evaluation) -> dict[int, str]:
    """The model's names of the classes that the photos have or were taken for, by index."""
    names, found = class_names(evaluation.methods[0].explain.model), set()
    for results in evaluation.results.values():
        if isinstance(results, LocalizationResults):
            table = results.table()
            found |= {*table.label.tolist(), *table.classes[:, 0].tolist()}
    return {index: name for index in sorted(found - {-1}) if (name := class_label(index, names)) is not None}


def shown(rows: list[dict[str, Any]], threshold: float | str | None) -> str:
    """Which figures are asked for: where their thresholds come from."""
    there = [source for source in rows[0]["figures"] if all(source in row["figures"] for row in rows)]
    if "none" in there:
        return "none"
    if threshold is None:
        return there[0]
    wanted = threshold if isinstance(threshold, str) else "fixed"
    if wanted not in there:
        raise InputError(f"figures at a threshold that is {wanted!r} are not to be had, only {' or '.join(there)}")
    return wanted


def as_csv(rows: list[dict[str, Any]]) -> str:
    """A line for each method, source of thresholds, group of photos and score."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(
        ["method", "refine", "settings", "source", "group", "score", "value", "low", "high", "photos", "threshold"]
    )
    for row in rows:
        for source, all_ in row["figures"].items():
            groups = {"all": all_["scores"] | all_["baselines"]} | all_["by_size"]
            for group, scores in groups.items():
                for name, one in scores.items():
                    if isinstance(one, dict):
                        values = [one[key] for key in ("value", "low", "high", "photos", "threshold")]
                        table.writerow([row["method"], row["refine"], row["settings"], source, group, name, *values])
    return out.getvalue()


def as_markdown(rows: list[dict[str, Any]], source: str) -> str:
    """The table that is read: percent, with the threshold of the one box; "small" covers under 40 % of the photo."""
    first = rows[0]["figures"][source]
    columns = [
        (COLUMNS[name], ("scores", name), ("baselines", SQUARES.get(name)))
        for name in COLUMNS
        if name in first["scores"]
    ]
    for name in ("gt_known_50", "maxboxacc_v2"):
        if name in first["scores"]:
            columns.append((f"small, {COLUMNS[name]}", ("small", name), ("small", SQUARES[name])))
    if "boxes" in first:
        columns.append(("boxes", ("boxes", "50"), ("boxes", None)))
    lines = ["| method | at | " + " | ".join(head for head, *_ in columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        figures_of = row["figures"][source]
        at = figures_of["scores"].get("gt_known_50", {}).get("threshold")
        cells = [percent(figures_of, *place) for _, place, _ in columns]
        lines.append(f"| {row['name']} | {'-' if at is None else f'{at:.2f}'} | " + " | ".join(cells) + " |")
    cells = [percent(first, *place) for *_, place in columns]
    lines.append("| best centred square | - | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def percent(figures_of: dict[str, Any], group: str, name: str | None) -> str:
    """One figure of a record's; "-" where there is none."""
    scores = figures_of["by_size"][group] if group in figures_of["by_size"] else figures_of[group]
    return f"{scores[name]['value']:.1f}" if name in scores else "-"


def rounded(value: Any) -> float | None:
    """Six digits; None for NaN."""
    return None if value is None or np.isnan(value) else round(float(value), 6)
