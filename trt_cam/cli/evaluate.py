"""``trt-cam evaluate``: figures of methods on a data set with boxes or masks, by a published protocol."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_cam.cli.options import add_run, classes_of, named_values, quieten
from trt_cam.cli.output import FAILURE, Counter, complain, say
from trt_cam.errors import InputError

if TYPE_CHECKING:
    from trt_cam.evaluation import Evaluation


def add(commands: Any) -> None:
    """Options of ``evaluate``."""
    parser = commands.add_parser(
        "evaluate",
        help="how well methods localize, on a data set with boxes or masks",
        description="Explain every photo of a data set for its true class and compare with the ground truth. Writes "
        "metrics.json, metrics.csv and photos.jsonl to --out; `trt-cam report` makes a page of it. Kill it and run it "
        "again with --resume, or run it under torchrun: the figures are the same.",
    )
    parser.add_argument("data", metavar="DIR", help="a data set in the layout it is distributed in; see `trt-cam data`")
    parser.add_argument("--kind", default="auto", help="of data set (default: by what lies in the folder)")
    parser.add_argument("--split", help="which part, where there are several")
    parser.add_argument("--data-option", action="append", default=[], metavar="NAME=VALUE", help="photos_root=DIR, ...")
    parser.add_argument("--part", choices=("odd", "even"), help="only photos with such a number in the file's name")
    parser.add_argument("--methods", default="auto", help="separated by commas; see `trt-cam methods`")
    parser.add_argument(
        "--study", choices=("selection", "u", "re-attention", "tables"), help="the paper's, in place of --methods"
    )
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.NAME=VALUE", help="an option of a method")
    parser.add_argument("--refine", default="default", help="default (the model's own), affinity, ncut or none")
    parser.add_argument("--protocol", help="maxboxacc, maxboxacc_v2, pxap, tscam, trt_fixed_v2 or v2_val_threshold")
    parser.add_argument("--threshold", help="a share of the map's maximum, best (on these photos), or from-val")
    parser.add_argument("--val", metavar="DIR", help="for from-val: another data set (default: this one)")
    parser.add_argument("--val-split", help="for from-val: its split")
    parser.add_argument("--val-part", choices=("odd", "even"), help="for from-val: only photos of such a number")
    parser.add_argument("--interval", type=float, default=0.01, help="step of the thresholds (default: %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N photos")
    add_run(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """Evaluate, write the files, print the table."""
    quieten()
    from trt_cam.data.catalog import load_dataset
    from trt_cam.evaluation.tables import as_markdown, shown, write
    from trt_cam.runs import World

    threshold = parsed(chosen.threshold)
    more = named_values(chosen.data_option, "--data-option")
    data = load_dataset(chosen.data, chosen.kind, chosen.split, **more)
    val = None
    if threshold == "from-val" or chosen.val or chosen.val_split or chosen.val_part:
        if not (chosen.val or chosen.val_split or chosen.val_part):
            raise InputError(
                "from-val needs other photos to choose on, got none; give --val, --val-split or --val-part"
            )
        others = load_dataset(chosen.val or chosen.data, chosen.kind, chosen.val_split or chosen.split, **more)
        val = evaluated(chosen, others, chosen.val_part, Path(chosen.out) / "val")
    found = evaluated(chosen, data, chosen.part, Path(chosen.out) / "run" if val else Path(chosen.out))
    if World.current().rank > 0:  # process 0 reports; torchrun would end it at the first failure of another
        return 0
    rows = write(found, threshold=threshold, val=val)
    say(as_markdown(rows, shown(rows, threshold)))
    if chosen.study == "tables":
        from trt_cam.report.published import as_markdown as printed

        say(f"\n{printed()}\n")
    say(f"-> {found.run.folder}")
    for name, reason in found.failures:
        complain(f"{name}: {reason}")
    return FAILURE if found.failures else 0


def parsed(threshold: str | None) -> float | str | None:
    """What ``--threshold`` says."""
    if threshold in (None, "best", "from-val"):
        return threshold
    try:
        return float(str(threshold))
    except ValueError:
        raise InputError(f"--threshold must be a number, best or from-val, got {threshold!r}") from None


def evaluated(chosen: argparse.Namespace, data: Any, part: str | None, out: Path) -> Evaluation:
    """One split."""
    from trt_cam.evaluation import evaluate
    from trt_cam.evaluation.studies import STUDIES
    from trt_cam.listing import methods_with_settings

    return evaluate(
        data,
        model=chosen.model,
        methods=STUDIES[chosen.study]() if chosen.study else methods_with_settings(chosen.methods, chosen.set),
        refine=None if chosen.refine == "none" else chosen.refine,
        protocol=chosen.protocol,
        interval=chosen.interval,
        part=part,
        classes=classes_of(chosen.classes),
        size=chosen.size,
        device=chosen.device,
        batch_size=chosen.batch_size,
        threads=chosen.threads,
        workers=chosen.workers,
        limit=chosen.limit,
        out=out,
        resume=chosen.resume,
        progress=Counter() if sys.stderr.isatty() else None,
    )
