"""Landslide segmentation of patches: the loss at promoted size, probabilities at native size."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from l4s.data.dataset import Batch
from l4s.data.probs import Extra, Kind
from l4s.losses import weighted_sum
from l4s.models.contract import Output
from l4s.models.norm import domain_rows
from l4s.promote import demote, promote, promoted
from l4s.recipe import Train


@dataclass(frozen=True)
class At:
    """Where training stands: `step` of `total`, and the generator of everything drawn on the way."""

    step: int
    total: int
    generator: torch.Generator


@dataclass(frozen=True)
class Segment:
    """Landslides pixel by pixel; see `l4s.tasks.Task` for the contract."""

    terms: Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]
    target_weight: float
    aux: float
    scale: float | tuple[float, float]
    crop: int | None

    @property
    def kind(self) -> Kind:
        return "probability"

    @property
    def about(self) -> Extra:
        return {}

    def loss(self, model: nn.Module, batch: Batch, at: At) -> dict[str, Tensor]:
        """L = L_source + lambda_t L_target, each normalised by its own valid weight, as in the training of LoveCS.

        An auxiliary head's logits have the same loss, `aux` times.

        Returns:
            "loss", to be minimised, and the terms of each side, to be logged.
        """
        image, target, weight = promote(
            batch.image, batch.target, batch.weight, scale=self.scale, crop=self.crop, generator=at.generator
        )
        with domain_rows(batch.domain, image.device):
            output = model(image)
        if not batch.adapt.any():
            return self._terms(output, target, weight)
        sides = (
            torch.nonzero(side).squeeze(1).to(image.device, non_blocking=True) for side in (~batch.adapt, batch.adapt)
        )
        source, adapted = (self._terms(_rows(output, rows), target[rows], weight[rows]) for rows in sides)
        total = source["loss"] + self.target_weight * adapted["loss"]
        return {"loss": total, **_named(source, "source"), **_named(adapted, "target")}

    def _terms(self, output: Output, target: Tensor, weight: Tensor) -> dict[str, Tensor]:
        terms = self.terms(output.logits, target, weight)
        if "aux" not in output.extras:
            return terms
        aux = self.terms(output.extras["aux"], target, weight)["loss"]
        return terms | {"loss": terms["loss"] + self.aux * aux, "aux": aux.detach()}

    def probs(self, model: nn.Module, image: Tensor) -> Tensor:
        """Probability of landslide, (B, H, W) float32 in [0, 1] at native size.

        The sigmoid is taken at promoted size and averaged down. A range of scales predicts at its middle.

        Args:
            image: (B, C, H, W) float32 standardised.
        """
        height, width = image.shape[-2:]
        return demote(model(promoted(image, self.scale)).logits.float().sigmoid().squeeze(1), (height, width))

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing: this task keeps no teacher."""


def build(train: Train) -> Segment:
    """The segmentation task with a recipe's loss and scale."""
    terms = weighted_sum([(term.name, term.weight, term.options) for term in train.loss])
    return Segment(terms, train.target_weight, train.aux, train.scale.factor, train.scale.crop)


def _rows(output: Output, rows: Tensor) -> Output:
    return Output(output.logits[rows], {name: extra[rows] for name, extra in output.extras.items()})


def _named(terms: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    return {f"{side}/{name}": value for name, value in terms.items()}
