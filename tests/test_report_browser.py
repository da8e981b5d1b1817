"""The page in a headless Chromium, from the disk: by keyboard, on wide and narrow screens, in light and dark."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reports
from browser import CHROMIUM, DRIVER, Browser, browser
from reports import CLASSES, PHOTOS, content

from trt_cam.report.page import write_page

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the PATH")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    reports.run(reports.boxes_tree(root / reports.SET), root / "run", threshold="best")
    return write_page(root / "run").path


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("masks")
    reports.run(reports.masks_tree(root / "set"), root / "run")
    return write_page(root / "run").path


@pytest.fixture
def opened(chromium: Browser, page: Path) -> Iterator[Browser]:
    chromium.open(page)
    yield chromium
    assert chromium.errors() == []


def texts(found: Browser, selector: str) -> list[str]:
    """What visible elements say."""
    script = "return [...document.querySelectorAll(arguments[0])].filter((e) => e.offsetParent).map((e) => e.innerText)"
    return [str(one) for one in found.run(script, selector)]


def focus(found: Browser, selector: str) -> None:
    found.run("document.querySelector(arguments[0]).focus()", selector)


def choose(found: Browser, name: str, value: str) -> None:
    """An option of a select."""
    script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
    found.run(script + "e.dispatchEvent(new Event('change')); if (e.value !== arguments[1]) throw e.value", name, value)


def rows(held: dict[str, Any], photo: int, method: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Box, IoU and kind at each level."""
    return np.frombuffer(base64.b64decode(held["photos"][photo]["boxes"][method]), np.uint8).reshape(-1, 6)


def test_hostile_names_are_shown_and_not_run(opened: Browser, page: Path) -> None:
    choose(opened, "list", "all")
    said = texts(opened, ".card h3")
    assert len(said) == PHOTOS and set(said) == set(CLASSES[:3])
    assert texts(opened, "h1")[0].startswith(reports.SET.split("/")[-1])
    assert opened.run("return document.scripts.length") == 2
    assert opened.run("return [...document.images].filter((e) => !e.src.startsWith('data:image/jpeg')).length") == 0
    assert "<img src=x onerror=alert(3)>" in texts(opened, ".card .id")[0]


def test_nothing_is_fetched(opened: Browser) -> None:
    assert (
        opened.run("return performance.getEntriesByType('resource').filter((e) => !/^data:/.test(e.name)).length") == 0
    )
    assert opened.run("return location.protocol") == "file:"


def test_the_policy_stops_scripts_of_others(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    chromium.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.bad = 1\">')")
    chromium.run(
        "const e = document.createElement('script'); e.textContent = 'window.bad = 2'; document.body.append(e)"
    )
    assert chromium.run("return window.bad ?? 0") == 0
    assert any("Content Security Policy" in line for line in chromium.errors())


def test_the_slider_redraws_the_evaluators_boxes(opened: Browser, page: Path) -> None:
    held = content(page)
    first = held["lists"][0]["best"][0]
    drawn = """return ["x", "y", "width", "height"].map((name) =>
      +document.querySelectorAll(".card .frame")[arguments[0]].querySelector(".box-line").getAttribute(name))"""

    def check(t: int, method: int) -> None:
        x0, y0, x1, y1, iou, _ = rows(held, first, method)[held["levels"][t]].tolist()
        assert opened.run(drawn, method) == [x0, y0, x1 - x0, y1 - y0]
        assert f"IoU {iou / 100:.2f} at {held['thresholds'][t]:.2f}" in texts(opened, ".card .frame figcaption")[method]

    own = [method["figures"]["best"]["scores"]["gt_known_50"][3] for method in held["methods"]]
    for method in (0, 1):
        check(round(own[method] * 100), method)
    focus(opened, "#tau")
    opened.press("home", *["right"] * 30)
    assert texts(opened, "#tau-value") == ["0.30"]
    for method in (0, 1):
        check(30, method)
    opened.press("left", "left", "left")
    check(27, 0)
    opened.press("tab", "enter")  # to Reset
    check(round(own[0] * 100), 0)
    assert texts(opened, "#tau-value") == [f"{own[0]:.2f}, own"]


def test_the_table_is_sorted_by_keyboard(opened: Browser, page: Path) -> None:
    held = content(page)
    scores = {one["name"]: one["figures"]["best"]["scores"]["gt_known_70"][0] for one in held["methods"]}
    names = "#table tbody:first-of-type tr:not(.baseline) th"
    focus(opened, '[data-key="gt_known_70"]')
    opened.press("enter")
    assert [scores[name.strip()] for name in texts(opened, names)] == sorted(scores.values(), reverse=True)
    assert opened.run("return document.activeElement.closest('th').ariaSort") == "descending"
    opened.press("enter")
    assert [scores[name.strip()] for name in texts(opened, names)] == sorted(scores.values())
    assert opened.run("return document.activeElement.closest('th').ariaSort") == "ascending"
    focus(opened, '[data-key="name"]')
    opened.press("enter")
    assert [name.strip() for name in texts(opened, names)] == sorted(scores)


def test_thresholds_are_switched_by_keyboard(opened: Browser, page: Path) -> None:
    held = content(page)
    assert "oracle" in texts(opened, "#sources")[0] and "very photos" in texts(opened, "#source-means")[0]
    focus(opened, "#sources input")
    opened.press("down")
    assert texts(opened, "#source-means") == ["One threshold for each method, set before these photos were looked at."]
    shown = dict(zip(texts(opened, "#table tbody th"), texts(opened, "#table tbody td:nth-child(2)"), strict=True))
    for method in held["methods"]:
        assert shown[method["name"]] == f"{method['figures']['fixed']['scores']['gt_known_50'][3]:.2f}"
    (row,) = opened.run("return [document.querySelector('#table tbody tr').innerText]")
    best = max(held["methods"], key=lambda one: one["figures"]["fixed"]["scores"]["maxboxacc_v2"][0])
    value, low, high, _ = best["figures"]["fixed"]["scores"]["maxboxacc_v2"]
    assert f"{value:.1f}\n{low:.1f}–{high:.1f}" in row


def test_filters_by_class_and_error(opened: Browser, page: Path) -> None:
    held = content(page)
    choose(opened, "list", "all")
    own = round(held["methods"][0]["figures"]["best"]["scores"]["gt_known_50"][3] * 100)
    kinds = [
        held["kinds"][rows(held, place, 0)[held["levels"][own]][5]] if photo["right"][0] else "cls_wrong"
        for place, photo in enumerate(held["photos"])
    ]
    for kind in {*kinds, "region_part"}:
        choose(opened, "kind", kind)
        wanted = [photo["id"] for photo, one in zip(held["photos"], kinds, strict=True) if one == kind]
        assert texts(opened, ".card .id") == wanted
    choose(opened, "kind", "")
    choose(opened, "class", CLASSES[1])
    assert texts(opened, ".card .id") == [photo["id"] for photo in held["photos"] if photo["name"] == CLASSES[1]]
    assert texts(opened, "#count")[0].endswith(f"of {PHOTOS} photos.")


def test_two_methods_side_by_side(opened: Browser, page: Path) -> None:
    held = content(page)
    choose(opened, "second", "2")
    assert [text.split("\n")[0].strip() for text in texts(opened, ".card figcaption")[:2]] == ["cam", "grad-cam"]
    (row,) = [row for row in held["pairs"]["best"]["maxboxacc_v2"] if row[:2] == [0, 2]]
    assert row[5] != row[6] and texts(opened, "#differences tbody tr")[2].endswith(f"\t{row[5]}\t{row[6]}")
    opened.run("document.getElementById('swap').click()")
    assert texts(opened, "#differences tbody tr")[2].endswith(f"\t{row[6]}\t{row[5]}")
    assert [text.split("\n")[0].strip() for text in texts(opened, ".card figcaption")[:2]] == ["grad-cam", "cam"]
    assert texts(opened, ".card .id") == [held["photos"][place]["id"] for place in held["lists"][2]["best"]]
    opened.run("document.getElementById('alone').click()")
    assert len(texts(opened, ".card figcaption")) == len(texts(opened, ".card"))


def test_one_photo_under_all_methods(opened: Browser) -> None:
    focus(opened, ".card button")
    opened.press("enter")
    assert opened.run("return document.querySelector('dialog').open")
    assert len(texts(opened, "#one-frames .frame")) == 3
    opened.press("escape")
    assert not opened.run("return document.querySelector('dialog').open")
    assert opened.run("return document.activeElement.closest('.card') !== null")


def test_published_figures_are_folded(opened: Browser) -> None:
    assert not any("TS-CAM" in text for text in texts(opened, "#table tbody th"))
    focus(opened, "#published")
    opened.press("enter")
    shown = texts(opened, "#table tbody th")
    assert any("TRT" in text and "CUB-200-2011" in text for text in shown)
    assert "for orientation only" in texts(opened, "#published-note")[0]
    assert opened.run("return document.getElementById('published').ariaExpanded") == "true"
    choose(opened, "benchmark", "ILSVRC")
    assert not any("CUB" in text for text in texts(opened, "#table tbody th"))


def test_everything_can_be_reached_by_tab(opened: Browser) -> None:
    wanted = "a[href], button, select, input, summary, [tabindex='0']"
    count = """return [...document.querySelectorAll(arguments[0])].filter((e) => e.offsetParent
      && !(e.type === "radio" && !e.checked)).length"""
    opened.run("document.activeElement.blur(); window.seen = new Set()")
    total = opened.run(count, wanted)
    for _ in range(total + 5):
        opened.press("tab")
        opened.run("seen.add(document.activeElement)")
    assert opened.run("return [...seen].filter((e) => e.matches(arguments[0])).length", wanted) >= total
    focus(opened, "#tau")
    opened.press("right")
    assert opened.run("return getComputedStyle(document.getElementById('tau')).outlineStyle") == "solid"


@pytest.mark.parametrize("width", [360, 768, 1400])
@pytest.mark.parametrize("which", ["page", "masks"])
def test_no_page_scrolls_sideways(chromium: Browser, which: str, width: int, request: pytest.FixtureRequest) -> None:
    chromium.open(request.getfixturevalue(which), width, 800)
    chromium.run("document.querySelectorAll('details').forEach((e) => { e.open = true })")
    chromium.run("document.getElementById('published').click()")
    assert chromium.run("return document.documentElement.scrollWidth") <= width
    chromium.run("document.querySelector('.card button').click()")
    assert chromium.run("return document.querySelector('dialog').scrollWidth") <= width
    assert chromium.errors() == []


CONTRAST = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = (c) => 0.2126 * linear(c[0] / 255) + 0.7152 * linear(c[1] / 255) + 0.0722 * linear(c[2] / 255);
const ground = (e) => {
  const own = rgb(getComputedStyle(e).backgroundColor);
  return own[3] === 0 ? ground(e.parentElement) : light(own);
};
const found = [];
for (const e of document.querySelectorAll(arguments[0])) {
  if (!e.offsetParent && !(e instanceof SVGElement)) continue;
  const ink = light(rgb(getComputedStyle(e)[e instanceof SVGElement ? arguments[1] : "color"])), under = ground(e);
  found.push((Math.max(ink, under) + 0.05) / (Math.min(ink, under) + 0.05));
}
return [found.length, Math.min(...found)];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(chromium: Browser, page: Path, scheme: str) -> None:
    chromium.open(page, scheme=scheme)
    chromium.run("document.getElementById('published').click()")
    text = "h1, h2, h3, p, td, th, small, label, button, a, dd, dt, li, figcaption, legend, svg text:not(.in)"
    count, least = chromium.run(CONTRAST, text, "fill")
    assert count > 100 and least >= 4.5
    count, least = chromium.run(CONTRAST, ".series, .whisker", "stroke")
    assert count > 5 and least >= 3


def test_the_scheme_follows_the_system_and_the_button(chromium: Browser, page: Path) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    chromium.open(page, scheme="light")
    light = chromium.run(ground)
    chromium.open(page, scheme="dark")
    dark = chromium.run(ground)
    assert light != dark
    focus(chromium, "#theme")
    chromium.press("enter")
    assert chromium.run(ground) == light and texts(chromium, "#theme") == ["Theme: light"]
    chromium.press("enter")
    assert chromium.run(ground) == dark
    chromium.press("enter")
    assert texts(chromium, "#theme") == ["Theme: system"]


def test_plots_have_words(opened: Browser, page: Path) -> None:
    named = opened.run(
        "return [...document.querySelectorAll('svg[role=img]')].map((e) => [e.ariaLabel, !!e.querySelector('title')])"
    )
    assert len(named) == 7 and all(label and title for label, title in named)
    counts = [sum(one["figures"]["best"]["errors"].values()) for one in content(page)["methods"]]
    assert counts == [PHOTOS] * 3
    assert opened.run("return [...document.querySelectorAll('img')].every((e) => e.alt)")


def test_masks(chromium: Browser, masks: Path) -> None:
    chromium.open(masks)
    assert texts(chromium, "#table thead th") == ["Method", "PxAP", "small,\nPxAP"]
    assert chromium.run("return document.querySelectorAll('.card path.truth-line').length") > 0
    pixels = """const c = document.querySelector(".card canvas");
      const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
      return data.filter((v, i) => i % 4 === 3 && v > 0).length"""
    whole = chromium.run(pixels)
    focus(chromium, "#tau")
    chromium.press("home", *["right"] * 60)
    some = chromium.run(pixels)
    chromium.press("end")
    assert whole == 128 * 128 > some > chromium.run(pixels) > 0
    assert texts(chromium, "#tau-value") == ["0.99"]
    assert chromium.errors() == []


def test_a_page_without_photos(chromium: Browser, page: Path, tmp_path: Path) -> None:
    held = page.read_text(encoding="utf-8")
    start, end = held.index('"photos":[{'), held.index(',"colours":')
    (tmp_path / "page.html").write_text(held[:start] + '"photos":[],"lists":[]' + held[end:], encoding="utf-8")
    chromium.open(tmp_path / "page.html")
    assert len(texts(chromium, "#table tbody tr")) == 5 and texts(chromium, ".card") == []
    assert chromium.errors() == []
