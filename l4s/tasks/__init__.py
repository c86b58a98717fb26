"""What a member learns to do. A new method is one file here and one line of `TASKS`."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from l4s.data.dataset import Batch
from l4s.recipe import Train
from l4s.tasks import segment
from l4s.tasks.segment import At


class Task(Protocol):
    """What `fit` and `predict` ask of a method."""

    def loss(self, model: nn.Module, batch: Batch, at: At) -> dict[str, Tensor]:
        """Scalars by name; "loss" is minimised, the rest is logged."""
        ...

    def probs(self, model: nn.Module, image: Tensor) -> Tensor:
        """(B, H, W) or (B,) float32 in [0, 1] at native size."""
        ...

    def after_step(self, model: nn.Module, step: int) -> None:
        """Called after each optimiser step."""
        ...


TASKS: dict[str, Callable[[Train], Task]] = {
    "segment": segment.build,
}
