"""Figures that others printed, to look at beside one's own."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any


@lru_cache(maxsize=1)
def published() -> dict[str, Any]:
    """Published figures of weakly supervised localization.

    Returns
    -------
    dict
        ``source``, the table they were read from; ``datasets``, how many photos each benchmark reports; ``citations``
        by method; ``rows`` with method, backbone, dataset, table, whether they were ``rerun`` by the authors of the
        source, and percent under the names that scores have here.
    """
    text = resources.files("trt_cam.assets").joinpath("published.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def beside(scores: list[str], dataset: str, photos: int) -> dict[str, Any] | None:
    """What can stand beside a table with these scores; None where nothing can.

    Returns
    -------
    dict
        As `published`, less rows without such a score, with ``likely``, the benchmark that the data set's name points
        to, and ``same``, whether as many photos as it has were evaluated.
    """
    held = published()
    rows = [row for row in held["rows"] if any(score in row for score in scores)]
    if not rows:
        return None
    word = dataset.casefold()
    likely = "CUB-200-2011" if "cub" in word else "ILSVRC" if "ilsvrc" in word or "imagenet" in word else ""
    return held | {"rows": rows, "likely": likely, "same": held["datasets"].get(likely) == photos}


def as_markdown() -> str:
    """The printed tables, to stand under one's own; "-" where nothing was printed."""
    held = published()
    names = ("top1_loc", "top5_loc", "gt_known_50", "maxboxacc_v2")
    lines = ["| published | backbone | " + " | ".join(names) + " | photos |", "|---" * (len(names) + 3) + "|"]
    for row in held["rows"]:
        cells = [f"{row[name]:.1f}" if row.get(name) is not None else "-" for name in names]
        method = row["method"] + (" (rerun)" if row["rerun"] else "")
        benchmark = f"{row['dataset']}, table {row['table']}"
        lines.append(f"| {method} | {row['backbone']} | {' | '.join(cells)} | {benchmark} |")
    return "\n".join(
        [*lines, f"As printed in {held['source']}. Other photos than yours, unless yours are those benchmarks."]
    )
