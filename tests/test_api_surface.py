"""The public names: none vanishes, and none is shadowed by a module of its name."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

import trt_cam

FROZEN = {
    "TPSM",
    "BatchLocalizer",
    "Explainer",
    "Explanation",
    "Localization",
    "TRTLocalizer",
    "TRTOutput",
    "box_iou",
    "boxes_from_map",
    "cdf_threshold",
    "compare",
    "create_explainer",
    "errors",
    "evaluate",
    "list_explainers",
    "load_dataset",
    "localize",
    "masked_attention",
    "overlay",
    "register_explainer",
    "register_foreign",
    "register_function",
    "search_threshold",
    "testing",
    "train",
}


def test_the_names_are_these() -> None:
    assert set(trt_cam.__all__) == FROZEN
    assert set(dir(trt_cam)) >= FROZEN


def test_each_name_twice_in_any_order_in_a_fresh_interpreter() -> None:
    names = sorted(FROZEN) * 2
    random.Random(0).shuffle(names)
    code = (
        "import sys, types, trt_cam\n"
        f"names = {names!r}\n"
        "kinds = {}\n"
        "for name in names:\n"
        "    value = getattr(trt_cam, name)\n"
        "    assert isinstance(value, types.ModuleType) == (name in ('errors', 'testing')), name\n"
        "    assert kinds.setdefault(name, value) is value, name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'locate'"):
        trt_cam.locate  # noqa: B018
