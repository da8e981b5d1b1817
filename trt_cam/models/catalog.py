"""Names that can be given as a model: the embedded one and timm's transformers."""

from __future__ import annotations

from fnmatch import fnmatch

from trt_cam.models.weights import EMBEDDED

TRANSFORMERS = ("beit", "deit", "eva", "vision_transformer", "vision_transformer_hybrid")
"""timm's modules whose models are plain transformers over patches: every method fits them."""


def model_names(pattern: str = "*") -> list[str]:
    """The embedded model, then timm's plain transformers, sorted; those that match a pattern like ``deit*``."""
    import timm

    names = {name for module in TRANSFORMERS for name in timm.list_models(module=module)}
    return [name for name in (EMBEDDED, *sorted(names)) if fnmatch(name, pattern)]
