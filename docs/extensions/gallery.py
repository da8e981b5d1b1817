"""gallery.md: every method on the package's photo, drawn while the site is built and only where the package changed.

One picture is one `localize`, whose command stands below it. What cannot be carried by the embedded model is said so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

LOG = logging.getLogger(__name__)
PHOTO = "trt_cam/assets/coffee.jpg"
SIDE, QUALITY = 480, 85
HEAD = f"""# Gallery

Every method of `trt-cam methods` on [the package's photo](../{PHOTO}) by the embedded model: one network, explained in
different ways, for the class that it predicts and without refinement. The box is around the largest region above
the method's own threshold. Below each picture stands the command that makes it; where a method takes hundreds of
forwards, it asks for fewer than the default. What each formula is, is in
[methods](methods.md). How well they locate objects is measured on many photos, not on this one: [results](results.md).

"""
FAMILIES = {
    "refinement": "Token refinement",
    "activation": "The classifier at every place",
    "attention": "Attention",
    "attention_gradient": "Attention and its gradient",
    "gradient": "One layer's activation and gradient",
    "perturbation": "More forwards: channels",
    "occlusion": "More forwards: parts of the photo",
    "clustering": "Groups of patches",
}
# Fewer forwards than their defaults take: half an hour of one core.
FEWER: dict[str, dict[str, Any]] = {
    "score-cam": {"channels": 48},
    "ss-cam": {"channels": 16, "samples": 4},
    "is-cam": {"channels": 16, "samples": 4},
    "rise": {"masks": 240},
}


@dataclass(frozen=True)
class Picture:
    """What one picture shows: keywords of ``localize``, settings of the method, and what stands below."""

    name: str
    text: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """That makes the same picture."""
        words = [f"--set {name}={value}" for name, value in self.settings.items()]
        words += [f"--{name} {value or 'none'}" for name, value in self.options.items()]
        return " ".join([f"trt-cam localize {PHOTO} --method {self.method}", *words, f"--out {self.name}.jpg"])

    def draw(self, root: Path, net: Any, folder: Path) -> str:
        """Draw it, and say why not where it cannot be."""
        from trt_cam import localize
        from trt_cam.errors import UnsupportedModelError
        from trt_cam.explainers import get_explainer

        method = get_explainer(self.method)(**self.settings)
        try:
            found = localize(root / PHOTO, model=net, method=method, **self.options)
        except UnsupportedModelError as error:
            return str(error)
        found.picture(max_side=SIDE).save(folder / f"{self.name}.jpg", quality=QUALITY, optimize=True)
        return ""

    def card(self, refused: str) -> str:
        """Picture, text and command in Markdown."""
        shown = f"*Not with this model: {refused}*" if refused else f"![{self.name}](gallery/{self.name}.jpg)"
        return f"````{{container}} card\n{shown}\n\n{self.text}\n\n```sh\n{self.command}\n```\n````\n"


def links(text: str) -> str:
    """A docstring's sentence in Markdown, its sources as links."""
    text = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    text = re.sub(r"doi:([^\s)]+)", r"[doi:\1](https://doi.org/\1)", text)
    return re.sub(r"\bgithub\.com/([\w-]+/[\w-]+)", r"[\1](https://github.com/\1)", text)


def anchors(methods: Path) -> dict[str, str]:
    """The heading of each method in methods.md, as a link's anchor."""
    given: dict[str, int] = {}
    found = {}
    text = methods.read_text(encoding="utf-8") if methods.is_file() else ""
    for heading, name in re.findall(r"^#{1,4} (.+)\n\n(?:`([^`]+)`\.)?", text, flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = given[slug] = given.get(slug, -1) + 1
        found[name] = slug + (f"-{number}" if number else "")
    return found


def families(methods: Path) -> Iterator[tuple[str, list[Picture]]]:
    """All methods by what they need."""
    from trt_cam.explainers import get_explainer, list_explainers
    from trt_cam.listing import summary

    places = anchors(methods)
    kinds = {name: get_explainer(name) for name in list_explainers()}
    for module, title in FAMILIES.items():
        shown = []
        for name, kind in kinds.items():
            if kind.__module__ == f"trt_cam.explainers.{module}":
                linked = f"[**{name}**](methods.md#{places[name]})" if name in places else f"**{name}**"
                options = {"refine": None}
                picture = Picture(name, f"{linked}: {links(summary(kind))}.", name, FEWER.get(name, {}), options)
                shown.append(picture)
        yield title, shown


def choices() -> Iterator[tuple[str, str, list[Picture]]]:
    """What can be chosen beside the method."""
    rows = [(method, refine) for method in ("cam", "grad-cam", "rollout") for refine in (None, "affinity", "ncut")]
    yield (
        "Refinement",
        "`--refine` spreads any map over places that look alike: `affinity` in one step, `ncut` by cutting the photo.",
        [Picture(f"{m}-{r or 'none'}", f"`{m}`, {r or 'not refined'}", m, options={"refine": r}) for m, r in rows],
    )
    yield (
        "Threshold",
        "Boxes are around what is above a share of the map's maximum. The map is the same in all.",
        [
            Picture(f"threshold-{t}", f"above {t}", "trt", options={"threshold": t})
            for t in (0.05, 0.16, 0.3, 0.5, 0.7, 0.9)
        ],
    )
    yield (
        "How much attention TRT keeps",
        "`u` is the share of the attention mass that the selected tokens make up.",
        [Picture(f"u-{u}", f"u = {u}", "trt", {"u": u}) for u in (0.1, 0.3, 0.5, 0.65, 0.8, 0.95)],
    )
    yield (
        "Which boxes",
        "`--boxes`: around the largest region, around each, or around each contour, holes included.",
        [
            Picture(f"boxes-{b}", f"`{b}`", "raw-attention", options={"refine": None, "boxes": b, "threshold": 0.3})
            for b in ("largest", "all_external", "all")
        ],
    )
    yield (
        "Another class",
        "`--target`: a class that is looked for, predicted or not.",
        [
            Picture(f"target-{t}", f"`{t}`", "cam", options={"refine": None, "target": t})
            for t in ("espresso", "plate", "ladle")
        ],
    )


def state(root: Path) -> str:
    """Changes with the package and with this file."""
    files = sorted(
        one for one in (root / "trt_cam").rglob("*") if one.suffix in (".py", ".json", ".safetensors", ".jpg")
    )
    found = hashlib.sha256()
    for one in [*files, Path(__file__)]:
        found.update(one.read_bytes())
    return found.hexdigest()


def sections(root: Path, folder: Path) -> Iterator[str]:
    """The page's parts, their pictures drawn."""
    from trt_cam.models.weights import load_model

    net = load_model()
    told = [(title, "", shown) for title, shown in families(root / "docs" / "methods.md")]
    for title, text, shown in [*told, *choices()]:
        LOG.info("gallery: %s", title)
        cards = [one.card(one.draw(root, net, folder)) for one in shown]
        yield f"## {title}\n\n{text}\n\n`````{{container}} cards\n" + "\n".join(cards) + "`````\n"


def write(app: Sphinx) -> None:
    """Make page and pictures, if the package is not as it was when they were made."""
    docs = Path(app.srcdir)
    folder, made = docs / "gallery", state(docs.parent)
    folder.mkdir(exist_ok=True)
    stamp = folder / "state"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == made:
        return
    text = HEAD + "\n".join(sections(docs.parent, folder))
    (docs / "gallery.md").write_text(text, encoding="utf-8")
    stamp.write_text(made, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Make it before pages are looked for."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
