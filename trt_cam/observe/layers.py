"""Which layer of a model is meant, and its output as a map."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from trt_cam.backbone import Backbone, unwrap
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.ops.precision import at_least_float32

Layer = nn.Module | str
Reshape = Callable[[Tensor], Tensor]


def resolve_layers(backbone: Backbone, target_layers: Layer | Sequence[Layer] | None) -> tuple[str, ...]:
    """Dotted names of layers given as names or modules; the model's own default for None.

    Raises
    ------
    InputError
        A layer is not in the model (near names are suggested), or none was given.
    """
    if target_layers is None:
        return (backbone.layer,)
    several = isinstance(target_layers, Sequence) and not isinstance(target_layers, str)
    given: list[Any] = list(target_layers) if several else [target_layers]  # type: ignore[arg-type]
    names = {id(unwrap(module)): name for name, module in backbone.model.named_modules(remove_duplicate=False)}
    default = f"leave target_layers out for {backbone.layer!r}"
    if not given:
        raise InputError(f"target_layers needs at least one layer, got none; {default}")
    found = []
    for layer in given:
        if isinstance(layer, nn.Module):
            name = names.get(id(unwrap(layer)))
            came = f"a {type(layer).__name__} that is not part of it"
        else:
            name = layer if layer and (layer in names.values() or layer == backbone.layer) else None
            near = difflib.get_close_matches(str(layer), names.values(), n=3, cutoff=0.5)
            came = repr(layer) + (f"; did you mean {' or '.join(near)}?" if near else "")
        if not name:
            raise InputError(
                f"target_layers needs layers of {type(backbone.model).__name__}, by name or as modules, got {came}; "
                f"{default}"
            )
        found.append(name)
    return tuple(dict.fromkeys(found))


def as_map(
    output: Tensor,
    backbone: Backbone,
    grid: tuple[int, int],
    image: tuple[int, int],
    name: str,
    reshape: Reshape | None,
) -> Tensor:
    """A layer's output - tokens (B, S, D), or a map in either layout - as (B, D, h, w), at least float32.

    Parameters
    ----------
    grid : (Gh, Gw)
        The model's patch grid; (0, 0) for one without patch tokens.
    image : (H, W)
        Pixels of the input: the sides of a map have their ratio.
    reshape
        In place of what is derived, as grad-cam's ``reshape_transform``.
    """
    if reshape is not None:
        made = reshape(output)
        if not isinstance(made, Tensor) or made.ndim != 4 or made.shape[0] != output.shape[0]:
            came = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise InputError(f"reshape_transform must give (B, D, h, w), got {came}; leave it out to have it derived")
        return at_least_float32(made)
    sides: tuple[int, int] | None = None
    if output.ndim == 3:
        N = grid[0] * grid[1]
        sides = grid if N and output.shape[1] in (N, backbone.prefix + N) else factors(output.shape[1], image)
        if sides is not None:
            patches = output[:, output.shape[1] - sides[0] * sides[1] :]  # (B, N, D)
            return at_least_float32(patches.transpose(1, 2).unflatten(2, sides))
    if output.ndim == 4:
        return at_least_float32(output.movedim(channel_axis(output, backbone, image), 1))
    raise UnsupportedModelError(
        f"a layer with an output over patches was needed, but {name!r} of {type(backbone.model).__name__} gives "
        f"{tuple(output.shape)}; use target_layers=[{backbone.layer!r}], or give reshape_transform"
    )


def channel_axis(output: Tensor, backbone: Backbone, image: tuple[int, int]) -> int:
    """Axis of the channels of a layer's output: tokens (B, S, D), or a map in either layout."""
    if output.ndim != 4:
        return output.ndim - 1
    last, first = like(output.shape[1:3], image), like(output.shape[2:4], image)
    return 3 if (last and not first) or (backbone.channels_last and not (first and not last)) else 1


def like(sides: Sequence[int], image: tuple[int, int]) -> bool:
    """Whether a map may be that of an image: the same number of pixels a step in both directions, up to rounding."""
    steps = [pixels / side for pixels, side in zip(image, sides, strict=True)]
    return min(steps) >= 1 and abs(steps[0] - steps[1]) <= 0.5 * max(steps[0] / sides[0], steps[1] / sides[1])


def factors(tokens: int, image: tuple[int, int]) -> tuple[int, int] | None:
    """(h, w) with h * w tokens and the ratio of the image, or None."""
    height = round((tokens * image[0] / image[1]) ** 0.5)
    if height < 1 or tokens % height:
        return None
    return (height, tokens // height) if like((height, tokens // height), image) else None


def first_tensor(output: Any) -> Tensor:
    """A layer's output where it is a tensor, or leads a tuple."""
    return output[0] if isinstance(output, tuple) else output
