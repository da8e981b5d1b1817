"""Models whose class token joins late: CaiT, XCiT and VOLO read the patches by attention of that one query."""

from __future__ import annotations

from functools import partial
from typing import Any

from trt_cam.backbone.anatomy import Backbone, count_classes
from trt_cam.backbone.spatial import OF_ANY, reduced_grid

READERS = {
    "Cait": ("blocks_token_only", "blocks"),
    "Xcit": ("cls_attn_blocks", "blocks"),
    "VOLO": ("post_network", "network"),
}
"""By class: where the blocks of class attention are, and those before them, whose last output has patch gradients."""


def class_attention(model: Any) -> Backbone | None:
    """CaiT, XCiT, VOLO: rows of the class attention; what comes before is no attention of a class over patches.

    VOLO's classifier is no part of it: its answer takes the maximum of another classifier over the patches too.
    """
    if type(model).__name__ not in READERS or not hasattr(model, "patch_embed"):
        return None
    readers, before = READERS[type(model).__name__]
    blocks = tuple(getattr(model, readers))
    gives = OF_ANY | {"rows", "keys"}
    if count_classes(model) and type(model).__name__ != "VOLO":
        gives = gives | {"classifier"}
    return Backbone(
        model=model,
        family="class-attention",
        blocks=blocks,
        attentions=tuple(block.attn for block in blocks),
        prefix=1,
        pooling="token",
        layer=f"{before}.{len(getattr(model, before)) - 1}",
        final="norm",
        gives=frozenset(gives),
        grid_of=partial(reduced_grid, model),
    )
