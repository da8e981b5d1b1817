"""Model cards: README.md with the hub's front matter, written from what a training knows of itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from trt_cam.errors import InputError

KNOWN = ("data", "datasets", "supervision", "selection", "metrics", "command", "license", "tags", "title", "notes")
"""What a card may be told; see ``save_pretrained``."""

KINDS = {
    "trt": ("TRT localizer", "object-detection"),
    "ts-cam": ("TS-CAM localizer", "object-detection"),
    "timm": ("Image classifier", "image-classification"),
}
"""By network: title and the hub's pipeline tag."""

_MARK = re.compile(r"<!-- card of trt_cam ([0-9a-f]{16}) -->\n$")


def model_card(config: Mapping[str, Any], licensed: str | None = None) -> str:
    """The card of a network: what its config.json knows, and what its ``card`` says of its training.

    ``licensed`` is the licence of its backbone's weights, for a card that names none. The last line holds a checksum,
    so that a card that somebody wrote or changed is told from one that nobody did.
    """
    card = config.get("card", {})
    title, task = KINDS[config["network"]]
    tags = ["trt_cam", config["network"], "weakly-supervised-localization", *map(str, card.get("tags", []))]
    front = {
        "license": card.get("license") or licensed or "other",
        "library_name": "trt_cam",
        "pipeline_tag": task,
        "tags": list(dict.fromkeys(tags)),
        "datasets": list(card.get("datasets", [])),
        "metrics": list(card.get("metrics", {})),
    }
    parts = [f"# {card.get('title', title)}", about(config), *sections(card)]
    text = f"---\n{front_matter(front)}---\n\n" + "\n\n".join(parts) + "\n\n"
    return f"{text}<!-- card of trt_cam {checksum(text)} -->\n"


def untouched(text: str) -> bool:
    """Whether a card is one of ours that nobody has changed."""
    found = _MARK.search(text)
    return found is not None and found[1] == checksum(text[: found.start()])


def check_card(card: Mapping[str, Any] | None) -> dict[str, Any]:
    """Refuse what a card has no place for."""
    if card is None:
        return {}
    unknown = sorted(set(card) - set(KNOWN)) if isinstance(card, Mapping) else [type(card).__name__]
    if unknown:
        raise InputError(f"a card is a dict of {', '.join(KNOWN)}, got {unknown}; say other things in notes")
    for name, kind, words in (("metrics", Mapping, "a dict"), ("datasets", (list, tuple), "a list of names")):
        if name in card and not isinstance(card[name], kind):
            raise InputError(f"{name} of a card must be {words}, got {type(card[name]).__name__}")
    metrics = {str(name): plain(value) for name, value in card.get("metrics", {}).items()}
    return {**card, **({"metrics": metrics} if metrics else {})}


def plain(value: Any) -> Any:
    """A number of numpy or torch as Python's own, so that JSON takes it."""
    return value.item() if hasattr(value, "item") else value


def about(config: Mapping[str, Any]) -> str:
    """Network, classes and input, and how it is used."""
    backbone, size = config["backbone"], config["preprocessing"]["size"]
    name = backbone.get("name", backbone["builder"])
    return (
        f"Backbone `{name}`, {config['num_classes']} classes, input {size[0]} x {size[1]} pixels.\n\n"
        "```python\nimport trt_cam\nfrom trt_cam.models.weights import load_model\n\n"
        'where = "FOLDER"  # or "hf-hub:owner/name"\n'
        'trt_cam.localize("photo.jpg", model=where).show()\nnet = load_model(where)\n```'
    )


def sections(card: Mapping[str, Any]) -> list[str]:
    """Those parts of the text that the training told of."""
    rows = [f"| {name} | {number(value)} |" for name, value in card.get("metrics", {}).items()]
    told = {
        "Training data": card.get("data"),
        "Supervision": card.get("supervision"),
        "Selection": card.get("selection"),
        "Results": "\n".join(["| metric | value |", "|---|---|", *rows]) if rows else None,
        "Command": f"```sh\n{card['command']}\n```" if card.get("command") else None,
        "Notes": card.get("notes"),
    }
    return [f"## {head}\n{text}" for head, text in told.items() if text]


def number(value: Any) -> str:
    """A metric's value: at most four digits after the point."""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def front_matter(values: Mapping[str, Any]) -> str:
    """YAML of what is not empty, in order."""
    import yaml

    given = {name: value for name, value in values.items() if value}
    return str(yaml.safe_dump(given, sort_keys=False, allow_unicode=True))


def checksum(text: str) -> str:
    """16 digits that change with the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
