"""Other transformers over one set of tokens: NaFlexViT, vision encoders of language models, models read by a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from trt_cam.backbone.anatomy import Backbone, Pooling, count_classes, unwrap
from trt_cam.backbone.spatial import OF_ANY, SEVERAL_GRIDS, reduced_grid
from trt_cam.errors import InputError

OF_ATTENTION = frozenset({"rows", "attention", "keys", "attention gradient"})
"""What can be observed of attention over all tokens in every block, by a fused call."""

ENCODERS = frozenset({"DeepseekVitClassifier", "Qwen3VitClassifier", "Gemma4VitClassifier"})


def attention_modules(blocks: Sequence[Any]) -> tuple[nn.Module, ...]:
    """The module of each block in whose forward all tokens attend to all, once; none where a block does otherwise.

    Differential attention is a difference of two matrices, and parallel blocks have two attentions: no rows of a block.
    """
    found = []
    for block in blocks:
        itself = type(block).__name__ == "ParallelScalingBlock"  # its projections are the MLP's too: no own module
        attention = block if itself else unwrap(getattr(block, "attn", None))
        if not isinstance(attention, nn.Module) or type(attention).__name__ == "DiffAttention":
            return ()
        found.append(attention)
    return tuple(found)


def timm_pooling(model: nn.Module, pool: nn.Module | None, class_token: object) -> Pooling:
    """What timm's head reads: an attention pool, the class token, or an average of patch tokens."""
    if pool is not None:
        return "map"
    named = getattr(model, "global_pool", "")
    if named == "token":
        return "token" if class_token is not None else "avg"
    if named:
        return "avg"
    return "token" if class_token is not None else "none"


def exact_grid(embed: Any, name: str, height: int, width: int) -> tuple[int, int]:
    """Patch grid of an embedding that takes any multiple of its patches, or any size where it pads."""
    step = embed.patch_size if isinstance(embed.patch_size, tuple) else (embed.patch_size, embed.patch_size)
    if not getattr(embed, "dynamic_img_pad", False) and (height % step[0] or width % step[1]):
        raise InputError(
            f"image sides that are multiples of {step[0]} and {step[1]} pixels were needed by {name}, "
            f"got {height} x {width}; resize them"
        )
    return -(-height // step[0]), -(-width // step[1])


def middle_blocks(start: str, count: int) -> tuple[str, str]:
    """Names of the two of ``count`` blocks whose tokens say which places belong together; ``start`` and a number."""
    return f"{start}{max(2 * count // 3 - 1, 0)}", f"{start}{max(count - 2, 0)}"


def plain_transformer(
    model: Any,
    family: str,
    cls_token: object,
    grid_of: Callable[[int, int], tuple[int, int]],
    trunk: tuple[str, ...] = (),
) -> Backbone:
    """A transformer with all tokens in every one of ``model.blocks``; ``trunk`` names middle stages of a CNN before."""
    blocks = tuple(unwrap(block) for block in model.blocks)
    attentions = attention_modules(blocks)
    pool = getattr(model, "attn_pool", None)
    pooling = timm_pooling(model, pool, cls_token)
    gives = {*OF_ANY, "middle"} | ({*OF_ATTENTION, "tokens"} if attentions else set())
    gives |= {"classifier"} if count_classes(model) else set()
    return Backbone(
        model=model,
        family=family,
        blocks=blocks,
        attentions=attentions,
        pool=pool,
        prefix=int(model.num_prefix_tokens),
        pooling=pooling,
        layer=before_attention(blocks, "blocks") if pooling == "token" else f"blocks.{len(blocks) - 1}",
        final="norm",
        middle=trunk or middle_blocks("blocks.", len(blocks)),
        gives=frozenset(gives),
        grid_of=grid_of,
    )


def naflex_vit(model: Any) -> Backbone | None:
    """timm's NaFlexVit, given images: a plain transformer whose parts before the blocks are in ``embeds``."""
    if type(model).__name__ != "NaFlexVit" or not hasattr(model, "embeds"):
        return None
    return plain_transformer(model, "naflex", model.embeds.cls_token, partial(exact_grid, model.embeds, "NaFlexVit"))


def encoder_vit(model: Any) -> Backbone | None:
    """Classifiers over the vision encoders of DeepSeek, Qwen3 and Gemma-4: their mean over patches is normed and read.

    With the encoder's own pooling in between, tokens are fewer than patches: what ``forward_features`` gives then is
    no map.
    """
    if type(model).__name__ not in ENCODERS or getattr(model, "encoder_pool", "") not in ("", "none"):
        return None
    blocks = tuple(unwrap(block) for block in model.encoder.blocks)
    last = len(blocks) - 1
    embed = model.encoder if type(model).__name__ == "Gemma4VitClassifier" else model.encoder.patch_embed
    gives = {*OF_ANY, *OF_ATTENTION, "middle"} | ({"classifier"} if count_classes(model) else set())
    return Backbone(
        model=model,
        family="encoder",
        blocks=blocks,
        attentions=attention_modules(blocks),
        pooling="avg",
        layer=f"encoder.blocks.{last}",
        final="encoder.norm" if hasattr(model.encoder, "norm") else f"encoder.blocks.{last}",
        middle=middle_blocks("encoder.blocks.", len(blocks)),
        gives=frozenset(gives),
        grid_of=partial(exact_grid, embed, type(model).__name__),
    )


def before_attention(blocks: Sequence[Any], path: str) -> str:
    """Name of the norm before the last attention; of the block before the last where there is none of its own."""
    last = len(blocks) - 1
    norm = next((one for one in ("norm1", "norm_out", "in_norm") if hasattr(blocks[last], one)), None)
    return f"{path}.{max(last - 1, 0)}" if norm is None else f"{path}.{last}.{norm}"


def read_by_token(model: Any) -> Backbone | None:
    """Other timm transformers whose classifier reads a class token: ConViT, TNT, PiT, MViTv2's.

    Rows are those of the attentions over the class token and all patches: TNT's outer ones, ConViT's after the class
    token has joined, and those of PiT's last stage. MViTv2 pools queries and keys, so it has none.
    """
    token = getattr(model, "global_pool", "") == "token" and getattr(model, "cls_token", None) is not None
    if not (token and hasattr(model, "forward_features") and hasattr(model, "feature_info")):
        return None
    if type(model).__name__ in SEVERAL_GRIDS:
        return None
    places = [("blocks", "blocks"), ("stages", "stages.{}.blocks"), ("transformers", "transformers.{}.blocks")]
    name, path = next((place for place in places if hasattr(model, place[0])), ("", ""))
    stages = getattr(model, name, ())
    path = path.format(len(stages) - 1)
    blocks = tuple(model.get_submodule(path)) if stages else ()
    if len(blocks) < 2:
        return None
    reading, attentions, words = class_rows(model, blocks)
    if type(model).__name__ == "PoolingVisionTransformer":
        words = words | {"keys"}  # and no features: its last norm is given the class token alone
    else:
        words = words | {"features"} | ({"classifier"} if count_classes(model) else set())
    return Backbone(
        model=model,
        family="class-token",
        blocks=reading,
        attentions=attentions,
        prefix=getattr(model, "num_prefix_tokens", None) or int(model.cls_token.shape[1]),
        pooling="token",
        layer=before_attention(blocks, path),
        final="norm",
        gives=frozenset((OF_ANY - {"features"}) | words),
        grid_of=partial(reduced_grid, model),
    )


def class_rows(model: Any, blocks: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...], frozenset[str]]:
    """Blocks in which the class token attends to all patches, their attentions, and what is given of them."""
    rows = frozenset({"rows"})
    match type(model).__name__:
        case "TNT":
            return blocks, tuple(block.attn_out for block in blocks), rows | (OF_ATTENTION - {"keys"})
        case "ConVit":
            joined = blocks[model.local_up_to_layer :]
            return joined, tuple(block.attn for block in joined), rows if joined else frozenset()
        case "PoolingVisionTransformer":
            return blocks, tuple(block.attn for block in blocks), rows
        case _:
            return (), (), frozenset()
