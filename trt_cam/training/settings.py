"""Every number of a training run, and the published ones by name.

The presets ``cub-224``, ``cub-384`` and ``ilsvrc-224`` hold what the authors' code does, by its files and the command
lines it is run by; those that end in ``-paper`` what the paper's text says, and the code's numbers where it is silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any, Literal, get_args

from trt_cam.errors import InputError

Method = Literal["trt", "ts-cam", "cam"]
Precision = Literal["fp32", "bf16", "fp16", "auto"]
Augment = Literal["none", "flip", "crop", "timm"]
Select = Literal["classification", "boxes"]
BatchNorm = Literal["train", "frozen"]
Sharing = Literal["ddp", "fsdp"]

AUTHORS = "steps"
"""The schedule of the authors' code; all others are timm's."""


@dataclass(frozen=True)
class Stage:
    """A part of training with an optimizer and a schedule of its own.

    Attributes
    ----------
    epochs
        How many.
    lr : > 0
        Learning rate for one update on ``Settings.batch`` photos.
    steps, factor
        For the schedule "steps": at the start of every epoch, counted from 1, whose number one of ``steps`` divides,
        the learning rate is multiplied by ``factor``, once.
    smoothing : in [0, 1)
        Of the labels: the share that is spread over all classes.
    """

    epochs: int
    lr: float
    steps: tuple[int, ...] = ()
    factor: float = 0.1
    smoothing: float = 0.0


@dataclass(frozen=True)
class Settings:
    """All that a run depends on beside data, model and method.

    Attributes
    ----------
    first, second
        Stage of backbone and TPSM, and stage of the CAM branch alone. With TS-CAM, CAM and ``joint`` the first is all.
    u : in (0, 1]
        Share of attention that TRT's selection keeps.
    size : pixels, or None for the model's own
        Of the square input.
    resize : pixels, or None
        Side of the square that "crop" takes its part from; None is 8/7 of ``size``.
    augment, scale, policy, erasing
        What each photo is drawn as, see ``trt_cam.training.photos.View``.
    views
        With a frozen backbone: augmented views of each photo that are kept on disk; epoch e trains on view e modulo
        ``views``.
    mixup, cutmix : >= 0
        Their alpha; 0 is off.
    batch
        Photos of one update, over all processes; each takes its share, so the same command trains the same anywhere.
    accumulate
        Parts that a process takes its share in, one after the other, to save memory.
    optimizer, weight_decay
        A name of timm's, and its decay; none on 1-D parameters, biases, position embedding and class token.
    layer_decay : in (0, 1], or None
        Factor of the learning rate from each block to the one below it.
    schedule, warmup, min_lr
        "steps", or one of timm's that go by updates; epochs of linear warm-up and the least rate, for timm's.
    drop_path : in [0, 1)
        Chance at the last block, growing linearly from 0 at the first; new branches have that of the last block.
    clip : > 0, or None
        Largest norm of all gradients together.
    ema : in (0, 1), or None
        Decay of a moving average of the weights, which is then what is validated and kept.
    precision : "fp32", "bf16", "fp16" or "auto"
        Of the forward; fp16 scales the loss. Auto is, with a frozen backbone, the faster of the first two here, which
        is tried before anything else; without it is fp32.
    batch_norm : "train" or "frozen"
        Statistics of batch norms: learnt, of all processes' photos together, or left as they are.
    val_share : in [0, 0.5]
        Of the training photos, split off by class to validate on, where no others are given.
    seed
        Of new weights, split, order, augmentation and drop path.
    """

    first: Stage
    second: Stage
    u: float = 0.65
    size: int | None = None
    resize: int | None = None
    augment: Augment = "crop"
    views: int = 1
    scale: tuple[float, float] = (0.8, 1.0)
    policy: str | None = None
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    batch: int = 128
    accumulate: int = 1
    optimizer: str = "adamw"
    weight_decay: float = 0.05
    layer_decay: float | None = None
    schedule: str = AUTHORS
    warmup: int = 0
    min_lr: float = 0.0
    drop_path: float = 0.1
    clip: float | None = None
    ema: float | None = None
    precision: Precision = "fp32"
    batch_norm: BatchNorm = "train"
    val_share: float = 0.1
    seed: int = 0

    @property
    def mixes(self) -> bool:
        """Whether photos are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def plan(self, method: str, *, joint: bool = False, cam: bool = True) -> dict[str, Stage]:
        """The stages of a method, in order, by the names that `Trainee` knows; ``cam``: whether TRT has that branch."""
        if method == "trt" and cam:
            return {"joint": self.first} if joint else {"tpsm": self.first, "cam": self.second}
        if method == "trt":
            return {"tpsm": self.first}
        return {"ts-cam" if method == "ts-cam" else "classifier": self.first}


_CUB_224 = Settings(
    first=Stage(30, lr=5e-5, steps=(15,), factor=0.1),
    second=Stage(20, lr=5e-5, steps=(10,), factor=0.1),
    u=0.6,
    size=224,
    resize=256,
)
_ILSVRC_224 = Settings(
    first=Stage(12, lr=5e-4, steps=(2, 4, 6, 8), factor=0.4, smoothing=0.1),
    second=Stage(12, lr=5e-4, steps=(2, 4, 6, 8), factor=0.4),
    u=0.95,
    size=224,
    augment="timm",
    policy="rand-m9-mstd0.5-inc1",
    erasing=0.25,
    batch=512,
)

PRESETS: dict[str, Settings] = {
    "quick": Settings(
        first=Stage(8, lr=5e-4, smoothing=0.1),
        second=Stage(4, lr=5e-4),
        augment="flip",
        batch=64,
        schedule="cosine",
        drop_path=0.0,
        clip=1.0,
        precision="auto",
    ),
    "full": Settings(
        first=Stage(20, lr=1e-4, smoothing=0.1),
        second=Stage(10, lr=1e-4),
        augment="timm",
        scale=(0.5, 1.0),
        layer_decay=0.75,
        schedule="cosine",
        warmup=2,
        clip=1.0,
    ),
    "cub-224": _CUB_224,
    "cub-384": replace(_CUB_224, first=replace(_CUB_224.first, factor=0.2), u=0.65, size=384, resize=448),
    "ilsvrc-224": _ILSVRC_224,
    "cub-224-paper": replace(
        _CUB_224, second=replace(_CUB_224.second, epochs=15), u=0.65, optimizer="adam", weight_decay=5e-4
    ),
    "ilsvrc-224-paper": replace(
        _ILSVRC_224,
        second=replace(_ILSVRC_224.second, epochs=10),
        policy="original",
        optimizer="adam",
        weight_decay=5e-4,
    ),
}
"""Settings by name. "quick" is for a frozen backbone, "full" for one that is trained too."""


def decayed(epoch: int, steps: Sequence[int], factor: float) -> float:
    """What the authors' rule makes of a learning rate of 1 by an epoch, counted from 1."""
    return factor ** sum(any(past % step == 0 for step in steps) for past in range(1, epoch + 1))


def settings_for(preset: str | Settings, changes: Mapping[str, Any]) -> Settings:
    """A preset with some of its fields replaced.

    Parameters
    ----------
    preset
        A name of `PRESETS`, or settings of your own.
    changes
        Fields of `Settings`, or of `Stage` for both stages; ``epochs`` may be a pair, one for each.

    Raises
    ------
    InputError
        There is no such preset or field, or a value is out of range.
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
    found = PRESETS[preset] if isinstance(preset, str) else preset
    own = {field.name for field in fields(Settings)} - {"first", "second"}
    both = {field.name for field in fields(Stage)}
    if unknown := sorted(changes.keys() - own - both - {"first", "second"}):
        raise InputError(f"unknown setting {unknown[0]!r}; there are {', '.join(sorted(own | both))}")
    found = replace(found, **{name: value for name, value in changes.items() if name not in both})
    for place, name in enumerate(("first", "second")):
        given = {key: of_stage(key, value, place) for key, value in changes.items() if key in both}
        found = replace(found, **{name: replace(getattr(found, name), **given)})
    check(found)
    return found


def of_stage(name: str, value: Any, place: int) -> Any:
    """One stage's part of a setting that may be a pair."""
    pair = name != "steps" and isinstance(value, (tuple, list))
    if pair and len(value) not in (1, 2):
        raise InputError(f"{name} must be one number, or one for each of two stages, got {value!r}")
    return value[min(place, len(value) - 1)] if pair else value


def check(settings: Settings) -> None:
    """Refuse values that cannot be trained with, each by its name."""
    for stage in (settings.first, settings.second):
        require(stage, "epochs", whole(1), "a whole number of at least 1")
        require(stage, "lr", lambda lr: 0 < lr < math.inf, "over 0 and finite")
        require(stage, "steps", lambda steps: all(map(whole(1), steps)), "whole numbers of at least 1")
        require(stage, "smoothing", lambda share: 0 <= share < 1, "in [0, 1)")
    require(settings, "u", lambda share: 0 < share <= 1, "in (0, 1]")
    for name in ("batch", "accumulate", "views"):
        require(settings, name, whole(1), "a whole number of at least 1")
    for name in ("warmup", "seed"):
        require(settings, name, whole(0), "a whole number of at least 0")
    for name in ("weight_decay", "mixup", "cutmix", "min_lr"):
        require(settings, name, lambda value: 0 <= value < math.inf, "at least 0 and finite")
    require(settings, "drop_path", lambda chance: 0 <= chance < 1, "in [0, 1)")
    require(settings, "val_share", lambda share: 0 <= share <= 0.5, "in [0, 0.5]")
    for name in ("size", "resize"):
        require(settings, name, lambda side: side is None or (whole(1)(side) and side <= 8192), "1 to 8192 pixels")
    require(settings, "layer_decay", lambda decay: decay is None or 0 < decay <= 1, "in (0, 1]")
    require(settings, "clip", lambda norm: norm is None or norm > 0, "over 0")
    require(settings, "ema", lambda decay: decay is None or 0 < decay < 1, "in (0, 1)")
    for name, kind in (("precision", Precision), ("augment", Augment), ("batch_norm", BatchNorm)):
        require(settings, name, get_args(kind).__contains__, f"one of {', '.join(get_args(kind))}")


def whole(least: int) -> Callable[[Any], bool]:
    """Whether a value is a whole number of at least so much."""
    return lambda value: isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def require(holder: Stage | Settings, name: str, fits: Callable[[Any], bool], needed: str) -> None:
    """Refuse one value that does not fit, or that is of another kind altogether."""
    value = getattr(holder, name)
    try:
        fitting = fits(value)
    except TypeError:
        fitting = False
    if not fitting:
        raise InputError(f"{name} must be {needed}, got {value!r}")
