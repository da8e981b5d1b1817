"""What was chosen for the training of the embedded model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything chosen about the training of the heads; see ``heads.losses`` for the weights of its terms."""

    samples: tuple[int, ...] = (7200, 9600, 9600, 14400)  # views seen in each round of training the heads
    batch: int = 48
    rate: float = 1e-3
    decay: float = 0.05
    u: float = 0.65
    classes: float = 1.0
    attention: float = 1.0
    reattention: float = 1.0
    importance: float = 0.3
    rare: float = 2.0  # how much oftener a photo outside the ten classes is drawn
    tokens: float = 0.4  # share of the patch tokens that take part in a step
    spread_width: int = 64  # of the head that spreads the class map
    spread_steps: int = 500
    seed: int = 0
