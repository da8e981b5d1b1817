"""The Token Refinement Transformer in float64 numpy, written from the paper's equations and not from the library.

Slow and literal on purpose: one image at a time, loops over heads, tokens and taps, matrices in full. It knows plain
vision transformers with one class token. ``W`` is a dictionary of float64 arrays by the names of the authors' tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Weights = dict[str, Array]


@dataclass
class Reference:
    """Everything the paper names, of one image."""

    m: Array
    keep: Array
    attention: Array | None
    scores: Array
    importance: Array
    fusion: Array
    logits: Array
    m_t: Array
    m_c: Array | None
    cam_logits: Array | None
    fused: Array | None


def trt(W: Weights, image: Array, heads: int, u: float, *, eps: float = 0.0, divide: bool = True) -> Reference:
    """Eq. 1 to 10 for one image (3, H, W)."""
    depth = 1 + max(int(name.split(".")[1]) for name in W if name.startswith("blocks."))
    tokens, grid = embed(W, image)
    rows, inputs = [], []
    for index in range(depth - 1):  # Z_1 .. Z_{L-1}
        inputs.append(tokens)
        tokens, attention = block(W, f"blocks.{index}.", tokens, heads)
        rows.append(sum(attention[head][0, 1:] for head in range(heads)) / heads)  # Eq. 4, class row
    m = sum(rows)
    m = m / m.sum()
    keep = select(m, u)  # Eq. 5
    patches = tokens[1:]
    scored, masked = block(W, "score_layer.", patches, heads, reads=readable(keep), eps=eps)  # Eq. 6 to 8
    scores = (norm(W, "score_norm.", scored) @ W["score_head.weight"].T + W["score_head.bias"])[:, 0]
    importance = weigh(scores, keep, eps)
    fusion = sum(importance[i] * patches[i] for i in range(len(patches)))
    last, _ = block(W, f"blocks.{depth - 1}.", np.stack([tokens[0], fusion]), heads)
    logits = W["head.weight"] @ norm(W, "norm.", last)[0] + W["head.bias"]
    m_t = redistribute(m, keep, importance, divide).reshape(grid)  # Eq. 9 and 10
    m_c = class_maps(W, inputs[-1], heads, grid) if "camfuse_block.cam_head.weight" in W else None
    cam_logits = None if m_c is None else m_c.mean(axis=(1, 2))
    fused = None if m_c is None else m_t * m_c  # Eq. 3
    return Reference(m, keep, masked, scores, importance, fusion, logits, m_t, m_c, cam_logits, fused)


def embed(W: Weights, image: Array) -> tuple[Array, tuple[int, int]]:
    """Eq. 1: class token and patch embeddings, positions added."""
    kernel = W["patch_embed.proj.weight"]
    patch = kernel.shape[-1]
    Gh, Gw = image.shape[1] // patch, image.shape[2] // patch
    tokens = [W["cls_token"][0, 0]]
    for i in range(Gh):
        for j in range(Gw):
            window = image[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
            tokens.append((kernel * window).sum(axis=(1, 2, 3)) + W["patch_embed.proj.bias"])
    return np.stack(tokens) + W["pos_embed"][0], (Gh, Gw)


def block(
    W: Weights, name: str, x: Array, heads: int, *, reads: Array | None = None, eps: float = 0.0
) -> tuple[Array, Array]:
    """One pre-norm transformer block; ``reads[i, j]``: token i may read token j."""
    q, k, v = np.split(norm(W, name + "norm1.", x) @ W[name + "attn.qkv.weight"].T + W[name + "attn.qkv.bias"], 3, 1)
    width = x.shape[1] // heads
    attention, mixed = [], []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / math.sqrt(width)
        attention.append(softmax(scores, reads, eps))
        mixed.append(attention[-1] @ v[:, part])
    x = x + np.concatenate(mixed, axis=1) @ W[name + "attn.proj.weight"].T + W[name + "attn.proj.bias"]
    hidden = norm(W, name + "norm2.", x) @ W[name + "mlp.fc1.weight"].T + W[name + "mlp.fc1.bias"]
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return x + hidden @ W[name + "mlp.fc2.weight"].T + W[name + "mlp.fc2.bias"], np.stack(attention)


def softmax(scores: Array, reads: Array | None, eps: float) -> Array:
    """Rows of Eq. 8; eps leaks to every key, and the maximum is over all keys, as in the authors' code."""
    reads = np.ones_like(scores) if reads is None else reads
    out = np.zeros_like(scores)
    for i, row in enumerate(scores):
        top = row.max() if eps else row[reads[i] > 0].max()
        weights = np.where(reads[i] > 0, np.exp(np.minimum(row - top, 0)), 0)
        out[i] = (weights + eps / len(row)) / (weights.sum() + eps)
    return out


def readable(keep: Array) -> Array:
    """Eq. 6: everyone reads the kept tokens; a dropped token is read by itself only."""
    N = len(keep)
    return np.array([[1.0 if keep[j] or i == j else 0.0 for j in range(N)] for i in range(N)])


def select(m: Array, u: float) -> Array:
    """Eq. 5 by mass: in descending order, keep while the sum, this token included, stays below u."""
    keep, total = np.zeros(len(m), dtype=bool), 0.0
    for index in np.argsort(-m, kind="stable"):
        total += m[index]
        keep[index] = total < u or u >= 1
    return keep


def weigh(scores: Array, keep: Array, eps: float) -> Array:
    """lambda: softmax of the scores over the kept tokens."""
    weights = np.where(keep, np.exp(scores), 0.0)
    total = weights.sum() + eps
    return weights / total if total else weights


def redistribute(m: Array, keep: Array, importance: Array, divide: bool) -> Array:
    """Eq. 9 and 10; m itself where nothing is kept."""
    if not keep.any():
        return m
    share = (m * keep).sum() / (importance.sum() if divide else 1.0)
    return m * ~keep + importance * share


def class_maps(W: Weights, tokens: Array, heads: int, grid: tuple[int, int]) -> Array:
    """The CAM branch: a block, a norm, a 3x3 convolution with padding 1. (K, Gh, Gw)."""
    x, _ = block(W, "camfuse_block.cam_tr.", tokens, heads)
    x = norm(W, "camfuse_block.cam_norm.", x)[1:].reshape(*grid, -1)
    kernel, bias = W["camfuse_block.cam_head.weight"], W["camfuse_block.cam_head.bias"]
    maps = np.zeros((len(kernel), *grid)) + bias[:, None, None]
    for i in range(grid[0]):
        for j in range(grid[1]):
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    if 0 <= i + di < grid[0] and 0 <= j + dj < grid[1]:
                        maps[:, i, j] += kernel[:, :, di + 1, dj + 1] @ x[i + di, j + dj]
    return maps


def norm(W: Weights, name: str, x: Array) -> Array:
    """LayerNorm, eps 1e-6."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * W[name + "weight"] + W[name + "bias"]
