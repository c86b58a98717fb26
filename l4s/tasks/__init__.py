"""What a member learns to do. A new method is one file here and one line of `TASKS`."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from l4s.data.dataset import Batch
from l4s.data.probs import Extra, Kind
from l4s.errors import chosen, refusals
from l4s.recipe import MemberConfig
from l4s.tasks import anomaly, classify, segment
from l4s.tasks.segment import At


class Task(Protocol):
    """What `fit` and `predict` ask of a method."""

    @property
    def kind(self) -> Kind:
        """What its values are: probabilities, or scores that are only ordered."""
        ...

    @property
    def about(self) -> Extra:
        """What must be known to score its values; every ProbFile of it carries this."""
        ...

    def loss(self, model: nn.Module, batch: Batch, at: At) -> dict[str, Tensor]:
        """Scalars by name; "loss" is minimised, the rest is logged."""
        ...

    def probs(self, model: nn.Module, image: Tensor) -> Tensor:
        """(B, H, W) or (B,) float32 in [0, 1] at native size."""
        ...

    def after_step(self, model: nn.Module, step: int) -> None:
        """Called after each optimiser step."""
        ...


TASKS: dict[str, Callable[..., Task]] = {
    "segment": segment.build,
    "classify": classify.build,
    "anomaly": anomaly.build,
    "score": anomaly.build_score,
}
"""Each builder is `(train, **options) -> task`."""


def build_task(config: MemberConfig) -> Task:
    """The task of a member, with its options.

    Raises:
        RecipeError: there is no such task or option, or a value is out of range.
    """
    name, options = config.task.name, config.task.options
    build = chosen("task", TASKS, name, options, given=("train",))
    with refusals(f"task {name!r}", options):
        return build(config.train, **options)
