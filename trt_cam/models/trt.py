"""The Token Refinement Transformer: a backbone, TPSM, and a class activation branch (arXiv:2208.01838).

The order is the paper's. One forward of the backbone yields the class-token attention of the first L - 1 blocks, summed
to m. Before the last block, TPSM keeps the tokens that make up a share u of m, re-attends among them and weighs them
(Eq. 5 to 8). The last block then reads only the prefix tokens and the weighted sum; its class token gives the logits.
Re-attention map M_T (Eq. 9 and 10) times class map M_C is the result (Eq. 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Unpack, get_args, overload

import torch
from torch import Tensor, nn

from trt_cam.backbone import Backbone, class_names, count_classes, create_timm, describe, preprocessing
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.models.heads import TPSM, CamBranch
from trt_cam.models.sharing import Shareable
from trt_cam.observe import check_images, rewrite_last_block
from trt_cam.ops._checks import check_choice, check_count
from trt_cam.ops.attention import SelectionMode, fuse_heads, reattention_map
from trt_cam.ops.precision import at_least_float32

if TYPE_CHECKING:
    from trt_cam.data.photos import Source
    from trt_cam.localization import Options
    from trt_cam.results import Localization

CamFrom = Literal["penultimate-input", "penultimate-output"]


class TRTOutput(NamedTuple):
    """What one forward of TRT gives, in training and inference alike.

    Attributes
    ----------
    logits : (B, K)
        Rank the classes: those of the TPSM branch, unless the CAM branch says how to rank.
    tpsm_logits : (B, K)
        Those of the TPSM branch: the head's answer to the class token after the last block.
    cam_logits : (B, K) or None
        Those of the CAM branch.
    m : (B, N)
        Preliminary attention map, sums to 1.
    keep : (B, N) bool
        Selected tokens.
    importance : (B, N)
        lambda, the weights of the selected tokens.
    m_t : (B, Gh, Gw)
        Re-attention map M_T, class-agnostic, >= 0.
    m_c : (B, Gh, Gw) or (B, T, Gh, Gw), or None
        Class maps M_C of the asked classes, signed.
    fused : the shape of m_c
        M_T times M_C, which a branch may have spread before; M_T alone without a CAM branch.
    """

    logits: Tensor
    tpsm_logits: Tensor
    cam_logits: Tensor | None
    m: Tensor
    keep: Tensor
    importance: Tensor
    m_t: Tensor
    m_c: Tensor | None
    fused: Tensor


class TRTLocalizer(Shareable, nn.Module):
    """A timm vision transformer with the two branches of TRT.

    Parameters
    ----------
    backbone
        A timm transformer (ViT, DeiT, DINOv2, SigLIP, EVA-02, DINOv3, BEiT, hybrids), or its name. It becomes a part
        of this module; its classifier is replaced if it has another number of classes.
    num_classes
        K; None takes the backbone's.
    u, mode
        How much of m the selection keeps, see ``cdf_threshold``. The authors: 0.65, on ImageNet 0.95.
    eps
        0 is the paper's masked softmax, exact; the authors' code has 1e-6.
    divide
        Eq. 9 as the paper has it; the authors' two-branch model leaves the division out.
    relu
        Drop negative class evidence before the product (off in the paper and the code).
    cam_from
        Tokens that the CAM branch reads: "penultimate-input", Z_{L-2}, as the authors' code does, or
        "penultimate-output", Z_{L-1}, as the paper says.
    cam
        "branch" for the authors' CAM branch, None for the TPSM branch alone, or a module with its interface
        (``reads``, ``forward``, ``logits``, ``maps``, ``spread``, ``rank``).

    Attributes
    ----------
    config : dict
        What belongs to the model but not to the network: default refinement, thresholds, training data.
    """

    def __init__(
        self,
        backbone: nn.Module | str,
        num_classes: int | None = None,
        *,
        u: float = 0.65,
        mode: SelectionMode = "mass",
        eps: float = 0.0,
        divide: bool = True,
        relu: bool = False,
        cam_from: CamFrom = "penultimate-input",
        cam: Literal["branch"] | nn.Module | None = "branch",
    ) -> None:
        super().__init__()
        backbone = create_timm(backbone) if isinstance(backbone, str) else backbone
        parts = carrier(backbone)
        check_choice(cam_from, "cam_from", get_args(CamFrom))
        if cam not in ("branch", None) and not isinstance(cam, nn.Module):
            raise InputError(f"cam must be 'branch', None or a module, got {cam!r}")
        set_classes(parts.model, num_classes)
        self.backbone = parts.model
        self.tpsm = TPSM.from_backbone(parts, u=u, mode=mode, eps=eps)
        self.cam: Any = CamBranch.from_backbone(parts, parts.num_classes) if cam == "branch" else cam
        self.divide, self.relu, self.cam_from = divide, relu, cam_from
        self.config: dict[str, Any] = {}
        self.preprocessing = preprocessing(parts.model)
        self.classes = class_names(parts.model)

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return count_classes(self.backbone)

    @torch.compiler.disable
    def forward(
        self,
        images: Tensor,
        target: Tensor | Callable[[Tensor], Tensor] | None = None,
        *,
        u: float | None = None,
        mode: SelectionMode | None = None,
        re_attention: bool = True,
    ) -> TRTOutput:
        """Logits, maps and selection of one batch.

        Parameters
        ----------
        images : (B, 3, H, W)
            Preprocessed; any size that the backbone takes.
        target : (B,) or (B, T) int64, a function, or None
            Classes whose maps are wanted, or what makes them of ``logits``; None is the first-ranked class.
        u, mode
            How much of m to keep, in place of the model's own, for a study.
        re_attention
            False leaves out Eq. 9 and 10, for a study: M_T is m.
        """
        check_images(images)
        parts = describe(self.backbone)
        grid_size = parts.grid_size(*images.shape[-2:])
        scored: dict[str, Any] = {}
        chosen: dict[str, Any] = {} if u is None else {"u": u, "mode": mode}

        def rewrite(rows: list[Tensor], tokens: Tensor, block_args: dict[str, Any]) -> Tensor:
            m = preliminary_map(rows, parts.prefix)
            fusion, importance, keep = self.tpsm(tokens, m, **chosen, **block_args)
            scored.update(m=m, importance=importance, keep=keep, tokens=tokens, block_args=block_args)
            return torch.cat([tokens[:, : parts.prefix], fusion[:, None]], dim=1)  # (B, P + 1, D)

        reads = getattr(self.cam, "reads", "tokens")
        taps = [] if reads == "tokens" else [self.backbone.get_submodule(reads)]
        tpsm_logits, tapped, penultimate_input = rewrite_last_block(parts, images, rewrite, taps)
        m, keep, importance = scored["m"], scored["keep"], scored["importance"]
        refined = reattention_map(m, keep, importance, divide=self.divide) if re_attention else m
        m_t = refined.unflatten(1, grid_size)
        if self.cam is None:
            return TRTOutput(tpsm_logits, tpsm_logits, None, m, keep, importance, m_t, None, m_t)
        source = penultimate_input if self.cam_from == "penultimate-input" else scored["tokens"]
        features = self.cam(source, grid_size, **scored["block_args"]) if not taps else self.cam(tapped[0], grid_size)
        ranked = self.cam.rank(features, importance)
        logits = tpsm_logits if ranked is None else ranked
        asked = logits.argmax(dim=1) if target is None else target(logits) if callable(target) else target
        m_c = self.class_maps(features, asked)
        evidence = self.cam.spread(features, m_c[:, None] if m_c.ndim == 3 else m_c)  # (B, T, Gh, Gw)
        fused = (m_t[:, None] * (evidence.relu() if self.relu else evidence)).view_as(m_c)
        cam_logits = self.cam.logits(features)
        return TRTOutput(logits, tpsm_logits, cam_logits, m, keep, importance, m_t, m_c, fused)

    def class_maps(self, features: Tensor, target: Tensor) -> Tensor:
        """M_C of the asked classes, at least float32: (B, Gh, Gw) for a target (B,), (B, T, Gh, Gw) for (B, T)."""
        if target.ndim not in (1, 2) or target.shape[0] != features.shape[0]:
            raise InputError(
                f"target (B,) or (B, T) with B = {features.shape[0]} was needed, got {tuple(target.shape)}"
            )
        traced = torch.compiler.is_compiling()  # then there are no values
        if not traced and target.numel() and not (int(target.min()) >= 0 and int(target.max()) < self.num_classes):
            raise InputError(f"target classes in [0, {self.num_classes}) were needed, got {target.tolist()}")
        maps = at_least_float32(self.cam.maps(features, target[:, None] if target.ndim == 1 else target))
        return maps[:, 0] if target.ndim == 1 else maps

    if TYPE_CHECKING:  # what torch says of every module is Any

        def __call__(
            self,
            images: Tensor,
            target: Tensor | Callable[[Tensor], Tensor] | None = None,
            *,
            u: float | None = None,
            mode: SelectionMode | None = None,
            re_attention: bool = True,
        ) -> TRTOutput: ...

    @overload
    def localize(self, photos: Source, **settings: Unpack[Options]) -> Localization: ...  # type: ignore[overload-overlap]
    @overload
    def localize(self, photos: Tensor | Sequence[Source], **settings: Unpack[Options]) -> list[Localization]: ...
    def localize(self, photos: Any, **settings: Any) -> Any:
        """``trt_cam.localize(photos, model=self, ...)``."""
        from trt_cam.localization import localize

        return localize(photos, model=self, **settings)

    @classmethod
    def from_official(
        cls, state_dict: Mapping[str, Any], *, num_heads: int | None = None, u: float = 0.65
    ) -> TRTLocalizer:
        """Load a checkpoint of the authors' code (classes TRT and TRTFuse), with the forms that code uses.

        Parameters
        ----------
        state_dict
            As stored, with or without the outer ``state_dict`` and the ``module.`` prefix.
        num_heads
            Attention heads, which a checkpoint does not tell; None is width / 64.
        u
            Share of attention to keep: the authors' 0.6 (CUB, 224), 0.65 (CUB, 384), 0.95 (ImageNet).
        """
        from trt_cam.models.official import from_official

        return from_official(state_dict, num_heads=num_heads, u=u)


def carrier(backbone: nn.Module) -> Backbone:
    """Describe a backbone that can carry TRT, or say why it cannot."""
    parts = describe(backbone)
    if "tokens" not in parts.gives or len(parts.blocks) < 2:
        raise UnsupportedModelError(
            f"TRT needs a timm transformer of at least 2 blocks with global attention (ViT, DeiT, DINOv2, SigLIP, Eva, "
            f"BEiT, hybrids), got {type(parts.model).__name__} ({parts.family}); "
            "for other models use create_explainer('grad-cam', model)"
        )
    attention = parts.attentions[-1]
    if (
        not getattr(attention, "fused_attn", True)
        and getattr(attention, "relative_position_bias_table", None) is not None
    ):
        raise UnsupportedModelError(
            f"TRT needs fused attention in a backbone with position bias, got an unfused {type(parts.model).__name__}; "
            "build it with TIMM_FUSED_ATTN=1 (timm's default)"
        )
    return parts


def set_classes(model: nn.Module, num_classes: int | None) -> None:
    """Give the backbone a classifier of ``num_classes``, drawn anew (std 0.02) if their number changes."""
    have = count_classes(model)
    if num_classes is None:
        if not have:
            raise InputError(f"num_classes was needed, since {type(model).__name__} has no classifier, got None")
        return
    check_count(num_classes, "num_classes", 1)
    if num_classes != have:
        model.reset_classifier(num_classes)  # type: ignore[operator]
        heads = model.get_classifier()  # type: ignore[operator]
        for head in heads if isinstance(heads, tuple) else (heads,):
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)


def preliminary_map(rows: list[Tensor], prefix: int) -> Tensor:
    """m: class-row attention to the patches, mean over heads, summed over blocks, normalised to sum 1. (B, N)."""
    summed = torch.stack([fuse_heads(row)[:, prefix:] for row in rows]).sum(dim=0)
    return summed / summed.sum(dim=1, keepdim=True)
