"""The loop: stages, epochs, updates. All that happens in a training is called from `Loop.run`, in this order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trt_cam.errors import InputError, TrtCamError
from trt_cam.training.checkpoints import Checkpoints
from trt_cam.training.losses import Mixing, classification_loss, parts_of
from trt_cam.training.material import Site
from trt_cam.training.networks import num_classes, parameter_groups
from trt_cam.training.processes import Shared, autocast, on_cpu, summed
from trt_cam.training.schedules import make_optimizer, make_schedule
from trt_cam.training.settings import AUTHORS, Settings, Sharing, Stage
from trt_cam.training.validation import Batches, validate
from trt_cam.training.views import drawing

CHECKPOINT_EVERY = 500  # updates; one is written at the end of every epoch too


@dataclass
class Position:
    """How far a training is.

    Attributes
    ----------
    stage, epoch, step
        Stages that are done, epochs that are done of all stages together, and updates of the epoch under way.
    updates
        All updates.
    best
        By stage: epoch and score of what is kept of it.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    updates: int = 0
    best: dict[str, dict[str, float]] = field(default_factory=dict)


class Loop:
    """One training of a trainee, from wherever its checkpoints say that it is.

    Parameters
    ----------
    trainee
        Its weights are those of the best epoch of the last stage when `run` returns.
    batches, val
        Photos to train on, and to choose the epoch by; without the last epoch of each stage is taken.
    plan
        Stages in order.
    settings, site, sharing
        See `Settings`, `Site` and `Shared`.
    checkpoints, journal
        Where the state goes, and what is told of it.
    score
        In place of classification: a network and an epoch to what is to be largest.
    after
        Called after every epoch with its number, the network that was validated, and the stage.
    """

    def __init__(
        self,
        trainee: Any,
        batches: Batches,
        val: Batches | None,
        plan: Mapping[str, Stage],
        settings: Settings,
        *,
        site: Site,
        checkpoints: Checkpoints,
        journal: Any,
        sharing: Sharing = "ddp",
        score: Callable[[nn.Module, int], float] | None = None,
        after: Callable[[int, nn.Module, str], None] | None = None,
    ) -> None:
        self.trainee, self.batches, self.val, self.plan, self.settings = trainee, batches, val, plan, settings
        self.world, self.device, self.sharing = site.world, site.device, sharing
        self.checkpoints, self.journal, self.score, self.after = checkpoints, journal, score, after
        self.at = Position()
        self.mixing = Mixing(settings.mixup, settings.cutmix, num_classes(trainee.net)) if settings.mixes else None
        self.kept: dict[str, Any] | None = None  # weights of the best epoch of the stage
        self.saved = 0

    def run(self) -> Position:
        """Train what is not trained yet."""
        state = self.resumed()
        for place, name in enumerate(self.plan):
            if place < self.at.stage:
                continue
            self.begin(name, state)
            state = None
            while self.at.epoch < self.last:
                for batch in self.batches.epoch(self.at.epoch, self.at.step):
                    self.update(batch)
                self.close_epoch()
            self.end()
        return self.at

    # ------------------------------------------------------------------------------------------------------ stages

    def resumed(self) -> dict[str, Any] | None:
        """The newest state there is, and the position it was taken at."""
        found = self.checkpoints.latest()
        if found is None:
            return None
        self.saved, state = found
        if state["sharing"] != self.sharing:
            raise InputError(
                f"this run was begun with --sharing {state['sharing']}, got {self.sharing}; go on with that"
            )
        self.at = Position(**state["position"])
        self.trainee.load_state_dict(state["model"])
        self.kept = state["kept"]
        return state  # type: ignore[no-any-return]

    def begin(self, name: str, state: Mapping[str, Any] | None) -> None:
        """Optimizer, schedule and averages of a stage, new or as they were left."""
        self.name, self.stage = name, self.plan[name]
        earlier = sum(stage.epochs for stage in list(self.plan.values())[: self.at.stage])
        self.first, self.last = earlier, earlier + self.stage.epochs
        settings = self.settings
        self.trainee.begin(name)
        self.shared = Shared(self.trainee, self.world, self.device, self.sharing)
        self.inner = self.shared.inner
        groups = parameter_groups(self.inner.net, self.inner.trained(name), settings.weight_decay, settings.layer_decay)
        self.optimizer = make_optimizer(settings.optimizer, groups, self.stage.lr)
        self.schedule = make_schedule(self.optimizer, self.stage, settings, len(self.batches))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.ema = self.averaged()
        if state is not None and (self.at.epoch, self.at.step) != (self.first, 0):
            self.shared.load(state["model"], self.optimizer, state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["ema"])
        else:
            self.kept = None
            if self.at.epoch == 0:
                self.journal.epoch(0, self.validate())
            self.save()
        self.inner.ready(name, frozen_norms=settings.batch_norm == "frozen")

    def averaged(self) -> Any:
        """The moving average of the weights, if there is to be one."""
        from timm.utils import ModelEmaV3

        # without its warm-up a short training would end near the weights that it began with
        return ModelEmaV3(self.inner, decay=self.settings.ema, use_warmup=True) if self.settings.ema else None

    def end(self) -> None:
        """The best epoch's weights are what the next stage begins with, or the result."""
        assert self.kept is not None
        self.trainee.load_state_dict(self.kept)
        self.at.stage, self.kept = self.at.stage + 1, None
        if self.at.stage == len(self.plan):
            self.save(done=True)

    # ----------------------------------------------------------------------------------------------------- updates

    def update(self, batch: Mapping[str, Tensor]) -> None:
        """One step of the optimizer on one batch."""
        batch = {name: one.to(self.device, non_blocking=True) for name, one in batch.items()}
        self.schedule.step_update(self.at.updates - self.first * len(self.batches))
        self.optimizer.zero_grad(set_to_none=True)
        with self.draws(), self.diverging():
            batch = self.mixing(batch) if self.mixing else batch
            own = self.differentiate(batch)
        loss = float(summed(own, self.world)) / self.world.size
        norm = self.gradient_norm()
        if not (math.isfinite(loss) and (math.isfinite(norm) or self.scaler.is_enabled())):
            raise TrtCamError(self.diverged(f"loss {loss:g}, gradient {norm:g}", batch))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not math.isfinite(as_float(nn.utils.get_total_norm(self.weights()))):
            raise TrtCamError(self.diverged("weights are out of range"))
        self.at.updates, self.at.step = self.at.updates + 1, self.at.step + 1
        if self.ema is not None:
            self.ema.update(self.inner, step=self.at.updates - self.first * len(self.batches))
        self.journal.step(self.at.updates, {"loss": loss, "lr": self.rate, "gradient": norm})
        if self.at.updates % CHECKPOINT_EVERY == 0 and self.at.step < len(self.batches):
            self.save()

    def differentiate(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Gradients of the mean loss over a batch, part by part; returns the loss."""
        total = torch.zeros((), device=self.device)
        parts = list(parts_of(batch, self.settings.accumulate))
        for place, (part, share) in enumerate(parts, start=1):
            with self.shared.syncing(place == len(parts)):
                with self.autocast():
                    logits = self.shared.module(part, self.name)
                loss = share * classification_loss(logits, part["label"], smoothing=self.stage.smoothing)
                self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def gradient_norm(self) -> float:
        """Norm of all gradients together, before they are clipped to the largest that is allowed."""
        self.scaler.unscale_(self.optimizer)
        return as_float(nn.utils.clip_grad_norm_(self.weights(), self.settings.clip or math.inf))

    def weights(self) -> list[nn.Parameter]:
        """All parameters that the optimizer changes."""
        return [one for group in self.optimizer.param_groups for one in group["params"]]

    @property
    def rate(self) -> float:
        """The largest learning rate of this update."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward."""
        return autocast(self.device, self.settings.precision)

    def draws(self) -> AbstractContextManager[Any]:
        """Random numbers of this update alone, so that one that is done again draws the same."""
        numbers = self.settings.seed, self.at.updates, self.world.rank, 1
        if self.device.type == "cuda":
            torch.cuda.manual_seed(hash(numbers))
        return drawing(*numbers)

    @contextmanager
    def diverging(self) -> Iterator[None]:
        """What TRT refuses to compute with is a training that has diverged."""
        try:
            yield
        except InputError as error:
            raise TrtCamError(self.diverged(str(error))) from error

    def diverged(self, found: str, batch: Mapping[str, Tensor] | None = None) -> str:
        """Where training stopped, the likely cause, what to do, and what is left."""
        tamers = {
            "--clip 1": self.settings.clip,
            "--warmup 1": self.settings.warmup or self.settings.schedule == AUTHORS,
        }
        more = " or ".join(name for name, there in tamers.items() if not there)
        cause = f"a learning rate of {self.rate:g} is likely too high: lower --lr{more and f', or add {more}'}"
        if batch is not None and not all(one.isfinite().all() for one in batch.values()):
            cause = "the photos hold values that are not finite: check them"
        elif self.settings.precision == "fp16":
            cause = f"fp16 overflows, or {cause}; or use --precision bf16"
        where = f"update {self.at.updates + 1} (stage {self.name}, epoch {self.at.epoch + 1})"
        return f"training stopped at {where}: {found}; {cause}; the state of update {self.saved} is kept"

    # ------------------------------------------------------------------------------------------------------ epochs

    def close_epoch(self) -> None:
        """Validate, keep the weights if they are the best (of equals those of least loss), and write the state."""
        self.at.epoch, self.at.step = self.at.epoch + 1, 0
        values = self.validate()
        judged = self.ema.module.net if self.ema is not None else self.inner.net
        score = float(self.at.epoch) if self.val is None else values["top1_cam" if self.name == "cam" else "top1"]
        if self.score is not None:
            score = values["boxes"] = self.score(judged, self.at.epoch)
        best = self.at.best.get(self.name)
        if best is None or (score, -values.get("val_loss", 0.0)) > (best["score"], -best.get("val_loss", 0.0)):
            self.at.best[self.name] = {"epoch": self.at.epoch, "score": score} | values
            self.kept = on_cpu(self.ema.module.state_dict()) if self.ema is not None else self.shared.state()
        self.journal.epoch(self.at.epoch, values)
        if self.after is not None:
            self.after(self.at.epoch, judged, self.name)
        self.save()  # after all that is told of the epoch: what is told twice is dropped, what is not would lack
        self.inner.ready(self.name, frozen_norms=self.settings.batch_norm == "frozen")

    def validate(self) -> dict[str, float]:
        """Figures of the weights as they are."""
        if self.val is None:
            return {}
        judged = self.ema.module if self.ema is not None else self.inner
        with self.diverging():
            return validate(judged, self.name, self.val, self.autocast(), self.world, self.device)

    # ------------------------------------------------------------------------------------------------- checkpoints

    def save(self, *, done: bool = False) -> None:
        """Write all that the rest of the training depends on. Every process helps, process 0 writes."""
        state: dict[str, Any] = {
            "position": asdict(self.at),
            "sharing": self.sharing,
            "model": on_cpu(self.trainee.state_dict()) if done else self.shared.state(),
            "kept": self.kept,
            "optimizer": None if done else self.shared.optimizer_state(self.optimizer),
            "scaler": self.scaler.state_dict(),
            "ema": on_cpu(self.ema.module.state_dict()) if self.ema is not None else None,
        }
        if self.world.rank == 0:
            self.checkpoints.save(self.at.updates, state)
        self.saved = self.at.updates


def as_float(norm: Any) -> float:
    """A norm as a number, also one of tensors that several processes hold."""
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
