"""The two branches that TRT puts on a backbone: token priority scoring (TPSM) and a class activation map."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_cam.backbone import Backbone
from trt_cam.errors import InputError
from trt_cam.observe import run_masked
from trt_cam.ops.attention import SelectionMode, cdf_threshold, token_importance


class TPSM(nn.Module):
    """Token priority scoring module (Eq. 5 to 8): keep the tokens that carry attention, and weigh them.

    Parameters
    ----------
    block
        A transformer block with its attention in ``block.attn``; copied from the backbone's last one as a rule.
    norm
        Norm of width D before scoring.
    head
        Linear layer from D to 1.
    u, mode
        How much to keep; see ``cdf_threshold``.
    eps
        0 for the paper's exact masked softmax; 1e-6 in the authors' code.
    """

    def __init__(
        self,
        block: nn.Module,
        norm: nn.Module,
        head: nn.Module,
        *,
        u: float = 0.65,
        mode: SelectionMode = "mass",
        eps: float = 0.0,
    ) -> None:
        super().__init__()
        self.block: Any = block
        self.norm, self.head = norm, head
        self.u, self.mode, self.eps = u, mode, eps

    @classmethod
    def from_backbone(cls, backbone: Backbone, **settings: Any) -> TPSM:
        """Start from copies of the backbone's last block and final norm, as the authors do."""
        norm = copy_norm(backbone)
        width = width_of(backbone)
        head = nn.Linear(width, 1)
        return cls(copy_block(backbone), norm, head.to(next(backbone.blocks[-1].parameters())), **settings)

    def forward(
        self, tokens: Tensor, m: Tensor, *, u: float | None = None, mode: SelectionMode | None = None, **block_args: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score the selected tokens and sum them up.

        Parameters
        ----------
        tokens : (B, S, D)
            Z_{L-1}; the last N of the S tokens are patches. Those before them stay in the sequence, so that rotary
            embeddings and bias tables fit, but no patch can read them.
        m : (B, N), at least 0
            Preliminary attention map.
        u, mode
            In place of the module's own, for a study.
        **block_args
            Further arguments of the block, such as ``rope``.

        Returns
        -------
        fusion : (B, D)
            Sum of the patch tokens weighted by importance.
        importance : (B, N)
            lambda; zero for dropped tokens.
        keep : (B, N) bool
        """
        if tokens.ndim != 3 or m.ndim != 2 or m.shape[1] > tokens.shape[1] or m.shape[0] != tokens.shape[0]:
            raise InputError(
                f"tokens (B, S, D) and m (B, N <= S) were needed, got {tuple(tokens.shape)}, {tuple(m.shape)}"
            )
        prefix = tokens.shape[1] - m.shape[1]
        u, mode = self.u if u is None else u, mode or self.mode
        keep = cdf_threshold(m, u, mode=mode)
        if not torch.compiler.is_compiling() and not keep.any(dim=1).all():
            warnings.warn(
                f"no token selected at u = {u} ({mode}): one token alone reaches it; "
                "the map is the plain attention map there",
                stacklevel=2,
            )
        alone = self.eps == 0 and not torch.compiler.is_compiling() and placeless(self.block, block_args)
        scores = (self.scores_of_kept if alone else self.scores)(tokens, keep, block_args)  # (B, N)
        importance = token_importance(scores, keep, eps=self.eps)
        fusion = torch.einsum("bn,bnd->bd", importance.to(tokens.dtype), tokens[:, prefix:])
        return fusion, importance, keep

    if TYPE_CHECKING:  # what torch says of every module is Any
        __call__ = forward

    def scores(self, tokens: Tensor, keep: Tensor, block_args: dict[str, Any]) -> Tensor:
        """What the scoring block says of every patch, (B, N)."""
        prefix = tokens.shape[1] - keep.shape[1]
        scored = run_masked(
            self.block, self.block.attn, keep, tokens, prefix=prefix, eps=self.eps, **block_args
        )  # (B, S, D)
        said: Tensor = self.head(self.norm(scored[:, prefix:]))[..., 0]
        return said

    def scores_of_kept(self, tokens: Tensor, keep: Tensor, block_args: dict[str, Any]) -> Tensor:
        """The same of the kept patches, and 0 of the others: nobody reads those, so they need not be there."""
        patches = tokens[:, tokens.shape[1] - keep.shape[1] :]  # (B, N, D)
        count = max(int(keep.sum(dim=1).max()), 1)  # of the image that keeps most
        places = keep.byte().argsort(dim=1, descending=True, stable=True)[:, :count]
        kept = patches.gather(1, places[..., None].expand(-1, -1, patches.shape[2]))  # (B, count, D)
        said = self.scores(kept, keep.gather(1, places), block_args)
        return torch.zeros_like(keep, dtype=said.dtype).scatter(1, places, said)

    def extra_repr(self) -> str:
        return f"u={self.u}, mode={self.mode!r}, eps={self.eps}"


class ConvHead(nn.Conv2d):
    """A 3x3 convolution to K class maps, of which only the asked ones are made.

    The logits, spatial means of all K maps, come from nine window sums of the features.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(width, num_classes, kernel_size=3, padding=1)

    def logits(self, features: Tensor) -> Tensor:
        """Spatial mean of every class map: (B, D, Gh, Gw) to (B, K)."""
        Gh, Gw = features.shape[-2:]
        sums = window_sums(window_sums(features, 2), 3)  # (B, D, 3, 3)
        bias = None if self.bias is None else self.bias.to(sums.dtype)
        return F.linear(sums.flatten(1) / (Gh * Gw), self.weight.flatten(1).to(sums.dtype), bias)

    def maps(self, features: Tensor, target: Tensor) -> Tensor:
        """Maps of the asked classes, signed: ``target`` (B, T) to (B, T, Gh, Gw).

        What each position gives to its nine neighbours is one product of matrices, and then summed where it falls: as a
        convolution with groups it would take ten times as long.
        """
        (B, T), (Gh, Gw) = target.shape, features.shape[-2:]
        weight = self.weight[target].to(features.dtype).flatten(3).flip(3)  # (B, T, D, 9), from the giver's side
        given = weight.transpose(2, 3).flatten(1, 2) @ features.flatten(2)  # (B, 9 T, N)
        maps = F.fold(given.unflatten(1, (T, 9)).flatten(0, 1), (Gh, Gw), kernel_size=3, padding=1).view(B, T, Gh, Gw)
        return maps if self.bias is None else maps + self.bias[target][..., None, None]


class CamBranch(nn.Module):
    """Class activation branch of the authors' code: a block, a norm, and a 3x3 convolution to K class maps.

    ``reads`` names what it is given: "tokens", the patch and prefix tokens of an inner block.
    """

    reads = "tokens"

    def __init__(self, block: nn.Module, norm: nn.Module, head: ConvHead) -> None:
        super().__init__()
        self.block, self.norm, self.head = block, norm, head

    @classmethod
    def from_backbone(cls, backbone: Backbone, num_classes: int) -> CamBranch:
        """Start from copies of the backbone's last block and final norm."""
        head = ConvHead(width_of(backbone), num_classes)
        return cls(copy_block(backbone), copy_norm(backbone), head.to(next(backbone.blocks[-1].parameters())))

    def forward(self, tokens: Tensor, grid_size: tuple[int, int], **block_args: Any) -> Tensor:
        """(B, S, D) tokens to (B, D, Gh, Gw) features."""
        Gh, Gw = grid_size
        tokens = self.norm(self.block(tokens, **block_args))[:, -Gh * Gw :]  # (B, N, D)
        return tokens.transpose(1, 2).unflatten(2, (Gh, Gw))

    def logits(self, features: Tensor) -> Tensor:
        """Spatial mean of every class map, (B, K)."""
        return self.head.logits(features)

    def maps(self, features: Tensor, target: Tensor) -> Tensor:
        """Class maps M_C of the asked classes: ``target`` (B, T) to (B, T, Gh, Gw), signed."""
        return self.head.maps(features, target)

    def spread(self, features: Tensor, maps: Tensor) -> Tensor:
        """What M_T is multiplied with: M_C as it is, as in the paper."""
        return maps

    def rank(self, features: Tensor, importance: Tensor) -> Tensor | None:
        """None: classes are ranked by the TPSM branch, as in the paper."""
        return None


def window_sums(features: Tensor, dim: int) -> Tensor:
    """Sums along an axis as a kernel of 3 sees it before, at and after its middle, zeros beyond the edges: 3 for it."""
    total = features.sum(dim=dim)
    return torch.stack([total - features.select(dim, -1), total, total - features.select(dim, 0)], dim=dim)


def placeless(block: Any, block_args: dict[str, Any]) -> bool:
    """Whether a block knows of its tokens only what they hold, not where they are: no rotary embedding, no bias."""
    biases = (getattr(block.attn, name, None) for name in ("relative_position_bias_table", "rel_pos"))
    return all(one is None for one in biases) and not any(isinstance(one, Tensor) for one in block_args.values())


def copy_block(backbone: Backbone) -> nn.Module:
    """A copy of the last block, its attention fused: the key mask is applied at the fused call."""
    block = copy.deepcopy(backbone.blocks[-1])
    if hasattr(block.attn, "fused_attn"):
        block.attn.fused_attn = True
    return block


def copy_norm(backbone: Backbone) -> nn.Module:
    """A copy of the final norm; a fresh LayerNorm where the model normalises after pooling instead."""
    norm = getattr(backbone.model, "norm", None)
    if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
        return copy.deepcopy(norm)
    fresh = nn.LayerNorm(width_of(backbone), eps=1e-6)
    return fresh.to(next(backbone.blocks[-1].parameters()))


def width_of(backbone: Backbone) -> int:
    """Width D of the tokens."""
    return int(backbone.model.embed_dim)  # type: ignore[arg-type]
